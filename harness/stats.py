"""Intervals by bootstrap, clustered by speaker: utterances of one speaker fall together.

The resampled quantity is the mean over seeds of the score on the whole test set; the seeds share each resample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from harness import metrics
from harness.interface import Row, SlimbenchError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Seeds = Sequence[Sequence[Row]]
"""Rows of each seed, the same items in each."""

CHUNK = 50
"""Resamples scored at a time, which bounds the memory of the equal error rate."""


def interval(metric: str, rows_per_seed: Seeds, repeats: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean over seeds, in percent.

    Args:
        metric: name in :data:`harness.metrics.METRICS`.
        rows_per_seed: scored rows of each seed.
        repeats: number of resamples.
        seed: of the resampling.

    Raises:
        SlimbenchError: no rows, or seeds with different items.
    """
    draws = resampled(metric, rows_per_seed, repeats, seed)
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return float(low), float(high)


def paired_difference(
    metric: str, rows_a: Seeds, rows_b: Seeds, repeats: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Score of ``a`` minus score of ``b`` with its 95 % interval, both on the same resamples of the same items.

    Args:
        metric: name in :data:`harness.metrics.METRICS`.
        rows_a: rows of each seed of one system.
        rows_b: rows of each seed of the other; the number of seeds may differ.
        repeats: number of resamples.
        seed: of the resampling.

    Returns:
        (difference, low, high) in percent; the interval excludes 0 where the systems differ.

    Raises:
        SlimbenchError: the systems were scored on different items.
    """
    together = _aligned([*rows_a, *rows_b])
    rows_a, rows_b = together[: len(rows_a)], together[len(rows_a) :]
    draws = resampled(metric, rows_a, repeats, seed) - resampled(metric, rows_b, repeats, seed)
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return mean_score(metric, rows_a) - mean_score(metric, rows_b), float(low), float(high)


def mean_score(metric: str, rows_per_seed: Seeds) -> float:
    """Mean over seeds of the score, in percent."""
    return float(np.mean([metrics.score(metric, rows) for rows in rows_per_seed]))


def resampled(metric: str, rows_per_seed: Seeds, repeats: int, seed: int) -> Floats:
    """Mean over seeds of the score of each resample: (repeats,)."""
    aligned = _aligned(rows_per_seed)
    generator = np.random.default_rng(seed)
    parts = metrics.folds(aligned[0])
    draws = [
        _resampled_fold(metric, [[rows[i] for i in part] for rows in aligned], repeats, generator) for part in parts
    ]
    return np.asarray(np.mean(draws, axis=0), dtype=np.float64)


def _resampled_fold(metric: str, aligned: Seeds, repeats: int, generator: np.random.Generator) -> Floats:
    """As :func:`resampled` for the rows of one fold, whose speakers are resampled by themselves."""
    if metrics.metric(metric).name in metrics.TRIALS:
        return _resampled_eer(metric, aligned, repeats, generator)
    cluster = _numbered([row.get("speaker") or f"\0{index}" for index, row in enumerate(aligned[0])])
    size = int(cluster.max()) + 1
    totals = []
    for rows in aligned:
        sums = [np.bincount(cluster, weights=values, minlength=size) for values in metrics.counts(metric, rows)]
        totals.append(np.stack(sums))
    numerator, denominator = np.stack(totals, axis=1)  # (seeds, clusters) each
    times = _times(generator, size, repeats)
    return np.asarray((100.0 * (times @ numerator.T) / (times @ denominator.T)).mean(axis=1), dtype=np.float64)


def _resampled_eer(metric: str, aligned: Seeds, repeats: int, generator: np.random.Generator) -> Floats:
    """As :func:`resampled` for verification trials.

    Speakers are resampled. A trial of two speakers counts as often as both were drawn (the product); a trial of one
    speaker as often as that one was, since two copies of a speaker count as two speakers.
    """
    sides = [_speakers(row) for row in aligned[0]]
    numbers = _numbered([name for pair in sides for name in pair]).reshape(-1, 2)
    times = _times(generator, int(numbers.max()) + 1, repeats)
    scored = metrics.field(metric, aligned[0], "score")
    curves = [weighted_eer(*metrics.trial_arrays(rows, scored)) for rows in aligned]
    draws = []
    for part in np.array_split(times, max(1, repeats // CHUNK)):
        first, second = part[:, numbers[:, 0]], part[:, numbers[:, 1]]
        weights = np.where(numbers[:, 0] == numbers[:, 1], first, first * second)
        draws.append(np.mean([curve(weights) for curve in curves], axis=0))
    return np.concatenate(draws)


def _speakers(row: Row) -> tuple[str, str]:
    """The speakers of a trial; an unknown one is its utterance."""
    first, second = row.get("speakers") or ("", "")
    return first or f"\0{row['enrol']}", second or f"\0{row['test']}"


def weighted_eer(same: NDArray[np.bool_], scores: Floats) -> Callable[[Floats], Floats]:
    """A function from trial weights (repeats, N) to equal error rates (repeats,) in percent.

    The ROC is interpolated linearly between distinct scores, as :func:`harness.metrics.equal_error_rate` does. A
    resample without any trial of one kind gives NaN.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # last trial of each distinct score

    def rates(weights: Floats) -> Floats:
        sums = []
        for kind in (~same, same):
            total = np.cumsum(np.where(kind[order], weights[:, order], 0.0), axis=1)[:, ends]
            with np.errstate(invalid="ignore", divide="ignore"):
                sums.append(np.pad(total / total[:, -1:], ((0, 0), (1, 0))))
        false_accept, false_reject = sums[0], 1.0 - sums[1]
        above = false_accept - false_reject  # rises from −1 to 1
        place = np.clip((above >= 0).argmax(axis=1), 1, None)
        line = np.arange(len(weights))
        low, high = above[line, place - 1], above[line, place]
        share = -low / (high - low)
        left, right = false_accept[line, place - 1], false_accept[line, place]
        return np.asarray(100.0 * (left + share * (right - left)), dtype=np.float64)

    return rates


def _times(generator: np.random.Generator, size: int, repeats: int) -> Floats:
    """How often each cluster is drawn in each resample: (repeats, size)."""
    drawn = generator.multinomial(size, np.full(size, 1.0 / size), size=repeats)
    return drawn.astype(np.float64)


def _numbered(names: Sequence[str]) -> Ints:
    """A number per distinct name."""
    known: dict[str, int] = {}
    return np.asarray([known.setdefault(name, len(known)) for name in names], dtype=np.int64)


def _identity(row: Row) -> tuple[str, ...]:
    """What an item is called, whatever was predicted of it."""
    fold = str(row.get("fold", ""))
    return (fold, str(row["id"])) if "id" in row else (fold, str(row["enrol"]), str(row["test"]))


def _aligned(rows_per_seed: Seeds) -> list[list[Row]]:
    """The rows of each seed in the order of the first.

    Raises:
        SlimbenchError: no rows, or other items in one of the seeds.
    """
    if not rows_per_seed or not rows_per_seed[0]:
        raise SlimbenchError("There are no rows to compute an interval from; give it a split with utterances.")
    names = [_identity(row) for row in rows_per_seed[0]]
    aligned = []
    for rows in rows_per_seed:
        if [_identity(row) for row in rows] == names:
            aligned.append(list(rows))
            continue
        found = {_identity(row): row for row in rows}
        if len(found) != len(rows) or set(found) != set(names):
            raise SlimbenchError(
                "The rows to compare are of different items; compare runs of the same suite and split."
            )
        aligned.append([found[name] for name in names])
    return aligned
