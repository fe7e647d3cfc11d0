"""A mixture of teacher assistants, whose weights are searched by differential evolution on a held-out criterion.

Assistants lie between teacher and student in size. The student learns from their weighted mean; the weights lie on the
simplex (none negative, sum 1) and are found outside of training, once, with ``scipy.optimize.differential_evolution``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import differential_evolution

from harness.interface import SlimbenchError

Array = NDArray[np.float64]
Criterion = Callable[[Array], float]
"""What is to be small, of K weights on the simplex."""


@dataclass(frozen=True)
class Mixture:
    """Weights of assistants, what the criterion says of them, and how often it was asked."""

    weights: tuple[float, ...]
    value: float
    evaluations: int


def on_simplex(x: Array) -> Array:
    """K weights from K - 1 numbers in [0, 1], by breaking a stick; equally distributed numbers cover it equally.

    >>> on_simplex(np.array([0.75, 0.5])).tolist()
    [0.5, 0.25, 0.25]
    """
    left, weights = 1.0, []
    for place, number in enumerate(x):
        piece = left * (1 - (1 - float(number)) ** (1 / (len(x) - place)))
        weights.append(piece)
        left -= piece
    return np.array([*weights, max(left, 0.0)])


def search(count: int, criterion: Criterion, seed: int, rounds: int = 60, population: int = 12) -> Mixture:
    """The best mixture of ``count`` assistants.

    Args:
        count: assistants.
        criterion: see :data:`Criterion`; must be deterministic.
        seed: of the evolution; the same seed gives the same weights.
        rounds: generations at most.
        population: members per free weight.

    Raises:
        SlimbenchError: there is no assistant, or the criterion is not finite.
    """
    asked = 0

    def ask(weights: Array) -> float:
        nonlocal asked
        asked += 1
        value = float(criterion(weights))
        if not np.isfinite(value):
            raise SlimbenchError(f"the criterion of the mixture is {value} at weights {weights.tolist()}; mend it.")
        return value

    if count < 1:
        raise SlimbenchError("a mixture needs at least one assistant; name some in the recipe.")
    vertices = np.eye(count)
    candidates = [(ask(vertex), tuple(vertex.tolist())) for vertex in vertices]
    if count > 1:
        bounds, most = [(0.0, 1.0)] * (count - 1), {"maxiter": rounds, "popsize": population, "tol": 1e-8}
        found = differential_evolution(lambda x: ask(on_simplex(x)), bounds, rng=seed, **most)
        candidates.append((float(found.fun), tuple(on_simplex(found.x).tolist())))
    value, weights = min(candidates)
    return Mixture(weights, value, asked)


class RidgeProbe:
    """How badly a ridge regression predicts the teacher from a mixture: the share of variance unexplained, held out.

    All products of features are taken once, so that asking costs one solution of a system of the assistants' width.

    Args:
        assistants: K arrays (N, D) of frames, of one width.
        target: (N, D') frames of the teacher.
        train: the first frames, on which the regression is fitted; the rest is held out.
        ridge: penalty, as a share of the mean variance of the mixture's features.

    Raises:
        SlimbenchError: the arrays do not match.
    """

    def __init__(self, assistants: Sequence[Array], target: Array, train: int, ridge: float = 1e-3) -> None:
        if len({a.shape for a in assistants}) != 1 or assistants[0].shape[0] != target.shape[0]:
            shapes = [a.shape for a in assistants]
            raise SlimbenchError(
                f"assistants of shapes {shapes} and a target of {target.shape} cannot be mixed; "
                "align them to one width, and give as many frames of each."
            )
        if not 1 < train < target.shape[0]:
            raise SlimbenchError(f"{train} frames to fit on, of {target.shape[0]}; keep some of them held out.")
        self.ridge = ridge
        centred = [np.asarray(a, np.float64) - a[:train].mean(0) for a in assistants]
        y = np.asarray(target, np.float64) - target[:train].mean(0)
        self.fit = _products([c[:train] for c in centred], y[:train])
        self.held = _products([c[train:] for c in centred], y[train:])

    def __call__(self, weights: Array) -> float:
        """The unexplained share at weights (K,)."""
        gram, cross, _ = self._mixed(self.fit, weights)
        penalty = self.ridge * max(float(np.trace(gram)) / len(gram), 1e-12)
        maps = np.linalg.solve(gram + penalty * np.eye(len(gram)), cross)
        gram, cross, total = self._mixed(self.held, weights)
        error = total - 2 * float(np.sum(maps * cross)) + float(np.sum(maps * (gram @ maps)))
        return error / total

    @staticmethod
    def _mixed(products: tuple[Array, Array, float], weights: Array) -> tuple[Array, Array, float]:
        gram, cross, total = products
        return np.einsum("k,l,klij->ij", weights, weights, gram), np.einsum("k,kij->ij", weights, cross), total


def _products(x: Sequence[Array], y: Array) -> tuple[Array, Array, float]:
    """Products of all pairs (K, K, D, D), products with the target (K, D, D') and its sum of squares."""
    gram = np.stack([np.stack([a.T @ b for b in x]) for a in x])
    return gram, np.stack([a.T @ y for a in x]), float(np.sum(y * y))


def aligned(assistant: Array, target: Array, train: int, ridge: float = 1e-3) -> Array:
    """An assistant's frames (N, D) seen through a ridge regression onto the teacher's (N, D'), fitted on the first.

    For assistants of different widths: all of them get the teacher's.
    """
    x, y = assistant - assistant[:train].mean(0), target[:train] - target[:train].mean(0)
    gram = x[:train].T @ x[:train]
    penalty = ridge * max(float(np.trace(gram)) / len(gram), 1e-12)
    maps = np.linalg.solve(gram + penalty * np.eye(len(gram)), x[:train].T @ y)
    seen: Array = x @ maps + target[:train].mean(0)
    return seen
