"""Doing the jobs of a bench: encode a part of its audio, train a fold, score a task.

What a job makes lies in the folders of cache and results, so that any job can be done again, and two processes that
want the same thing do it once.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness import claims, cost, kept, outcome, provenance, recording, records
from harness.extraction import extract
from harness.extraction.stream import OnDemand
from harness.identity import digest_json
from harness.jobs import Job
from harness.plan import TaskPlan
from harness.progress import say
from harness.records import Record

if TYPE_CHECKING:
    from harness.preparing import Bench

_NOTE = ".trained.json"
"""Ending of what a job leaves beside the checkpoint that it has trained to the end."""


def recorded(run: Bench, item: TaskPlan) -> Record | None:
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
    if job.others:
        _train_in_step(run, [item for item in run.plan.tasks if item.task.name in (job.task, *job.others)])
        return
    item = next(item for item in run.plan.tasks if item.task.name == job.task)
    work = run.results / ".work" / item.key
    folds = [job.fold] if job.stage == "train" else [None, *(fold for fold, _ in outcome.folds_of(item) if fold)]
    with ExitStack() as held:
        for fold in folds:
            held.enter_context(_claim(work, fold))
        if recorded(run, item) is not None:
            say(f"{item.task.name}: another process has made its record")
        elif job.stage == "train":
            _train(run, item, work, job.fold)
        else:
            _score(run, item, work)


def _train(run: Bench, item: TaskPlan, work: Path, fold: int | None) -> None:
    """One fold as a job of its own, which leaves a note for the record: whether it went on from a checkpoint."""
    checkpoint = outcome.checkpoint(work, fold)
    note = checkpoint.with_suffix(_NOTE)
    if note.exists():
        return
    resumed = checkpoint.exists()
    outcome.train(item, run.plan.store, run.plan.seeds, run.device, work, fold, _encoder(run, item))
    kept.write(note, {"resumed": resumed})


def _train_in_step(run: Bench, items: Sequence[TaskPlan]) -> None:
    """Train tasks without folds that read the same audio side by side: what one has had encoded is there for all."""
    works = {run.results / ".work" / item.key: item for item in sorted(items, key=lambda item: item.key)}
    with ExitStack() as held:
        for work in works:  # in the order of their keys, as everybody takes them
            held.enter_context(_claim(work, None))
        left = {work: item for work, item in works.items() if recorded(run, item) is None}
        notes = {outcome.checkpoint(work, None).with_suffix(_NOTE): work for work in left}
        encoder = next((found for item in left.values() if (found := _encoder(run, item))), None)
        if encoder is None or all(note.exists() for note in notes):
            return
        resumed = {note: outcome.checkpoint(work, None).exists() for note, work in notes.items()}
        outcome.train_together(left, run.plan.store, run.plan.seeds, run.device, encoder)
        for note in notes:
            if not note.exists():
                kept.write(note, {"resumed": resumed[note]})


def _encoder(run: Bench, item: TaskPlan) -> OnDemand | None:
    """What encodes the frames of a task on demand; ``None`` where they are stored. All tasks share one."""
    if not run.plan.streams(item):
        return None
    if run.encoder is None:
        run.encoder = OnDemand(run.plan.upstream, run.plan.store, run.plan.pieces, run.samples, run.device)
    return run.encoder


def _claim(work: Path, fold: int | None) -> AbstractContextManager[bool]:
    """Waits until no other process works on the fold of a record; two benches that want the same do the work once."""
    return claims.claim(work.with_name(f"{work.name}-{fold}{claims.SUFFIX}"), wait=True)


def _score(run: Bench, item: TaskPlan, work: Path) -> None:
    """One task: train what is not trained, choose on dev, open test once, and keep the record."""
    run.price = run.price or price(run)
    notes = [kept.read(file) for file in sorted(work.glob(f"*{_NOTE}"))]
    encoder = _encoder(run, item)
    done = outcome.reach(item, run.plan.store, run.plan.seeds, run.device, run.plan.suite.bootstrap, work, encoder)
    if notes:  # jobs of their own have trained it, so that what is here was only read again
        done = replace(done, resumed=any(note["resumed"] for note in notes))
    record = recording.make(run, item, done)
    records.save(record, run.results)
    shutil.rmtree(work)
    interval = "[{:.2f}, {:.2f}]".format(*record.ci95)
    say(f"{record.task}: {record.metric} {record.value:.2f} {interval} at learning rate {record.learning_rate:g}")


def price(run: Bench) -> dict[str, Any]:
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
