"""Score against the period of a frame, for upstreams that come at several rates."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from leaderboards.board import Board
from leaderboards.style import (
    BETTER,
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


def frame_period(board: Board, faces: Mapping[str, Look]) -> Plot | None:
    """Scores with intervals against milliseconds per frame; rates of one model are joined by a line.

    Only learned upstreams are drawn; ``None`` where all of them have one period. ``name@45ms`` is a rate of ``name``.
    """
    period = {name: float(board.any_of(name).upstream["frame_ms"]) for name in board.learned()}
    if len(set(period.values())) < 2:
        return None
    figure, axes, slot = panels(len(board.tasks), panel_height(board))
    for panel, task in zip(axes, board.tasks, strict=True):
        panel.set_title(panel_title(board, task))
        _panel(panel, board, task, period, faces)
        point_to_better(panel, board, task)
        panel.margins(x=0.1, y=0.1)
        least_range(panel)
    figure.supxlabel("frame period (ms)", fontsize=7.5)
    handles = [
        Line2D([], [], color=faces[n].color, marker=faces[n].marker, linestyle="none", label=plain(n)) for n in period
    ]
    legend(figure, slot, handles, BETTER)
    caption = (
        f"Suite {board.suite}. Score against the period of a frame in milliseconds, with 95 % intervals over test "
        "speakers; lines join the rates of one model. Axes are turned so that up is better."
    )
    return Plot("frame_period", "Score against frame period", caption, figure)


def models(period: Mapping[str, float]) -> dict[str, list[str]]:
    """The upstreams of each model, by rising period: ``ofa`` has ``ofa@20ms`` and ``ofa@45ms``."""
    found: dict[str, list[str]] = {}
    for name in sorted(period, key=lambda name: (period[name], name)):
        found.setdefault(name.partition("@")[0], []).append(name)
    return found


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
