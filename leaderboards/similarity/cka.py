"""Linear CKA between all states of two upstreams, from minibatches, with the unbiased estimator of HSIC.

HSIC of two kernels k and l over independent items is E[k(1,2) l(1,2)] − 2 E[k(1,2) l(1,3)] + E[k(1,2) l(3,4)]. Each
of the three means is estimated over tuples of *distinct* items (Song et al., Feature selection via dependence
maximization, JMLR 2012), so that the estimate is unbiased at any number of items from four on; then the means over
batches go into CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) (Nguyen, Raghu & Kornblith, ICLR 2021). What the biased
estimator finds in common between unrelated wide states is thereby gone, and a value slightly below 0 can occur.

For resampling, items carry weights: a tuple of four distinct items counts as often as the product of their weights,
in all three means. So no item is ever paired with its own copy, and the features' means still do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from harness.interface import SlimbenchError
from leaderboards.similarity.estimates import Estimates, Floats, Ints, resamples, summed_up

LEAST = 4
"""Items that the unbiased estimator needs."""


@dataclass(frozen=True)
class Batch:
    """States of the same n items: ``student`` (S, n, D) and ``teacher`` (T, n, E), and the speaker of each, (n,).

    Items are independent only if no two are of one speaker.
    """

    student: Floats
    teacher: Floats
    speaker: Ints


@dataclass(frozen=True)
class _Kernels:
    """Kernels of several states, zero on the diagonal (m, n, n); times weights and their squares, (m, n, R) each."""

    matrix: Floats
    weighed: Floats
    squared: Floats


def cka(batches: Iterable[Batch], units: int, repeats: int = 0, seed: int = 0) -> Estimates:
    """CKA of every student state with every teacher state, (S, T), with bootstrap intervals over speakers.

    Args:
        batches: each of at least four items; they count alike.
        units: number of speakers, which batches number from 0 to ``units`` − 1.
        repeats: resamples of the speakers; 0 gives no interval.
        seed: of the resampling.

    Returns:
        NaN where a state does not vary. A bound is NaN where most resamples give no value.

    Raises:
        SlimbenchError: no batch, or one of fewer than four items.
    """
    times = resamples(units, repeats, np.random.default_rng(seed))
    sums, count = [np.zeros(()), np.zeros(()), np.zeros(())], 0
    for batch in batches:
        sums = [total + part for total, part in zip(sums, _batch(batch, times[:, batch.speaker]), strict=True)]
        count += 1
    if not count:
        raise SlimbenchError("There is no audio to compare states on: name a task with test utterances.")
    cross, student, teacher = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt(student[:, :, None] * teacher[:, None, :])
        return summed_up(np.where(scale > 0, cross / scale, np.nan))


def hsic(first: Floats, second: Floats, weights: Floats | None = None) -> Floats:
    """Unbiased HSIC of two feature tables (n, D) and (n, E) under linear kernels, per line of weights (R, n): (R,).

    Raises:
        SlimbenchError: fewer than four items.
    """
    weights = np.ones((1, len(first))) if weights is None else weights
    return _hsic(_kernels(first[None], weights), _kernels(second[None], weights), weights)[:, 0]


def _batch(batch: Batch, weights: Floats) -> list[Floats]:
    """HSIC (R, S, T) across, and (R, S) and (R, T) of each state with itself."""
    student, teacher = (_kernels(states, weights) for states in (batch.student, batch.teacher))
    cross = [_hsic(_one(student, place, teacher), teacher, weights) for place in range(len(student.matrix))]
    return [np.stack(cross, axis=1), *(_hsic(side, side, weights) for side in (student, teacher))]


def _kernels(states: Floats, weights: Floats) -> _Kernels:
    """Linear kernels of states (m, n, D). HSIC does not see the mean; without it, small differences are kept."""
    if states.shape[1] < LEAST:
        raise SlimbenchError(
            f"CKA needs at least {LEAST} utterances per batch, here are {states.shape[1]}: take more test audio."
        )
    centred = np.asarray(states, dtype=np.float64)
    centred = centred - centred.mean(axis=1, keepdims=True)
    matrix = centred @ centred.transpose(0, 2, 1)
    matrix[:, np.arange(matrix.shape[1]), np.arange(matrix.shape[1])] = 0.0
    return _Kernels(matrix, matrix @ weights.T, matrix @ (weights**2).T)


def _one(kernels: _Kernels, place: int, like: _Kernels) -> _Kernels:
    """One of the kernels, to be paired with each of ``like``."""
    parts = (kernels.matrix, kernels.weighed, kernels.squared)
    return _Kernels(*(np.broadcast_to(part[place], (len(like.matrix), *part.shape[1:])) for part in parts))


def _hsic(one: _Kernels, two: _Kernels, weights: Floats) -> Floats:
    """HSIC of pairs of kernels under weights of the items (R, n): (R, m).

    Three sums over ordered quadruples of distinct items, each with the product of the four weights w. Where fewer than
    four items have a part in the summand, the sum over the others is worked out; items that coincide are taken out
    by inclusion and exclusion.
    """
    products = one.matrix * two.matrix
    paired = {  # Σ_ij w_i^a w_j^b k_ij l_ij
        (a, b): _line_sums(weights**a, products @ (weights**b).T) for a, b in ((1, 1), (2, 1), (3, 1), (2, 2))
    }
    total, squares = (np.sum(weights**power, axis=1, keepdims=True) for power in (1, 2))
    pairs = (total**2 - squares) * paired[1, 1] - 4 * total * paired[2, 1] + 4 * paired[3, 1] + 2 * paired[2, 2]
    both = one.weighed * two.weighed
    inner = _line_sums(weights**2, both) - paired[2, 2]
    outer = sum(_line_sums(weights, part) for part in (one.squared * two.weighed, one.weighed * two.squared))
    chains = total * (_line_sums(weights, both) - paired[2, 1]) - inner - (outer - 2 * paired[3, 1])
    sums = [_line_sums(weights, side.weighed) for side in (one, two)]
    apart = sums[0] * sums[1] - 4 * _line_sums(weights**2, both) + 2 * paired[2, 2]
    enough = (weights > 0).sum(axis=1, keepdims=True) >= LEAST
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(enough, (pairs - 2 * chains + apart) / _quadruples(weights), np.nan)


def _line_sums(weights: Floats, values: Floats) -> Floats:
    """Σ_i of weights (R, n) times values (m, n, R): (R, m)."""
    return np.asarray(np.einsum("ri,mir->rm", weights, values))


def _quadruples(weights: Floats) -> Floats:
    """Total weight of the ordered quadruples of distinct items, (R, 1)."""
    one, two, three, four = (np.sum(weights**power, axis=1, keepdims=True) for power in (1, 2, 3, 4))
    return np.asarray(one**4 - 6 * one**2 * two + 8 * one * three + 3 * two**2 - 6 * four)
