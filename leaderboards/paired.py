"""Two or more upstreams on the same test items: alignment, joint resamples, and a permutation test.

Intervals and resamples are those of :mod:`harness.stats`, which resamples speakers. The permutation test asks whether
the two systems' answers could be exchanged: all answers to one speaker are exchanged together, since they are not
independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from harness import metrics, stats
from harness.interface import Row, SlimbenchError
from harness.records import Record

Floats = NDArray[np.float64]
Seeds = list[list[Row]]
"""Rows of each seed, the same items in the same order in each."""

EXACT = 13
"""Up to this many exchangeable units all exchanges are tried; beyond, a random sample of them."""

PERMUTATIONS, TRIAL_PERMUTATIONS = 9999, 1999
"""Random exchanges; fewer for the equal error rate, whose curve is computed anew for each."""

CHUNK = 100
"""Exchanges scored at a time, which bounds memory."""


@dataclass(frozen=True)
class Test:
    """A two-sided paired permutation test.

    Attributes:
        p: probability of a difference at least as large if the systems were exchangeable.
        units: number of units that were exchanged: speakers, or utterances where no speakers are known.
        unit: ``speakers``, ``enrolment speakers``, ``utterances``, ``trials``, or a mixture of two of these.
        least: the smallest p that so many units can give.
        exchanges: number of exchanges tried.
    """

    __test__ = False  # not a test case of pytest

    p: float
    units: int
    unit: str
    least: float
    exchanges: int


def align(records: Mapping[str, Record]) -> dict[str, Seeds]:
    """The rows of several upstreams on one task, by name, all in the order of the first.

    Raises:
        SlimbenchError: the records are of different metrics, test items, references or speakers.
    """
    first, model = next(iter(records.items()))
    usual = {_item(row): row for row in _rows(model)[0]}
    aligned: dict[str, Seeds] = {}
    for name, record in records.items():
        if record.metric != model.metric:
            raise SlimbenchError(
                f"{first} and {name} are scored by {model.metric} and {record.metric} on {record.task}: "
                "run them under one protocol."
            )
        aligned[name] = [_in_order(rows, usual, f"{first} and {name}", record.task) for rows in _rows(record)]
    return aligned


def draws(metric: str, seeds: Seeds, repeats: int, seed: int = 0) -> Floats:
    """The score of each training seed on each resample of the speakers: (seeds, repeats), in percent.

    Rows that :func:`align` gave get the same resamples for the same ``seed``, whatever the upstream. A resample
    that cannot be scored is NaN.
    """
    return np.stack([stats.resampled(metric, [rows], repeats, seed) for rows in seeds])


def over_seeds(scores: Floats, generator: np.random.Generator) -> Floats:
    """Resample the training seeds too: the mean over as many seeds, drawn anew per column of (seeds, repeats).

    Resampled means of S seeds vary by (S - 1) / S too little; their distance from the mean is stretched accordingly.
    """
    count, repeats = scores.shape
    times = generator.multinomial(count, np.full(count, 1.0 / count), size=repeats)
    means = scores.mean(axis=0)
    stretch = np.sqrt(count / (count - 1.0)) if count > 1 else 1.0
    return np.asarray(means + stretch * ((times.T * scores).sum(axis=0) / count - means), dtype=np.float64)


def permutation(metric: str, rows_a: Seeds, rows_b: Seeds, seed: int = 0) -> Test:
    """Test whether two systems' answers to the same items can be exchanged.

    The statistic is the difference of the scores (means over seeds). Ratios of sums over items are exchanged by
    speaker, all seeds together. For equal error rates each system's scores are first replaced by their ranks, which
    leaves the rate as it is and makes two systems' scores exchangeable; trials are exchanged by enrolment speaker.

    Args:
        metric: name in :data:`harness.metrics.METRICS`.
        rows_a: rows of each seed of one system, as :func:`align` gives them.
        rows_b: rows of each seed of the other.
        seed: of the random exchanges.

    Raises:
        SlimbenchError: verification with another number of seeds in each system.
    """
    if metric in metrics.TRIALS:
        return _trial_permutation(metric, rows_a, rows_b, seed)
    names, unit = _units(rows_a[0], "speakers", "utterances", [str(row.get("speaker") or "") for row in rows_a[0]])
    shares = np.zeros(len(names))
    parts = metrics.folds(rows_a[0])
    for part in parts:
        right_a, total = _mean_counts(metric, [[rows[i] for i in part] for rows in rows_a])
        right_b, _ = _mean_counts(metric, [[rows[i] for i in part] for rows in rows_b])
        shares[part] = 100.0 * (right_a - right_b) / total.sum() / len(parts)
    number = _numbered(names)
    by_unit = np.bincount(number, weights=shares)
    signs = _exchanges(len(by_unit), PERMUTATIONS, seed)
    sums = np.concatenate([part @ by_unit for part in np.array_split(1.0 - 2.0 * signs, -(-len(signs) // 1000))])
    return _test(sums, float(by_unit.sum()), len(by_unit), unit)


def _trial_permutation(metric: str, rows_a: Seeds, rows_b: Seeds, seed: int) -> Test:
    if len(rows_a) != len(rows_b):
        raise SlimbenchError(
            f"The systems have {len(rows_a)} and {len(rows_b)} seeds, and verification scores are exchanged seed by "
            "seed: run both with the same number."
        )
    known = [str(row["speakers"][0]) if row.get("speakers") else "" for row in rows_a[0]]
    names, unit = _units(rows_a[0], "enrolment speakers", "trials", known)
    number = _numbered(names)
    count = int(number.max()) + 1
    signs = _exchanges(count, TRIAL_PERMUTATIONS, seed)
    field = metrics.field(metric, rows_a[0], "score")
    pooled = []  # both systems' trials in one list; an exchange chooses which of the two copies each system gets
    for one, two in zip(rows_a, rows_b, strict=True):
        (same, scores_a), (_, scores_b) = metrics.trial_arrays(one, field), metrics.trial_arrays(two, field)
        ranks = np.concatenate([rankdata(scores_a), rankdata(scores_b)])
        pooled.append(stats.weighted_eer(np.concatenate([same, same]), ranks))
    found = [
        np.mean([rate(_copies(part[:, number])) - rate(_copies(1.0 - part[:, number])) for rate in pooled], axis=0)
        for part in np.array_split(np.concatenate([np.zeros((1, count)), signs]), -(-(len(signs) + 1) // CHUNK))
    ]
    differences = np.concatenate(found)
    return _test(differences[1:], float(differences[0]), count, unit)


def _copies(exchanged: Floats) -> Floats:
    """Weights over the trials of both systems, (exchanges, 2 N): its own copy, or the other's where exchanged."""
    return np.concatenate([1.0 - exchanged, exchanged], axis=1)


def _test(sample: Floats, observed: float, units: int, unit: str) -> Test:
    """The p-value from the differences under all exchanges, or under a random sample of them and the observed one."""
    reached = int((np.abs(sample) >= abs(observed) - 1e-9).sum())
    if units <= EXACT:
        return Test(reached / len(sample), units, unit, min(1.0, 2.0 / len(sample)), len(sample))
    least = 1.0 / (len(sample) + 1)
    return Test((reached + 1) / (len(sample) + 1), units, unit, least, len(sample))


def _exchanges(units: int, number: int, seed: int) -> Floats:
    """Which units are exchanged, (exchanges, units) of 0 and 1: all ways where they are few."""
    if units <= EXACT:
        return np.asarray(list(product((0.0, 1.0), repeat=units)), dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(0, 2, (number, units), dtype=np.int8)
    return drawn.astype(np.float64)


def _mean_counts(metric: str, seeds: Sequence[Sequence[Row]]) -> tuple[Floats, Floats]:
    """Mean over seeds of the numerators, and the denominators, which are the same in all, per row."""
    counted = [metrics.counts(metric, rows) for rows in seeds]
    return np.asarray(np.mean([right for right, _ in counted], axis=0), dtype=np.float64), counted[0][1]


def _units(rows: Sequence[Row], speakers: str, items: str, known: Sequence[str]) -> tuple[list[str], str]:
    """The unit of each row, and what units are called; a row without a speaker is a unit of its own."""
    names = [name or f"\0{index}" for index, name in enumerate(known)]
    if all(known):
        return names, speakers
    return names, f"{speakers} or single {items}" if any(known) else items


def _numbered(names: Sequence[str]) -> NDArray[np.int64]:
    return np.unique(np.asarray(names), return_inverse=True)[1].astype(np.int64)


def _rows(record: Record) -> list[list[Row]]:
    return [record.predictions[str(seed)] for seed in record.seeds]


def _item(row: Row) -> tuple[str, ...]:
    fold = str(row.get("fold", ""))
    return (fold, str(row["id"])) if "id" in row else (fold, str(row["enrol"]), str(row["test"]))


def _asked(row: Row) -> tuple[object, ...]:
    """What the test asks of an item, and of whom; predictions left out."""
    return row.get("ref"), row.get("same"), row.get("speaker"), tuple(row.get("speakers") or ())


def _in_order(rows: list[Row], usual: Mapping[tuple[str, ...], Row], who: str, task: str) -> list[Row]:
    """The rows in the order of ``usual``.

    Raises:
        SlimbenchError: other items, or another reference or speaker of an item.
    """
    found = {_item(row): row for row in rows}
    if len(found) != len(rows) or set(found) != set(usual):
        shared = len(set(found) & set(usual))
        raise SlimbenchError(
            f"{who} were tested on different items on {task} ({len(usual)} and {len(rows)}, {shared} shared), so they "
            "cannot be compared: run both on the same data."
        )
    for name, row in found.items():
        if _asked(row) != _asked(usual[name]):
            raise SlimbenchError(
                f"{who} were tested with different references or speakers on {task} (first at {' '.join(name[1:])}), "
                "so they cannot be compared: run both on the same data."
            )
    return [found[name] for name in usual]
