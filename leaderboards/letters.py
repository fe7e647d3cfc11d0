"""Which upstreams of a column can be told apart: letters for tables.

All pairs of a column are judged together: a pair is apart where its measured difference exceeds Student's t of
:mod:`leaderboards.uncertainty` at 5 % divided by the number of pairs (Bonferroni), so that at most one column in twenty
without any differences shows one, however many upstreams it has, as the simulation in the tests finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from harness.metrics import metric
from leaderboards.ranks import letters
from leaderboards.resamples import Drawn, Resamples
from leaderboards.uncertainty import LEVEL, differs

ABOUT = (
    "Letters: two upstreams of a column that share none are different (t-tests of all pairs, Bonferroni, 5 % per "
    "column; their error covers test speakers and probe seeds)."
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
    return letters(order, apart(column, order))


def apart(column: Drawn, names: Sequence[str] = (), level: float = LEVEL) -> list[tuple[str, str]]:
    """The pairs of upstreams that differ, at ``level`` for all pairs together.

    Args:
        column: scores of one task on joint resamples.
        names: of the upstreams whose pairs are judged (all, where none are named).
        level: share of columns without differences that may show one.

    Returns:
        Pairs in the order of the names. A difference that is the same in all resamples and seeds, and not 0, is one.
    """
    pairs = list(combinations(names or column.values, 2))
    return [
        (one, two)
        for one, two in pairs
        if differs(column.values[one] - column.values[two], column.parts({one: 1.0, two: -1.0}), level / len(pairs))
    ]


def ahead(column: Drawn) -> set[tuple[str, str]]:
    """The pairs (better, worse) of one task that the letters tell apart; none where there are too few speakers."""
    if not column.firm:
        return set()
    sign = 1.0 if metric(column.metric).higher_is_better else -1.0
    found = apart(column)
    return {(one, two) if sign * (column.values[one] - column.values[two]) > 0.0 else (two, one) for one, two in found}
