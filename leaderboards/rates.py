"""The learning-rate figure: how much a score on dev depends on the rate, and which one was chosen."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from harness.records import Record
from harness.show import rate
from leaderboards.board import Board
from leaderboards.style import (
    BETTER,
    INK,
    Look,
    Plot,
    least_range,
    legend,
    log_axis,
    panel_height,
    panel_title,
    panels,
    plain,
    point_to_better,
)


def learning_rates(board: Board, faces: Mapping[str, Look]) -> Plot | None:
    """Dev score against learning rate: mean and range over seeds; a ring around the chosen rate."""
    if not any(len({trial["learning_rate"] for trial in r.trials}) > 1 for r in board.cells.values()):
        return None
    figure, axes, slot = panels(len(board.tasks), panel_height(board))
    diverged = 0
    for panel, task in zip(axes, board.tasks, strict=True):
        panel.set_title(panel_title(board, task))
        rates: set[float] = set()
        for name in board.upstreams:
            if (name, task) in board.cells:
                record = board.cells[name, task]
                rates |= {trial["learning_rate"] for trial in record.trials}
                diverged += sum(trial["dev"] is None for trial in record.trials)
                _rate_curve(panel, record, faces[name])
        log_axis(panel, sorted(rates), rate)
        point_to_better(panel, board, task)
        panel.margins(y=0.1)
        least_range(panel)
    figure.supxlabel("learning rate", fontsize=7.5)
    handles = [
        Line2D([], [], color=faces[n].color, marker=faces[n].marker, markersize=4, label=plain(n))
        for n in board.upstreams
    ]
    ring = Line2D([], [], color=INK, marker="o", markersize=8, markerfacecolor="none", linestyle="none", label="chosen")
    legend(figure, slot, [*handles, ring], BETTER)
    caption = (
        f"Suite {board.suite}. Best dev score per learning rate: mean over seeds, bars from worst to best seed; a ring "
        "around the rate that dev chose. Axes are turned so that up is better."
        + (f" {diverged} diverged trial(s) have no score and no point." if diverged else "")
    )
    return Plot("learning_rates", "Learning-rate sensitivity", caption, figure)


def _rate_curve(panel: Axes, record: Record, look: Look) -> None:
    scores: dict[float, list[float]] = {}
    for trial in record.trials:
        if trial["dev"] is not None:
            scores.setdefault(trial["learning_rate"], []).append(trial["dev"])
    rates = sorted(scores)
    means = [statistics.fmean(scores[tried]) for tried in rates]
    for tried in rates:
        span = [min(scores[tried]), max(scores[tried])]
        panel.plot([tried, tried], span, color=look.color, linewidth=0.9, alpha=0.6)
    panel.plot(rates, means, marker=look.marker, color=look.color, markersize=3.2, linewidth=1.0)
    if record.learning_rate in scores:
        chosen = statistics.fmean(scores[record.learning_rate])
        panel.plot(record.learning_rate, chosen, "o", markersize=8, markerfacecolor="none", color=look.color)
