"""How every figure looks: one font size ladder, one palette, one face per upstream, panels in a grid.

Colours are those of Okabe and Ito (jfly.uni-koeln.de/color), which stay apart for colour-blind readers, with Tol's wine
(personal.sron.nl/~pault) in place of their yellow, which is too pale on white; fixed features are grey. Every upstream
also has a marker of its own, so that the figures survive a grey print.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from harness.show import face, printable
from leaderboards.board import Board

WIDTH = 7.0
"""Inches: the text width of a two-column page."""

LEAST_RANGE = 2.0
"""Points that a score axis, or the colours of a map, span at least."""

INK, PALE = "#222222", "#d9d9d9"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000", "#882255")
MARKERS = ("o", "s", "D", "^", "v", "<", ">", "p", "h")
GREYS = ("#8c8c8c", "#4d4d4d", "#bdbdbd")
FIXED_MARKERS = ("X", "P", "*", "d")
FIXED_LINES = (":", (0, (4, 1.5, 1, 1.5)), (0, (1, 3)))

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.titlepad": 4,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": INK,
    "text.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#ececec",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "legend.handlelength": 2.0,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "figure.dpi": 100,
    "savefig.dpi": 200,
}


BETTER = "Axes point to better."
"""The note of legends."""


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save inside this; nothing outside changes."""
    with mpl.rc_context(cast(Any, RC)):
        yield


@dataclass(frozen=True)
class Look:
    """Colour, marker and line of one upstream, the same in every figure."""

    color: str
    marker: str
    line: Any


@dataclass(frozen=True)
class Plot:
    """A figure with its file name (without suffix), heading and caption."""

    name: str
    title: str
    caption: str
    figure: Figure


def looks(fixed: Sequence[str], learned: Sequence[str]) -> dict[str, Look]:
    """One look per upstream. Colours and markers repeat only after 72 learned upstreams."""
    found = {
        name: Look(GREYS[i % len(GREYS)], FIXED_MARKERS[i % len(FIXED_MARKERS)], FIXED_LINES[i % len(FIXED_LINES)])
        for i, name in enumerate(fixed)
    }
    for i, name in enumerate(learned):
        found[name] = Look(PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)], "-")
    return found


def plain(text: str) -> str:
    """Text that matplotlib draws as it is: no control characters, no mathematics."""
    return printable(text).replace("\\", "＼").replace("$", r"\$")


def panel_title(board: Board, task: str) -> str:
    """``ASR · WER (%) ↓``."""
    shown = face(board.metric(task))
    return plain(f"{task.upper()} · {shown.title} (%) {shown.arrow}")


def panels(count: int, height: float, columns: int = 4, **share: Any) -> tuple[Figure, list[Axes], Axes | None]:
    """A grid of ``count`` panels, ``height`` inches each.

    Returns:
        The figure, its panels row by row, and the first free slot (for a legend), if there is one.
    """
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    size = (WIDTH if columns > 1 else WIDTH / 2, height * rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = list(np.asarray(figure.subplots(rows, columns, squeeze=False, **share)).flat)
    for free in axes[count:]:
        free.set_axis_off()
    return figure, axes[:count], axes[count] if len(axes) > count else None


def panel_height(board: Board) -> float:
    """Inches of a panel that lets the legend fit into one, too."""
    return max(1.62, 0.45 + 0.165 * (len(board.upstreams) + 1))


def legend(figure: Figure, slot: Axes | None, handles: Sequence[Artist], note: str = "") -> None:
    """The legend in the free slot of the grid, or above all panels (in room of its own) where there is none."""
    if slot is not None:
        box = slot.legend(handles=list(handles), loc="upper left", borderaxespad=0, title=note or None)
    else:
        columns = max(1, min(len(handles), 4 if figure.get_figwidth() > WIDTH / 2 else 2))
        lines = math.ceil(len(handles) / columns) + note.count("\n") + bool(note)
        figure.set_figheight(figure.get_figheight() + 0.18 * lines + 0.1)
        title = note.replace("\n", " ") or None
        box = figure.legend(handles=list(handles), loc="outside upper center", ncols=columns, title=title)
    box.get_title().set_fontsize(7)
    box.set_alignment("left")


def freeze(figure: Figure) -> None:
    """Lay the figure out once; saving it in several formats then does not do so again."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


def point_to_better(axes: Axes, board: Board, task: str, axis: str = "y") -> None:
    """Turn the score axis so that up (or right) is better, with few round ticks."""
    turn(axes, face(board.metric(task)).higher_is_better, axis)


def turn(axes: Axes, higher_is_better: bool, axis: str = "y") -> None:
    """As :func:`point_to_better`, where the direction is known."""
    chosen = axes.yaxis if axis == "y" else axes.xaxis
    chosen.set_major_locator(MaxNLocator(4, min_n_ticks=3))
    if not higher_is_better:
        chosen.set_inverted(True)


def least_range(axes: Axes, axis: str = "y") -> None:
    """Scores that are all but equal are drawn so: no score axis spans less than :data:`LEAST_RANGE`."""
    low, high = axes.get_ylim() if axis == "y" else axes.get_xlim()
    if abs(high - low) < LEAST_RANGE:
        middle, half = (low + high) / 2, LEAST_RANGE / 2 * (1 if high > low else -1)
        (axes.set_ylim if axis == "y" else axes.set_xlim)(middle - half, middle + half)


def log_axis(axes: Axes, values: Sequence[float], form: Callable[[float], str] = "{:g}".format) -> None:
    """A logarithmic x axis around the values, with ticks at decades, or at 1, 2 and 5 where the range is short."""
    low, high = min(values), max(values)
    room = max(1.35, (high / low) ** 0.12, (2.6 * low / high) ** 0.5)
    axes.set_xscale("log")
    axes.set_xlim(low / room, high * room)
    steps = (1.0,) if high / low > 60 else (1.0, 2.0, 5.0)
    decades = range(math.floor(math.log10(low / room)), math.ceil(math.log10(high * room)) + 1)
    ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
    axes.set_xticks([tick for tick in ticks if low / room <= tick <= high * room])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: form(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


class Scored(Protocol):
    """Anything with a score and, where it has one, a 95 % interval."""

    @property
    def value(self) -> float:
        """The score."""

    @property
    def ci95(self) -> Sequence[float] | None:
        """Its interval, low and high."""


def off_scale(records: Mapping[str, Scored], higher_is_better: bool) -> frozenset[str]:
    """Systems so far behind that drawing them to scale would press all others together.

    At most half of them: those whose gap to the next interval is more than three times what all better ones span, and
    more than the least range of an axis.
    """
    sign = 1.0 if higher_is_better else -1.0
    order = sorted(records, key=lambda name: sign * records[name].value)
    ends = {name: sorted(sign * end for end in record.ci95 or [record.value]) for name, record in records.items()}
    for count in range(min(len(order) - 2, len(order) // 2), 0, -1):
        far, near = order[:count], order[count:]
        low, high = min(ends[name][0] for name in near), max(ends[name][-1] for name in near)
        if low - max(ends[name][-1] for name in far) > max(3.0 * (high - low), LEAST_RANGE):
            return frozenset(far)
    return frozenset()


def dodge(values: Mapping[str, float], step: float, most: float = 12.0) -> dict[str, float]:
    """Offsets in points that part the upstreams whose values coincide (within 3 percent), over at most ``most``."""
    offsets = dict.fromkeys(values, 0.0)
    for value in values.values():
        twins = [name for name, other in values.items() if abs(other - value) <= 0.03 * max(abs(other), abs(value))]
        apart = min(step, most / max(1, len(twins) - 1))
        for place, name in enumerate(twins):
            offsets[name] = (place - (len(twins) - 1) / 2) * apart
    return offsets
