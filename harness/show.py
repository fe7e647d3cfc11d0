"""Plain-text views of records for the terminal, and the number formats that every table and figure shares."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from harness.records import Record, own_seconds


@dataclass(frozen=True)
class Face:
    """How a metric is shown: a short title, the arrow that points to better, and the direction."""

    title: str
    arrow: str
    higher_is_better: bool


def face(metric: str) -> Face:
    """How a metric is shown: ``WER ↓``, ``accuracy ↑``.

    Raises:
        SlimbenchError: no metric has that name.
    """
    from harness import metrics

    higher = metrics.metric(metric).higher_is_better
    return Face(metric.upper() if len(metric) <= 4 else metric, "↑" if higher else "↓", higher)


def number(value: float) -> str:
    """A score in percent, as shown: one decimal, never ``-0.0``."""
    return f"{value + 0.0:.1f}" if round(value, 1) else "0.0"


def interval(ci95: Sequence[float]) -> str:
    """A 95 % interval, as shown: ``[12.3, 14.5]``."""
    return f"[{number(ci95[0])}, {number(ci95[1])}]"


def rate(value: float) -> str:
    """A learning rate, as shown: ``1e-3``, ``3.2e-4``."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def duration(seconds: float) -> str:
    """A wall time, as shown: ``7.3 s``, ``2 min 05 s``, ``1 h 02 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def console(records: Sequence[Record]) -> str:
    """Records as an aligned table for the terminal; what is the same in all of them is said once, above it."""
    if not records:
        return "No records."
    rows = []
    for record in records:
        look = face(record.metric)
        rows.append(
            {
                "suite": record.suite,
                "upstream": record.upstream["name"],
                "task": record.task,
                "metric": f"{look.title} {look.arrow}",
                "value": number(record.value),
                "95 % CI": interval(record.ci95),
                "rate": rate(record.learning_rate),
                "n test": str(record.n_test),
                "time": duration(own_seconds(record)),
            }
        )
    common = [name for name in ("suite", "upstream") if len({row[name] for row in rows}) == 1]
    title = " · ".join(f"{name} {printable(rows[0][name])}" for name in common)
    columns = [name for name in rows[0] if name not in common]
    return "\n".join(([title, ""] if title else []) + _aligned(columns, [[row[c] for c in columns] for row in rows]))


def printable(text: str) -> str:
    """Text without control characters, so that a name cannot steer the terminal."""
    return "".join(" " if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") else char for char in text)


_LEFT = frozenset({"suite", "upstream", "task", "metric"})


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Text columns left, number columns right, two spaces between."""
    table = [list(header), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if name in _LEFT else cell.rjust(width)
            for cell, width, name in zip(row, widths, header, strict=True)
        ).rstrip()
        for row in table
    ]
    return [lines[0], "  ".join("─" * width for width in widths), *lines[1:]]
