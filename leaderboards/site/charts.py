"""The page's figures as plain shapes; the templates turn these into SVG, so that all text is escaped in one place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from harness.show import interval, number, rate
from leaderboards.published import RANKED
from leaderboards.site.entries import OVERALL, Column, Content, Entry, Score, mean_weights, sign_notes
from leaderboards.site.labels import Room
from leaderboards.site.links import anchor_of, page_of, record_file
from leaderboards.site.scales import LEAST_RANGE, Axis, linear, logarithmic
from leaderboards.tradeoff import front

WIDTH = 600
ROW = 22


@dataclass(frozen=True)
class Tip:
    """What hovering over or focusing on a shape says, and where it leads.

    Attributes:
        name: the system.
        text: the number with its interval, in words.
        page: page with the details; ``anchor`` its section.
        record: the page's copy of the record, ``None`` for published numbers.
    """

    name: str
    text: str
    page: str
    anchor: str
    record: str | None = None


@dataclass(frozen=True)
class Dot:
    """A score: a disc with a bar where measured, a diamond where published."""

    x: float
    y: float
    origin: str
    tip: Tip
    low: float | None = None
    high: float | None = None
    label: str = ""
    value: str = ""
    sign: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a heat map; ``level`` between 0 and 1 is its ink."""

    x: float
    y: float
    width: float
    height: float
    level: float
    text: str
    tip: Tip


@dataclass(frozen=True)
class Line:
    """A line through points, or a level with a label where it has one."""

    points: tuple[tuple[float, float], ...]
    kind: Literal["front", "level", "curve"]
    label: str = ""

    @property
    def path(self) -> str:
        """The points as SVG writes them."""
        return " ".join(f"{x:g},{y:g}" for x, y in self.points)


@dataclass(frozen=True)
class Chart:
    """One figure.

    Attributes:
        kind: ``dots``, ``scatter``, ``heat`` or ``curves``.
        title: heading.
        caption: what it shows and how to read it.
        columns: names along the top or bottom of a heat map, with their places.
        rows: names at the left, with their places.
    """

    kind: Literal["dots", "scatter", "heat", "curves"]
    title: str
    caption: str
    height: float
    width: float = WIDTH
    x: Axis | None = None
    y: Axis | None = None
    x_title: str = ""
    y_title: str = ""
    dots: tuple[Dot, ...] = ()
    lines: tuple[Line, ...] = ()
    cells: tuple[Cell, ...] = ()
    columns: tuple[tuple[float, str], ...] = ()
    rows: tuple[tuple[float, str], ...] = ()
    key: tuple[str, ...] = field(default=())


def words(score: Score, where: Column) -> str:
    """A score in words: value, interval, seeds and test size, and what is special about it."""
    parts = [f"{where.title} {where.metric} {score.text} {where.unit}"]
    if score.ci95 and score.record:
        parts.append(f"95 % interval {interval(score.ci95)}")
        parts.append(f"{len(score.record.seeds)} seeds, {score.record.n_test} test rows")
    else:
        parts.append("no interval")
    return "; ".join([*parts, *filter(None, [score.note])])


def tip(entry: Entry, where: Column, extra: str = "") -> Tip:
    """What a score's shape says."""
    score = entry.scores[where]
    file = record_file(score)
    text = words(score, where) + (f"; {extra}" if extra else "")
    return Tip(entry.name, text, str(page_of(entry)), anchor_of(entry.suite, where.task), str(file) if file else None)


def _named(where: Column) -> str:
    return where.metric if where.task == OVERALL else where.title


def _clip(text: str, size: int = 26) -> str:
    return text if len(text) <= size else text[: size - 1].rstrip() + "…"


def ranking(entries: Sequence[Entry], where: Column, suite: str) -> Chart | None:
    """All comparable scores of one column, best first, with intervals."""
    shown = [
        entry for entry in entries if entry.suite == suite and where in entry.scores and not entry.scores[where].odd
    ]
    if not shown:
        return None
    sign = -1.0 if where.higher_is_better else 1.0
    shown.sort(key=lambda entry: (sign * entry.scores[where].value, entry.name))
    ends = [end for entry in shown for end in (entry.scores[where].ci95 or (entry.scores[where].value,))]
    axis = linear(ends, 190, WIDTH - 60)
    dots = []
    for place, entry in enumerate(shown):
        score = entry.scores[where]
        low, high = [axis.at(end) for end in score.ci95] if score.ci95 else [None, None]
        y = 14 + ROW * place
        dots.append(
            Dot(
                axis.at(score.value),
                y,
                entry.origin,
                tip(entry, where),
                low,
                high,
                _clip(entry.name, 24),
                score.text,
                score.sign,
            )
        )
    bars = " Bars are 95 % intervals over test speakers." if any(dot.low is not None for dot in dots) else ""
    return Chart(
        "dots",
        f"{_named(where)} on {suite}",
        f"{where.metric}, best first.{bars}{sign_notes(shown, where)}",
        ROW * len(shown) + 44,
        x=axis,
        x_title=f"{where.metric} ({where.unit}) {where.arrow}",
        dots=tuple(dots),
        key=tuple(dict.fromkeys(entry.origin for entry in shown)),
    )


COSTS = {
    "params": ("parameters", "parameters (M, log scale)"),
    "macs_rate": ("MACs per second", "MACs per second of audio (G, log scale)"),
    "macs": ("MACs of SUPERB's 32 utterances", "MACs over SUPERB's 32 utterances (G, log scale)"),
}


def cost_of(entry: Entry, what: str) -> float | None:
    """A cost in the unit of its axis; ``None`` where it is unknown or nothing."""
    value: float | None = getattr(entry, what)
    if not value:
        return None
    return value / 1e6 if what == "params" else value


def tradeoff(entries: Sequence[Entry], where: Column, suite: str, what: str) -> Chart | None:
    """Scores of one column against a cost, with the Pareto front of each origin; up is better."""
    fair = [
        entry for entry in entries if entry.suite == suite and where in entry.scores and not entry.scores[where].odd
    ]
    placed = [(cost, entry) for entry in fair if entry.params != 0 and (cost := cost_of(entry, what)) is not None]
    if len({cost for cost, _ in placed}) < 2:
        return None
    fixed = [entry for entry in fair if entry.params == 0 and entry.ranked]
    height = 380
    shown = [*fixed, *(entry for _, entry in placed)]
    values = [end for entry in shown for end in (entry.scores[where].ci95 or (entry.scores[where].value,))]
    top, bottom = (16.0, height - 46.0) if where.higher_is_better else (height - 46.0, 16.0)
    y = linear(values, bottom, top)
    x = logarithmic([cost for cost, _ in placed], 56, WIDTH - 20)
    lines = _levels(fixed, where, x, y)
    named: set[str] = set()
    for origin in dict.fromkeys(entry.origin for _, entry in placed):
        points = {e.name: (cost, e.scores[where].value) for cost, e in placed if e.origin == origin and e.ranked}
        floors = {e.name: e.scores[where].value for e in fixed if e.origin == origin}
        best = front(points, floors, where.higher_is_better)
        named |= {name for name, *_ in best}
        if best:
            lines.append(_steps([(x.at(cost) if cost else x.start, y.at(score)) for _, cost, score in best], x.end))
    title, axis_title = COSTS[what]
    dots = [
        _point(entry, where, x.at(cost), y, cost, what, len(placed) <= 8 or entry.name in named)
        for cost, entry in placed
    ]
    return Chart(
        "scatter",
        f"{_named(where)} against {title} on {suite}",
        "Up is better. The stepped line is the Pareto front: the best score up to that cost."
        + (" Dashed levels have no parameters and are its first step." if fixed else "")
        + (" Bars are 95 % intervals over test speakers." if any(dot.low is not None for dot in dots) else "")
        + (f" {RANKED}" if any(not entry.ranked for _, entry in placed) else "")
        + sign_notes(shown, where),
        height,
        x=x,
        y=y,
        x_title=axis_title,
        y_title=f"{where.metric} ({where.unit}) {where.arrow}",
        dots=tuple(_apart(dots, lines)),
        lines=tuple(lines),
        key=(*dict.fromkeys(entry.origin for _, entry in placed), "front"),
    )


def _levels(fixed: Sequence[Entry], where: Column, x: Axis, y: Axis) -> list[Line]:
    """The levels of features without parameters; a name gives way to one that is near."""
    found: list[Line] = []
    for entry in sorted(fixed, key=lambda entry: y.at(entry.scores[where].value)):
        at = y.at(entry.scores[where].value)
        free = all(abs(at - line.points[0][1]) > 13 for line in found if line.label)
        found.append(Line(((x.start, at), (x.end, at)), "level", _clip(entry.name) if free else ""))
    return found


def _steps(corners: Sequence[tuple[float, float]], end: float) -> Line:
    """A stepped line through the corners, to the end of the axis."""
    steps = [corners[0]]
    for corner in corners[1:]:
        steps += [(corner[0], steps[-1][1]), corner]
    return Line((*steps, (end, steps[-1][1])), "front")


def _point(entry: Entry, where: Column, x: float, y: Axis, cost: float, what: str, named: bool) -> Dot:
    score = entry.scores[where]
    low, high = [y.at(end) for end in score.ci95] if score.ci95 else [None, None]
    unit = {"params": "M parameters", "macs_rate": "G MACs per second", "macs": "G MACs"}[what]
    label = _clip(entry.name, 24) + score.sign if named else score.sign
    return Dot(x, y.at(score.value), entry.origin, tip(entry, where, f"{cost:.4g} {unit}"), low, high, label)


def _apart(dots: Sequence[Dot], lines: Sequence[Line]) -> list[Dot]:
    """Bars of exactly one cost stand side by side, all else where it belongs; a name gives way to what is there."""
    room = Room([(dot.x, dot.y) for dot in dots], [line.points for line in lines], (56, WIDTH))
    found: list[Dot] = []
    for dot in sorted(dots, key=lambda dot: (dot.x, dot.y)):
        twins = [other.tip.name for other in dots if other.x == dot.x and other.low is not None]
        aside = 7 * (twins.index(dot.tip.name) - (len(twins) - 1) / 2) if dot.tip.name in twins else 0.0
        side = room.side((dot.x, dot.y), dot.label)
        label = dot.label if side else ""
        found.append(replace(dot, x=round(dot.x + aside, 2), label=label, value="left" if side == "left" else ""))
    return found


def layer_weights(entry: Entry) -> Chart | None:
    """Softmax weight of every state for every task, in percent."""
    found = [
        (where, score.record) for where, score in entry.scores.items() if score.record and mean_weights(score.record)
    ]
    if not found or len(mean_weights(found[0][1])) < 2:
        return None
    states = max(len(mean_weights(record)) for _, record in found)
    width = min(44.0, (WIDTH - 70) / states)
    top = max(max(mean_weights(record)) for _, record in found)
    cells = []
    for row, (where, record) in enumerate(found):
        for state, weight in enumerate(mean_weights(record)):
            here = tip(entry, where)
            said = Tip(
                where.title, f"state {state}: {100 * weight:.1f} % of the weight", here.page, here.anchor, here.record
            )
            text = f"{100 * weight:.0f}" if width >= 20 else ""
            cells.append(
                Cell(round(62 + width * state, 2), 8 + 26 * row, round(width - 2, 2), 24, weight / top, text, said)
            )
    return Chart(
        "heat",
        f"Layer weights on {entry.suite}",
        "Softmax weight of each state in percent, mean over seeds; state 0 is nearest the input. States differ in "
        "norm, so a small weight is not always a small share.",
        26 * len(found) + 46,
        x_title="state",
        cells=tuple(cells),
        rows=tuple((8 + 26 * row + 16.5, where.title) for row, (where, _) in enumerate(found)),
        columns=tuple((round(62 + width * (state + 0.5) - 1, 2), str(state)) for state in range(states)),
    )


def learning_rates(entry: Entry, where: Column) -> Chart | None:
    """Dev score against learning rate, mean over seeds; the chosen rate is named."""
    record = entry.scores[where].record
    if record is None:
        return None
    scores: dict[float, list[float]] = {}
    for trial in record.trials:
        if trial["dev"] is not None:
            scores.setdefault(trial["learning_rate"], []).append(trial["dev"])
    rates = sorted(scores)
    if len(rates) < 2:
        return None
    means = {tried: math.fsum(scores[tried]) / len(scores[tried]) for tried in rates}
    height, width = 160, 290
    top, bottom = (12.0, height - 40.0) if where.higher_is_better else (height - 40.0, 12.0)
    y = linear([value for values in scores.values() for value in values], bottom, top, 4)
    x = Axis(rates[0] / 1.6, rates[-1] * 1.6, 44, width - 10, log=True)
    page, anchor = str(page_of(entry)), anchor_of(entry.suite, where.task)
    dots = [
        Dot(x.at(tried), y.at(means[tried]), "chosen" if tried == record.learning_rate else "tried",
            Tip(where.title, f"rate {rate(tried)}: dev {number(means[tried])} %, seeds {number(min(scores[tried]))} to "
                f"{number(max(scores[tried]))}" + (" (chosen)" if tried == record.learning_rate else ""), page, anchor),
            y.at(min(scores[tried])), y.at(max(scores[tried])), value=rate(tried))
        for tried in rates
    ]  # fmt: skip
    return Chart(
        "curves",
        f"{where.title}, {where.metric} {where.arrow} on dev",
        "",
        height,
        width,
        x=x,
        y=y,
        x_title="learning rate",
        dots=tuple(dots),
        lines=(Line(tuple((dot.x, dot.y) for dot in dots), "curve"),),
    )


def depth_width(content: Content, suite: str, where: Column) -> Chart | None:
    """Depth by width of the measured upstreams of one suite: number and ink are the score, darker is better."""
    shape: dict[tuple[int, int], list[tuple[Entry, Score]]] = {}
    for entry in content.entries:
        score = entry.scores.get(where)
        if entry.suite == suite and score and score.record and not score.odd:
            upstream = score.record.upstream
            if upstream["depth"] and upstream["width"]:
                shape.setdefault((upstream["width"], upstream["depth"]), []).append((entry, score))
    if len(shape) < 2:
        return None
    widths, depths = sorted({pair[0] for pair in shape}), sorted({pair[1] for pair in shape}, reverse=True)
    values = [score.value for found in shape.values() for _, score in found]
    low, high = min(values), max(values)
    crowd = {width: max(len(found) for pair, found in shape.items() if pair[0] == width) for width in widths}
    unit = min(84.0, (WIDTH - 80) / sum(crowd.values()))
    starts = {width: 74 + unit * sum(crowd[other] for other in widths if other < width) for width in widths}
    cells = []
    for (width, depth), found in shape.items():
        for place, (entry, score) in enumerate(found):
            share = (score.value - low) / max(high - low, LEAST_RANGE)
            level = share if where.higher_is_better else 1.0 - share
            said = tip(entry, where, f"{depth} layers of width {width}, {(entry.params or 0) / 1e6:.1f} M parameters")
            x = round(starts[width] + unit * place, 2)
            cells.append(Cell(x, 8 + 46 * depths.index(depth), round(unit - 3, 2), 42, level, score.text, said))
    return Chart(
        "heat",
        f"{where.title}: depth against width on {suite}",
        f"{where.metric} in percent; more ink is better. Upstreams of one shape stand side by side.",
        46 * len(depths) + 46,
        x_title="width (state size)",
        cells=tuple(cells),
        rows=tuple((8 + 46 * i + 26, f"{depth} layers") for i, depth in enumerate(depths)),
        columns=tuple((round(starts[w] + unit * crowd[w] / 2 - 1, 2), str(w)) for w in widths),
    )
