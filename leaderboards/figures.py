"""The figures of one suite, from its board: small multiples, one panel per task, every point computed from records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from harness.records import Record
from harness.show import face, number
from leaderboards import overall
from leaderboards.board import Board
from leaderboards.depth_width import shapes
from leaderboards.depth_width.depth_curves import depth_curves
from leaderboards.depth_width.heatmap import heat_map
from leaderboards.depth_width.slopes import gains
from leaderboards.layers import layer_weights
from leaderboards.periods import frame_period
from leaderboards.published import Row
from leaderboards.rates import learning_rates
from leaderboards.resamples import Resamples, resample
from leaderboards.shape import depth_width
from leaderboards.style import (
    BETTER,
    INK,
    Look,
    Plot,
    least_range,
    legend,
    looks,
    off_scale,
    panel_title,
    panels,
    plain,
    point_to_better,
)
from leaderboards.tradeoff_figure import AXES, PUBLISHED_AXES, published_tradeoff, tradeoff


def figures(
    board: Board,
    faces: Mapping[str, Look] | None = None,
    drawn: Resamples | None = None,
    weighting: str = overall.DEFAULT,
    tolerance: float = shapes.TOLERANCE,
    rows: Sequence[Row] = (),
) -> list[Plot]:
    """All figures of a suite that have something to show. Call it, and save them, inside ``style.styled()``.

    Args:
        board: the suite's records.
        faces: how each upstream looks, the same over several suites.
        drawn: joint resamples of the board; drawn here where they are not given.
        weighting: name or file of the overall score.
        tolerance: how much more parameters students of one budget may have, as a share.
        rows: published rows, for the suite whose scores can stand beside theirs.
    """
    faces = faces or looks(board.fixed(), board.learned())
    drawn = resample(board) if drawn is None else drawn
    whole = overall.measured(board, drawn, weighting)
    made = [results(board, faces), *shape_figures(board, faces, drawn, tolerance)]
    made += [tradeoff(board, faces, what, whole, rows) for what in AXES]
    made += [frame_period(board, faces), layer_weights(board), learning_rates(board, faces)]
    return [plot for plot in made if plot is not None]


def shape_figures(
    board: Board, faces: Mapping[str, Look], drawn: Resamples, tolerance: float = shapes.TOLERANCE
) -> list[Plot | None]:
    """Depth against width: a heat map per family, curves, gains, or all upstreams by shape where there is no family."""
    families = shapes.measured_families(board)
    columns = shapes.measured_columns(board, drawn)
    where = f"Suite {board.suite}. "
    if not families:
        return [depth_width(board, faces)]
    maps = [
        heat_map(family, columns, tolerance, f"depth_width_{number}", where)
        for number, family in enumerate(families, 1)
    ]
    found = [budget for family in families for budget in shapes.budgets(family, tolerance)]
    return [*maps, depth_curves(found, columns, "depth_curves", where), gains(found, columns, "gains", where)]


def published_figures(rows: Sequence[Row], tolerance: float = shapes.PUBLISHED_TOLERANCE) -> list[Plot]:
    """The figures of published rows alone, all hollow, marked and without intervals."""
    families = shapes.published_families(rows)
    found = [budget for family in families for budget in shapes.budgets(family, tolerance)]
    columns = shapes.published_columns([row for row in rows if row.layers])
    where = "Published by others. "
    made: list[Plot | None] = [
        heat_map(family, columns, tolerance, f"published_depth_width_{number}", where)
        for number, family in enumerate(families, 1)
    ]
    made += [gains(found, columns, "published_gains", where)]
    made += [published_tradeoff(rows, what) for what in PUBLISHED_AXES]
    return [plot for plot in made if plot is not None]


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
        least_range(panel, "x")
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
        f"Suite {board.suite}. Test scores: mean over seeds, with 95 % bootstrap interval over test speakers; small "
        "ticks are seeds, whose spread is not in the interval. "
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
