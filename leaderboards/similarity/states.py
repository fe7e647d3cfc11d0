"""The states of a student and its teacher on the same test utterances, read from the feature store.

What the store lacks of the test audio is encoded into it, as a bench does; what a bench has encoded is only read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness import plan, preparing, registry, suite
from harness.extraction import extract
from harness.interface import SlimbenchError, Upstream, Utterance
from harness.store.features import FeatureStore
from leaderboards.similarity.alignment import grid_ms, on_grid
from leaderboards.similarity.cka import LEAST

Single = NDArray[np.float32]

MOMENTS = 16
"""Frames that are taken of each utterance."""


@dataclass(frozen=True)
class Where:
    """Which test audio, and where data and features are."""

    suite: str
    results: Path
    cache: Path
    data: Path | None = None
    protocol: str | None = None
    task: str | None = None
    device: str = "auto"
    threads: int | None = None


@dataclass(frozen=True)
class Side:
    """What one upstream makes of the utterances.

    Attributes:
        name: of the upstream.
        fingerprint: of its content.
        frame_ms: time between two frames.
        means: time means of all states, (L, N, D).
        moments: states at the moments that were drawn, (L, N, M, D); ``None`` where frames are not compared.
    """

    name: str
    fingerprint: str
    frame_ms: float
    means: Single
    moments: Single | None


@dataclass(frozen=True)
class Heard:
    """Student and teacher on the same utterances, in the same order, at the same moments.

    Attributes:
        student: its states.
        teacher: its states.
        task: whose test utterances these are.
        speakers: of each utterance; empty where not known.
        notes: what a reader must know.
    """

    student: Side
    teacher: Side
    task: str
    speakers: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Source:
    """One upstream's store, with all wanted test audio in it."""

    upstream: Upstream
    store: FeatureStore
    keys: Mapping[str, str]
    frames: bool


def hear(student: str, teacher: str, where: Where, most: int = 512, seed: int = 0) -> Heard:
    """Read both upstreams' states of a task's test utterances.

    Args:
        student: name of its card, or path of the card file.
        teacher: the same of the teacher.
        where: the audio, and the folders.
        most: utterances; where there are more, so many are drawn at random.
        seed: of that draw and of the moments.

    Raises:
        SlimbenchError: something is missing, or there are too few utterances.
    """
    task = where.task or _reading_frames(where)
    generator = np.random.default_rng(seed)
    rows: tuple[Utterance, ...] = ()
    sources = []
    for name in (student, teacher):
        made = _plan(name, where, task)
        rows = rows or _chosen(made.plan.tasks[0], most, generator)
        sources.append(_filled(made, rows))
    one, two = sources
    notes = []
    loose = [source.upstream.name for source in sources if source.upstream.variable_rate]
    if loose:
        notes.append(f"Frames of {' and '.join(loose)} come at no fixed rate, so that only time means are compared.")
    elif not one.frames:
        notes.append(f"Task {task} reads time means, so that frames are not compared.")
    framed = not loose and one.frames
    ids = [row.id for row in rows]
    moments = _moments(one, two, ids, generator) if framed else (None, None)
    sides = [
        Side(
            source.upstream.name,
            source.upstream.fingerprint,
            source.upstream.frame_ms,
            _means(source, ids),
            part,
        )
        for source, part in zip(sources, moments, strict=True)
    ]
    return Heard(sides[0], sides[1], task, tuple(row.speaker for row in rows), tuple(notes))


def _reading_frames(where: Where) -> str:
    """The first task of the suite that reads frames, or simply the first."""
    names = list(suite.load(where.suite, where.protocol).tasks)
    return next((name for name in names if registry.task(name).need == "frames"), names[0])


def _plan(name: str, where: Where, task: str) -> preparing.Bench:
    options = preparing.Options(
        upstream=name,
        suite=where.suite,
        results=where.results,
        cache=where.cache,
        data=where.data,
        tasks=(task,),
        device=where.device,
        threads=where.threads,
        protocol=where.protocol,
    )
    return preparing.prepare(options, recorded=False)


def _chosen(item: plan.TaskPlan, most: int, generator: np.random.Generator) -> tuple[Utterance, ...]:
    """Test utterances of distinct audio, in the manifest's order.

    Raises:
        SlimbenchError: there are too few.
    """
    distinct = {item.audio[row.id]: row for row in reversed(item.manifest.split("test"))}
    rows = list(reversed(distinct.values()))
    if len(rows) < LEAST:
        raise SlimbenchError(
            f"{item.manifest.file}: {len(rows)} distinct test utterances are too few to compare states on; "
            f"at least {LEAST} are needed."
        )
    if len(rows) > most:
        rows = [rows[place] for place in sorted(generator.choice(len(rows), most, replace=False))]
    return tuple(rows)


def _filled(made: preparing.Bench, rows: Sequence[Utterance]) -> _Source:
    """Encode what the store lacks of these utterances, and of nothing else."""
    item = made.plan.tasks[0]
    framed = item.task.need == "frames"
    keys = {row.id: item.audio[row.id] for row in rows}
    wanted = {
        key: replace(piece, frames=piece.frames or framed)
        for key, piece in made.plan.pieces.items()
        if key in set(keys.values())
    }
    made.plan = replace(made.plan, pieces=wanted)
    preparing.survey(made)
    extract.extract(made.plan.upstream, made.plan.store, made.plan.pieces, made.samples, made.device)
    made.plan.store.refresh()
    return _Source(made.plan.upstream, made.plan.store, keys, framed)


def _means(source: _Source, ids: Sequence[str]) -> Single:
    """Time means of all states, (L, N, D)."""
    table = source.store.pooled([source.keys[name] for name in ids])
    return np.ascontiguousarray(table.transpose(0, 1).numpy())


def _moments(one: _Source, two: _Source, ids: Sequence[str], generator: np.random.Generator) -> tuple[Single, Single]:
    """States of both at the same random moments, (L, N, MOMENTS, D) each.

    Of each utterance the moments are drawn without replacement; a short utterance's come again in another round.
    """
    period = grid_ms(one.upstream.frame_ms, two.upstream.frame_ms)
    tables = [np.empty((s.store.num_states, len(ids), MOMENTS, s.store.width), dtype=np.float32) for s in (one, two)]
    for place, name in enumerate(ids):
        states = [_framed(source, name, period) for source in (one, two)]
        count = min(part.shape[1] for part in states)
        drawn = torch.from_numpy(generator.permutation(count)[np.arange(MOMENTS) % count])
        for table, part in zip(tables, states, strict=True):
            table[:, place] = part[:, drawn].numpy()
    return tables[0], tables[1]


def _framed(source: _Source, name: str, period: float) -> Tensor:
    return on_grid(source.store.frames(source.keys[name]), source.upstream.frame_ms, period)
