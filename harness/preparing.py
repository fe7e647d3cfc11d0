"""Before a bench: what the caller asks for, the data, the plan, the audio checked; nothing is encoded yet."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from harness import data, outcome, plan, registry, suite
from harness.extraction import extract
from harness.extraction.frames import Asked
from harness.extraction.stream import OnDemand
from harness.interface import SlimbenchError
from harness.outcome import Stopwatch
from harness.plan import Plan
from harness.progress import say
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
