"""How much of its teacher's gain a student keeps: the table, with intervals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.show import face
from leaderboards.board import Board
from leaderboards.cells import task_labels
from leaderboards.render import EMPTY, Cell, Table
from leaderboards.resamples import NONE, Drawn, Resamples, limits
from leaderboards.tradeoff import kept


@dataclass(frozen=True)
class Share:
    """The share of a teacher's gain over a floor that a student keeps, in percent, with its 95 % interval."""

    value: float
    ci95: tuple[float, float] | None


def gain_kept(board: Board, drawn: Resamples = NONE) -> Table:
    """How much of its teacher's gain over each fixed feature or control a student keeps, fixed features first."""
    rows, facts = [], []
    for student, teacher, floor in _trios(board):
        shares = {task: share(board, drawn, task, student, teacher, floor) for task in board.tasks}
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
            "interval, all three resampled together; a dash where the teacher shows no gain over that floor beyond "
            "both 95 % intervals. Above 100: better than the teacher."
        ),
        header=("Student", *task_labels(board)),
        rows=tuple(rows),
        data=pd.DataFrame(facts),
        notes=drawn.notes if rows else (),
    )


def share(board: Board, drawn: Resamples, task: str, student: str, teacher: str, floor: str) -> Share | None:
    """The share on one task; ``None`` where the three cannot be compared or the teacher shows no gain."""
    fair = board.fair(task)
    if not {student, teacher, floor} <= fair.keys():
        return None
    value = kept(fair[student], fair[teacher], fair[floor], face(board.metric(task)).higher_is_better)
    if value is None:
        return None
    column = drawn.tasks.get(task)
    return Share(value, _interval(column, student, teacher, floor) if column and column.firm else None)


def _interval(column: Drawn, student: str, teacher: str, floor: str) -> tuple[float, float]:
    mine, theirs, none = column.among([student, teacher, floor])
    with np.errstate(divide="ignore", invalid="ignore"):
        return limits(100.0 * (mine - none) / (theirs - none))


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
