from itertools import permutations

import numpy as np
import pytest

from harness.interface import SlimbenchError
from leaderboards.similarity.cka import Batch, cka, hsic


def brute_hsic(x, y, weights):
    """The definition, one quadruple of distinct items after the other, each with the product of its weights."""
    k, m = x @ x.T, y @ y.T
    total = norm = 0.0
    for i, j, q, r in permutations(range(len(weights)), 4):
        weight = weights[i] * weights[j] * weights[q] * weights[r]
        total += weight * (k[i, j] * m[i, j] - 2 * k[i, j] * m[i, q] + k[i, j] * m[q, r])
        norm += weight
    return total / norm


def matrix_hsic(x, y):
    """Unbiased HSIC as the papers write it: kernels without diagonal, traces and sums."""
    n, ones = len(x), np.ones(len(x))
    k, m = (z @ z.T for z in (x, y))
    for kernel in (k, m):
        np.fill_diagonal(kernel, 0.0)
    middle = (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
    return (np.trace(k @ m) + middle - 2 / (n - 2) * (ones @ k @ m @ ones)) / (n * (n - 3))


def biased_cka(x, y):
    """CKA of centred kernels with all pairs, an item with itself too: the usual estimator."""
    centre = np.eye(len(x)) - 1 / len(x)
    k, m = (centre @ z @ z.T @ centre for z in (x, y))
    return np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))


def batch(*sides):
    """A batch from lists of states (n, D), each item a speaker of its own."""
    return Batch(*(np.stack(states) for states in sides), np.arange(len(sides[0][0])))


def one(x, y, **more):
    return cka([batch([x], [y])], len(x), **more).value[0, 0]


def made(seed, n=40, d=6, e=9):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) + 3.0
    return x, np.tanh(x @ rng.standard_normal((d, e))) + 0.5 * rng.standard_normal((n, e)) - 2.0


def test_hsic_is_the_mean_over_tuples_of_distinct_items():
    x, y = made(0, n=7)
    for weights in (np.ones(7), np.array([2.0, 0, 1, 3, 1, 0, 1]), np.random.default_rng(1).random(7)):
        assert hsic(x, y, weights[None])[0] == pytest.approx(brute_hsic(x, y, weights), rel=1e-9)
    assert hsic(x, y)[0] == pytest.approx(matrix_hsic(x, y), rel=1e-9)


def test_resampled_hsic_does_not_see_where_the_features_lie():
    x, y = made(10)
    weights = np.random.default_rng(11).multinomial(40, np.full(40, 1 / 40), size=5).astype(float)
    assert hsic(x, y, weights) == pytest.approx(hsic(x + 50.0, y - 30.0, weights), rel=1e-7)


def test_cka_of_all_pairs_of_states_is_that_of_explicit_kernels():
    rng = np.random.default_rng(2)
    students, teachers = [made(s, d=5)[0] for s in (0, 1)], [made(s)[1] @ rng.random((9, 9)) for s in (0, 1, 2)]
    found = cka([batch(students, teachers)], 40).value
    assert found.shape == (2, 3)
    for s, x in enumerate(students):
        for t, y in enumerate(teachers):
            expected = matrix_hsic(x, y) / np.sqrt(matrix_hsic(x, x) * matrix_hsic(y, y))
            assert found[s, t] == pytest.approx(expected, rel=1e-9)


def test_batches_are_averaged_before_the_ratio_and_one_batch_is_the_whole():
    parts = [made(seed, n=20) for seed in range(5)]
    cross, x_own, y_own = (np.mean([matrix_hsic(p[a], p[b]) for p in parts]) for a, b in ((0, 1), (0, 0), (1, 1)))
    found = cka([batch([x], [y]) for x, y in parts], 20).value[0, 0]
    assert found == pytest.approx(cross / np.sqrt(x_own * y_own), rel=1e-9)
    same = cka([batch([parts[0][0]], [parts[0][1]])] * 3, 20).value[0, 0]
    assert same == pytest.approx(one(*parts[0]), rel=1e-12)


def test_itself_is_one_and_turns_shifts_and_scales_change_nothing():
    x, y = made(3)
    rng = np.random.default_rng(4)
    turn = [np.linalg.qr(rng.standard_normal((d, d)))[0] for d in (6, 9)]
    assert one(x, x) == pytest.approx(1.0)
    assert one(x, 7.0 * x @ turn[0] + 100.0) == pytest.approx(1.0)
    assert one(0.01 * x @ turn[0], y @ turn[1] * 30.0 - 5.0) == pytest.approx(one(x, y), rel=1e-9)
    assert abs(one(x, y @ np.diag(rng.random(9) * 5)) - one(x, y)) > 1e-3  # not so for other linear maps
    assert one(x, y) == pytest.approx(one(y, x))


def test_independent_states_have_none_of_the_bias():
    rng = np.random.default_rng(5)
    drawn = [(rng.standard_normal((24, 60)), rng.standard_normal((24, 60))) for _ in range(60)]
    values = [one(x, y) for x, y in drawn]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * error < 0.1
    assert np.mean([biased_cka(x, y) for x, y in drawn]) > 0.5


def test_small_batches_estimate_what_many_items_do():
    x, y = made(6, n=4000)
    whole = one(x, y)
    small = cka([batch([x[i : i + 8]], [y[i : i + 8]]) for i in range(0, 4000, 8)], 8).value[0, 0]
    assert small == pytest.approx(whole, abs=0.03)
    assert np.mean([biased_cka(x[i : i + 8], y[i : i + 8]) for i in range(0, 4000, 8)]) > whole + 0.1


def test_the_interval_is_that_of_resampled_items_without_their_copies():
    x, y = made(7, n=10, d=2, e=2)
    found = cka([batch([x], [y])], 10, repeats=40, seed=3)
    times = np.random.default_rng(3).multinomial(10, np.full(10, 1 / 10), size=40)
    draws = []
    for w in times.astype(float):
        own = brute_hsic(x, x, w) * brute_hsic(y, y, w)
        draws.append(brute_hsic(x, y, w) / np.sqrt(own) if own > 0 else np.nan)
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    assert (found.low[0, 0], found.high[0, 0]) == pytest.approx((low, high), rel=1e-6)
    assert found.low[0, 0] < found.value[0, 0] < found.high[0, 0]


def test_too_few_items_and_constant_states_are_said():
    x, y = made(8, n=3)
    with pytest.raises(SlimbenchError, match="at least 4 utterances per batch, here are 3"):
        one(x, y)
    with pytest.raises(SlimbenchError, match="no audio"):
        cka([], 4)
    assert np.isnan(one(np.ones((9, 2)), made(9, n=9)[0]))
