"""Overall scores of a board, by any weighting, with the interval that the resamples of its tasks give."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from leaderboards import scores
from leaderboards.board import Board
from leaderboards.published import Row
from leaderboards.ranking import Shown, marks
from leaderboards.render import EMPTY, Cell
from leaderboards.resamples import Resamples
from leaderboards.uncertainty import Part, interval

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

    The scale stays that of the measured scores; only what is weighted has an error.

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
    firm = {task for task, column in drawn.tasks.items() if column.firm}
    drawable = all(named.get(metric) in firm for metric in used)
    parts = _parts(how, board, drawn, {m: named[m] for m in used}, list(found)) if drawable else {}
    if not drawable:
        notes.append("The overall score has no interval: not all of its metrics could be resampled.")
    made = {
        name: Whole(score.value, interval(score.value, parts[name]) if name in parts else None)
        for name, score in found.items()
        if score.value is not None
    }
    covers = next(iter(found.values())).name
    return Overall(how.title, covers, how.unit, how.digits, MappingProxyType(made), tuple(notes))


def _parts(
    how: scores.Weighting, board: Board, drawn: Resamples, used: Mapping[str, str], names: Iterable[str]
) -> dict[str, tuple[Part, ...]]:
    """The sources of error of each upstream's overall score; tasks are taken as independent."""
    table = {name: {metric: board.cells[name, task].value for metric, task in used.items()} for name in names}
    scale, _ = scores.lines(how, table)
    nothing = {metric: np.zeros(1) for metric in used}
    base = scores.combine(how, nothing, scale)
    weights = {m: float((scores.combine(how, {**nothing, m: np.ones(1)}, scale) - base)[0]) for m in used}
    return {
        name: tuple(part for m, task in used.items() for part in drawn.tasks[task].parts({name: weights[m]}))
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
    shown = {
        other: Shown(text(score.value), score.value, 0.5 * 10.0**-found.digits)
        for other, score in found.scores.items()
        if other not in unranked
    }
    small = f"[{text(mine.ci95[0])}, {text(mine.ci95[1])}]" if mine.ci95 else ""
    return Cell(text(mine.value), small, marks(shown, higher_is_better=True).get(name, ""))
