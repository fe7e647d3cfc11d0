"""Depth against width as tables: students of equal size side by side, and the gain per step with its interval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd

from harness.show import number
from leaderboards import letters
from leaderboards.board import Board
from leaderboards.cells import millions, task_labels
from leaderboards.depth_width.families import Budget, Column, Member
from leaderboards.depth_width.shapes import (
    PUBLISHED_TOLERANCE,
    STEPS,
    TOLERANCE,
    Gain,
    best_of,
    budgets,
    cautions,
    gain,
    group_gains,
    measured_columns,
    measured_families,
    published_columns,
    published_families,
)
from leaderboards.published import Row
from leaderboards.published.marks import footnotes, of_signs
from leaderboards.render import EMPTY, Cell, Table
from leaderboards.resamples import Resamples

GAIN = (
    "Least-squares slope of the score over the students of one budget, in points towards better (above 0: more is "
    "better). At equal parameters a deeper student is narrower, so this is what the exchange is worth, not a layer for "
    "free; with two shapes it is their difference. Group means are over those shown of content: "
    "ASR, PR, KS; speaker: SID, ASV."
)
INTERVAL = (
    "Small: 95 % t-interval over test speakers, the same for all shapes, probe seeds and, in a budget that has several "
    "trainings of a shape (which count as their mean), the spread between these; other shapes are not in it."
)


def families(board: Board, drawn: Resamples, tolerance: float = TOLERANCE) -> list[Table]:
    """The measured students by budget, and the gains; both without rows where no two shapes are of one budget."""
    found = [budget for family in measured_families(board) for budget in budgets(family, tolerance)]
    columns = measured_columns(board, drawn)
    labels = task_labels(board)
    where = f"Suite {board.suite}. {_named(found)}"
    about = f"{where}{_same(tolerance)} Letters hold within a budget. {letters.ABOUT}"
    return [
        _students(found, columns, labels, about, board.suite, drawn),
        _gains(found, columns, labels, f"{where}{GAIN} {INTERVAL}", board.suite, drawn.notes),
    ]


def published_tables(rows: Sequence[Row], tolerance: float = PUBLISHED_TOLERANCE) -> list[Table]:
    """The same of published rows, marked as such and without intervals."""
    found = [budget for family in published_families(rows) for budget in budgets(family, tolerance)]
    columns = published_columns([row for row in rows if any(_has(budget, row.system) for budget in found)])
    labels = [f"{column.task.upper()} {column.title.replace('accuracy', 'Acc')}" for column in columns]
    signs = {sign for column in columns for sign in column.signs.values()}
    notes = [*cautions(found), *footnotes([columns[0].origin] if columns else [], of_signs(signs))]
    about = f"Published by others. {_named(found)}"
    made = [
        _students(found, columns, labels, about + _same(tolerance), "published"),
        _gains(found, columns, labels, f"{about}{GAIN} No intervals can be known.", "published"),
    ]
    return [replace(table, title=f"{table.title}, published", notes=tuple(notes)) for table in made]


def _named(found: Sequence[Budget]) -> str:
    """Which families the rows are of."""
    names = dict.fromkeys(budget.family.name for budget in found)
    return f"Families: {'; '.join(names)}. "


def _same(tolerance: float) -> str:
    return (
        f"Students of one teacher and family whose parameters differ by at most {100 * tolerance:g} %; scores in "
        "percent, the best of a budget in bold."
    )


def _has(budget: Budget, system: str) -> bool:
    return any(member.name == system for member in budget.members)


def _students(
    found: Sequence[Budget],
    columns: Sequence[Column],
    labels: Sequence[str],
    caption: str,
    suite: str,
    drawn: Resamples | None = None,
) -> Table:
    rows, facts = [], []
    for budget in found:
        signs = _letters(budget, drawn)
        for member in budget.members:
            cells = [_score(budget, member, column, signs.get((member.name, column.task), "")) for column in columns]
            shape = [Cell(str(member.depth)), Cell(str(member.width)), Cell(millions(member.params))]
            sign = columns[0].origin.sign if columns else ""
            rows.append((Cell(f"{budget.label(found)}: {member.name}{sign}"), *shape, *cells))
            facts += [
                {
                    **_who(suite, budget),
                    "upstream": member.name,
                    "depth": member.depth,
                    "width": member.width,
                    "params": member.params,
                    "task": column.task,
                    "value": column.values.get(member.name),
                    "letters": signs.get((member.name, column.task), ""),
                    "origin": column.origin.name,
                }
                for column in columns
            ]
    return Table(
        name="budgets",
        title="Depth versus width at equal size",
        caption=caption,
        header=("Parameters: student", "Depth", "Width", "Params (M)", *labels),
        rows=tuple(rows),
        data=pd.DataFrame(facts),
    )


def _letters(budget: Budget, drawn: Resamples | None) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for task, column in (drawn.tasks if drawn else {}).items():
        names = [member.name for member in budget.members if member.name in column.values]
        if len(names) > 1 and column.firm:
            found |= {(name, task): sign for name, sign in letters.column_signs(column, names).items()}
    return found


def _score(budget: Budget, member: Member, column: Column, sign: str) -> Cell:
    if member.name not in column.values:
        return EMPTY
    shown = number(column.values[member.name])
    won = member.name in best_of(budget, column)
    text = shown + column.signs.get(member.name, "")
    return Cell(text, mark="best" if won else "", letters=sign)


def _gains(
    found: Sequence[Budget],
    columns: Sequence[Column],
    labels: Sequence[str],
    caption: str,
    suite: str,
    notes: Sequence[str] = (),
) -> Table:
    rows, facts = [], []
    origin = columns[0].origin.name if columns else ""
    for budget in found:
        for step, (words, _) in STEPS.items():
            single = [gain(budget, column, step) for column in columns]
            gains = [*single, *group_gains(single)]
            shapes = max((made.shapes for made in gains if made), default=0)
            sign = columns[0].origin.sign if columns else ""
            who = f"{budget.label(found)}{sign}, {shapes} shapes: {words}"
            rows.append((Cell(who), *map(_gain, gains)))
            facts += list(_gain_facts(suite, budget, gains, origin))
    return Table(
        name="gains",
        title="What depth and width are worth at equal size",
        caption=caption,
        header=("Budget", *(label.rsplit(" ", 1)[0] for label in labels), "Content mean", "Speaker mean"),
        rows=tuple(rows),
        data=pd.DataFrame(facts),
        notes=tuple(notes) if rows else (),
    )


def _gain(found: Gain | None) -> Cell:
    if found is None:
        return EMPTY
    small = f"[{signed(found.ci95[0])}, {signed(found.ci95[1])}]" if found.ci95 else ""
    return Cell(signed(found.value), small)


def signed(value: float) -> str:
    """A difference with its sign and two decimals, never ``+0.00`` for something that is not 0 but for its rounding."""
    return f"{value:+.2f}".replace("-", "−")


def _gain_facts(suite: str, budget: Budget, gains: Sequence[Gain | None], origin: str) -> Iterator[dict[str, object]]:
    for made in gains:
        if made is not None:
            low, high = made.ci95 or (None, None)
            yield {
                **_who(suite, budget),
                "task": made.task,
                "step": STEPS[made.step][0],
                "gain": made.value,
                "ci95_low": low,
                "ci95_high": high,
                "shapes": made.shapes,
                "origin": origin,
            }


def _who(suite: str, budget: Budget) -> dict[str, object]:
    return {"suite": suite, "family": budget.family.name, "teacher": budget.family.teacher, "budget": budget.size}
