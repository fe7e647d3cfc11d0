"""Scores from rows: WER, CER and PER by jiwer, accuracy, EER by scikit-learn. All in percent.

Every metric but EER is a ratio of sums over utterances, as in SUPERB (never a mean over batches); ``counts``
gives its two sums per row, so that resampling needs no second scoring.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Any

import jiwer
import numpy as np
from numpy.typing import NDArray

from harness.interface import Row, SlimbenchError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """What a score is called, its unit, and which way is better."""

    name: str
    title: str
    unit: str
    higher_is_better: bool

    @property
    def worst(self) -> float:
        """A value that any real score beats: what a diverged trial is given."""
        return -math.inf if self.higher_is_better else math.inf

    def better(self, a: float, b: float) -> bool:
        """Whether score ``a`` is strictly better than score ``b``."""
        return a > b if self.higher_is_better else a < b


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric("wer", "word error rate", "%", higher_is_better=False),
            Metric("wer_lm", "word error rate with language model", "%", higher_is_better=False),
            Metric("cer", "character error rate", "%", higher_is_better=False),
            Metric("per", "phone error rate", "%", higher_is_better=False),
            Metric("per_2021", "phone error rate, decoded as before May 2022", "%", higher_is_better=False),
            Metric("accuracy", "accuracy", "%", higher_is_better=True),
            Metric("eer", "equal error rate", "%", higher_is_better=False),
            Metric("eer_test_min", "equal error rate, lowest of all checkpoints on test", "%", higher_is_better=False),
        )
    }
)


TRIALS = frozenset({"eer", "eer_test_min"})
"""Metrics of verification trials, which are no ratios of sums over rows."""


def metric(name: str) -> Metric:
    """The metric called ``name``.

    Raises:
        SlimbenchError: no metric has that name.
    """
    if name not in METRICS:
        raise SlimbenchError(f"Unknown metric '{name}'; use one of {', '.join(sorted(METRICS))}.")
    return METRICS[name]


def score(name: str, rows: Sequence[Row]) -> float:
    """The score of ``rows`` under the metric ``name``, in percent; the mean over folds where rows have a ``fold``.

    Raises:
        SlimbenchError: unknown metric, no rows, rows that it cannot score.
    """
    parts = folds(rows)
    if len(parts) > 1:
        return math.fsum(score(name, [rows[i] for i in part]) for part in parts) / len(parts)
    if metric(name).name in TRIALS:
        same, scores = trial_arrays(rows, field(name, rows, "score"))
        return equal_error_rate(same, scores)
    numerator, denominator = counts(name, rows)
    return float(100.0 * numerator.sum() / denominator.sum())


def field(name: str, rows: Sequence[Row], usual: str) -> str:
    """Where rows hold what the metric scores: ``<usual>_<name>`` where there is such a field, else ``usual``."""
    return f"{usual}_{name}" if rows and f"{usual}_{name}" in rows[0] else usual


def folds(rows: Sequence[Row]) -> list[list[int]]:
    """Places of the rows of each fold; one list where there are no folds."""
    found: dict[object, list[int]] = {}
    for place, row in enumerate(rows):
        found.setdefault(row.get("fold"), []).append(place)
    return list(found.values())


def counts(name: str, rows: Sequence[Row]) -> tuple[Floats, Floats]:
    """Numerator and denominator per row, each (N,): score = 100 · Σ numerator / Σ denominator.

    Raises:
        SlimbenchError: unknown metric, ``eer`` (not a ratio of sums), no rows, an empty reference.
    """
    if metric(name).name in TRIALS:
        raise SlimbenchError("The equal error rate has no counts per row; score its trials with harness.metrics.score.")
    if not rows:
        raise SlimbenchError(f"There are no rows to score with {name}; give it a split with utterances.")
    references = [str(row["ref"]) for row in rows]
    said = field(name, rows, "hyp")
    hypotheses = [str(row[said]) for row in rows]
    if name == "accuracy":
        right = [ref == hyp for ref, hyp in zip(references, hypotheses, strict=True)]
        return np.asarray(right, dtype=np.float64), np.ones(len(rows))
    for row, reference in zip(rows, references, strict=True):
        if not reference.strip():
            raise SlimbenchError(f"Utterance {row.get('id')} has an empty reference; give it a text to compute {name}.")
    if name == "per_2021":
        hypotheses = [_merged(hypothesis) for hypothesis in hypotheses]
    return _edit_counts(references, hypotheses, characters=name == "cer")


def _merged(text: str) -> str:
    """``text`` with equal neighbours merged: s3prl before May 2022 dropped blanks first (protocol section 1.3)."""
    return " ".join(token for token, _ in groupby(text.split()))


def _edit_counts(references: list[str], hypotheses: list[str], characters: bool) -> tuple[Floats, Floats]:
    """Edits and reference tokens per pair, from jiwer's alignments."""
    process = jiwer.process_characters if characters else jiwer.process_words
    output = process(references, hypotheses)
    edits = [sum(_edits(chunk) for chunk in chunks) for chunks in output.alignments]
    lengths = [len(tokens) for tokens in output.references]
    return np.asarray(edits, dtype=np.float64), np.asarray(lengths, dtype=np.float64)


def _edits(chunk: Any) -> int:
    """Errors in one chunk of a jiwer alignment."""
    if chunk.type == "equal":
        return 0
    return int(max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx))


def trial_arrays(rows: Sequence[Row], scored: str = "score") -> tuple[NDArray[np.bool_], Floats]:
    """``same`` (N,) and the field ``scored`` (N,) of verification rows.

    Raises:
        SlimbenchError: no rows, only one kind of trial, or a score that is not finite.
    """
    same = np.asarray([bool(row["same"]) for row in rows], dtype=np.bool_)
    scores = np.asarray([float(row[scored]) for row in rows], dtype=np.float64)
    if not len(rows) or same.all() or not same.any():
        raise SlimbenchError(
            "The equal error rate needs trials of the same and of different speakers; check the trial list."
        )
    if not np.isfinite(scores).all():
        raise SlimbenchError("A verification score is not finite; the probe that made it has diverged.")
    return same, scores


def equal_error_rate(same: NDArray[np.bool_], scores: Floats) -> float:
    """Equal error rate in percent: where the linearly interpolated ROC crosses 1 − x.

    As s3prl computes it (``downstream/sv_voxceleb1/utils.py``): scikit-learn's ``roc_curve``, linear
    interpolation of the true-positive rate, Brent's root.
    """
    from scipy.interpolate import interp1d  # here, because they take seconds to import
    from scipy.optimize import brentq
    from sklearn.metrics import roc_curve

    false_positive, true_positive, _ = roc_curve(same, scores)
    curve = interp1d(false_positive, true_positive)
    return float(100.0 * brentq(lambda x: 1.0 - x - float(curve(x)), 0.0, 1.0))
