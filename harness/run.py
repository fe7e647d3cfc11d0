"""Doing a bench: data → plan → extract → probe → select → score → record, each step resumable.

What is done stands on disk under keys of contents: features in the cache, checkpoints of the probes in
``<results>/.work``, records in ``<results>``. So the same command after an interruption goes on where it stopped.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from harness import data, outcome, performing, plan, registry, suite
from harness.estimation import estimate
from harness.extraction import extract
from harness.extraction.frames import Asked
from harness.extraction.stream import OnDemand
from harness.interface import SlimbenchError
from harness.jobs import Executor, InProcess, Job
from harness.outcome import Stopwatch
from harness.plan import Plan, TaskPlan
from harness.progress import say
from harness.records import Record
from harness.registry import Card
from harness.store import cache


@dataclass(frozen=True)
class Options:
    """What the caller asks for; the fields are the options of the command line."""

    upstream: str
    suite: str
    results: Path
    cache: Path
    data: Path | None = None
    tasks: tuple[str, ...] = ()
    seeds: int | None = None
    device: str = "auto"
    threads: int | None = None
    protocol: str | None = None
    executor: str = "inprocess"
    workers: int | None = None
    cache_limit: float | None = None
    compute: str | None = None
    frames: Asked = "auto"


@dataclass
class Bench:
    """A prepared bench.

    Attributes:
        plan: what is to be done.
        card: the upstream's card.
        results: where records are kept.
        cache: where data and features are kept.
        device: torch device.
        watch: wall time of the stages that all tasks share.
        notes: what a reader of the records must know.
        suite_digest: digest of the data as they are here; ``None`` for the user's own.
        cache_limit: most GB of features that the cache may keep; ``None`` for what the environment says.
        samples: samples at 16 kHz per piece of audio, once that is surveyed.
        features: the ledger of extraction, once that is done.
        price: the upstream's cost, once that is measured.
        encoder: of what is encoded on demand, once there is such.
    """

    plan: Plan
    card: Card
    results: Path
    cache: Path
    device: str
    watch: Stopwatch
    notes: list[str]
    suite_digest: str | None = None
    cache_limit: float | None = None
    samples: Mapping[str, int] = field(default_factory=dict)
    features: Mapping[str, float] = field(default_factory=dict)
    price: Mapping[str, Any] = field(default_factory=dict)
    encoder: OnDemand | None = None


def prepare(options: Options, recorded: bool = True, ways: Mapping[str, Asked] | None = None) -> Bench:
    """Check all names first, then the data, then the weights; nothing is encoded yet.

    Args:
        options: what the caller asks for.
        recorded: whether a task that has a record is left as it is; otherwise all are planned.
        ways: where the frames of each task come from, where that has been decided already.

    Raises:
        SlimbenchError: with what is wrong and how to mend it.
    """
    chosen = suite.load(options.suite, options.protocol)
    card = registry.card(options.upstream)
    names = plan.choose_tasks(chosen, options.tasks)
    device = resolve_device(options.device)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    upstream = registry.load_upstream(options.upstream, device)
    watch = Stopwatch()
    with watch("suite"):
        workers = options.threads or os.cpu_count() or 1
        found = data.prepare(chosen, options.data, options.cache, workers, names)
    names = _available(found, names, options.tasks)
    seeds = range(options.seeds or chosen.seeds)
    place = plan.Workplace(
        results=options.results if recorded else None,
        cache=options.cache,
        device=device,
        compute=options.compute,
        frames=options.frames if ways is None else ways,
        limit=cache.limit(options.cache_limit),
    )
    made = plan.make(upstream, chosen, found, names, seeds, place)
    notes = list(found.notes)
    return Bench(made, card, options.results, options.cache, device, watch, notes, found.digest, options.cache_limit)


def _available(found: data.Data, names: Sequence[str], asked: Sequence[str]) -> list[str]:
    """The tasks whose corpus is there; says which are not.

    Raises:
        SlimbenchError: a task that was asked for by name is not there, or none is.
    """
    for name in names:
        reason = found.unavailable.get(name)
        if reason is not None and name in asked:
            raise SlimbenchError(f"task {name} cannot run: {reason}")
        if reason is not None:
            say(f"note: task {name} is left out: {reason}")
    there = [name for name in names if name not in found.unavailable]
    if not there:
        raise SlimbenchError(f"{found.root}: none of the suite's corpora is there (slimbench data check says more).")
    return there


def describe(options: Options, again: bool = False, budget: float | None = None) -> str:
    """The plan as text, with minutes and GB on this machine; without data from the sizes that the suite states.

    Args:
        options: of the bench.
        again: time this machine anew.
        budget: in seconds; then also which tasks fit into it.
    """
    chosen = suite.load(options.suite, options.protocol)
    if options.data is None and chosen.sizes:
        names = plan.choose_tasks(chosen, options.tasks)
        device = resolve_device(options.device)
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        upstream = registry.load_upstream(options.upstream, device)
        compute = extract.compute_type(upstream, device, options.compute)
        machine = estimate.Machine(upstream, device, chosen.dtype, chosen.bootstrap, options.cache, compute)
        limit = cache.limit(options.cache_limit)
        sized = estimate.of_sizes(machine, chosen, names, options.seeds or chosen.seeds, again, options.frames, limit)
        said = (
            f"no DATA: sizes of suite {chosen.name} (protocol {chosen.protocol}) as published, nothing is encoded yet"
        )
        return "\n".join([said, *plan.said_of_frames(sized.frames, names), sized.table(budget)])
    made, found = expected(options, again)
    parts = [plan.describe(made.plan)]
    if found.loads:
        parts.append(found.table(budget))
    return "\n".join(parts)


def expected(options: Options, again: bool = False) -> tuple[Bench, estimate.Expected]:
    """A prepared bench and what it is expected to take; the cost of the upstream is then known and kept.

    Args:
        options: of the bench.
        again: time this machine anew.
    """
    made = prepare(options)
    if made.plan.todo:
        performing.price(made)
    spent = sum(made.watch.seconds.get(stage, 0.0) for stage in ("suite", "cost"))
    return made, estimate.of_bench(made.plan, made.device, made.cache, spent, again)


def bench(options: Options) -> list[Record]:
    """Run what has no record yet; returns the records of all tasks that were asked for.

    Raises:
        SlimbenchError: bad input; what is finished by then stays.
    """
    if options.executor == "inprocess":
        run = prepare(options)
        return _bench(run, nullcontext(InProcess(partial(performing.perform, run))))
    from harness import ray_executor

    ray = ray_executor.package()
    run = prepare(replace(options, device="cpu"))  # the GPUs are the workers'; this process encodes nothing
    return _bench(run, ray_executor.on_cluster(ray, options, run))


def _bench(run: Bench, place: AbstractContextManager[Executor]) -> list[Record]:
    """Do what is to be done; the executor is there only while there is something."""
    if not run.plan.todo:
        say(f"nothing to do: {len(run.plan.tasks)} records are there")
        return [item.record for item in run.plan.tasks if item.record is not None]
    say(plan.describe(run.plan))
    with place as executor:
        survey(run)
        _carry_out(run, executor)
    return [item.record or _found(run, item) for item in run.plan.tasks]


def _carry_out(run: Bench, executor: Executor) -> None:
    with run.watch("extract"):
        executor.run([Job("encode", part=part, parts=executor.workers) for part in range(executor.workers)])
    store = run.plan.store
    store.refresh()
    cache.keep_within(cache.limit(run.cache_limit), store, run.plan.pieces.keys())
    run.features = _ledger(run)
    todo = run.plan.todo
    together = [[item.task.name for item in group] for group in run.plan.in_step]
    jobs = [Job("train", first, others=tuple(others)) for first, *others in together]
    if executor.workers > 1:  # else training and scoring share what they have read
        alone = [item for item in todo if not any(item.task.name in group for group in together)]
        jobs += [Job("train", item.task.name, fold) for item in alone for fold, _ in outcome.folds_of(item)]
    executor.run(jobs)
    executor.run([Job("score", item.task.name) for item in todo])


def _found(run: Bench, item: TaskPlan) -> Record:
    record = performing.recorded(run, item)
    if record is None:
        raise SlimbenchError(f"{run.results}: the record of {item.task.name} is gone again; repeat the command.")
    return record


def resolve_device(name: str) -> str:
    """The torch device that ``name`` means; ``auto`` is CUDA where there is one.

    Raises:
        SlimbenchError: torch does not know the device, or it is not on this machine.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise SlimbenchError(f"device {name!r} cannot be used here ({first}); use auto, cpu or cuda.") from error
    return name


def survey(run: Bench) -> None:
    """Check all audio, then the disk; the plan then holds what is really to be done.

    Raises:
        SlimbenchError: audio is broken or too short, or the disk cannot hold the features.
    """
    store, wanted = run.plan.store, run.plan.pieces
    with run.watch("check"):
        run.samples, converted = extract.survey(wanted, run.cache / "audio.json")
    wanted = _shorten(run, run.samples)
    run.plan = replace(run.plan, pieces=wanted)
    extract.check_lengths(wanted, run.samples, run.plan.upstream)
    needed = extract.bytes_needed(store, wanted.values())
    cache.keep_within(cache.limit(run.cache_limit), store, wanted.keys(), needed)
    extract.check_space(store, wanted.values())
    for note in converted:
        say(f"note: {note}")
    run.notes += converted


def _ledger(run: Bench) -> Mapping[str, float]:
    """What extraction has cost, for the records."""
    ledger = run.plan.store.ledger({key for item in run.plan.tasks for key in item.audio.values()})
    return {
        "encoded_seconds": ledger.encoded_seconds,
        "distinct_seconds": ledger.distinct_seconds,
        "encoded_over_distinct": round(ledger.ratio, 6),
    }


def _shorten(run: Bench, samples: Mapping[str, int]) -> dict[str, extract.Piece]:
    """Leave out what the tasks' effects make too short, and say so; returns the audio that is still wanted."""
    items = []
    for item in run.plan.tasks:
        if item.record is None:
            item, notes = outcome.long_enough(item, samples)
            for note in notes:
                say(f"note: {item.task.name}: {note}")
            item = replace(item, notes=(*item.notes, *notes))
        items.append(item)
    run.plan = replace(run.plan, tasks=tuple(items))
    used = {
        item.audio[row.id]
        for item in run.plan.todo
        for table in (item.manifest, *item.folds)
        for row in table.utterances
    }
    return {key: piece for key, piece in run.plan.pieces.items() if key in used}
