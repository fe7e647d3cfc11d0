"""How much of a teacher's states the best linear map from one student state explains, on speakers held out.

Ridge regression. Speakers are divided into folds; in turn each fold is held out, the next one chooses the penalty, and
all others (then with that one) give the map. The error is that of the held-out items, relative to predicting the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.interface import SlimbenchError
from leaderboards.similarity.estimates import Estimates, Floats, Ints, resamples, summed_up

FOLDS = 5
PENALTIES = tuple(10.0**power for power in range(-6, 3))
"""Ridge penalties, as factors of the mean eigenvalue of the student's covariance."""


def explained(student: Floats, teacher: Sequence[Floats], cluster: Ints, repeats: int = 0, seed: int = 0) -> Estimates:
    """Held-out R² of each teacher state, (T,): 1 − Σ squared errors / Σ squared distances from the training mean.

    Args:
        student: one state (N, D).
        teacher: states of the same items, (N, E) each.
        cluster: speaker (or utterance) per item, numbered from 0.
        repeats: resamples of the clusters, on which the errors are summed anew (maps are not fitted anew).
        seed: of folds and resampling.

    Returns:
        At most 1; below 0 where the map is worse than the mean; NaN where a state does not vary.

    Raises:
        SlimbenchError: fewer than three clusters.
    """
    generator = np.random.default_rng(seed)
    units = int(cluster.max()) + 1
    fold = _folds(units, generator)[cluster]
    student = np.asarray(student, dtype=np.float64)
    errors, spreads = np.zeros((2, len(teacher), units))
    for held in range(int(fold.max()) + 1):
        fits = _Fits(student, fold, held)
        for place, state in enumerate(teacher):
            wrong, spread = fits.errors(np.asarray(state, dtype=np.float64))
            for total, values in ((errors, wrong), (spreads, spread)):
                total[place] += np.bincount(cluster[fold == held], weights=values, minlength=units)
    times = resamples(units, repeats, generator)
    with np.errstate(invalid="ignore", divide="ignore"):
        return summed_up(1.0 - (times @ errors.T) / (times @ spreads.T))


def _folds(units: int, generator: np.random.Generator) -> Ints:
    """The fold of each cluster; folds differ by at most one cluster."""
    if units < 3:
        raise SlimbenchError(
            f"A linear map needs three speakers or utterances, to fit, to choose and to test; here are {units}."
        )
    return np.asarray(generator.permutation(units) % min(FOLDS, units), dtype=np.int64)


class _Ridge:
    """Ridge regressions on one set of items (N, D): the eigenvectors are found once for all penalties and targets."""

    def __init__(self, x: Floats) -> None:
        self.mean = x.mean(axis=0)
        self._x = x - self.mean
        values, self._vectors = np.linalg.eigh(self._x.T @ self._x)
        self._values = np.maximum(values, 0.0)
        self._scale = float(self._values.mean()) or 1.0

    def rotated(self, y: Floats) -> Floats:
        """The centred targets' products with the student's directions, (D, E)."""
        return np.asarray(self._vectors.T @ (self._x.T @ (y - y.mean(axis=0))))

    def weights(self, rotated: Floats, penalty: float) -> Floats:
        """The map (D, E)."""
        shrunk = rotated / (self._values + penalty * self._scale)[:, None]
        return np.asarray(self._vectors @ shrunk)


class _Fits:
    """The maps for one held-out fold."""

    def __init__(self, student: Floats, fold: Ints, held: int) -> None:
        choosing = (held + 1) % (int(fold.max()) + 1)
        self._held, self._choose = fold == held, fold == choosing
        self._train, self._all = ~self._held & ~self._choose, ~self._held
        self._x = student
        self._first, self._last = _Ridge(student[self._train]), _Ridge(student[self._all])

    def errors(self, y: Floats) -> tuple[Floats, Floats]:
        """Squared error, and squared distance from the training mean, of each held-out item."""
        rotated = self._first.rotated(y[self._train])
        x = self._x[self._choose] - self._first.mean
        target = y[self._choose] - y[self._train].mean(axis=0)
        losses = [float(np.sum((target - x @ self._first.weights(rotated, p)) ** 2)) for p in PENALTIES]
        penalty = PENALTIES[int(np.argmin(losses))]
        weights = self._last.weights(self._last.rotated(y[self._all]), penalty)
        target = y[self._held] - y[self._all].mean(axis=0)
        wrong = target - (self._x[self._held] - self._last.mean) @ weights
        return np.sum(wrong**2, axis=1), np.sum(target**2, axis=1)
