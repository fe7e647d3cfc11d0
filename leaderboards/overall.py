"""Overall scores of a board, by any weighting, with the interval that the resamples of its tasks give."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from leaderboards import scores
from leaderboards.board import Board
from leaderboards.published import Row
from leaderboards.render import EMPTY, Cell, Mark
from leaderboards.resamples import Floats, Resamples, limits

DEFAULT = "slim_mean"
"""The weighting of measured boards."""

PUBLISHED = "superb_s"
"""The weighting of published rows."""


@dataclass(frozen=True)
class Whole:
    """One overall score, up is better; ``ci95`` is ``None`` where nothing was or can be resampled."""

    value: float
    ci95: tuple[float, float] | None = None


@dataclass(frozen=True)
class Overall:
    """Overall scores by system, all over the same metrics; who has none is in ``notes``.

    ``title`` is the weighting's, ``covers`` says besides how many of its metrics are in the score where not all are.
    """

    title: str
    covers: str
    unit: str
    digits: int
    scores: Mapping[str, Whole]
    notes: tuple[str, ...] = ()


def measured(board: Board, drawn: Resamples, weighting: str = DEFAULT) -> Overall:
    """The overall scores of the upstreams that have comparable records of all tasks of the board.

    The scale stays that of the measured scores; only what is weighted is resampled.

    Raises:
        SlimbenchError: no such weighting, or it is one of published values.
    """
    how = scores.weighting(weighting)
    whole = [name for name in board.upstreams if all(name in board.fair(task) for task in board.tasks)]
    left = [name for name in board.upstreams if name not in whole]
    notes = [f"No overall score of {', '.join(left)}: not all tasks are there and comparable."] * bool(left)
    records = [record for name in whole for record in board.of(name)]
    found = {name: score for name, score in scores.score_records(how, records).items() if score.value is not None}
    if not found:
        return Overall(how.title, how.title, how.unit, how.digits, MappingProxyType({}), tuple(notes))
    used = next(iter(found.values())).used
    named = {f"{task}.{board.metric(task)}": task for task in board.tasks}
    drawable = all(named.get(metric) in drawn.tasks for metric in used)
    draws = _draws(how, board, drawn, {m: named[m] for m in used}, list(found)) if drawable else {}
    if not drawable:
        notes.append("The overall score has no interval: not all of its metrics could be resampled.")
    made = {
        name: Whole(score.value, limits(draws[name]) if name in draws else None)
        for name, score in found.items()
        if score.value is not None
    }
    covers = next(iter(found.values())).name
    return Overall(how.title, covers, how.unit, how.digits, MappingProxyType(made), tuple(notes))


def _draws(
    how: scores.Weighting, board: Board, drawn: Resamples, used: Mapping[str, str], names: Iterable[str]
) -> dict[str, Floats]:
    """The overall score of each upstream on each resample."""
    table = {name: {metric: board.cells[name, task].value for metric, task in used.items()} for name in names}
    scale, _ = scores.lines(how, table)
    return {
        name: scores.combine(how, {metric: drawn.tasks[task].draws[name] for metric, task in used.items()}, scale)
        for name in table
    }


def published(rows: Iterable[Row], weighting: str = PUBLISHED) -> Overall:
    """The overall scores of the published rows that have all metrics of the weighting; without intervals."""
    how = scores.weighting(weighting)
    found = {name: score for name, score in scores.score_published(how, rows).items() if not score.missing}
    made = {name: Whole(score.value) for name, score in found.items() if score.value is not None}
    return Overall(how.title, how.title, how.unit, how.digits, MappingProxyType(made))


def cell(found: Overall, name: str, unranked: Collection[str] = ()) -> Cell:
    """The cell of one system, best and second best of all but ``unranked`` marked as the numbers are shown."""
    if name not in found.scores:
        return EMPTY

    def text(value: float) -> str:
        return f"{round(value, found.digits) + 0.0:.{found.digits}f}"

    mine = found.scores[name]
    ranked = {other: text(score.value) for other, score in found.scores.items() if other not in unranked}
    order = sorted(set(ranked.values()), key=float, reverse=True)
    place = order.index(ranked[name]) if len(ranked) > 1 and name in ranked else 2
    mark: Mark = "best" if place == 0 else "second" if place == 1 else ""
    small = f"[{text(mine.ci95[0])}, {text(mine.ci95[1])}]" if mine.ci95 else ""
    return Cell(text(mine.value), small, mark)
