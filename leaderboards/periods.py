"""Score against the period of a frame, for upstreams that come at several rates."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from leaderboards.adaptive_periods import choices, models, periods_of
from leaderboards.board import Board
from leaderboards.style import (
    BETTER,
    INK,
    Look,
    Plot,
    least_range,
    legend,
    panel_height,
    panel_title,
    panels,
    plain,
    point_to_better,
)

__all__ = ["frame_period", "models"]

RING: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "linestyle": "none"}


def frame_period(board: Board, faces: Mapping[str, Look], tolerance: float | None = None) -> Plot | None:
    """Scores with intervals against milliseconds per frame; rates of one model are joined by a line.

    Only learned upstreams are drawn; ``None`` where all of them have one period. ``name@45ms`` is a rate of ``name``.
    A ring marks the adaptive period of a model on a task, see :mod:`leaderboards.adaptive_periods`.

    Args:
        board: the suite's records.
        faces: how each upstream looks.
        tolerance: points that the dev score of the adaptive period may lie behind the best; by default the standard
            error of that.
    """
    period = periods_of(board)
    if len(set(period.values())) < 2:
        return None
    adaptive = {(one.adaptive, one.task) for one in choices(board, tolerance)}
    figure, axes, slot = panels(len(board.tasks), panel_height(board))
    for panel, task in zip(axes, board.tasks, strict=True):
        panel.set_title(panel_title(board, task))
        _panel(panel, board, task, period, faces)
        _rings(panel, board, task, period, faces, adaptive)
        point_to_better(panel, board, task)
        panel.margins(x=0.1, y=0.1)
        least_range(panel)
    figure.supxlabel("frame period (ms)", fontsize=7.5)
    handles = [
        Line2D([], [], color=faces[n].color, marker=faces[n].marker, linestyle="none", label=plain(n)) for n in period
    ]
    if adaptive:
        handles.append(Line2D([], [], color=INK, markersize=8, label="adaptive period", **RING))
    legend(figure, slot, handles, BETTER)
    caption = (
        f"Suite {board.suite}. Score against the period of a frame in milliseconds, with 95 % intervals over test "
        "speakers; lines join the rates of one model. Axes are turned so that up is better."
        + " A ring around the adaptive period: the largest within a tolerance of the best on dev."
        * bool(adaptive)
    )
    return Plot("frame_period", "Score against frame period", caption, figure)


def _panel(panel: Axes, board: Board, task: str, period: Mapping[str, float], faces: Mapping[str, Look]) -> None:
    fair = {name: record for name, record in board.fair(task).items() if name in period}
    for names in models({name: period[name] for name in fair}).values():
        if len(names) > 1:
            xs, ys = [period[name] for name in names], [fair[name].value for name in names]
            panel.plot(xs, ys, color=faces[names[0]].color, linewidth=0.9, alpha=0.6, zorder=1)
    for name, record in fair.items():
        look = faces[name]
        panel.plot([period[name]] * 2, record.ci95, color=look.color, linewidth=1.4, solid_capstyle="butt", zorder=2)
        panel.plot(period[name], record.value, look.marker, color=look.color, markersize=4.2, zorder=3)


def _rings(
    panel: Axes,
    board: Board,
    task: str,
    period: Mapping[str, float],
    faces: Mapping[str, Look],
    adaptive: Set[tuple[str, str]],
) -> None:
    for name in period:
        if (name, task) in adaptive:
            value = board.cells[name, task].value
            panel.plot(period[name], value, color=faces[name].color, markersize=8, zorder=4, **RING)
