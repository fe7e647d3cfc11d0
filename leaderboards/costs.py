"""One cost of an upstream from the records that state it; times only from one and the same machine.

A real-time factor depends on the device, its threads and the processor. Only those of the condition that is most usual
on a board are shown and drawn; all others are left out and named.
"""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass

from harness.records import Record
from leaderboards.board import Board

TIMED = frozenset({"real_time_factor"})
"""Costs that depend on the machine."""


@dataclass(frozen=True, order=True)
class Condition:
    """What a time was taken on; ``processor`` is empty where the record does not say."""

    device: str
    threads: int | None
    processor: str

    def __str__(self) -> str:
        """In words: ``cpu, 2 threads, Some Processor``."""
        threads = f"{self.threads} thread{'s' if self.threads != 1 else ''}" if self.threads else ""
        return ", ".join(filter(None, [self.device, threads, self.processor or "processor not stated"]))


def condition(record: Record) -> Condition:
    """What the times of a record were taken on."""
    cost = record.cost
    return Condition(str(cost["device"]), cost.get("threads"), str(record.provenance.get("processor") or ""))


def usual(board: Board) -> Condition | None:
    """The condition of most upstreams' timed records, of a tie that of the most records, then the first by name.

    ``None`` where no record states a time.
    """
    timed = [record for record in board.cells.values() if record.cost["real_time_factor"] is not None]
    upstreams = Counter(where for _, where in {(record.upstream["name"], condition(record)) for record in timed})
    count = Counter(map(condition, timed))
    return min(count, key=lambda where: (-upstreams[where], -count[where], where.device, str(where)), default=None)


def median_cost(board: Board, upstream: str, what: str) -> float | None:
    """The median of one cost over an upstream's records; ``None`` where none states it under the usual condition."""
    there = board.of(upstream)
    if what in TIMED:
        same = usual(board)
        there = [record for record in there if condition(record) == same]
    values = [record.cost[what] for record in there if record.cost[what] is not None]
    return float(statistics.median(values)) if values else None


def timing(board: Board) -> str:
    """The words of captions: on what the times shown were taken."""
    same = usual(board)
    return f"on {same}" if same else "not measured"


def other_times(board: Board) -> list[str]:
    """Sentences on the times that are left out."""
    notes = []
    for name in board.upstreams:
        stated = [record for record in board.of(name) if record.cost["real_time_factor"] is not None]
        other = sorted({str(condition(record)) for record in stated if condition(record) != usual(board)})
        if other:
            left = "is not shown" if median_cost(board, name, "real_time_factor") is None else "is left out"
            notes.append(f"The real-time factor of {name} that was measured on {' and on '.join(other)} {left}.")
    return notes
