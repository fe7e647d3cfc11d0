"""Score against depth at equal size: a line per budget, through the mean of the trainings of each shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from leaderboards.depth_width.families import Budget, Column, Member
from leaderboards.depth_width.shapes import sources
from leaderboards.depth_width.trainings import groups
from leaderboards.groups import in_words
from leaderboards.style import BETTER, MARKERS, PALETTE, Plot, least_range, legend, panels, plain, turn
from leaderboards.uncertainty import interval

STYLES: tuple[Any, ...] = ("-", "--", "-.", ":")
"""Lines by method, so that those of one size can be told apart without colour."""
Point = tuple[int, float, tuple[float, float] | None, list[float]]
"""Depth, mean score, its interval, and the scores of the single trainings."""


def depth_curves(found: Sequence[Budget], columns: Sequence[Column], name: str, where: str) -> Plot | None:
    """One panel per task, one line per budget; ``None`` where no budget has two depths with a score.

    Args:
        found: budgets.
        columns: scores of one origin.
        name: of the figure's file.
        where: first words of the caption, e.g. the suite.
    """
    drawn = {column.task: [points(budget, column) for budget in found] for column in columns}
    shown = [column for column in columns if any(len(line) > 1 for line in drawn[column.task])]
    if not shown:
        return None
    depths = sorted({member.depth for budget in found for member in budget.members})
    methods = list(dict.fromkeys(budget.family.name for budget in found))
    figure, axes, slot = panels(len(shown), max(1.75, 0.5 + 0.165 * (len(found) + 1)), sharex=True)
    for panel, column in zip(axes, shown, strict=True):
        panel.set_title(plain(f"{column.task.upper()} · {column.title.replace(' ', ' (%) ')}"))
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_locator(FixedLocator(depths))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.tick_params(labelbottom=True)
        for place, (budget, line) in enumerate(zip(found, drawn[column.task], strict=True)):
            _line(panel, line, place, STYLES[methods.index(budget.family.name) % len(STYLES)], len(found))
        turn(panel, column.higher_is_better)
        panel.margins(x=0.1, y=0.1)
        least_range(panel)
    axes[0].set_xticks(depths, [str(depth) for depth in depths])
    figure.supxlabel("depth (layers); at equal size a deeper student is narrower", fontsize=7.5)
    handles = [
        Line2D(
            [],
            [],
            color=PALETTE[place % len(PALETTE)],
            marker=MARKERS[place % len(MARKERS)],
            markersize=4,
            linestyle=STYLES[methods.index(budget.family.name) % len(STYLES)],
            label=plain(budget.label(found)),
        )
        for place, budget in enumerate(found)
    ]
    legend(figure, slot, handles, BETTER)
    caption = (
        f"{where}Score in percent against depth among students of one budget of parameters: a line per budget, with "
        "95 % t-intervals over test speakers and probe seeds. Where a shape was trained several times the line goes "
        "through the mean, small dots are the trainings, and their spread is in the interval. Axes are turned so that "
        f"up is better. Tasks by group: {in_words()}."
    )
    return Plot(name, "Score against depth at equal size", caption, figure)


def points(budget: Budget, column: Column) -> list[Point]:
    """A point per depth, by rising depth; shapes of one depth and several trainings of a shape are joined as a mean."""
    at: dict[int, list[Member]] = {}
    for trained in groups(budget.members, column.values):
        at.setdefault(trained[0].depth, []).extend(trained)
    found: list[Point] = []
    for depth, members in sorted(at.items()):
        values = [column.values[member.name] for member in members]
        value = sum(values) / len(values)
        parts = sources(budget, column, {member.name: 1.0 / len(members) for member in members})
        found.append((depth, value, interval(value, parts) if parts else None, values if len(values) > 1 else []))
    return found


def _line(panel: Axes, line: Sequence[Point], place: int, style: str, count: int) -> None:
    colour = PALETTE[place % len(PALETTE)]
    shift = 2.0 ** (0.16 * (place - (count - 1) / 2) / max(count, 2))
    xs = [depth * shift for depth, *_ in line]
    panel.plot(
        xs, [value for _, value, *_ in line], style, color=colour, linewidth=1.0, marker=MARKERS[place % len(MARKERS)],
        markersize=3.6, zorder=3,
    )  # fmt: skip
    for x, (_, _, ci95, single) in zip(xs, line, strict=True):
        if ci95:
            panel.plot([x, x], ci95, color=colour, linewidth=1.0, alpha=0.6, solid_capstyle="butt", zorder=2)
        panel.plot([x] * len(single), single, "o", color=colour, markersize=1.8, alpha=0.8, zorder=2)
