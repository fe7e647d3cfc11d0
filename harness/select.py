"""The choice on dev: one learning rate per upstream and task. Test plays no part in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.interface import SlimbenchError
from harness.metrics import METRICS

if TYPE_CHECKING:
    from harness.probes.probe import TrialResult


@dataclass(frozen=True)
class Choice:
    """What dev chose.

    Attributes:
        learning_rate: the rate with the best dev score, averaged over its seeds.
        results: its trials, in the order of their seeds.
    """

    learning_rate: float
    results: tuple[TrialResult, ...]


def choose(results: Sequence[TrialResult], metric: str) -> Choice:
    """The rate whose mean dev score over seeds is best; a rate with a diverged seed cannot win.

    Of equal rates the lower wins, so that the choice never depends on the order of trials.

    Args:
        results: all trials of a task.
        metric: name of the metric in :mod:`harness.metrics`.

    Raises:
        SlimbenchError: every rate has a diverged seed.
    """
    rates: dict[float, list[TrialResult]] = {}
    for result in sorted(results, key=lambda r: (r.learning_rate, r.seed)):
        rates.setdefault(result.learning_rate, []).append(result)
    whole = {rate: trials for rate, trials in rates.items() if all(math.isfinite(trial.dev) for trial in trials)}
    if not whole:
        raise SlimbenchError(
            f"every learning rate of {', '.join(f'{rate:g}' for rate in rates)} diverged; "
            "give lower ones in the suite file."
        )
    sign = -1.0 if METRICS[metric].higher_is_better else 1.0
    best = min(whole, key=lambda rate: (sign * mean([trial.dev for trial in whole[rate]]), rate))
    return Choice(best, tuple(whole[best]))


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean."""
    return math.fsum(values) / len(values)
