"""The depth-versus-width heat map of one family: rows depth, columns width, a panel per task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Patch, Rectangle

from harness.show import number
from leaderboards.depth_width.families import Budget, Column, Family, Member
from leaderboards.depth_width.shapes import best_of, budgets
from leaderboards.depth_width.trainings import joined
from leaderboards.groups import in_words
from leaderboards.published import MEASURED
from leaderboards.published.marks import footnotes, of_signs
from leaderboards.style import INK, LEAST_RANGE, PALE, WIDTH, Plot, legend, panels, plain

COLOURS = "YlGnBu"
"""Sequential and colour-blind safe; dark is better."""

SLOT = 0.21
"""Inches that a score needs; where four panels side by side leave less, two are."""


def heat_map(family: Family, columns: Sequence[Column], tolerance: float, name: str, where: str) -> Plot | None:
    """Scores of all members by shape, several trainings of one as their mean; ``None`` where no task has two of them.

    Args:
        family: the students.
        columns: their scores, of one origin.
        tolerance: of a budget; the best student of each budget is framed.
        name: of the figure's file.
        where: first words of the caption, e.g. the suite.
    """
    several = len(family.members)
    if all(column.origin is MEASURED for column in columns):
        family, columns = joined(family, columns)
    several -= len(family.members)
    shown = [column for column in columns if sum(m.name in column.values for m in family.members) > 1]
    if not shown:
        return None
    widths = sorted({member.width for member in family.members})
    depths = sorted({member.depth for member in family.members})
    found = budgets(family, tolerance)
    slots = len(widths) * max(sum(other.shape == member.shape for other in family.members) for member in family.members)
    across = 4 if slots * SLOT < _panel_width(4) else 2
    size = min(6.0, 72 * _panel_width(across) / slots / 2.9)
    figure, axes, slot = panels(len(shown), 0.45 + 0.3 * max(len(depths), 2), across, sharex=True, sharey=True)
    for panel, column in zip(axes, shown, strict=True):
        sign = column.origin.sign
        panel.set_title(plain(f"{column.task.upper()}{sign} · {column.title.replace(' ', ' (%) ')}"))
        panel.tick_params(labelbottom=True, length=0)
        panel.grid(visible=False)
        _cells(panel, family, column, found, (widths, depths), size)
    figure.supxlabel("width (state size)", fontsize=7.5)
    figure.supylabel("depth (layers)", fontsize=7.5)
    axes[0].set_xticks(range(len(widths)), [str(width) for width in widths])
    axes[0].set_yticks(range(len(depths)), [str(depth) for depth in depths])
    axes[0].set_xlim(-0.5, len(widths) - 0.5)
    axes[0].set_ylim(-0.5, len(depths) - 0.5)
    frame = Patch(facecolor="white", edgecolor=INK, linewidth=1.6, label="best of its budget")
    legend(figure, slot, [frame] if found else [], "Darker is better.\nSmall: million parameters.")
    names = {member.name for member in family.members}
    signs = "".join(sign for column in shown for name, sign in column.signs.items() if name in names)
    notes = footnotes({column.origin for column in shown}, of_signs(signs)) if shown[0].origin.sign else []
    caption = (
        f"{where}{family.name[0].upper()}{family.name[1:]}. Score in percent by depth and width (both ordinal), darker "
        f"is better within its panel; below it millions of parameters; framed: best of a budget (within "
        f"{100 * tolerance:g} % of parameters). {'Several trainings of a shape stand as their mean. ' * bool(several)}"
        f"Tasks by group: {in_words()}."
    )
    return Plot(name, f"Depth versus width: {family.name}", " ".join([caption, *notes]), figure)


def _cells(
    panel: Axes, family: Family, column: Column, found: Sequence[Budget], grid: tuple[list[int], list[int]], size: float
) -> None:
    widths, depths = grid
    there = [member for member in family.members if member.name in column.values]
    values = [column.values[member.name] for member in there]
    low, high = min(values), max(values)
    room = max((high - low) * 0.15, (LEAST_RANGE - (high - low)) / 2)
    scale = ScalarMappable(Normalize(low - room, high + room), COLOURS + "_r" * (not column.higher_is_better))
    winners = frozenset[str]().union(*(best_of(budget, column) for budget in found))
    for depth in range(len(depths)):
        for width in range(len(widths)):
            empty = Rectangle((width - 0.5, depth - 0.5), 1, 1, fill=False, edgecolor=PALE, linewidth=0.4)
            panel.add_patch(empty)
    for member in there:
        twins = [other for other in there if other.shape == member.shape]
        left = widths.index(member.width) - 0.5 + twins.index(member) / len(twins)
        bottom = depths.index(member.depth) - 0.5
        colour = scale.to_rgba(np.array(column.values[member.name]))
        wins = member.name in winners
        panel.add_patch(
            Rectangle(
                (left + 0.02, bottom + 0.04), 1 / len(twins) - 0.04, 0.92, facecolor=colour,
                edgecolor=INK if wins else "white", linewidth=1.6 if wins else 0.0, zorder=3 if wins else 2,
            )
        )  # fmt: skip
        middle = left + 0.5 / len(twins), bottom + 0.5
        _words(panel, member, column, middle, "white" if sum(colour[:3]) < 1.6 else INK, size)


def _panel_width(across: int) -> float:
    """Inches of a panel, of so many side by side."""
    return WIDTH / across - 0.22


def _words(panel: Axes, member: Member, column: Column, middle: tuple[float, float], colour: str, size: float) -> None:
    text = number(column.values[member.name]) + column.signs.get(member.name, "")
    for words, points, up, line in ((text, size, 1.0, "bottom"), (_millions(member), 0.8 * size, -0.5, "top")):
        panel.annotate(
            plain(words), middle, (0, up), textcoords="offset points", ha="center", va=line, fontsize=points,
            color=colour, zorder=4,
        )  # fmt: skip


def _millions(member: Member) -> str:
    return f"{member.params / 1e6:.1f}"
