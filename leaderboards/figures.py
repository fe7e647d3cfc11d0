"""The figures of one suite, from its board: small multiples, one panel per task, every point computed from records."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from harness.records import Record
from harness.show import face, number, rate
from leaderboards.board import Board
from leaderboards.costs import median_cost
from leaderboards.layers import layer_weights
from leaderboards.shape import depth_width
from leaderboards.style import (
    INK,
    Look,
    Plot,
    dodge,
    legend,
    log_axis,
    looks,
    off_scale,
    panel_title,
    panels,
    plain,
    point_to_better,
)
from leaderboards.tradeoff import pareto

AXES = {
    "params": ("parameters (millions)", 1e6),
    "macs_per_second": ("GMACs per second of audio", 1e9),
    "real_time_factor": ("real-time factor (s per s of audio)", 1.0),
}
"""Cost axes of the trade-off figures: label, and the unit shown."""

BETTER = "Axes point to better."


def figures(board: Board, faces: Mapping[str, Look] | None = None) -> list[Plot]:
    """All figures of a suite that have something to show. Call it, and save them, inside ``style.styled()``."""
    faces = faces or looks(board.fixed(), board.learned())
    made = [results(board, faces), depth_width(board, faces)]
    made += [tradeoff(board, faces, what) for what in AXES]
    made += [layer_weights(board), learning_rates(board, faces)]
    return [plot for plot in made if plot is not None]


def _height(board: Board) -> float:
    """Inches of a panel that lets the legend fit into one, too."""
    return max(1.62, 0.45 + 0.165 * (len(board.upstreams) + 1))


def results(board: Board, faces: Mapping[str, Look]) -> Plot:
    """Scores with 95 % intervals: a dot per upstream, a line for the interval, small ticks for the seeds."""
    names = board.upstreams
    figure, axes, slot = panels(len(board.tasks), 0.5 + 0.21 * len(names), sharey=True)
    off: frozenset[str] = frozenset()
    for panel, task in zip(axes, board.tasks, strict=True):
        panel.set_title(panel_title(board, task))
        shown = {name: board.cells[name, task] for name in names if (name, task) in board.cells}
        far = off_scale(shown, face(board.metric(task)).higher_is_better)
        off |= far
        for name, record in shown.items():
            draw = _far_row if name in far else _interval_row
            draw(panel, record, names.index(name), faces[name], (name, task) in board.odd)
        panel.grid(axis="y", visible=False)
        point_to_better(panel, board, task, axis="x")
        panel.margins(x=0.08)
    axes[0].set_yticks(range(len(names)), [plain(name) for name in names])
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    for panel in axes:
        panel.tick_params(axis="y", length=0)
    handles = [
        Line2D([], [], color=INK, marker="o", markersize=4.5, label="mean over seeds\nand 95 % interval"),
        Line2D([], [], color=INK, marker="|", markersize=5, linestyle="none", label="one seed"),
    ]
    if off:
        handles.append(Line2D([], [], color=INK, marker="<", markersize=5, linestyle="none", label="off the scale"))
    legend(figure, slot, handles, BETTER)
    caption = (
        f"Suite {board.suite}. Test scores: mean over seeds with 95 % bootstrap interval; small ticks are seeds. "
        "Axes are turned so that right is better; an arrow at the left stands for a score too low for the scale."
    )
    return Plot("results", "Results", caption, figure)


def _interval_row(panel: Axes, record: Record, place: int, look: Look, odd: bool) -> None:
    panel.plot(record.ci95, [place, place], color=look.color, solid_capstyle="butt", linewidth=1.4)
    fill = "white" if odd else look.color
    panel.plot(record.value, place, look.marker, color=look.color, markerfacecolor=fill, markersize=4, zorder=3)
    seeds = record.values_per_seed
    panel.plot(seeds, [place + 0.33] * len(seeds), "|", color=look.color, markersize=3, markeredgewidth=0.7)
    _value_text(panel, record, place, odd)


def _far_row(panel: Axes, record: Record, place: int, look: Look, odd: bool) -> None:
    """A score too low for the scale: an arrow at the left edge."""
    edge = panel.get_yaxis_transform()
    panel.plot(0.03, place, marker="<", color=look.color, transform=edge, markersize=5, clip_on=False)
    _value_text(panel, record, place, odd)


def _value_text(panel: Axes, record: Record, place: int, odd: bool) -> None:
    """The score, right of the panel."""
    text = number(record.value) + ("†" if odd else "")
    panel.text(1.03, place, text, transform=panel.get_yaxis_transform(), va="center", fontsize=6.5)


def tradeoff(board: Board, faces: Mapping[str, Look], what: str) -> Plot | None:
    """Score against one cost, with intervals and the Pareto front; teacher and fixed features as lines."""
    label, unit = AXES[what]
    stated = {name: median_cost(board, name, what) for name in board.learned()}
    cost = {name: value / unit for name, value in stated.items() if value}
    if not cost:
        return None
    figure, axes, slot = panels(len(board.tasks), _height(board))
    shift = dodge(cost, 6.0)
    for panel, task in zip(axes, board.tasks, strict=True):
        panel.set_title(panel_title(board, task))
        fair = board.fair(task)
        far = off_scale(fair, face(board.metric(task)).higher_is_better)
        near = {name: record for name, record in fair.items() if name not in far}
        _floor_lines(panel, board, near, faces)
        points = {name: (cost[name], near[name].value) for name in cost if name in near}
        _front(panel, points, board, task)
        for name in points:
            _interval_point(panel, near[name], cost[name], shift[name], faces[name])
        log_axis(panel, list(cost.values()))
        point_to_better(panel, board, task)
        panel.margins(y=0.1)
        _far_notes(panel, {name: record for name, record in fair.items() if name in far})
    figure.supxlabel(label, fontsize=7.5)
    legend(figure, slot, _tradeoff_handles(board, list(cost), faces), BETTER)
    missing = [name for name in stated if name not in cost]
    caption = (
        f"Suite {board.suite}. Score against {label}, with 95 % intervals. Steps: Pareto front; dashed: a teacher; "
        "grey: features without parameters. Axes are turned so that up is better."
        + (f" Not shown, as the cost is unknown: {', '.join(missing)}." if missing else "")
    )
    short = {"params": "params", "macs_per_second": "macs", "real_time_factor": "rtf"}[what]
    return Plot(f"tradeoff_{short}", f"Compression trade-off: {label}", caption, figure)


def _floor_lines(panel: Axes, board: Board, fair: Mapping[str, Record], faces: Mapping[str, Look]) -> None:
    for name in board.fixed():
        if name in fair:
            panel.axhline(fair[name].value, color=faces[name].color, linestyle=faces[name].line, linewidth=1.1)
    for name in board.teachers():
        if name in fair:
            panel.axhline(fair[name].value, color=faces[name].color, linestyle="--", linewidth=0.9, alpha=0.8)


def _far_notes(panel: Axes, far: Mapping[str, Record]) -> None:
    """Scores too low for the scale, in words below the points, in room of their own."""
    low, high = panel.get_ylim()
    panel.set_ylim(low - (high - low) * 0.11 * len(far), high)
    for place, (name, record) in enumerate(far.items()):
        text = plain(f"↓ {name} {number(record.value)}")
        panel.annotate(
            text, (0, 0), (3, 3 + 8 * place), "axes fraction", textcoords="offset points", fontsize=6.5, va="bottom"
        )


def _front(panel: Axes, points: Mapping[str, tuple[float, float]], board: Board, task: str) -> None:
    """The Pareto front as steps: what can be had up to a cost."""
    known = list(points.values())
    best = [known[index] for index in pareto(known, face(board.metric(task)).higher_is_better)]
    if best:
        x = [*(cost for cost, _ in best), max(cost for cost, _ in known) * 100]
        y = [*(score for _, score in best), best[-1][1]]
        panel.plot(x, y, drawstyle="steps-post", color="#aaaaaa", linewidth=1.0, zorder=1)


def _interval_point(panel: Axes, record: Record, x: float, shift: float, look: Look) -> None:
    move = ScaledTranslation(shift / 72, 0, panel.figure.dpi_scale_trans)
    shared: dict[str, Any] = {"transform": panel.transData + move, "color": look.color}
    panel.plot([x, x], record.ci95, linewidth=1.4, solid_capstyle="butt", zorder=2, **shared)
    panel.plot(
        [x],
        [record.value],
        look.marker,
        markersize=4.5,
        markeredgecolor="white",
        markeredgewidth=0.4,
        zorder=3,
        **shared,
    )
    panel.update_datalim([(x, record.ci95[0]), (x, record.ci95[1])])


def _tradeoff_handles(board: Board, shown: list[str], faces: Mapping[str, Look]) -> list[Line2D]:
    handles = []
    for name in board.upstreams:
        look = faces[name]
        if name in shown:
            line: Any = "--" if name in board.teachers() else "none"
            handles.append(Line2D([], [], color=look.color, marker=look.marker, linestyle=line, label=plain(name)))
        elif name in board.fixed():
            handles.append(Line2D([], [], color=look.color, linestyle=look.line, label=plain(name)))
    return [*handles, Line2D([], [], color="#aaaaaa", drawstyle="steps-post", label="Pareto front")]


def learning_rates(board: Board, faces: Mapping[str, Look]) -> Plot | None:
    """Dev score against learning rate: mean and range over seeds; a ring around the chosen rate."""
    if not any(len({trial["learning_rate"] for trial in r.trials}) > 1 for r in board.cells.values()):
        return None
    figure, axes, slot = panels(len(board.tasks), _height(board))
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
