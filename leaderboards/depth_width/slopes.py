"""The figure of gains: what doubling the depth is worth at equal size, task by task."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leaderboards.depth_width.families import Budget, Column
from leaderboards.depth_width.shapes import Gain, gain
from leaderboards.groups import group_of, in_words
from leaderboards.published import PUBLISHED
from leaderboards.published.marks import footnotes, of_signs
from leaderboards.style import INK, MARKERS, PALETTE, WIDTH, Plot, legend, plain


def gains(found: Sequence[Budget], columns: Sequence[Column], name: str, where: str) -> Plot | None:
    """Gain per doubling of depth, one row per task and one mark per budget; ``None`` where there is no budget.

    Args:
        found: budgets, each with at least two depths.
        columns: scores of one origin, in the order of the rows.
        name: of the figure's file.
        where: first words of the caption, e.g. the suite.
    """
    rows = {column.task: [gain(budget, column, "doubling") for budget in found] for column in columns}
    rows = {task: made for task, made in rows.items() if any(made)}
    if not rows:
        return None
    origin = columns[0].origin
    used = {member.name for budget in found for member in budget.members}
    signs = {column.task: _signs(column, used) for column in columns}
    thick = max(1.0, 0.5 * len(found))
    places = _places(list(rows), 1.0 + 0.6 / thick)
    height = 0.75 + 0.17 * thick * (max(places.values()) + 1.0)
    figure = Figure(figsize=(WIDTH / 2, height), layout="constrained")
    panel = figure.subplots()
    panel.axvline(0.0, color="#777777", linewidth=0.8, zorder=1)
    for task, made in rows.items():
        for place, one in enumerate(made):
            if one is not None:
                shift = (place - (len(found) - 1) / 2) * 0.7 / max(2, len(found))
                _mark(panel, one, places[task] + shift, _colour(place, origin.filled), place, origin.filled)
    panel.set_yticks(list(places.values()), [plain(f"{task.upper()} {signs[task]}".rstrip()) for task in places])
    panel.tick_params(axis="y", length=0)
    panel.set_ylim(max(places.values()) + 0.6, -0.6)
    panel.grid(axis="y", visible=False)
    panel.margins(x=0.08)
    panel.set_xlabel(
        f"points per doubling of depth, same parameters{origin.sign}\n← wider is better · deeper is better →"
    )
    handles = [
        Line2D([], [], color=_colour(place, origin.filled), marker=MARKERS[place % len(MARKERS)], markersize=4.5,
               markerfacecolor=None if origin.filled else "white", linestyle="-" if origin.filled else "none",
               label=plain(budget.label(found)))
        for place, budget in enumerate(found)
    ]  # fmt: skip
    legend(figure, None, handles, "")
    lines = (
        "lines: 95 % t-intervals over test speakers, probe seeds and trainings of a shape where there are several"
        if origin.filled
        else "no intervals can be known"
    )
    caption = (
        f"{where}Least-squares slope of the score over log2 of the depth among students of one budget, in points "
        f"towards better; {lines}. Deeper students of a budget are narrower. Rows: {in_words()}."
    )
    notes = [] if origin.filled else footnotes([origin], of_signs("".join(signs.values())))
    return Plot(name, "What doubling the depth is worth at equal size", " ".join([caption, *notes]), figure)


def _colour(place: int, filled: bool) -> str:
    return PALETTE[place % len(PALETTE)] if filled else PUBLISHED.colour


def _signs(column: Column, names: Collection[str]) -> str:
    """How the values of these students reached us, each sign once."""
    return "".join(dict.fromkeys(column.signs.get(name, "") for name in column.values if name in names))


def _places(tasks: Sequence[str], step: float) -> dict[str, float]:
    """Heights of the rows; ``step`` from one group of tasks to the next, else 1."""
    places: dict[str, float] = {}
    height, before = -1.0, None
    for task in tasks:
        height += 1.0 if before in (None, group_of(task)) else step
        places[task], before = height, group_of(task)
    return places


def _mark(panel: Axes, one: Gain, height: float, colour: str, place: int, filled: bool) -> None:
    if one.ci95:
        panel.plot(one.ci95, [height, height], color=colour, linewidth=1.4, solid_capstyle="butt", zorder=2)
    panel.plot(
        one.value, height, MARKERS[place % len(MARKERS)], color=colour, markersize=4.5, zorder=3,
        markerfacecolor=colour if filled else "white", markeredgecolor=INK if filled and not one.ci95 else colour,
    )  # fmt: skip
