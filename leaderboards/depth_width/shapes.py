"""Depth against width: which students can be compared at equal size, and what a layer or a unit of width is worth.

At a constant number of parameters depth and width are no independent axes: a student that has more layers is narrower.
A slope over depth is therefore the price of the exchange, not the worth of a layer that comes for free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from harness.show import face, number
from leaderboards.board import TASK_ORDER, Board, is_control
from leaderboards.depth_width import trainings
from leaderboards.depth_width.families import Budget, Column, Family, Member
from leaderboards.groups import GROUPS, own
from leaderboards.published import PUBLISHED, Row
from leaderboards.resamples import Floats, Resamples
from leaderboards.uncertainty import Part, interval

STEPS: Mapping[str, tuple[str, Callable[[Member], float]]] = MappingProxyType(
    {
        "layer": ("per added layer", lambda member: float(member.depth)),
        "doubling": ("per doubling of depth", lambda member: math.log2(member.depth)),
        "width": ("per 100 of width", lambda member: member.width / 100.0),
    }
)
"""What a gain is counted by: its words, and what scores are regressed on."""

TOLERANCE = 0.05
"""Students are of one budget where the largest has at most this share more parameters than the smallest."""

PUBLISHED_TOLERANCE = 0.15
"""Of published students, of which no pair is closer than 9 %."""


@dataclass(frozen=True)
class Gain:
    """The slope of a score over the shapes of one budget, towards better, in points per step.

    ``ci95`` is ``None`` where nothing can be resampled, else the t-interval that ``parts`` give; ``shapes`` is the
    number of students it rests on. ``task`` may be a group of :data:`leaderboards.groups.GROUPS`.
    """

    task: str
    step: str
    value: float
    ci95: tuple[float, float] | None
    shapes: int
    parts: tuple[Part, ...] = field(default=(), compare=False, repr=False)


def measured_families(board: Board) -> list[Family]:
    """The upstreams of a board that state depth and width, by teacher, family and method of their cards.

    Controls are apart, and so are students whose cards name no method (records from before there was that field).
    """
    grouped: dict[tuple[str, str, str, bool], list[Member]] = {}
    for name in board.learned():
        record = board.any_of(name)
        facts = record.upstream
        if facts["depth"] and facts["width"]:
            method = facts.get("method", "")
            member = Member(name, int(facts["depth"]), int(facts["width"]), float(record.cost["params"]), method)
            key = (facts["teacher"] or "", facts["family"], method, is_control(record))
            grouped.setdefault(key, []).append(member)
    return _families(
        (_called(teacher, kind, control) + f", {method}" * bool(method), teacher, members, method)
        for (teacher, kind, method, control), members in grouped.items()
    )


def _called(teacher: str, kind: str, control: bool) -> str:
    if teacher:
        return f"{kind} students of {teacher}"
    return f"{kind}, untrained" if control else f"{kind}, without teacher"


def published_families(rows: Iterable[Row]) -> list[Family]:
    """Published rows that state layers, width and parameters, by teacher and by the first word of their names."""
    grouped: dict[tuple[str, str], list[Member]] = {}
    for row in rows:
        params = row.value("params_m")
        if row.layers and row.width and params:
            member = Member(row.system, row.layers, row.width, params * 1e6, row.distilled_by or "unknown")
            grouped.setdefault((row.teacher or "", row.system.split()[0]), []).append(member)
    return _families(
        (f"{kind} students of {teacher}", teacher, members, "") for (teacher, kind), members in grouped.items()
    )


def budgets(family: Family, tolerance: float = TOLERANCE) -> list[Budget]:
    """The budgets of a family, by rising parameters; nobody is in two of them.

    The largest set within the tolerance is taken first (of equally large ones the tightest), then the largest of the
    rest. Sets of a single depth are none.
    """
    rest = sorted(family.members, key=lambda member: (member.params, member.depth, member.name))
    found: list[Budget] = []
    while rest:
        runs = [[m for m in rest[i:] if m.params <= rest[i].params * (1.0 + tolerance)] for i in range(len(rest))]
        best = max(runs, key=lambda run: (len(run), -run[-1].params / run[0].params))
        rest = [member for member in rest if member not in best]
        if len({member.depth for member in best}) > 1:
            found.append(Budget(family, tuple(sorted(best, key=lambda m: (m.depth, m.width, m.name)))))
    return sorted(found, key=lambda budget: budget.ends)


def measured_columns(board: Board, drawn: Resamples) -> list[Column]:
    """The comparable scores of each task of a board, with their joint resamples where there are some."""
    found = []
    for task in board.tasks:
        values = {name: record.value for name, record in board.fair(task).items()}
        column = drawn.tasks.get(task)
        shown = face(board.metric(task))
        title = f"{shown.title} {shown.arrow}"
        firm = column if column is not None and column.firm else None
        found.append(Column(task, title, shown.higher_is_better, values, drawn=firm))
    return found


def published_columns(rows: Iterable[Row]) -> list[Column]:
    """The published scores of the seven tasks that this project has, in percent; tasks without any are left out."""
    listed = list(rows)
    found = []
    for task in TASK_ORDER:
        name = next((n for row in listed for n in row.metrics() if n.split(".")[0] == task and n != "asr.wer_lm"), None)
        if name is None:
            continue
        there = {row.system: row.values[name] for row in listed if name in row.values}
        values = {system: value.quantity.percent(value.value) for system, value in there.items()}
        signs = {system: value.mark.sign for system, value in there.items()}
        shown = face(name.rpartition(".")[2])
        found.append(
            Column(task, f"{shown.title} {shown.arrow}", shown.higher_is_better, values, PUBLISHED, signs)
        )  # fmt: skip
    return found


def gain(budget: Budget, column: Column, step: str) -> Gain | None:
    """The slope of a task's score over one budget, by least squares; with two shapes it is their difference.

    Several trainings of a shape count as their mean. The interval is of test speakers, of probe seeds and, where a
    shape was trained more than once, of trainings; it knows nothing of other shapes. ``None`` where fewer than two
    depths or widths have a score.
    """
    there = trainings.groups(budget.members, column.values)
    at = np.asarray([STEPS[step][1](trained[0]) for trained in there])
    if len(set(at.tolist())) < 2:
        return None
    sign = 1.0 if column.higher_is_better else -1.0
    slopes = sign * slope(at, np.eye(len(at)))
    weights = {m.name: float(w) / len(trained) for trained, w in zip(there, slopes, strict=True) for m in trained}
    value = math.fsum(weight * column.values[name] for name, weight in weights.items())
    parts = sources(budget, column, weights)
    ci95 = interval(value, parts) if parts else None
    return Gain(column.task, step, value, ci95, len({trained[0].shape for trained in there}), parts)


def sources(budget: Budget, column: Column, weights: Mapping[str, float]) -> tuple[Part, ...]:
    """The sources of error of a weighted sum of scores of a budget's members; none where nothing can be resampled.

    Args:
        budget: the members.
        column: their scores.
        weights: by member, its factor in the sum.
    """
    if column.drawn is None or not weights.keys() <= column.drawn.values.keys():
        return ()
    there = trainings.groups(budget.members, column.values)
    scores = [[column.values[member.name] for member in trained] for trained in there]
    return (*column.drawn.parts(weights), *trainings.spread(scores, weights))


def group_gains(gains: Iterable[Gain | None]) -> list[Gain | None]:
    """The mean gain over each group that can have two tasks, content and speaker; ``None`` where fewer have a gain.

    The tasks of a group count alike, in percentage points of their own metrics, and are taken as independent.
    """
    found = []
    listed = [made for made in gains if made is not None]
    for group in GROUPS:
        if len(own(group)) < 2:
            continue
        mine = [made for made in listed if made.task in own(group)]
        found.append(_mean_gain(group, mine) if len(mine) > 1 else None)
    return found


def _mean_gain(group: str, gains: Sequence[Gain]) -> Gain:
    value = float(np.mean([made.value for made in gains]))
    known = all(made.parts for made in gains)
    parts = tuple(part.times(1.0 / len(gains)) for made in gains for part in made.parts) if known else ()
    ci95 = interval(value, parts) if parts else None
    return Gain(group, gains[0].step, value, ci95, min(made.shapes for made in gains), parts)


def slope(x: Floats, y: Floats) -> Floats:
    """Least-squares slopes of each column of ``y`` (k, n) over ``x`` (k,): (n,)."""
    centred = x - x.mean()
    return np.asarray(centred @ y / (centred @ centred), dtype=np.float64)


def cautions(found: Sequence[Budget]) -> list[str]:
    """What hinders a comparison of shapes: students of one budget that were made in different ways."""
    notes = []
    for budget in found:
        methods = list(dict.fromkeys(member.method for member in budget.members))
        if len(methods) > 1:
            made = ", ".join(methods)
            notes.append(f"{budget.family.name}, {budget.size}: made in different ways: {made}.")
    return notes


def best_of(budget: Budget, column: Column) -> frozenset[str]:
    """The members with the best score as it is shown; nobody where fewer than two have one, or all have the same."""
    there = {m.name: float(number(column.values[m.name])) for m in budget.members if m.name in column.values}
    if len(set(there.values())) < 2:
        return frozenset()
    best = (max if column.higher_is_better else min)(there.values())
    return frozenset(name for name, value in there.items() if value == best)


def _families(grouped: Iterable[tuple[str, str, list[Member], str]]) -> list[Family]:
    return [
        Family(name, teacher, tuple(sorted(members, key=lambda m: (m.params, m.depth, m.name))), method)
        for name, teacher, members, method in grouped
        if len({member.shape for member in members}) > 1
    ]
