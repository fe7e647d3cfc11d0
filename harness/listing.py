"""What ``slimbench list`` shows. No model and no task is imported, unless heads are to be counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness import registry, suite
from harness.interface import Task

_FIELDS = "name title family depth width precision teacher licence source exposes".split()
_LONG = frozenset({"about", "exposes", "licence", "source", "file", "teacher", "precision", "missing", "packaged"})
"""What only the JSON form shows."""


def upstreams(available: bool) -> list[dict[str, Any]]:
    """All cards, or those whose weights are here; ``missing`` says what to do for weights that are not."""
    rows = []
    for card in registry.cards().values():
        missing = registry.missing(card)
        if missing is None or not available:
            row = {field: getattr(card, field) for field in _FIELDS} | {"available": missing is None}
            rows.append(row | {"missing": missing, "packaged": card.packaged, "file": str(card.file)})
    return rows


def tasks(width: int | None) -> list[dict[str, Any]]:
    """All tasks; given a width, with the parameters of SUPERB's head on it, layer weights not counted."""
    rows = []
    for name in registry.task_names():
        task = registry.task(name)
        row: dict[str, Any] = {"name": name, "title": task.title, "metric": task.metric, "need": task.need}
        row["superb_labels"] = task.superb_labels
        if width is not None:
            row |= {"width": width, "head_parameters": _head_parameters(task, width)}
        rows.append(row)
    return rows


def _head_parameters(task: Task, width: int) -> int:
    """Parameters of the head at SUPERB's label count, without making them."""
    import torch

    with torch.device("meta"):
        head = task.head(width, task.superb_labels, {})
    return sum(parameter.numel() for parameter in head.parameters())


def suites() -> list[dict[str, Any]]:
    """All suites."""
    rows = []
    for name in registry.suite_files():
        found = suite.load(name)
        needs_data = found.builder is None
        rows.append(
            {
                "name": name,
                "title": found.title,
                "needs_data": needs_data,
                "protocols": list(found.protocols),
                "tasks": list(found.tasks),
                "about": found.about,
            }
        )
    return rows


def text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as aligned columns, then what to do for weights that are missing; long fields are left to the JSON form."""
    shown = [key for key in rows[0] if key not in _LONG] if rows else []
    table = [shown, *([_cell(row[key]) for key in shown] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in table]
    return "\n".join([*lines, *_missing(rows)])


def _missing(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence per card of the user's own whose weights are not here, and one for all that came with a package."""
    lacking = [row for row in rows if row.get("missing")]
    own = [f"The weights of {row['name']} are not here: {row['missing']}." for row in lacking if not row["packaged"]]
    others = len(lacking) - len(own)
    where = "`slimbench list upstreams --json` says under `missing` where each gets them"
    return [*own, f"The weights of {others} packaged upstreams are not here; {where}."] if others else own


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "-" if value is None else str(value)
