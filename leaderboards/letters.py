"""Which upstreams of a column can be told apart: letters for tables.

All pairs of a column are judged together. The largest studentised difference over all pairs (max-T) is resampled, and
pairs whose own exceeds its 95 % quantile are apart, so that at most one column in twenty without any differences shows
one, however many upstreams it has. Source: Romano and Wolf, "Exact and approximate stepdown methods for multiple
hypothesis testing", JASA 100 (2005), without their stepping down.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from harness.metrics import metric
from leaderboards.ranks import letters
from leaderboards.resamples import Drawn, Floats, Resamples

LEVEL = 0.05

ABOUT = (
    "Letters: two upstreams of a column that share none are different (all pairs at once, joint bootstrap of test "
    "speakers and probe seeds, 5 % per column)."
)


def signs(drawn: Resamples) -> dict[tuple[str, str], str]:
    """The letters of each (upstream, task), ``a`` for the best; none where a column has too few speakers or rows."""
    return {
        (name, task): sign
        for task, column in drawn.tasks.items()
        if column.firm and len(column.values) > 1
        for name, sign in column_signs(column).items()
    }


def column_signs(column: Drawn, names: Sequence[str] = ()) -> dict[str, str]:
    """The letters of one task, for some of its upstreams (all, where none are named)."""
    up = metric(column.metric).higher_is_better
    chosen = [name for name in column.values if not names or name in names]
    order = sorted(chosen, key=lambda name: column.values[name], reverse=up)
    pairs = apart(column.among(order), [column.values[name] for name in order])
    return letters(order, [(order[i], order[j]) for i, j in pairs])


def apart(draws: Floats, values: Sequence[float], level: float = LEVEL) -> list[tuple[int, int]]:
    """The pairs that differ, at ``level`` for all pairs together.

    Args:
        draws: (k, repeats) scores on joint resamples; columns with a NaN are left out.
        values: the k measured scores.
        level: share of columns without differences that may show one.

    Returns:
        Pairs (i, j), i < j. A difference that is the same in all resamples and not 0 is one.
    """
    kept = draws[:, ~np.isnan(draws).any(axis=0)]
    pairs = list(combinations(range(len(values)), 2))
    if not pairs or not kept.shape[1]:
        return []
    one, two = np.asarray(pairs).T
    differences = kept[one] - kept[two]
    measured = np.abs(np.asarray(values)[one] - np.asarray(values)[two])
    spread = differences.std(axis=1)
    moving = spread > 1e-9
    if not moving.any():
        return [pair for pair, size in zip(pairs, measured, strict=True) if size > 1e-9]
    centred = np.abs(differences - differences.mean(axis=1, keepdims=True))[moving]
    largest = (centred / spread[moving, None]).max(axis=0)
    critical = np.quantile(largest, 1.0 - level)
    beyond = np.where(moving, measured > critical * spread, measured > 1e-9)
    return [pair for pair, found in zip(pairs, beyond, strict=True) if found]
