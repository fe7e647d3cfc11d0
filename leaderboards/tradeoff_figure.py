"""The trade-off figures: scores against one cost, with the Pareto front; measured filled, published hollow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from harness.show import face, number
from leaderboards import overall
from leaderboards.board import Board
from leaderboards.costs import TIMED, median_cost, timing
from leaderboards.depth_width.shapes import published_columns
from leaderboards.overall import Overall, Whole
from leaderboards.published import PUBLISHED, RANKED, Row
from leaderboards.published.marks import footnotes, of_signs
from leaderboards.style import (
    BETTER,
    Look,
    Plot,
    Scored,
    dodge,
    least_range,
    legend,
    log_axis,
    off_scale,
    panel_height,
    panel_title,
    panels,
    plain,
    turn,
)
from leaderboards.tradeoff import front

AXES = {
    "params": ("parameters (millions)", 1e6, "params"),
    "macs_per_second": ("GMACs per second of audio", 1e9, "macs"),
    "real_time_factor": ("real-time factor (s per s of audio)", 1.0, "rtf"),
    "bytes_on_disk": ("size on disk (MB)", 1e6, "bytes"),
}
"""Cost axes: label, the unit shown, and the end of the figure's name."""

PUBLISHED_AXES = {
    "params_m": ("parameters (millions)", "params"),
    "macs_g": ("GMACs over SUPERB's 32 utterances", "macs"),
}
"""Costs that published rows state, by quantity."""

SAME_SUITE = "superb"
"""The suite whose measured scores stand beside published ones."""

FLOOR, TEACHER = "FBANK", "HuBERT Base"
"""The lines of the published figure; most published students have this teacher."""

FRONT = "#aaaaaa"

SHAPES = {"": "o", "§": "^", "‡": "v", "≈": "D", "∼": "h"}
"""Markers of published points, by the sign that says how the value reached us."""


@dataclass(frozen=True)
class Panel:
    """One panel: its title, the direction, and scores by name; ``others`` are published ones beside measured.

    ``signs`` say how a published score reached us, by name.
    """

    title: str
    higher_is_better: bool
    scores: Mapping[str, Scored]
    others: Mapping[str, float] = field(default_factory=dict)
    signs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sheet:
    """What one figure shows besides its panels: costs in the unit shown, by name, and who is a line.

    ``unranked`` are drawn, but on no front.
    """

    cost: Mapping[str, float]
    faces: Mapping[str, Look]
    floors: Sequence[str]
    teachers: Sequence[str]
    other_cost: Mapping[str, float] = field(default_factory=dict)
    filled: bool = True
    unranked: frozenset[str] = frozenset()


def tradeoff(
    board: Board, faces: Mapping[str, Look], what: str, whole: Overall | None = None, rows: Sequence[Row] = ()
) -> Plot | None:
    """Scores per task, and overall where there is one, against one cost of the records.

    Args:
        board: the suite's records.
        faces: how each upstream looks.
        what: one of :data:`AXES`.
        whole: overall scores.
        rows: published rows; only those of SUPERB's own suite stand beside measured ones.
    """
    label, unit, short = AXES[what]
    stated = {name: median_cost(board, name, what) for name in board.learned()}
    cost = {name: value / unit for name, value in stated.items() if value}
    if not cost:
        return None
    same = board.suite == SAME_SUITE and what == "params"
    beside = [row for row in rows if same and row.ranked and row.alternate_of is None]
    others = {column.task: column for column in published_columns(beside)}
    theirs: Mapping[str, Mapping[str, float]] = {task: column.values for task, column in others.items()}
    dear = _costs(beside, "params_m")
    signs: Mapping[str, Mapping[str, str]] = {
        task: {name: sign for name, sign in column.signs.items() if name in dear} for task, column in others.items()
    }
    up = {task: face(board.metric(task)).higher_is_better for task in board.tasks}
    sheet = Sheet(cost, faces, board.fixed(), board.teachers(), dear)
    shown = [
        Panel(panel_title(board, task), up[task], board.fair(task), theirs.get(task, {}), signs.get(task, {}))
        for task in board.tasks
    ]
    tasks = len(shown)
    if whole is not None and any(name in whole.scores for name in cost):
        shown.append(Panel(plain(f"Overall · {whole.title} ↑"), True, whole.scores))
    figure = _draw(shown, sheet, panel_height(board), label)
    missing = [name for name in stated if name not in cost]
    caption = (
        f"Suite {board.suite}. Score against {label}, with 95 % intervals over test speakers. Steps: Pareto front, "
        "features without parameters (grey) its first step; dashed: a teacher. Upstreams of equal cost stand side "
        "by side. Axes are turned so that up is better."
        + (f" Timed {timing(board)}." if what in TIMED else "")
        + (f" Overall: {whole.covers}, t-interval over speakers and seeds." if whole and len(shown) > tasks else "")
        + (f" Not shown, as the cost is unknown{' there' * (what in TIMED)}: {', '.join(missing)}." if missing else "")
    )
    notes = footnotes([PUBLISHED], of_signs(_signs_of(shown))) if beside else []
    caption = " ".join([caption, *notes])
    return Plot(f"tradeoff_{short}", f"Compression trade-off: {label}", caption, figure)


def published_tradeoff(rows: Sequence[Row], what: str, weighting: str = overall.PUBLISHED) -> Plot | None:
    """Published students of any teacher against one cost, hollow and without intervals."""
    label, short = PUBLISHED_AXES[what]
    teachers = {row.teacher for row in rows if row.teacher}
    chosen = [row for row in rows if row.teacher or row.system in teachers]
    cost = _costs(chosen, what)
    lines = [row for row in rows if row.system in (FLOOR, TEACHER)]
    if not cost:
        return None
    looks = {row.system: Look(PUBLISHED.colour, "s" if row.system in teachers else "o", "--") for row in chosen}
    looks[FLOOR] = Look("#8c8c8c", "X", ":")
    everything = [*chosen, *(row for row in lines if row not in chosen)]
    shown = [
        Panel(
            plain(f"{column.task.upper()}{PUBLISHED.sign} · {column.title.replace(' ', ' (%) ')}"),
            column.higher_is_better,
            {name: Whole(value) for name, value in column.values.items()},
            signs={name: sign for name, sign in column.signs.items() if name in cost},
        )
        for column in published_columns(everything)
    ]
    whole = overall.published(everything, weighting)
    if whole.scores:
        shown.append(Panel(plain(f"Overall{PUBLISHED.sign} · {whole.title} ↑"), True, whole.scores))
    floors = [row.system for row in lines if row.system == FLOOR]
    tops = [row.system for row in lines if row.system == TEACHER]
    older = frozenset(row.system for row in chosen if not row.ranked)
    figure = _draw(shown, Sheet(cost, looks, floors, tops, filled=False, unranked=older), 1.62, label)
    unknown = [row.system for row in chosen if row.system not in cost and row.metrics()]
    caption = (
        f"Published students and their teachers (squares): score against {label}, as their sources count them. Steps: "
        f"Pareto front of those shown, {FLOOR} its first step; dashed: {TEACHER}; dotted: {FLOOR}. {RANKED} "
        "Axes are turned so that up is better."
        + (f" Not shown, as the cost is unknown: {', '.join(unknown)}." if unknown else "")
    )
    notes = footnotes([PUBLISHED], of_signs(_signs_of(shown)))
    title = f"Compression trade-off, published: {label}"
    return Plot(f"published_tradeoff_{short}", title, " ".join([caption, *notes]), figure)


def _signs_of(shown: Iterable[Panel]) -> str:
    return "".join(sign for one in shown for sign in one.signs.values())


def _costs(rows: Iterable[Row], what: str) -> dict[str, float]:
    found = {row.system: row.value(what) for row in rows}
    return {name: value for name, value in found.items() if value}


def _draw(shown: Sequence[Panel], sheet: Sheet, height: float, label: str) -> Figure:
    figure, axes, slot = panels(len(shown), height)
    for panel, one in zip(axes, shown, strict=True):
        panel.set_title(one.title)
        _panel(panel, one, sheet)
    figure.supxlabel(label, fontsize=7.5)
    others = any(one.others.keys() & sheet.other_cost.keys() for one in shown)
    legend(figure, slot, _handles(sheet, others, _signs_of(shown)), BETTER)
    return figure


def _panel(panel: Axes, one: Panel, sheet: Sheet) -> None:
    named = {n: s for n, s in one.scores.items() if n in sheet.cost or n in sheet.floors or n in sheet.teachers}
    far = off_scale(named, one.higher_is_better)
    near = {name: score for name, score in named.items() if name not in far}
    for name in (*sheet.floors, *sheet.teachers):
        if name in near:
            style = sheet.faces[name].line if name in sheet.floors else "--"
            panel.axhline(near[name].value, color=sheet.faces[name].color, linestyle=style, linewidth=1.0, alpha=0.8)
    points = {name: (sheet.cost[name], near[name].value) for name in sheet.cost if name in near}
    shift = dodge(sheet.cost, 6.0) if sheet.filled else dict.fromkeys(sheet.cost, 0.0)
    ranked = {name: point for name, point in points.items() if name not in sheet.unranked}
    _front(panel, ranked, {n: near[n].value for n in sheet.floors if n in near}, one.higher_is_better)
    for name in points:
        sign = "" if sheet.filled else one.signs.get(name, "")
        look = replace(sheet.faces[name], marker=SHAPES[sign]) if sign else sheet.faces[name]
        _point(panel, near[name], sheet.cost[name], shift[name], look, sheet.filled)
    for name in [name for name in one.others if name in sheet.other_cost]:
        shape = SHAPES[one.signs.get(name, "")]
        panel.plot(sheet.other_cost[name], one.others[name], shape, color=PUBLISHED.colour, markerfacecolor="white",
                   markersize=3.2, markeredgewidth=0.8, zorder=1.5)  # fmt: skip
    used = [*sheet.cost.values(), *(sheet.other_cost[n] for n in one.others if n in sheet.other_cost)]
    log_axis(panel, used)
    turn(panel, one.higher_is_better)
    panel.margins(y=0.1)
    least_range(panel)
    _far_notes(panel, {name: named[name] for name in named if name in far})


def _far_notes(panel: Axes, far: Mapping[str, Scored]) -> None:
    """Scores too low for the scale, in words below the points, in room of their own."""
    low, high = panel.get_ylim()
    panel.set_ylim(low - (high - low) * 0.11 * len(far), high)
    for place, (name, score) in enumerate(far.items()):
        panel.annotate(
            plain(f"↓ {name} {number(score.value)}"), (0, 0), (3, 3 + 8 * place), "axes fraction",
            textcoords="offset points", fontsize=6.5, va="bottom",
        )  # fmt: skip


def _front(
    panel: Axes, points: Mapping[str, tuple[float, float]], floors: Mapping[str, float], higher_is_better: bool
) -> None:
    """The Pareto front as steps: what can be had up to a cost. What costs nothing begins left of the axis."""
    best = front(points, floors, higher_is_better)
    if best and points:
        costs = [cost for cost, _ in points.values()]
        x = [*(cost or min(costs) / 100 for _, cost, _ in best), max(costs) * 100]
        y = [*(score for *_, score in best), best[-1][2]]
        panel.plot(x, y, drawstyle="steps-post", color=FRONT, linewidth=1.0, zorder=1)


def _point(panel: Axes, score: Scored, x: float, shift: float, look: Look, filled: bool) -> None:
    move = ScaledTranslation(shift / 72, 0, panel.figure.dpi_scale_trans)
    shared: dict[str, Any] = {"transform": panel.transData + move, "color": look.color}
    if score.ci95:
        panel.plot([x, x], score.ci95, linewidth=1.4, solid_capstyle="butt", zorder=2, **shared)
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.4} if filled else {"markerfacecolor": "white"}
    size = 4.5 if filled else 3.4
    panel.plot([x], [score.value], look.marker, markersize=size, zorder=3, **edge, **shared)
    for end in score.ci95 or (score.value,):
        panel.update_datalim([(x, end)])


def _handles(sheet: Sheet, others: bool, signs: str) -> list[Line2D]:
    front_line = Line2D([], [], color=FRONT, drawstyle="steps-post", label="Pareto front")
    if not sheet.filled:
        lines = [Line2D([], [], color=sheet.faces[n].color, linestyle=sheet.faces[n].line, label=plain(n))
                 for n in (*sheet.floors, *sheet.teachers)]  # fmt: skip
        shapes = [_hollow("published student", "o"), _hollow("a teacher", "s"), *_by_sign(signs)]
        return [*shapes, *lines, front_line]
    handles = []
    for name, look in sheet.faces.items():
        if name in sheet.cost:
            line: Any = "--" if name in sheet.teachers else "none"
            handles.append(Line2D([], [], color=look.color, marker=look.marker, linestyle=line, label=plain(name)))
        elif name in sheet.floors:
            handles.append(Line2D([], [], color=look.color, linestyle=look.line, label=plain(name)))
    if others:
        handles += [_hollow(f"published {PUBLISHED.sign}", "o"), *_by_sign(signs)]
    return [*handles, front_line]


def _by_sign(signs: str) -> list[Line2D]:
    """The shapes of published points that their source does not itself print."""
    return [_hollow(f"{mark.title} {mark.sign}", SHAPES[mark.sign]) for mark in of_signs(signs)]


def _hollow(label: str, marker: str) -> Line2D:
    return Line2D(
        [], [], color=PUBLISHED.colour, marker=marker, markerfacecolor="white", linestyle="none", label=plain(label)
    )
