"""Which records one suite's tables and figures show, and in which order. Nothing is left out in silence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.interface import TrainingProtocol
from harness.records import Record
from harness.suite import OWN
from leaderboards.groups import OWN_TASKS

TASK_ORDER = OWN_TASKS
"""By group; other tasks follow by name."""

CONTROL_FAMILIES = frozenset({"random", "control"})
"""Card families of untrained networks; a name that begins with ``random`` says the same."""


@dataclass(frozen=True)
class Board:
    """The records of one suite, one per upstream and task.

    Attributes:
        cells: the newest record of each (upstream, task).
        upstreams: names; fixed features first, then untrained controls, then the rest by rising number of parameters.
        tasks: names in the order of the columns.
        odd: cells measured under another protocol or on other data than the most of their task. They are shown with
            a mark and take part in no comparison.
        notes: sentences that say what was left out or is not comparable.
    """

    suite: str
    cells: dict[tuple[str, str], Record]
    upstreams: tuple[str, ...]
    tasks: tuple[str, ...]
    odd: frozenset[tuple[str, str]] = frozenset()
    notes: tuple[str, ...] = field(default=())

    def any_of(self, upstream: str) -> Record:
        """The newest record of an upstream, for facts that all its records share."""
        return max(self.of(upstream), key=_age)

    def of(self, upstream: str) -> list[Record]:
        """The records of an upstream, in the order of the tasks."""
        return [self.cells[upstream, task] for task in self.tasks if (upstream, task) in self.cells]

    def fair(self, task: str) -> dict[str, Record]:
        """The comparable records of one task, by upstream, in the order of the upstreams."""
        return {
            name: self.cells[name, task]
            for name in self.upstreams
            if (name, task) in self.cells and (name, task) not in self.odd
        }

    def metric(self, task: str) -> str:
        """The main metric of a task."""
        return next(iter(self.fair(task).values())).metric

    def learned(self) -> tuple[str, ...]:
        """The upstreams that have parameters."""
        return tuple(name for name in self.upstreams if self.any_of(name).cost["params"] > 0)

    def fixed(self) -> tuple[str, ...]:
        """The upstreams without parameters, such as filter banks."""
        return tuple(name for name in self.upstreams if name not in self.learned())

    def teachers(self) -> tuple[str, ...]:
        """The upstreams here that another one here names as its teacher."""
        named = {self.any_of(name).upstream["teacher"] for name in self.upstreams}
        return tuple(name for name in self.upstreams if name in named)

    def controls(self) -> tuple[str, ...]:
        """The untrained networks."""
        return tuple(name for name in self.learned() if is_control(self.any_of(name)))


def is_control(record: Record) -> bool:
    """Whether the record's upstream is an untrained network."""
    return record.upstream["family"] in CONTROL_FAMILIES or record.upstream["name"].startswith("random")


def boards(records: Iterable[Record]) -> list[Board]:
    """One board per suite and protocol, by name; a suite with a single protocol goes by its own name."""
    grouped: dict[str, list[Record]] = {}
    for record in records:
        protocol = record.data.get("protocol", OWN)
        name = record.suite if protocol == OWN else f"{record.suite}-{protocol}"
        grouped.setdefault(name, []).append(record)
    return [board(suite, grouped[suite]) for suite in sorted(grouped)]


def board(suite: str, records: Sequence[Record]) -> Board:
    """The board of one suite.

    Per upstream only the newest weights (by fingerprint) are shown, per task the newest record of these.
    """
    current, notes = _current_weights(records)
    cells: dict[tuple[str, str], Record] = {}
    for record in sorted(current, key=_age):
        cells[record.upstream["name"], record.task] = record
    older = len(current) - len(cells)
    if older:
        notes.append(f"{older} older record(s) of the same upstream and task are not shown; the newest is.")
    odd, strange = _odd_ones(cells)
    return Board(
        suite=suite,
        cells=cells,
        upstreams=tuple(sorted({name for name, _ in cells}, key=lambda name: _upstream_order(name, cells))),
        tasks=tuple(sorted({task for _, task in cells}, key=task_order)),
        odd=odd,
        notes=(*notes, *strange),
    )


def task_order(task: str) -> tuple[int, str]:
    """Sort key of a task's column."""
    return (TASK_ORDER.index(task) if task in TASK_ORDER else len(TASK_ORDER), task)


def _age(record: Record) -> tuple[str, str]:
    return (record.created, record.key)


def _upstream_order(name: str, cells: dict[tuple[str, str], Record]) -> tuple[int, int, int, str]:
    record = max((r for (owner, _), r in cells.items() if owner == name), key=_age)
    rank = 0 if record.cost["params"] == 0 else 1 if is_control(record) else 2
    return (rank, record.cost["params"], record.upstream["depth"] or 0, name)


def _current_weights(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """The records of each upstream's newest fingerprint, and a note on every other."""
    newest: dict[str, str] = {}
    for record in sorted(records, key=_age):
        newest[record.upstream["name"]] = record.upstream["fingerprint"]
    kept = [r for r in records if r.upstream["fingerprint"] == newest[r.upstream["name"]]]
    left = Counter(r.upstream["name"] for r in records if r.upstream["fingerprint"] != newest[r.upstream["name"]])
    notes = [
        f"{count} record(s) of {name} come from other weights under this name and are not shown."
        for name, count in sorted(left.items())
    ]
    return kept, notes


def _conditions(record: Record) -> str:
    """What must agree for two upstreams to be compared on a task."""
    facts = [record.metric, _rules(record), _setting(record), len(record.seeds)]
    return json.dumps(facts, sort_keys=True)


def _rules(record: Record) -> dict[str, Any]:
    """The protocol without settings at neutral values, which records of earlier versions do not state."""
    neutral = json.loads(json.dumps(TrainingProtocol.neutral()))
    stated = json.loads(json.dumps(record.protocol))
    return {name: value for name, value in stated.items() if name not in neutral or value != neutral[name]}


def _setting(record: Record) -> dict[str, Any]:
    """The data, without the protocol's name, by which boards are kept apart already."""
    return {name: value for name, value in record.data.items() if name != "protocol"}


def _odd_ones(cells: dict[tuple[str, str], Record]) -> tuple[frozenset[tuple[str, str]], list[str]]:
    """Cells that differ from the most common conditions of their task (a tie goes to the newer record)."""
    odd: set[tuple[str, str]] = set()
    notes = []
    for task in sorted({task for _, task in cells}, key=task_order):
        column = {name: record for (name, owner), record in cells.items() if owner == task}
        count = Counter(_conditions(record) for record in column.values())
        newest = {_conditions(record): _age(record) for record in sorted(column.values(), key=_age)}
        usual = max(count, key=lambda facts: (count[facts], newest[facts]))
        strange = sorted(name for name, record in column.items() if _conditions(record) != usual)
        if strange:
            odd |= {(name, task) for name in strange}
            notes.append(
                f"† {', '.join(strange)} on {task}: other protocol, seeds or data than the rest of the column; "
                "not comparable, run it again."
            )
    return frozenset(odd), notes
