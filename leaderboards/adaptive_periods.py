"""Adaptive frame period: per task the coarsest rate of a model that dev cannot tell from the model's best rate.

Once-for-all sequence compression (arXiv 2211.02332) has one model serve many frame periods and learns its compression
lambda together with the task. Here nothing is learnt with the task: the model stands still at a few periods, each is
probed like any upstream, and dev selects among them. The largest period is taken whose dev score is within a tolerance
of the best one; test plays no part in that. What this gives up against the paper: a period between those measured, and
weights that move with the task.

A record holds dev scores per learning rate and seed, no dev predictions. So the tolerance by default is one standard
error of the best period's dev score over its probe seeds, the "one standard error rule" of Breiman et al.,
"Classification and Regression Trees" (1984), section 3.4.3, with seeds in the place of folds. Which dev speakers there
are is not in it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.interface import SlimbenchError
from harness.records import Record
from harness.show import face, interval, number
from leaderboards.board import Board
from leaderboards.cells import SPEAKERS, task_label
from leaderboards.render import Cell, Table

EXACT = 1e-9
"""Points below which two dev scores are the same."""


@dataclass(frozen=True)
class Dev:
    """A dev score: its mean over the seeds of the chosen learning rate, in percent.

    Attributes:
        value: the mean.
        error: its standard error over seeds; ``None`` of a single seed.
        seeds: how many.
    """

    value: float
    error: float | None
    seeds: int


@dataclass(frozen=True)
class Choice:
    """The periods of one model on one task.

    Attributes:
        model: name of the model, what its rates are called before ``@``.
        task: of the column.
        periods: milliseconds per frame by upstream, rising.
        dev: dev scores by upstream.
        best: the upstream with the best dev score, of equal ones that with the largest period.
        adaptive: the upstream with the largest period within the tolerance of it.
        tolerance: in points of the metric.
    """

    model: str
    task: str
    periods: Mapping[str, float]
    dev: Mapping[str, Dev]
    best: str
    adaptive: str
    tolerance: float

    @property
    def saved(self) -> float:
        """Frames per second that the adaptive period needs less than the best one, by the nominal periods."""
        return 1000.0 / self.periods[self.best] - 1000.0 / self.periods[self.adaptive]

    @property
    def given_up(self) -> float:
        """Points of the dev score that the adaptive period lies behind the best one."""
        return abs(self.dev[self.best].value - self.dev[self.adaptive].value)


def models(period: Mapping[str, float]) -> dict[str, list[str]]:
    """The upstreams of each model, by rising period: ``ofa`` has ``ofa@20ms`` and ``ofa@45ms``."""
    found: dict[str, list[str]] = {}
    for name in sorted(period, key=lambda name: (period[name], name)):
        found.setdefault(name.partition("@")[0], []).append(name)
    return found


def periods_of(board: Board) -> dict[str, float]:
    """Milliseconds per frame of the upstreams that have parameters."""
    return {name: float(board.any_of(name).upstream["frame_ms"]) for name in board.learned()}


def dev_score(record: Record) -> Dev | None:
    """The dev score of the learning rate that a record was scored with; ``None`` where it states none."""
    scores = [
        float(trial["dev"])
        for trial in record.trials
        if trial["learning_rate"] == record.learning_rate and trial["dev"] is not None
    ]
    if not scores:
        return None
    error = statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else None
    return Dev(math.fsum(scores) / len(scores), error, len(scores))


def choices(board: Board, tolerance: float | None = None) -> list[Choice]:
    """The choice of every model that has comparable records at two periods or more, task by task.

    Args:
        board: the suite's records.
        tolerance: points of the metric that a dev score may lie behind the best; by default the standard error of that.

    Raises:
        SlimbenchError: the tolerance is no number of at least 0.
    """
    if tolerance is not None and not 0.0 <= tolerance < math.inf:
        raise SlimbenchError(f"A tolerance of {tolerance} points is none: give a number of at least 0.")
    every = periods_of(board)
    found = []
    for model in models(every):
        for task in board.tasks:
            records = {name: one for name, one in board.fair(task).items() if name.partition("@")[0] == model}
            chosen = choice(model, task, {name: every[name] for name in records if name in every}, records, tolerance)
            if chosen is not None:
                found.append(chosen)
    return found


def choice(
    model: str, task: str, periods: Mapping[str, float], records: Mapping[str, Record], tolerance: float | None = None
) -> Choice | None:
    """The choice among the rates of one model on one task; ``None`` where fewer than two periods have a dev score."""
    known = {name: dev_score(records[name]) for name in periods}
    dev = {name: one for name, one in known.items() if one is not None}
    if len({periods[name] for name in dev}) < 2:
        return None
    sign = 1.0 if face(next(iter(records.values())).metric).higher_is_better else -1.0
    best = max(dev, key=lambda name: (sign * dev[name].value, periods[name], name))
    allowed = (dev[best].error or 0.0) if tolerance is None else tolerance
    within = [name for name in dev if sign * (dev[best].value - dev[name].value) <= allowed + EXACT]
    adaptive = max(within, key=lambda name: (periods[name], sign * dev[name].value, name == best))
    rising = sorted(dev, key=lambda name: (periods[name], name))
    return Choice(
        model, task, {name: periods[name] for name in rising}, {name: dev[name] for name in rising}, best, adaptive,
        allowed,
    )  # fmt: skip


def adaptive_periods(board: Board, tolerance: float | None = None) -> Table:
    """Per model and task: the best period by dev, the adaptive one, test scores at both, and the frames it saves.

    Args:
        board: the suite's records.
        tolerance: as in :func:`choices`.

    Raises:
        SlimbenchError: as :func:`choices`.
    """
    found = choices(board, tolerance)
    return Table(
        name="adaptive_periods",
        title="Adaptive frame period",
        caption=(
            f"Suite {board.suite}. Among the measured frame periods of one model, the largest whose dev score is "
            f"within {_allowed(tolerance)} of the best dev score; selected on dev for each task, where the paper "
            "(arXiv 2211.02332) learns the compression with the task. Dev given up: points, small the tolerance. "
            f"Test scores in percent, mean over seeds; small: {SPEAKERS}. Frames saved: per second of audio against "
            "the best period, by the nominal periods."
        ),
        header=(
            "Model: task", "Best by dev (ms)", "Adaptive (ms)", "Dev given up", "Test at best", "Test at adaptive",
            "Frames/s saved",
        ),
        rows=tuple(_row(board, one) for one in found),
        data=pd.DataFrame([line for one in found for line in _facts(board, one)]),
        notes=tuple(_notes(board, found, tolerance)),
    )  # fmt: skip


def _allowed(tolerance: float | None) -> str:
    if tolerance is None:
        return "one standard error (over probe seeds)"
    return f"{tolerance:g} points"


def _row(board: Board, one: Choice) -> tuple[Cell, ...]:
    scores = [board.cells[name, one.task] for name in (one.best, one.adaptive)]
    return (
        Cell(f"{one.model}: {task_label(one.task, scores[0].metric)}"),
        Cell(f"{one.periods[one.best]:g}"),
        Cell(f"{one.periods[one.adaptive]:g}"),
        Cell(f"{one.given_up:.2f}", f"of {one.tolerance:.2f}"),
        *(Cell(number(record.value), interval(record.ci95)) for record in scores),
        Cell(f"{one.saved:.1f}", f"of {1000.0 / one.periods[one.best]:.1f}"),
    )


def _facts(board: Board, one: Choice) -> list[dict[str, Any]]:
    """One line per measured period."""
    lines = []
    for name, period in one.periods.items():
        record = board.cells[name, one.task]
        lines.append(
            {
                "suite": board.suite,
                "model": one.model,
                "task": one.task,
                "upstream": name,
                "frame_ms": period,
                "frames_per_second": 1000.0 / period,
                "dev": one.dev[name].value,
                "dev_error": one.dev[name].error,
                "dev_seeds": one.dev[name].seeds,
                "tolerance": one.tolerance,
                "best": name == one.best,
                "adaptive": name == one.adaptive,
                "value": record.value,
                "ci95_low": record.ci95[0],
                "ci95_high": record.ci95[1],
                "key": record.key,
            }
        )
    return lines


def _notes(board: Board, found: Sequence[Choice], tolerance: float | None) -> list[str]:
    """What the table leaves out, and where the tolerance could not be found."""
    notes = [
        f"{one.model} on {one.task}: dev of the best period has one seed and thus no standard error, so that only an "
        "equal dev score counts as good."
        for one in found
        if tolerance is None and one.dev[one.best].error is None
    ]
    every = periods_of(board)
    for model, names in models(every).items():
        if len({every[name] for name in names}) < 2:
            continue
        for task in board.tasks:
            fair = [name for name in names if name in board.fair(task)]
            without = [name for name in fair if dev_score(board.cells[name, task]) is None]
            if without:
                notes.append(f"{', '.join(without)} on {task}: no dev score in the record, so that it takes no part.")
            elif lacking := [name for name in names if name not in fair]:
                notes.append(f"{model} on {task}: no comparable record of {', '.join(lacking)}.")
    return notes
