"""The unrounded numbers behind tables and figures: one line per record, with the key that leads back to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from harness.records import Record
from harness.show import rate
from leaderboards.board import Board


def frame(board: Board, names: Sequence[str], *facts: Callable[[Record], dict[str, Any]]) -> pd.DataFrame:
    """One line per record of these upstreams: who, on what, the facts, and the key that leads back to the record."""
    lines = []
    for name in names:
        for record in board.of(name):
            line: dict[str, Any] = {"suite": board.suite, "upstream": name, "task": record.task}
            for fact in facts:
                line |= fact(record)
            lines.append({**line, "comparable": (name, record.task) not in board.odd, "key": record.key})
    return pd.DataFrame(lines)


def score_facts(record: Record) -> dict[str, Any]:
    """Scores, intervals and counts."""
    facts: dict[str, Any] = {
        "metric": record.metric,
        "value": record.value,
        "ci95_low": record.ci95[0],
        "ci95_high": record.ci95[1],
        "n_test": record.n_test,
        "seeds": len(record.seeds),
    }
    for name, entry in record.secondary.items():
        facts |= {name: entry["value"], f"{name}_ci95_low": entry["ci95"][0], f"{name}_ci95_high": entry["ci95"][1]}
    return facts


def shape_facts(record: Record) -> dict[str, Any]:
    """Depth, width and parameters."""
    return {name: record.upstream[name] for name in ("depth", "width")} | {"params": record.cost["params"]}


def cost_facts(record: Record) -> dict[str, Any]:
    """All costs."""
    return dict(record.cost)


def time_facts(record: Record) -> dict[str, Any]:
    """What was encoded, and wall seconds per stage."""
    return dict(record.features) | {f"seconds_{stage}": value for stage, value in record.seconds.items()}


def rate_facts(record: Record) -> dict[str, Any]:
    """The chosen learning rate and the grid it was chosen from."""
    grid = sorted({trial["learning_rate"] for trial in record.trials})
    return {"learning_rate": record.learning_rate, "grid": " ".join(map(rate, grid)), "at_edge": at_edge(record)}


def at_edge(record: Record) -> bool:
    """Whether the chosen learning rate is the lowest or highest that was tried."""
    grid = sorted({trial["learning_rate"] for trial in record.trials})
    return len(grid) > 1 and record.learning_rate in (grid[0], grid[-1])
