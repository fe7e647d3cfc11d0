"""Cells and column titles that several tables share."""

from __future__ import annotations

from collections.abc import Sequence

from harness.show import face, interval, number
from leaderboards.board import Board
from leaderboards.ranking import MEASURED_PRECISION, Shown, marks
from leaderboards.render import EMPTY, Cell

SCORES = (
    "Scores in percent, mean over seeds; best in bold, second underlined, unless the shown digits cannot tell; ↓ lower "
    "is better, ↑ higher is better."
)

SPEAKERS = "95 % bootstrap interval over test speakers of the mean over seeds; the spread of probe seeds is not in it"
"""What the intervals of records cover."""


def task_label(task: str, metric: str) -> str:
    """A task's column title: ``ASR WER ↓``."""
    shown = face(metric)
    return f"{task.upper()} {'Acc' if metric == 'accuracy' else shown.title} {shown.arrow}"


def task_labels(board: Board) -> tuple[str, ...]:
    """The column titles of all tasks."""
    return tuple(task_label(task, board.metric(task)) for task in board.tasks)


def score_cells(board: Board, names: Sequence[str], with_interval: bool = False) -> dict[tuple[str, str], Cell]:
    """The score cells of some upstreams, ranked within each task among those that can be compared.

    The marks are those of :func:`leaderboards.ranking.marks`.
    """
    cells = dict.fromkeys(((name, task) for name in names for task in board.tasks), EMPTY)
    for task in board.tasks:
        fair = {name: record for name, record in board.fair(task).items() if name in names}
        shown = {name: Shown(number(r.value), r.value, MEASURED_PRECISION) for name, r in fair.items()}
        ranks = marks(shown, face(board.metric(task)).higher_is_better)
        for name in names:
            record = board.cells.get((name, task))
            if record is not None:
                cells[name, task] = Cell(
                    text=number(record.value) + ("" if name in fair else "†"),
                    small=interval(record.ci95) if with_interval else "",
                    mark=ranks.get(name, ""),
                )
    return cells


def millions(count: float) -> str:
    """Millions, with two decimals."""
    return f"{count / 1e6:.2f}"
