"""The layer-weight figure: which states of an upstream each task reads."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.records import Record
from leaderboards.board import Board
from leaderboards.style import WIDTH, Plot, plain

ROW_STATES = 30
"""So many states fit side by side at full width with a readable number in each cell."""


def layer_weights(board: Board) -> Plot | None:
    """Heat maps tasks by states, one per upstream with more than one state: mean weight over seeds, in percent."""
    names = [name for name in board.upstreams if board.any_of(name).upstream["num_states"] > 1]
    if not names:
        return None
    weights = {name: _matrix(board, name) for name in names}
    room = {name: max(float(matrix.shape[1]), 0.34 * len(name)) for name, matrix in weights.items()}
    rows = _pack(room)
    widest = max(sum(room[name] for name in row) for row in rows)
    height = 0.4 + 0.17 * len(board.tasks)
    figure = Figure(figsize=(WIDTH, height * len(rows) + 0.2), layout="constrained")
    top = max(float(np.nanmax(matrix)) for matrix in weights.values())
    for band, row in zip(figure.subfigures(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        sizes = [room[name] for name in row]
        filler = widest - sum(sizes)
        ratios = [*sizes, filler] if filler > 0.5 else sizes
        axes = band.subplots(1, len(ratios), width_ratios=ratios, squeeze=False)[0]
        for place, name in enumerate(row):
            _heat(axes[place], weights[name], top, board.tasks if place == 0 else ())
            axes[place].set_title(plain(name))
        for rest in axes[len(row) :]:
            rest.set_axis_off()
    figure.supxlabel("state (0 is nearest the input)", fontsize=7.5)
    caption = (
        f"Suite {board.suite}. Softmax weight of each state in percent, mean over seeds at the chosen rate; state 0 is "
        "nearest the input. States differ in norm, so a small weight is not always a small share."
    )
    return Plot("layer_weights", "Layer weights", caption, figure)


def _matrix(board: Board, name: str) -> np.ndarray:
    """Mean weights over seeds (tasks, states) in percent; NaN where there is no record."""
    states = board.any_of(name).upstream["num_states"]
    lines = [_mean_weights(board.cells.get((name, task)), states) for task in board.tasks]
    return 100.0 * np.array(lines)


def _mean_weights(record: Record | None, states: int) -> list[float]:
    if record is None or not record.layer_weights:
        return [math.nan] * states
    return [float(value) for value in np.mean(record.layer_weights, axis=0)]


def _pack(sizes: dict[str, float]) -> list[list[str]]:
    """Upstreams in rows of at most ``ROW_STATES`` cells, in order. A panel is never narrower than its title."""
    rows: list[list[str]] = [[]]
    for name, size in sizes.items():
        if rows[-1] and sum(sizes[other] for other in rows[-1]) + size > ROW_STATES:
            rows.append([])
        rows[-1].append(name)
    return rows


def _heat(panel: Axes, matrix: np.ndarray, top: float, tasks: tuple[str, ...]) -> None:
    panel.imshow(matrix, cmap="Blues", vmin=0.0, vmax=top, aspect="auto")
    panel.grid(visible=False)
    for side in panel.spines.values():
        side.set_visible(False)
    states = matrix.shape[1]
    panel.set_xticks(range(states) if states <= 14 else range(0, states, 2))
    panel.set_yticks(range(len(matrix)), [])
    if tasks:
        panel.set_yticks(range(len(matrix)), [plain(task.upper()) for task in tasks])
    panel.tick_params(length=0, pad=2)
    for (row, column), value in np.ndenumerate(matrix):
        if states <= ROW_STATES and not math.isnan(value):
            colour = "white" if value > 0.55 * top else "#333333"
            panel.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=5.5, color=colour)
