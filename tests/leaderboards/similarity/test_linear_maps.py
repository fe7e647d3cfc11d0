import numpy as np
import pytest
from sklearn.linear_model import Ridge

from harness.interface import SlimbenchError
from leaderboards.similarity import linear
from leaderboards.similarity.linear import explained


def speakers(count=20, each=15):
    return np.repeat(np.arange(count), each)


def test_a_linear_teacher_is_explained_whole_and_noise_is_not():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 8))
    linear_one = x @ rng.standard_normal((8, 5)) + 4.0
    noise = rng.standard_normal((300, 5))
    half = linear_one + noise * linear_one.std(axis=0)
    found = explained(x, [linear_one, noise, half], speakers(), repeats=200).value
    assert found[0] == pytest.approx(1.0, abs=1e-6)
    assert abs(found[1]) < 0.05
    assert found[2] == pytest.approx(0.5, abs=0.1)


def test_no_credit_for_what_only_fits_the_training_speakers():
    rng = np.random.default_rng(1)
    x = np.eye(20)[speakers()] + 0.01 * rng.standard_normal((300, 20))  # who speaks, and nothing else
    y = rng.standard_normal((20, 6))[speakers()]
    assert explained(x, [y], speakers()).value[0] < 0.1
    assert explained(x, [y], np.arange(300)).value[0] > 0.9  # other utterances of the same speakers are predicted


def test_maps_are_scikit_learns_and_the_held_out_fold_has_no_part_in_the_choice():
    rng = np.random.default_rng(2)
    x, noise = rng.standard_normal((60, 20)) @ rng.standard_normal((20, 20)), rng.standard_normal((60, 4))
    y = x @ rng.standard_normal((20, 4)) + 30 * noise
    cluster = speakers(12, 5)
    fold = linear._folds(12, np.random.default_rng(5))[cluster]
    wrong = spread = 0.0
    chosen = []
    for held in range(5):
        choosing = (held + 1) % 5
        train, rest, test = (fold != held) & (fold != choosing), fold != held, fold == held
        losses = [
            np.sum((y[fold == choosing] - ridge(x, y, train, p, fold == choosing)) ** 2) for p in linear.PENALTIES
        ]
        chosen.append(linear.PENALTIES[int(np.argmin(losses))])
        wrong += np.sum((y[test] - ridge(x, y, rest, chosen[-1], test)) ** 2)
        spread += np.sum((y[test] - y[rest].mean(axis=0)) ** 2)
    assert len(set(chosen)) > 1
    assert explained(x, [y], cluster, seed=5).value[0] == pytest.approx(1 - wrong / spread, rel=1e-9)


def ridge(x, y, train, penalty, test):
    centred = x[train] - x[train].mean(axis=0)
    alpha = penalty * np.trace(centred.T @ centred) / x.shape[1]
    return Ridge(alpha=alpha).fit(x[train], y[train]).predict(x[test])


def test_the_penalty_is_chosen_where_there_are_more_directions_than_items():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((60, 50))
    y = x[:, :1] @ np.ones((1, 3)) + rng.standard_normal((60, 3))
    free = explained(x, [y], np.arange(60)).value[0]
    assert free > 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "PENALTIES", (1e-9,))
        assert explained(x, [y], np.arange(60)).value[0] < free - 0.2


def test_intervals_hold_the_value_and_too_few_speakers_are_said():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((300, 4))
    found = explained(x, [x @ rng.random((4, 3)) + rng.standard_normal((300, 3))], speakers(), repeats=300)
    assert found.low[0] < found.value[0] < found.high[0]
    with pytest.raises(SlimbenchError, match="three speakers"):
        explained(x, [x], speakers(2, 150))
