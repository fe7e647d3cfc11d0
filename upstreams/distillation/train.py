"""Carrying out recipes: students that share data and teachers train side by side, resumably."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from harness import locks, registry
from harness.identity import digest_json, digest_tensors
from harness.interface import SlimbenchError
from harness.progress import say
from upstreams.distillation import exporting, files, pretrain, recipe, rehearsal, teachers
from upstreams.distillation.data import clips, pool
from upstreams.distillation.data.batches import Batches, hours, span_mask
from upstreams.distillation.learner import Learner, Moment, Sight, Student, begin, make
from upstreams.distillation.loop import Loop, rank_and_world
from upstreams.distillation.recipe import Data, Pretraining, Recipe
from upstreams.distillation.settings import said
from upstreams.distillation.teachers import Teacher, full
from upstreams.distillation.terms.base import TermSpec


@dataclass(frozen=True)
class Place:
    """Where a training runs.

    Attributes:
        work: folder of pool, checkpoints and curves.
        data: folder that holds ``real/`` and ``pretrain/``; ``None`` trains on synthetic speech only.
        out: where the models go.
        device: as torch calls it.
        steps: in place of what every recipe says.
    """

    work: Path
    data: Path | None
    out: Path
    device: str = "cpu"
    steps: int | None = None

    def shards(self, data: Data, accumulate: int = 1) -> list[Path]:
        """Fill the pool (first process only; the others wait); returns the shards to train on.

        Where ``steps`` is given, the pool holds no more than twice what those steps can hear.
        """
        rank, world = rank_and_world()
        folder, wanted = self.work / "pool", data.hours
        if self.steps is not None:
            wanted = min(wanted, max(1.0, 2 * self.steps * accumulate * world * data.seconds / 3600))
        if rank == 0:
            with locks.lock(folder / "pool.lock"):
                pool.produce(folder, wanted, data.seed, self.data)
        if world > 1:
            torch.distributed.barrier()
        return pool.shard_files(folder, wanted, data.seed, self.data is not None)


def run(name: str | Path, place: Place) -> list[Path]:
    """Carry out one recipe of either kind; returns the weights files.

    Raises:
        SlimbenchError: the recipe is faulty, ``work`` holds another run under its name, or the disk is full.
    """
    found = recipe.load(name)
    if isinstance(found, Pretraining):
        return pretrained(found, place)
    return together([found], place)


def cohort(names: Sequence[str | Path], place: Place) -> list[Path]:
    """Carry out several recipes, side by side where data, teachers and targets are the same.

    Returns:
        The weights files, in the order of the recipes; of one with several products all of them.

    Raises:
        SlimbenchError: a recipe is faulty or no distillation, or as :func:`run`.
    """
    recipes = [recipe.load(name) for name in names]
    wrong = [item.name for item in recipes if not isinstance(item, Recipe)]
    if wrong:
        raise SlimbenchError(f"Recipe {wrong[0]} is a pre-training; carry it out by itself.")
    groups: dict[str, list[Recipe]] = {}
    for item in recipes:
        assert isinstance(item, Recipe)  # noqa: S101
        groups.setdefault(item.name if item.stages else shared(item), []).append(item)
    made = {path.parent.name: path for group in groups.values() for path in together(group, place)}
    return list(made.values())


def shared(item: Recipe) -> str:
    """Digest of what students that train side by side have in common."""
    keys = ("teachers", "targets", "data", "seed")
    values = said(item)
    batch = {"accumulate": item.optimiser.accumulate, "precision": item.optimiser.precision}
    return digest_json({key: values.get(key) for key in keys} | batch)


def together(recipes: Sequence[Recipe], place: Place) -> list[Path]:
    """Train recipes that share data and teachers, stage by stage, and export what comes out."""
    runs, shards = trained(recipes, place)
    return [path for run in runs for path in _export(run, shards, place)]


def trained(recipes: Sequence[Recipe], place: Place) -> tuple[list[Run], list[Path]]:
    """Train recipes that share data and teachers, or find them trained; returns their last stages and the shards."""
    if place.device == "cpu":
        torch.set_num_threads(1)  # small models: a second thread costs more than it gives
    if len({item.name for item in recipes}) < len(recipes):
        raise SlimbenchError("Two recipes of one training have one name; rename one.")
    recipes = [recipe.limited(item, place.steps) for item in recipes]
    rehearsal.rehearse(recipes, place.out)
    shards = place.shards(recipes[0].data, recipes[0].optimiser.accumulate)
    with ExitStack() as held:
        for item in recipes if rank_and_world()[0] == 0 else ():
            if not held.enter_context(locks.lock(place.work / f"{item.name}.lock", wait=False)):
                raise SlimbenchError(
                    f"{place.work / item.name} is being trained by another process; wait, or give another --work."
                )
        return _stages(recipes, shards, place), shards


def _stages(recipes: Sequence[Recipe], shards: Sequence[Path], place: Place) -> list[Run]:
    """Train stage after stage."""
    stages = 1 + len(recipes[0].stages)
    students: list[Student | None] = [None] * len(recipes)
    runs: list[Run] = []
    for number in range(stages):
        items = [recipe.stage(item, number) for item in recipes]
        folders = [place.work / (item.name if stages == 1 else f"{item.name}-{number + 1}") for item in items]
        before = [run.folders for run in runs] or [()] * len(items)
        past: Sequence[Learner | None] = [run.learner for run in runs] or [None] * len(items)
        done = [run.loop.drawn for run in runs] or [0] * len(items)
        runs = _stage(items, folders, list(zip(students, past, strict=True)), shards, place, done)
        for run, others in zip(runs, before, strict=True):
            run.folders = (*others, run.loop.folder)
        students = [run.learner.procedure.products(run.learner.mini)[""] for run in runs]
    for run, whole in zip(runs, recipes, strict=True):
        run.whole = whole
    return runs


@dataclass
class Run:
    """One student in training.

    Attributes:
        recipe: of the stage.
        learner: student, terms, procedure.
        loop: its optimiser.
        teachers: by name.
        batches: what it draws from.
        folders: of all stages so far.
        whole: the recipe with all its stages.
    """

    recipe: Recipe
    learner: Learner
    loop: Loop
    teachers: Mapping[str, Teacher]
    batches: Batches
    folders: tuple[Path, ...] = ()
    whole: Recipe | None = None


def _stage(
    items: Sequence[Recipe],
    folders: Sequence[Path],
    starts: Sequence[tuple[Student | None, Learner | None]],
    shards: Sequence[Path],
    place: Place,
    done: Sequence[int],
) -> list[Run]:
    """Train one stage of recipes that share data and teachers.

    ``starts`` are the students and the objectives that the stage before left, ``done`` counts the batches until now.
    """
    first = items[0]
    batches = batches_of(first.data, shards, place)
    known: dict[str, Teacher] = teachers.load(first.teachers, place.device)
    if first.targets.normalise == "corpus":
        sample = [batches.draw(30_000_000 + i, first.seed)[0].to(place.device) for i in range(teachers.FIT_DRAWS)]
        known = {name: teachers.Standardised(teacher, sample) for name, teacher in known.items()}
    runs = [
        _prepare(item, folder, start, known, batches, shards, place, before)
        for item, folder, start, before in zip(items, folders, starts, done, strict=True)
    ]
    _train(runs, batches, first, place.device)
    return runs


def batches_of(data: Data, shards: Sequence[Path], place: Place) -> Batches:
    """What draws batches of a recipe's data from the shards."""
    found = pool.read(shards)
    real = data.real if place.data is not None else 0.0
    return Batches(found, data.seconds, real, data.mixing, clips.allowed(found, data))


def _prepare(
    item: Recipe,
    folder: Path,
    begun: tuple[Student | None, Learner | None],
    known: Mapping[str, Teacher],
    batches: Batches,
    shards: Sequence[Path],
    place: Place,
    done: int,
) -> Run:
    """A student at its first step, or where a killed run left it."""
    start, past = begun
    folder.mkdir(parents=True, exist_ok=True)
    if rank_and_world()[0] == 0:
        files.note_start(folder)
    torch.manual_seed(item.seed)
    student = make(item.student, item.name) if start is None else start
    before = None if start is None else digest_tensors(start.state_dict())
    learner = Learner(item, student, {name: teacher.side for name, teacher in known.items()}).to(place.device)
    if past is not None and learner.takes_over(past):
        before = digest_json([before, digest_tensors(learner.terms.state_dict())])
    key = identity(item, learner.active, before, known, shards)
    loop = Loop(folder, learner, item.optimiser, item.steps, key, done)
    if not loop.resume():
        if start is None:
            begin(student, item, known, batches)
        draws = (batches.draw(10_000_000 + i, item.seed)[0].to(place.device) for i in range(1000))
        learner.fit(known, draws, item.targets)
    return Run(item, learner, loop, known, batches)


def identity(
    item: Recipe, terms: Sequence[TermSpec], before: str | None, known: Mapping[str, Teacher], shards: Sequence[Path]
) -> str:
    """Digest of what decides a stage's outcome: settings, what it begins with, the teachers and the shards.

    ``terms`` are those that train, with what the lab adds to what the recipe says.
    """
    settings = {key: value for key, value in said(item).items() if key not in recipe.TOLD} | {"terms": said(terms)}
    teaches = {name: teacher.fingerprint for name, teacher in known.items()}
    world = rank_and_world()[1]
    several = {} if world == 1 else {"processes": world}
    return digest_json(
        {"settings": settings, "before": before, "teachers": teaches, "pool": pool.identity(shards)} | several
    )


def _train(runs: Sequence[Run], batches: Batches, first: Recipe, device: str) -> None:
    """Step after step, each batch and each teacher's pass shared by all students that stand at that step."""
    maps = frozenset(name for run in runs for name in run.learner.mapped)
    behind = min(run.loop.step for run in runs)
    longest = max(run.loop.steps for run in runs)
    bar = tqdm(total=longest, initial=behind, desc=runs[0].recipe.name, mininterval=5, disable=bool(runs[0].loop.rank))
    for step in range(behind, longest):
        due = [run for run in runs if run.loop.step == step and not run.loop.done]
        for part in range(first.optimiser.accumulate):
            if due:
                _batch(due, due[0].loop.draw(part), part, batches, first, device, maps)
        for run in due:
            run.learner.procedure.after_backward(run.learner.mini, run.loop.step, run.loop.progress)
            run.loop.update()
        bar.update()
    bar.close()


def _batch(
    due: Sequence[Run], draw: int, part: int, batches: Batches, first: Recipe, device: str, maps: frozenset[str]
) -> None:
    """Draw a batch and add its gradient to every student's."""
    clean, mixed = (wave.to(device) for wave in batches.draw(draw, first.seed))
    targets = first.targets
    masked = None if targets.mode == "clean" else mask_of(mixed, first, draw).to(device)
    half = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=first.optimiser.precision == "bfloat16")
    sight = Sight(due[0].teachers, clean if targets.hears == "clean" else mixed, masked, targets, maps)
    for run in due:
        torch.manual_seed(first.seed * 1_000_003 + draw)  # a student's chance does not depend on its company
        progress = (run.loop.step + part / run.loop.settings.accumulate) / run.loop.steps
        with half:
            found = run.learner.loss(mixed, masked, sight, Moment(run.loop.draw(part), progress, first.seed))
        run.loop.add(found.loss, found.figures, hours(mixed))


@torch.no_grad()
def held_out(run: Run, first: int, count: int, device: str) -> list[tuple[Tensor, Tensor, Sight]]:
    """Batches that a run did not train on, from number ``first``: waveforms, lengths, what the teachers see."""
    found = []
    for number in range(first, first + count):
        waves = run.batches.draw(number, run.recipe.seed)[0].to(device)
        sight = Sight(run.teachers, waves, None, run.recipe.targets, run.learner.mapped)
        found.append((waves, full(waves), sight))
    return found


def mask_of(waves: Tensor, item: Recipe, draw: int) -> Tensor:
    """(B, T) frames of 20 ms that the student does not see, by seed and draw."""
    frames = (1 + (waves.shape[1] - 400) // 160) // 2
    rng = np.random.default_rng((item.seed, draw, 1))
    return span_mask(rng, waves.shape[0], frames, item.targets.mask_start, item.targets.mask_span)


def _export(run: Run, shards: Sequence[Path], place: Place) -> list[Path]:
    """Write the models that a recipe gives, each with its card; the first process writes, all get the paths."""
    products = run.learner.procedure.products(run.learner.mini)
    return [export_product(run, suffix, model, shards, place) for suffix, model in products.items()]


def export_product(run: Run, suffix: str, model: Student, shards: Sequence[Path], place: Place) -> Path:
    """Write one model of a run and its card, unless it is there; returns the weights file."""
    item = run.whole or run.recipe
    folder = place.out / exporting.own_name(f"{item.name}{suffix}")
    weights = folder / "model.safetensors"
    identity = digest_json({"run": run.loop.identity, "weights": digest_tensors(model.state_dict())})
    if rank_and_world()[0] or exporting.is_made(folder, identity):
        return weights
    if weights.is_file():
        say(f"{weights} is replaced")
    origin: dict[str, Any] = {
        "teachers": {name: teacher.fingerprint for name, teacher in run.teachers.items()},
        "identity": identity,
        "shards": [file.stem for file in shards],
    }
    exporting.export(model.cpu(), folder, asdict(item), origin | exporting.history(run.folders))
    exporting.write_card(weights, model, about(item, suffix))
    return weights


def about(item: Recipe, suffix: str) -> dict[str, Any]:
    """What a card says of a recipe's product."""
    first = item.teachers[0]
    known = None if first.mixture else registry.card(first.name)
    return {
        "title": f"{item.title or item.name}{suffix}",
        "teacher": first.name if known is None else known.name,
        "method": item.method,
        "licence": "" if known is None else known.licence,
        "source": f"distilled by recipe {item.name}" + (f", after {item.after}" if item.after else ""),
    }


def pretrained(found: Pretraining, place: Place) -> list[Path]:
    """Masked unit prediction, iteration after iteration."""
    torch.set_num_threads(1)
    if place.device != "cpu" and rank_and_world()[1] > 1:
        raise SlimbenchError("A pre-training runs on CPUs; give --device cpu.")
    if place.device != "cpu":
        say(f"{found.name}: a pre-training runs on the CPU; {place.device} is left alone")
    if place.steps is not None:
        found = replace(found, iterations=tuple(replace(one, steps=place.steps) for one in found.iterations))
    out = place.out / exporting.own_name(found.name)
    rehearsal.keep(found, out)
    shards = place.shards(found.data)
    batches = batches_of(found.data, shards, place)
    folders = [place.work / f"{found.name}-{number + 1}" for number in range(len(found.iterations))]
    model = None
    for iteration, folder in zip(found.iterations, folders, strict=True):
        model = pretrain.run(iteration, model, batches, shards, folder)
    assert model is not None  # noqa: S101
    if rank_and_world()[0] == 0:
        origin = {"shards": [file.stem for file in shards]} | exporting.history(folders)
        weights = exporting.export(model, out, asdict(found), origin)
        exporting.write_card(weights, model, {"title": found.title or found.name, "source": f"recipe {found.name}"})
    return [out / "model.safetensors"]


def device(asked: str) -> str:
    """The device of this process: ``auto`` takes CUDA where there is one; under torchrun one GPU per process."""
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    return f"cuda:{os.environ['LOCAL_RANK']}" if asked == "cuda" and "LOCAL_RANK" in os.environ else asked
