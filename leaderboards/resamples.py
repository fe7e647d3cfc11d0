"""Every score of a board on the same resamples: what intervals of differences, shares and slopes are made from.

A resample draws test speakers with replacement, the same for all upstreams of a task, and training seeds of the
probe, for each upstream by itself. It says nothing of a student trained a second time: there is one set of weights per
upstream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from harness.interface import Row, SlimbenchError
from harness.records import Record
from leaderboards import paired
from leaderboards.board import Board

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
        draws: by upstream, (repeats,): its score on each resample, NaN where a resample has none.
        units: number of speakers (utterances, where speakers are unknown) that were resampled.
    """

    metric: str
    values: Mapping[str, float]
    draws: Mapping[str, Floats]
    units: int

    @property
    def firm(self) -> bool:
        """Whether there are speakers enough for intervals of differences."""
        return self.units >= LEAST_UNITS

    def among(self, names: Sequence[str]) -> Floats:
        """The draws of some upstreams: (names, repeats)."""
        return np.stack([self.draws[name] for name in names])


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
        draws = {name: _draws(record, rows[name], repeats, own) for name, record in records.items()}
        values = {name: record.value for name, record in records.items()}
        column = Drawn(board.metric(task), MappingProxyType(values), MappingProxyType(draws), units(rows))
        found[task] = column
        if not column.firm:
            notes.append(
                f"No letters and no intervals of differences for {task}: its test set has {column.units} speakers, too "
                "few."
            )
    return Resamples(MappingProxyType(found), tuple(notes))


def seed_of(task: str, seed: int = 0) -> int:
    """The seed of a task's resamples: speakers of one task are drawn independently of those of another."""
    return seed + crc32(task.encode())


def limits(draws: Floats) -> tuple[float, float]:
    """The 95 % percentile interval over the resamples that have a value."""
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return float(low), float(high)


def units(rows: Mapping[str, paired.Seeds]) -> int:
    """How many different speakers the items have; an item of an unknown speaker is a unit of its own."""
    first = next(iter(rows.values()))[0]
    return len({unit for index, row in enumerate(first) for unit in _units(index, row)})


def _draws(record: Record, rows: paired.Seeds, repeats: int, seed: int) -> Floats:
    generator = np.random.default_rng([seed, int(record.key[:12], 16)])
    return paired.over_seeds(paired.draws(record.metric, rows, repeats, seed), generator)


def _units(index: int, row: Row) -> tuple[str, ...]:
    if "enrol" not in row:
        return (str(row.get("speaker") or f"\0{index}"),)
    first, second = row.get("speakers") or ("", "")
    return str(first or f"\0{row['enrol']}"), str(second or f"\0{row['test']}")
