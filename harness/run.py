"""Doing a bench: data → plan → extract → probe → select → score → record, each step resumable.

What is done stands on disk under keys of contents: features in the cache, checkpoints of the probes in
``<results>/.work``, records in ``<results>``. So the same command after an interruption goes on where it stopped.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from harness import (
    cache,
    claims,
    cost,
    data,
    estimate,
    extract,
    kept,
    outcome,
    plan,
    provenance,
    recording,
    records,
    registry,
    suite,
)
from harness.identity import digest_json
from harness.interface import SlimbenchError
from harness.jobs import Executor, InProcess, Job
from harness.outcome import Outcome, Stopwatch
from harness.plan import Plan, TaskPlan
from harness.progress import say
from harness.records import Record
from harness.registry import Card

_NOTE = ".trained.json"
"""Ending of what a job leaves beside the checkpoint that it has trained to the end."""


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


def prepare(options: Options, recorded: bool = True) -> Bench:
    """Check all names first, then the data, then the weights; nothing is encoded yet.

    Args:
        options: what the caller asks for.
        recorded: whether a task that has a record is left as it is; otherwise all are planned.

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
    results = options.results if recorded else None
    made = plan.make(upstream, chosen, found, names, seeds, results, options.cache)
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
        machine = estimate.Machine(upstream, device, chosen.dtype, chosen.bootstrap, options.cache)
        sized = estimate.of_sizes(machine, chosen, names, options.seeds or chosen.seeds, again)
        said = (
            f"no DATA: sizes of suite {chosen.name} (protocol {chosen.protocol}) as published, nothing is encoded yet"
        )
        return "\n".join([said, sized.table(budget)])
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
        _cost(made)
    spent = sum(made.watch.seconds.get(stage, 0.0) for stage in ("suite", "cost"))
    return made, estimate.of_bench(made.plan, made.device, made.cache, spent, again)


def bench(options: Options) -> list[Record]:
    """Run what has no record yet; returns the records of all tasks that were asked for.

    Raises:
        SlimbenchError: bad input; what is finished by then stays.
    """
    if options.executor == "inprocess":
        run = prepare(options)
        return _bench(run, nullcontext(InProcess(partial(perform, run))))
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
    if executor.workers > 1:  # else training and scoring share what they have read
        folds = [(item.task.name, fold) for item in todo for fold, _ in outcome.folds_of(item)]
        executor.run([Job("train", name, fold) for name, fold in folds])
    executor.run([Job("score", item.task.name) for item in todo])


def _found(run: Bench, item: TaskPlan) -> Record:
    record = _recorded(run, item)
    if record is None:
        raise SlimbenchError(f"{run.results}: the record of {item.task.name} is gone again; repeat the command.")
    return record


def _recorded(run: Bench, item: TaskPlan) -> Record | None:
    """The record of a task as it lies on disk now."""
    return records.find(run.results, run.plan.suite.name, run.plan.upstream.name, item.task.name, item.key)


def perform(run: Bench, job: Job) -> None:
    """Do one job of a bench whose audio has been surveyed; what it makes lies in the folders of cache and results.

    Raises:
        SlimbenchError: it cannot be done.
    """
    if job.stage == "encode":
        upstream, store = run.plan.upstream, run.plan.store
        extract.extract(upstream, store, run.plan.pieces, run.samples, run.device, job.part, job.parts)
        return
    item = next(item for item in run.plan.tasks if item.task.name == job.task)
    work = run.results / ".work" / item.key
    folds = [job.fold] if job.stage == "train" else [None, *(fold for fold, _ in outcome.folds_of(item) if fold)]
    with ExitStack() as held:
        for fold in folds:  # two benches that want the same records do the work once
            held.enter_context(claims.claim(work.with_name(f"{item.key}-{fold}{claims.SUFFIX}"), wait=True))
        if _recorded(run, item) is not None:
            say(f"{item.task.name}: another process has made its record")
        elif job.stage == "train":
            _train(run, item, work, job.fold)
        else:
            _score(run, item, work)


def _train(run: Bench, item: TaskPlan, work: Path, fold: int | None) -> None:
    """One fold as a job of its own, which leaves a note of its time for the record."""
    checkpoint = outcome.checkpoint(work, fold)
    note = checkpoint.with_suffix(_NOTE)
    if note.exists():
        return
    began, resumed = time.perf_counter(), checkpoint.exists()
    outcome.train(item, run.plan.store, run.plan.seeds, run.device, work, fold)
    kept.write(note, {"seconds": time.perf_counter() - began, "resumed": resumed})


def _with_jobs(done: Outcome, work: Path) -> Outcome:
    """The outcome with the time of the training that jobs of their own have done, which was only read again."""
    notes = [kept.read(file) for file in sorted(work.glob(f"*{_NOTE}"))]
    if not notes:
        return done
    seconds = sum((note["seconds"] for note in notes), done.seconds["train"])
    resumed = any(note["resumed"] for note in notes)
    return replace(done, seconds={**done.seconds, "train": round(seconds, 3)}, resumed=resumed)


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


def _cost(run: Bench) -> dict[str, Any]:
    """Cost of the upstream on this device, measured once and kept in the cache."""
    threads = torch.get_num_threads()
    machine = [provenance.gather()[fact] for fact in ("processor", "torch")]
    identity = digest_json([cost.VERSION, run.plan.upstream.fingerprint, run.device, threads, machine])[:16]
    file = run.cache / "cost" / f"{identity}.json"
    with claims.claim(file.with_suffix(claims.SUFFIX), wait=True):
        known: dict[str, Any] | None = kept.read(file)
        if known is None:
            say(f"measure the cost of {run.plan.upstream.name} on {run.device}")
            with run.watch("cost"), torch.no_grad():
                known = _measure(run, threads)
            kept.write(file, known)
    run.notes += known["notes"]
    return {name: value for name, value in known.items() if name != "notes"}


def _measure(run: Bench, threads: int) -> dict[str, Any]:
    notes: list[str] = []
    measured = cost.measure(run.plan.upstream, run.card, run.device, threads, notes)
    for note in notes:
        say(f"note: {note}")
    return {**measured, "notes": notes}


def _score(run: Bench, item: TaskPlan, work: Path) -> None:
    """One task: train what is not trained, choose on dev, open test once, and keep the record."""
    run.price = run.price or _cost(run)
    done = outcome.reach(item, run.plan.store, run.plan.seeds, run.device, run.plan.suite.bootstrap, work)
    done = _with_jobs(done, work)
    record = recording.make(run, item, done)
    records.save(record, run.results)
    shutil.rmtree(work)
    interval = "[{:.2f}, {:.2f}]".format(*record.ci95)
    say(f"{record.task}: {record.metric} {record.value:.2f} {interval} at learning rate {record.learning_rate:g}")
