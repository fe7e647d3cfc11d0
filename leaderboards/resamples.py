"""Every score of a board on the same resamples: what intervals of differences, shares and slopes are made from.

A resample draws test speakers with replacement, the same for all upstreams of a task; the scores are means over seeds.
The spread of the probe's training seeds is added from the seeds' own scores (:mod:`leaderboards.uncertainty`). Neither
says anything of a student trained a second time: there is one set of weights per upstream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from harness.interface import Row, SlimbenchError
from harness.records import Record
from leaderboards import paired, uncertainty
from leaderboards.board import Board
from leaderboards.uncertainty import Part

Floats = NDArray[np.float64]

REPEATS = 1000
"""Resamples, as many as the intervals of records are made from."""

LEAST_UNITS = 6
"""With fewer speakers not even a permutation test can reach 0.05 (2 / 2⁵ is more), and resamples say too little."""


@dataclass(frozen=True)
class Drawn:
    """The comparable scores of one task on joint resamples.

    Attributes:
        metric: of the task.
        values: measured score by upstream, in percent.
        draws: by upstream, (repeats,): its score, seeds averaged, on each resample, NaN where a resample has none.
        seeds: by upstream, its score on the whole test set by training seed.
        units: number of speakers (utterances, where speakers are unknown) that were resampled.
    """

    metric: str
    values: Mapping[str, float]
    draws: Mapping[str, Floats]
    seeds: Mapping[str, tuple[float, ...]]
    units: int

    @property
    def firm(self) -> bool:
        """Whether there are speakers enough for intervals of differences."""
        return self.units >= LEAST_UNITS

    def parts(self, weights: Mapping[str, float]) -> tuple[Part, ...]:
        """The sources of error of a weighted sum of scores, by upstream; only where the column is :attr:`firm`."""
        return uncertainty.parts(weights, self.draws, self.seeds, self.units)


@dataclass(frozen=True)
class Resamples:
    """A board on joint resamples: by task, and sentences on the tasks that have none."""

    tasks: Mapping[str, Drawn]
    notes: tuple[str, ...] = ()


NONE = Resamples(MappingProxyType({}))


def resample(board: Board, repeats: int = REPEATS, seed: int = 0) -> Resamples:
    """Resample all comparable records of a board. What is drawn for an upstream does not depend on the others.

    Tasks whose records cannot be paired, because their test items or references differ, are left out and named.
    """
    found: dict[str, Drawn] = {}
    notes = []
    for task in board.tasks:
        records = board.fair(task)
        try:
            rows = paired.align(records)
        except SlimbenchError as reason:
            notes.append(f"No paired resamples of {task}: {reason}")
            continue
        own = seed_of(task, seed)
        found[task] = column = Drawn(
            metric=board.metric(task),
            values=MappingProxyType({name: record.value for name, record in records.items()}),
            draws=MappingProxyType(
                {name: _draws(record, rows[name], repeats, own) for name, record in records.items()}
            ),
            seeds=MappingProxyType({name: tuple(record.values_per_seed) for name, record in records.items()}),
            units=units(rows),
        )
        if not column.firm:
            notes.append(
                f"No letters and no intervals of differences for {task}: its test set has {column.units} speakers, too "
                "few."
            )
        elif alone := [name for name, values in column.seeds.items() if len(values) < 2]:
            notes.append(
                f"{task}: {', '.join(alone)} has one seed, so letters and intervals of differences cover the test "
                "speakers alone there."
            )
    return Resamples(MappingProxyType(found), tuple(notes))


def seed_of(task: str, seed: int = 0) -> int:
    """The seed of a task's resamples: speakers of one task are drawn independently of those of another."""
    return seed + crc32(task.encode())


def units(rows: Mapping[str, paired.Seeds]) -> int:
    """How many different speakers the items have; an item of an unknown speaker is a unit of its own."""
    first = next(iter(rows.values()))[0]
    return len({unit for index, row in enumerate(first) for unit in _units(index, row)})


def _draws(record: Record, rows: paired.Seeds, repeats: int, seed: int) -> Floats:
    return np.asarray(paired.draws(record.metric, rows, repeats, seed).mean(axis=0), dtype=np.float64)


def _units(index: int, row: Row) -> tuple[str, ...]:
    if "enrol" not in row:
        return (str(row.get("speaker") or f"\0{index}"),)
    first, second = row.get("speakers") or ("", "")
    return str(first or f"\0{row['enrol']}"), str(second or f"\0{row['test']}")
