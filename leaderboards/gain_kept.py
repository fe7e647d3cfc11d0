"""How much of its teacher's gain a student keeps: the table, with intervals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from leaderboards.board import Board
from leaderboards.cells import task_labels
from leaderboards.letters import ahead
from leaderboards.render import EMPTY, Cell, Table
from leaderboards.resamples import NONE, Drawn, Resamples
from leaderboards.tradeoff import kept
from leaderboards.uncertainty import interval


@dataclass(frozen=True)
class Share:
    """The share of a teacher's gain over a floor that a student keeps, in percent, with its 95 % interval."""

    value: float
    ci95: tuple[float, float] | None


def gain_kept(board: Board, drawn: Resamples = NONE) -> Table:
    """How much of its teacher's gain over each fixed feature or control a student keeps, fixed features first."""
    rows, facts = [], []
    gains = {task: ahead(column) for task, column in drawn.tasks.items()}
    for student, teacher, floor in _trios(board):
        shares = {
            task: share(drawn.tasks[task], student, teacher, floor) if (teacher, floor) in gains.get(task, ()) else None
            for task in board.tasks
        }
        rows.append((Cell(f"{student} over {floor}"), *map(_cell, shares.values())))
        for task, found in shares.items():
            low, high = (found and found.ci95) or (None, None)
            facts.append(
                {
                    "suite": board.suite,
                    "student": student,
                    "teacher": teacher,
                    "over": floor,
                    "task": task,
                    "kept": found and found.value,
                    "ci95_low": low,
                    "ci95_high": high,
                }
            )
    return Table(
        name="gain_kept",
        title="Share of the teacher's gain kept",
        caption=(
            f"Suite {board.suite}. (student − floor) / (teacher − floor) of the scores, in percent; small: 95 % "
            "t-interval over test speakers, the same for all three, and probe seeds; a dash where the teacher shows no "
            "gain over that floor by the test of the letters. Above 100: better than the teacher."
        ),
        header=("Student", *task_labels(board)),
        rows=tuple(rows),
        data=pd.DataFrame(facts),
        notes=drawn.notes if rows else (),
    )


def share(column: Drawn, student: str, teacher: str, floor: str) -> Share | None:
    """The share on one task; ``None`` where the student has no comparable score. The teacher differs from the floor.

    The interval is that of the numerator less the share of the denominator, a sum of the three scores (delta method).
    """
    if student not in column.values:
        return None
    mine, theirs, none = (column.values[name] for name in (student, teacher, floor))
    value = kept(mine, theirs, none)
    step = 100.0 / (theirs - none)
    ratio = value / 100.0
    weights = {student: step, teacher: -step * ratio, floor: -step * (1.0 - ratio)}
    return Share(value, interval(value, column.parts(weights)) if column.firm else None)


def _trios(board: Board) -> Iterator[tuple[str, str, str]]:
    """Student, its teacher, and what both are measured against."""
    for student in board.upstreams:
        teacher = board.any_of(student).upstream["teacher"]
        if teacher in board.teachers():
            for floor in (*board.fixed(), *board.controls()):
                if floor not in (student, teacher):
                    yield student, teacher, floor


def _cell(found: Share | None) -> Cell:
    if found is None:
        return EMPTY
    small = f"[{found.ci95[0]:.0f}, {found.ci95[1]:.0f}]" if found.ci95 else ""
    return Cell(f"{found.value:.0f} %", small)
