"""Cells and column titles that several tables share."""

from __future__ import annotations

from collections.abc import Sequence

from harness.show import face, interval, number
from leaderboards.board import Board
from leaderboards.render import EMPTY, Cell

SCORES = "Scores in percent, mean over seeds; best in bold, second underlined; ↓ lower is better, ↑ higher is better."


def task_label(task: str, metric: str) -> str:
    """A task's column title: ``ASR WER ↓``."""
    shown = face(metric)
    return f"{task.upper()} {'Acc' if metric == 'accuracy' else shown.title} {shown.arrow}"


def task_labels(board: Board) -> tuple[str, ...]:
    """The column titles of all tasks."""
    return tuple(task_label(task, board.metric(task)) for task in board.tasks)


def score_cells(board: Board, names: Sequence[str], with_interval: bool = False) -> dict[tuple[str, str], Cell]:
    """The score cells of some upstreams, ranked within each task among those that can be compared.

    Equal shown values share a mark; nothing is marked where there is nothing to compare with.
    """
    cells = dict.fromkeys(((name, task) for name in names for task in board.tasks), EMPTY)
    for task in board.tasks:
        fair = {name: number(record.value) for name, record in board.fair(task).items() if name in names}
        order = sorted(set(fair.values()), key=float, reverse=face(board.metric(task)).higher_is_better)
        for name in names:
            record = board.cells.get((name, task))
            if record is None:
                continue
            text = number(record.value)
            place = order.index(text) if name in fair and len(fair) > 1 else 2
            cells[name, task] = Cell(
                text=text if name in fair else f"{text}†",
                small=interval(record.ci95) if with_interval else "",
                mark="best" if place == 0 else "second" if place == 1 else "",
            )
    return cells


def millions(count: float) -> str:
    """Millions, with two decimals."""
    return f"{count / 1e6:.2f}"
