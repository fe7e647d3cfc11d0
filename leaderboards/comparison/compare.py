"""The ``compare`` verb: are these upstreams different, by how much, and how sure is that, on the same test items?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING

from harness.interface import SlimbenchError
from harness.records import Record

if TYPE_CHECKING:
    from leaderboards.ranks import Differences, Stability

ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two upstreams on one task. Scores and differences are in percent (points).

    Attributes:
        difference: score of ``a`` minus score of ``b``, means over seeds; ``low`` and ``high`` bound its 95 % interval.
        seed_wins: share of pairs of training seeds in which ``a`` is better on the whole test set, ties half.
        p: of the paired permutation test, ``None`` where there is none; ``p_holm`` adjusted for all tests made.
        unit, units: what was exchanged, and how many; ``least_p`` the smallest p that these can give.
        better: ``a`` or ``b`` by name, or ``None`` where they could not be told apart.
        cautions: what limits the comparison, in sentences.
        refusal: why there is no comparison; all numbers are then ``None``.
    """

    task: str
    metric: str
    a: str
    b: str
    value_a: float | None = None
    value_b: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    seed_wins: float | None = None
    p: float | None = None
    p_holm: float | None = None
    unit: str = ""
    units: int | None = None
    least_p: float | None = None
    better: str | None = None
    cautions: tuple[str, ...] = ()
    refusal: str | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Some upstreams of one suite, pair by pair and task by task, and over all tasks that all of them have."""

    suite: str
    upstreams: tuple[str, ...]
    pairs: tuple[Pair, ...]
    stability: Stability | None = None
    differences: Differences | None = None
    notes: tuple[str, ...] = field(default=())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment: the k-th smallest of m is multiplied by m - k + 1, and none falls below a smaller one."""
    adjusted = [0.0] * len(p_values)
    reached = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        reached = max(reached, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = reached
    return adjusted


def compare(
    found: Sequence[Record], names: Sequence[str], tasks: Sequence[str] = (), repeats: int = 1000, seed: int = 0
) -> Comparison:
    """Compare upstreams of one suite.

    Args:
        found: records of one suite.
        names: two or more upstreams.
        tasks: only these; empty: all that at least two of them have.
        repeats: resamples of the intervals.
        seed: of resamples and exchanges.

    Raises:
        SlimbenchError: fewer than two names, an unknown one, or no task that two of them share.
    """
    from leaderboards.board import board

    names = tuple(dict.fromkeys(names))
    shown = board(found[0].suite, [record for record in found if record.upstream["name"] in names])
    columns = {task: {n: shown.cells[n, task] for n in names if (n, task) in shown.cells} for task in shown.tasks}
    columns = {task: column for task, column in columns.items() if len(column) > 1 and (not tasks or task in tasks)}
    if not columns:
        wanted = f" among {', '.join(tasks)}" if tasks else ""
        raise SlimbenchError(f"{' and '.join(names)} share no task{wanted} in {shown.suite}: run them on the same one.")
    pairs = [
        _pair(task, a, b, column, {n for n in (a, b) if (n, task) in shown.odd}, repeats, seed)
        for task, column in columns.items()
        for a, b in combinations(column, 2)
    ]
    tested = [pair.p for pair in pairs if pair.p is not None]
    adjusted = iter(holm(tested))
    judged = tuple(_judged(pair if pair.p is None else replace(pair, p_holm=next(adjusted))) for pair in pairs)
    lone = [n for n in names if not any(n in column for column in columns.values())]
    notes = [f"{n} has no task in common with the others and takes no part." for n in lone]
    refused = {pair.task for pair in judged if pair.refusal}
    whole = {t: c for t, c in columns.items() if len(c) == len(names) and t not in refused}
    left = [task for task in columns if task not in whole]
    if left:
        notes.append(f"Not in the comparison over tasks, since not all are comparable there: {', '.join(left)}.")
    stable, apart, reasons = _overall(whole, repeats, seed)
    notes += [*shown.notes, *reasons]
    return Comparison(
        suite=shown.suite, upstreams=names, pairs=judged, stability=stable, differences=apart, notes=tuple(notes)
    )


def _pair(task: str, a: str, b: str, column: Mapping[str, Record], odd: set[str], repeats: int, seed: int) -> Pair:
    """One pair on one task, not yet judged; a refusal where the test sets differ."""
    from harness import metrics, stats
    from leaderboards import paired

    one, two = column[a], column[b]
    pair = Pair(task=task, metric=one.metric, a=a, b=b)
    try:
        rows = paired.align({a: one, b: two})
        difference, low, high = stats.paired_difference(one.metric, rows[a], rows[b], repeats, seed)
    except SlimbenchError as refusal:
        return replace(pair, refusal=str(refusal))
    cautions = []
    if odd:
        cautions.append("They were measured under different protocols, seeds or training data, which may explain it.")
    test = None
    try:
        test = paired.permutation(one.metric, rows[a], rows[b], seed)
    except SlimbenchError as refusal:
        cautions.append(f"There is no p: {refusal}")
    scored = [[metrics.score(one.metric, r) for r in rows[name]] for name in (a, b)]
    sign = 1 if metrics.metric(one.metric).higher_is_better else -1
    wins = [1.0 if sign * (x - y) > 0 else 0.5 if x == y else 0.0 for x in scored[0] for y in scored[1]]
    return replace(
        pair,
        value_a=one.value,
        value_b=two.value,
        difference=difference,
        low=low,
        high=high,
        seed_wins=sum(wins) / len(wins),
        p=test.p if test else None,
        unit=test.unit if test else "",
        units=test.units if test else None,
        least_p=test.least if test else None,
        cautions=tuple(cautions),
    )


def _judged(pair: Pair) -> Pair:
    """Better only where interval and adjusted p agree; what hinders that is said."""
    if pair.difference is None or pair.low is None or pair.high is None or pair.p_holm is None:
        return pair
    from harness import metrics

    outside = pair.low > 0 or pair.high < 0
    cautions = list(pair.cautions)
    if pair.least_p is not None and pair.least_p > ALPHA:
        cautions.append(f"With {pair.units} {pair.unit} no permutation test can reach p ≤ {ALPHA:g}.")
    elif outside and pair.p_holm > ALPHA:
        cautions.append("The interval leaves out 0, but the adjusted p does not confirm it.")
    elif not outside and pair.p_holm <= ALPHA:
        cautions.append("The adjusted p is small, but the interval holds 0.")
    better = None
    if outside and pair.p_holm <= ALPHA:
        better = pair.a if (pair.difference > 0) == metrics.metric(pair.metric).higher_is_better else pair.b
    if better is not None and pair.seed_wins is not None and 0 < pair.seed_wins < 1:
        ahead = pair.seed_wins if better == pair.a else 1 - pair.seed_wins
        cautions.append(f"{better} is ahead in {100 * ahead:.0f} % of the pairs of training seeds only.")
    return replace(pair, better=better, cautions=tuple(cautions))


def _overall(
    columns: Mapping[str, Mapping[str, Record]], repeats: int, seed: int
) -> tuple[Stability | None, Differences | None, list[str]]:
    from leaderboards import ranks, scores

    if not columns:
        return None, None, []
    how = scores.weighting("slim_mean")
    stable = ranks.stability(columns, how, repeats, seed)
    table = {
        name: {f"{task}.{column[name].metric}": column[name].value for task, column in columns.items()}
        for name in stable.upstreams
    }
    if len(stable.upstreams) < 3 or len(columns) < 2:
        return stable, None, list(stable.notes)
    return stable, ranks.differences(table, ALPHA), list(stable.notes)
