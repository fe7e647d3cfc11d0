"""How firm a ranking is: bootstrap over speakers and seeds, and critical differences over tasks.

Sources: Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006), for Friedman's test,
Iman and Davenport's correction and Nemenyi's critical difference.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from string import ascii_lowercase
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import chdtrc, fdtrc, ndtr
from scipy.stats import rankdata

from harness.interface import SlimbenchError
from harness.metrics import metric
from harness.records import Record
from leaderboards import paired, scores

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Stability:
    """How often each upstream comes out where, over resamples of test speakers and training seeds.

    Attributes:
        upstreams: names, in the order of all matrices.
        beats: by task, and ``overall`` where there is one: (k, k), the share of resamples in which the row's upstream
            is better than the column's; ties count half, the diagonal is 0.5.
        places: likewise (k, k): the share in which the row's upstream takes place 1, 2, … (ties are shared out).
        overall: by upstream, the 95 % interval of the overall score; empty where there is none.
        notes: what was left out, and why.
    """

    upstreams: tuple[str, ...]
    beats: Mapping[str, Floats]
    places: Mapping[str, Floats]
    overall: Mapping[str, tuple[float, float]]
    notes: tuple[str, ...]


def stability(
    tasks: Mapping[str, Mapping[str, Record]], how: scores.Weighting, repeats: int = 1000, seed: int = 0
) -> Stability:
    """Rank the upstreams anew on resamples of each task's speakers and of each upstream's training seeds.

    The scale of the overall score stays that of the measured scores.

    Args:
        tasks: by task, the comparable records by upstream; all tasks have the same upstreams.
        how: the weighting of the overall score; it covers the tasks given, and says so by the notes.
        repeats: number of resamples.
        seed: of the resampling.

    Raises:
        SlimbenchError: no tasks, other upstreams in one of them, or other test items.
    """
    upstreams = _same_upstreams(tasks)
    drawn: dict[str, Floats] = {}
    notes = []
    generator = np.random.default_rng(seed)
    for number, (task, records) in enumerate(tasks.items()):
        name = next(iter(records.values())).metric
        rows = paired.align(records)
        values = np.stack(
            [paired.over_seeds(paired.draws(name, rows[u], repeats, seed + number), generator) for u in upstreams]
        )
        drawn[task] = np.where(np.isnan(values).any(axis=0), np.nan, values)
        if left := int(np.isnan(drawn[task][0]).sum()):
            notes.append(f"{left} of {repeats} resamples of {task} have no trials of one kind and are left out.")
        if few := [u for u in upstreams if len(rows[u]) < 2]:
            notes.append(f"{task}: {', '.join(few)} has one seed, so the spread of seeds is not in it.")
    better = {task: _upwards(drawn[task], next(iter(records.values())).metric) for task, records in tasks.items()}
    overall, reasons = _overall(tasks, drawn, how)
    if overall is not None:
        better["overall"] = overall
    limits = {} if overall is None else dict(zip(upstreams, map(_limits, overall), strict=True))
    return Stability(
        upstreams=upstreams,
        beats=MappingProxyType({task: beats(values) for task, values in better.items()}),
        places=MappingProxyType({task: places(values) for task, values in better.items()}),
        overall=MappingProxyType(limits),
        notes=(*notes, *reasons),
    )


def beats(values: Floats) -> Floats:
    """From scores (k, repeats), up is better: the share of columns in which row i is above row j, (k, k)."""
    kept = values[:, ~np.isnan(values).any(axis=0)]
    above = (kept[:, None, :] > kept[None, :, :]).mean(axis=2)
    level = (kept[:, None, :] == kept[None, :, :]).mean(axis=2)
    return np.asarray(above + 0.5 * level, dtype=np.float64)


def places(values: Floats) -> Floats:
    """From scores (k, repeats), up is better: how often row i takes place 1, 2, …, (k, k); each row adds up to 1.

    Upstreams that tie share their places equally.
    """
    kept = values[:, ~np.isnan(values).any(axis=0)]
    best, worst = rankdata(-kept, method="min", axis=0), rankdata(-kept, method="max", axis=0)
    place = np.arange(1, len(kept) + 1)[None, :, None]
    inside = (best[:, None, :] <= place) & (place <= worst[:, None, :])
    return np.asarray((inside / (worst - best + 1)[:, None, :]).mean(axis=2), dtype=np.float64)


@dataclass(frozen=True)
class Differences:
    """Friedman's test over tasks and Nemenyi's critical difference of mean ranks.

    Attributes:
        mean_ranks: by upstream, best first; rank 1 is best.
        tasks: number of tasks.
        chi2: Friedman's statistic, corrected for ties, and ``p`` of it.
        f: Iman and Davenport's statistic, and ``f_p`` of it; ``None`` where all tasks rank alike.
        critical: mean ranks that lie less apart are not separable at ``alpha``.
        groups: largest sets of upstreams that are not separable, each in the order of ranks.
    """

    mean_ranks: Mapping[str, float]
    tasks: int
    chi2: float
    p: float
    f: float | None
    f_p: float | None
    critical: float
    alpha: float
    groups: tuple[tuple[str, ...], ...]


def differences(table: scores.Table, alpha: float = 0.05) -> Differences:
    """Compare upstreams over tasks by ranks.

    Args:
        table: scores by upstream and metric (``<task>.<metric>``, one per task); all upstreams have the same.
        alpha: level.

    Raises:
        SlimbenchError: fewer than three upstreams or two tasks, or a score is missing.
    """
    names = list(table)
    found = sorted({name for row in table.values() for name in row})
    if len(names) < 3 or len(found) < 2:
        raise SlimbenchError("Critical differences need at least three upstreams and two tasks; give more.")
    for name in names:
        for missing in set(found) - set(table[name]):
            raise SlimbenchError(f"{name} has no {missing}, and ranks need all upstreams on all tasks: run it first.")
    up = np.asarray([[table[n][m] * (1 if scores.higher_is_better(m) else -1) for n in names] for m in found])
    ranks = np.asarray(rankdata(-up, axis=1), dtype=np.float64)  # (tasks, upstreams)
    tasks, size = ranks.shape
    mean = ranks.mean(axis=0)
    tied = sum(float((np.unique(row, return_counts=True)[1] ** 3.0).sum()) - size for row in ranks)
    correction = 1.0 - tied / (tasks * (size**3 - size))
    spread = 12.0 * tasks / (size * (size + 1)) * float(((mean - (size + 1) / 2) ** 2).sum())
    chi2 = spread / correction if correction > 0 else 0.0
    room = tasks * (size - 1) - chi2
    f = (tasks - 1) * chi2 / room if room > 1e-12 else None
    order = [names[i] for i in np.argsort(mean, kind="stable")]
    mean_ranks = {name: float(mean[names.index(name)]) for name in order}
    critical = critical_difference(size, tasks, alpha)
    return Differences(
        mean_ranks=MappingProxyType(mean_ranks),
        tasks=tasks,
        chi2=chi2,
        p=float(chdtrc(size - 1, chi2)),
        f=f,
        f_p=None if f is None else float(fdtrc(size - 1, (size - 1) * (tasks - 1), f)),
        critical=critical,
        alpha=alpha,
        groups=runs(mean_ranks, critical),
    )


def critical_difference(upstreams: int, tasks: int, alpha: float = 0.05) -> float:
    """Nemenyi's: q · √(k (k + 1) / 6 N), q the quantile of the studentised range of k, divided by √2."""
    return float(
        studentised_range(1.0 - alpha, upstreams) / np.sqrt(2) * np.sqrt(upstreams * (upstreams + 1) / 6 / tasks)
    )


@cache
def studentised_range(probability: float, size: int) -> float:
    """Quantile of the range of ``size`` standard normal variables (infinite degrees of freedom)."""

    def below(width: float) -> float:
        def density(x: float) -> float:
            return float(np.exp(-x * x / 2) / np.sqrt(2 * np.pi) * (ndtr(x) - ndtr(x - width)) ** (size - 1))

        return size * float(quad(density, -8.0, 8.0 + width, points=[0.0, width], limit=200)[0])

    return float(brentq(lambda width: below(width) - probability, 1e-6, 30.0, xtol=1e-10))


def runs(ranks: Mapping[str, float], width: float) -> tuple[tuple[str, ...], ...]:
    """Largest runs of names, by rising rank, whose ranks lie less than ``width`` apart; lone names are runs too."""
    names = sorted(ranks, key=lambda name: ranks[name])
    found: list[tuple[str, ...]] = []
    for start, first in enumerate(names):
        run = tuple(name for name in names[start:] if ranks[name] - ranks[first] < width)
        if not found or run[-1] != found[-1][-1]:
            found.append(run)
    return tuple(found)


def letters(names: Sequence[str], apart: Iterable[Collection[str]]) -> dict[str, str]:
    """Letters such that two names share one if and only if they could not be told apart.

    Args:
        names: in the order of the table; the first gets an ``a``.
        apart: the pairs that were told apart.
    """
    split = {frozenset(pair) for pair in apart}
    together = {a: {b for b in names if b != a and frozenset((a, b)) not in split} for a in names}
    sets = sorted(_cliques(set(), set(names), set(), together), key=lambda found: sorted(map(names.index, found)))
    signs = {name: "" for name in names}
    for number, members in enumerate(sets):
        sign = ascii_lowercase[number % 26] * (number // 26 + 1)
        for name in members:
            signs[name] += sign
    return signs


def _cliques(
    chosen: set[str], open_: set[str], closed: set[str], near: Mapping[str, set[str]]
) -> Iterable[frozenset[str]]:
    """All largest sets in which everyone is near everyone (Bron and Kerbosch, with a pivot)."""
    if not open_ and not closed:
        yield frozenset(chosen)
        return
    pivot = max(sorted(open_ | closed), key=lambda name: len(near[name] & open_))
    for name in sorted(open_ - near[pivot]):
        yield from _cliques(chosen | {name}, open_ & near[name], closed & near[name], near)
        open_, closed = open_ - {name}, closed | {name}


def _same_upstreams(tasks: Mapping[str, Mapping[str, Record]]) -> tuple[str, ...]:
    names = [tuple(sorted(records)) for records in tasks.values()]
    if not names or not names[0] or len(set(names)) > 1:
        raise SlimbenchError("Ranks need the same upstreams on every task: leave out tasks that one of them lacks.")
    return tuple(next(iter(tasks.values())))


def _upwards(values: Floats, name: str) -> Floats:
    return values if metric(name).higher_is_better else -values


def _limits(values: Floats) -> tuple[float, float]:
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def _overall(
    tasks: Mapping[str, Mapping[str, Record]], drawn: Mapping[str, Floats], how: scores.Weighting
) -> tuple[Floats | None, list[str]]:
    """The overall score of each resample (k, repeats), and what it leaves out."""
    upstreams = _same_upstreams(tasks)
    named = {f"{task}.{next(iter(records.values())).metric}": task for task, records in tasks.items()}
    table = {u: {name: tasks[task][u].value for name, task in named.items()} for u in upstreams}
    scale, closed = scores.lines(how, table)
    used = {name: drawn[task] for name, task in named.items() if name in scale}
    notes = [f"The {how.title} leaves out {name}: {closed.get(name, 'it has no place in it')}." for name in named
             if name not in used]  # fmt: skip
    absent = [name for name in how.metrics() if name not in used]
    if not used or (absent and how.missing != "omit"):
        return None, [*notes, f"There is no {how.title}: {', '.join(absent)} is missing."]
    return np.stack(
        [scores.combine(how, {n: v[i] for n, v in used.items()}, scale) for i in range(len(upstreams))]
    ), notes
