"""The depth-versus-width figure: where each upstream stands in the grid of shapes, and how it scores there."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D

from harness.show import face, number
from leaderboards.board import Board
from leaderboards.style import INK, LEAST_RANGE, Look, Plot, legend, panel_title, panels, plain

COLOURS = "YlGnBu"
"""Sequential and colour-blind safe; dark is better."""


def depth_width(board: Board, faces: Mapping[str, Look]) -> Plot | None:
    """Depth by width, one panel per task: fill and number are the score, area is the number of parameters."""
    shape = {
        name: (int(facts["width"]), int(facts["depth"]))
        for name in board.upstreams
        if (facts := board.any_of(name).upstream)["depth"] and facts["width"]
    }
    if not shape:
        return None
    widths, depths = (sorted({pair[axis] for pair in shape.values()}) for axis in (0, 1))
    spots = _spots(shape, widths, depths)
    largest = max(board.any_of(name).cost["params"] for name in shape)
    crowd = max(list(shape.values()).count(pair) for pair in shape.values())
    columns = 4 if 0.25 * crowd * len(widths) < 1.55 else 2
    height = 0.5 + 0.56 * max(len(depths), 2)
    figure, axes, slot = panels(len(board.tasks), height, columns, sharex=True, sharey=True)
    for panel, task in zip(axes, board.tasks, strict=True):
        panel.set_title(panel_title(board, task))
        panel.tick_params(labelbottom=True)
        _panel(panel, board, task, spots, faces, largest)
    figure.supxlabel("width (state size)", fontsize=7.5)
    figure.supylabel("depth (layers)", fontsize=7.5)
    axes[0].set_xticks(range(len(widths)), [str(width) for width in widths])
    axes[0].set_yticks(range(len(depths)), [str(depth) for depth in depths])
    axes[0].set_xlim(-0.62, len(widths) - 0.38)
    axes[0].set_ylim(-0.62, len(depths) - 0.38)
    handles = [
        Line2D([], [], color=faces[name].color, marker=faces[name].marker, markerfacecolor="white", linestyle="none",
               markeredgewidth=1.3, markersize=6, label=plain(f"{name}, {_millions(board, name)} M"))
        for name in shape
    ]  # fmt: skip
    legend(figure, slot, handles, "Darker is better.\nArea: parameters.")
    caption = (
        f"Suite {board.suite}. Depth against width (both ordinal). Number and fill: score in percent, darker is "
        "better within its panel; area: parameters; outline and marker: upstream. Upstreams of one shape stand side by "
        "side."
    )
    return Plot("depth_width", "Depth versus width", caption, figure)


def _millions(board: Board, name: str) -> str:
    return f"{board.any_of(name).cost['params'] / 1e6:.1f}"


def _spots(
    shape: Mapping[str, tuple[int, int]], widths: list[int], depths: list[int]
) -> dict[str, tuple[float, float]]:
    """Ordinal positions (x, y); upstreams of one shape are set side by side."""
    spots = {}
    for name, (width, depth) in shape.items():
        twins = [other for other, pair in shape.items() if pair == (width, depth)]
        step = 0.9 / len(twins)
        spots[name] = (widths.index(width) + (twins.index(name) - (len(twins) - 1) / 2) * step, depths.index(depth))
    return {name: (float(x), float(y)) for name, (x, y) in spots.items()}


def _panel(
    panel: Axes,
    board: Board,
    task: str,
    spots: Mapping[str, tuple[float, float]],
    faces: Mapping[str, Look],
    largest: int,
) -> None:
    fair = {name: record for name, record in board.fair(task).items() if name in spots}
    values = [record.value for record in fair.values()]
    if not values:
        return
    low, high = min(values), max(values)
    room = max((high - low) * 0.15, (LEAST_RANGE - (high - low)) / 2)
    name = COLOURS if face(board.metric(task)).higher_is_better else f"{COLOURS}_r"
    scale = ScalarMappable(Normalize(low - room, high + room), name)
    for upstream, record in fair.items():
        x, y = spots[upstream]
        area = 25 + 110 * record.cost["params"] / largest
        panel.scatter(
            x, y, s=area, marker=faces[upstream].marker, color=[scale.to_rgba(np.array(record.value))],
            edgecolors=faces[upstream].color, linewidths=1.3, zorder=3,
        )  # fmt: skip
        panel.annotate(
            number(record.value), (x, y), xytext=(0, -0.72 * area**0.5 - 1.5), textcoords="offset points",
            ha="center", va="top", fontsize=6, color=INK,
        )  # fmt: skip
