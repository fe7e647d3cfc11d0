"""One cost of an upstream from the records that state it."""

from __future__ import annotations

import statistics

from leaderboards.board import Board


def median_cost(board: Board, upstream: str, what: str) -> float | None:
    """The median of one cost over an upstream's records; ``None`` where none states it."""
    values = [record.cost[what] for record in board.of(upstream) if record.cost[what] is not None]
    return float(statistics.median(values)) if values else None
