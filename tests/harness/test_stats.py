import numpy as np
import pytest
from scipy.stats import bootstrap

from harness import metrics, stats
from harness.interface import SlimbenchError


def items(right, speakers=None):
    return [
        {"id": f"u{i}", "speaker": speakers[i] if speakers else "", "ref": "x", "hyp": "x" if good else "y"}
        for i, good in enumerate(right)
    ]


def pairs(scores, same, speakers):
    return [
        {"enrol": f"e{i}", "test": f"t{i}", "speakers": list(speakers[i]), "same": bool(same[i]), "score": float(v)}
        for i, v in enumerate(scores)
    ]


def verification(generator, speakers=12, count=600, noise=1.0):
    names = generator.integers(0, speakers, (count, 2))
    names[: count // 2, 1] = names[: count // 2, 0]
    same = names[:, 0] == names[:, 1]
    scores = generator.normal(same * 1.5, noise)
    return scores, same, [(f"s{a}", f"s{b}") for a, b in names]


def test_interval_is_that_of_scipy_without_speakers():
    generator = np.random.default_rng(0)
    right = generator.random(200) < 0.7
    low, high = stats.interval("accuracy", [items(right)], repeats=9999)
    reference = bootstrap((100.0 * right,), np.mean, n_resamples=9999, method="percentile", rng=generator)
    assert (low, high) == pytest.approx(tuple(reference.confidence_interval), abs=0.6)


def test_copies_of_an_utterance_by_one_speaker_change_nothing():
    generator = np.random.default_rng(1)
    right = generator.random(60) < 0.5
    once = items(right, [f"s{i}" for i in range(60)])
    thrice = [dict(row, id=f"{row['id']}-{k}") for row in once for k in range(3)]
    assert stats.interval("accuracy", [thrice]) == pytest.approx(stats.interval("accuracy", [once]))
    loose = [dict(row, speaker="") for row in thrice]
    clustered, free = stats.interval("accuracy", [thrice]), stats.interval("accuracy", [loose])
    assert clustered[1] - clustered[0] > 1.4 * (free[1] - free[0])  # √3 in expectation


def test_word_error_interval_resamples_words_with_their_utterance():
    rows = [{"id": str(i), "speaker": "", "ref": "A B C", "hyp": "A B C" if i % 2 else "A"} for i in range(40)]
    low, high = stats.interval("wer", [rows])
    assert low < metrics.score("wer", rows) < high
    same = [dict(row, hyp="A") for row in rows]
    assert stats.interval("wer", [same]) == pytest.approx((200 / 3, 200 / 3))


def test_seeds_are_averaged_and_share_the_resample():
    right = np.arange(100) % 2 == 0
    low, high = stats.interval("accuracy", [items(right), items(~right)])
    assert low == pytest.approx(50)
    assert high == pytest.approx(50)


def test_order_of_the_rows_of_a_seed_does_not_matter():
    right = np.arange(50) % 3 == 0
    rows = items(right)
    assert stats.interval("accuracy", [rows, rows[::-1]]) == stats.interval("accuracy", [rows, rows])


def test_weighted_equal_error_rate_counts_each_trial_as_often_as_its_weight():
    generator = np.random.default_rng(2)
    scores, same, _ = verification(generator, count=80)
    scores = np.round(scores, 1)
    weights = generator.integers(0, 4, (5, 80))
    rates = stats.weighted_eer(same, scores)(weights.astype(float))
    for rate, weight in zip(rates, weights, strict=True):
        assert rate == pytest.approx(metrics.equal_error_rate(same.repeat(weight), scores.repeat(weight)))


def test_equal_error_rate_interval_holds_the_score_and_grows_with_clusters():
    scores, same, speakers = verification(np.random.default_rng(3))
    rows = pairs(scores, same, speakers)
    low, high = stats.interval("eer", [rows], repeats=400)
    assert low < metrics.score("eer", rows) < high
    free = pairs(scores, same, [("", "")] * len(scores))
    assert stats.interval("eer", [rows], repeats=400) == (low, high)
    free_low, free_high = stats.interval("eer", [free], repeats=400)
    assert free_low < metrics.score("eer", rows) < free_high


def test_paired_difference_of_a_system_with_itself_is_zero():
    rows = items(np.arange(30) % 2 == 0)
    assert stats.paired_difference("accuracy", [rows], [rows[::-1]]) == (0, 0, 0)


def test_paired_difference_sees_what_separate_intervals_do_not():
    generator = np.random.default_rng(4)
    right = generator.random(300) < 0.5
    better = right.copy()
    better[np.flatnonzero(~right)[:15]] = True
    mean, low, high = stats.paired_difference("accuracy", [items(better)], [items(right)])
    assert mean == pytest.approx(5.0)
    assert 0 < low < mean < high
    assert stats.interval("accuracy", [items(right)])[1] > stats.interval("accuracy", [items(better)])[0]


def test_other_items_are_an_error():
    rows = items([True, False])
    with pytest.raises(SlimbenchError, match="different items"):
        stats.paired_difference("accuracy", [rows], [rows[:1]])
    with pytest.raises(SlimbenchError, match="no rows"):
        stats.interval("accuracy", [])


def test_folds_are_scored_apart_and_averaged():
    one = [{**row, "fold": 1} for row in items([1, 0, 0, 0])]
    two = [{**row, "fold": 2} for row in items([1] * 10)]
    assert metrics.score("accuracy", one + two) == pytest.approx((25.0 + 100.0) / 2)
    low, high = stats.interval("accuracy", [one + two], repeats=400)
    alone = stats.interval("accuracy", [one], repeats=4000)
    assert low == pytest.approx((alone[0] + 100.0) / 2, abs=2)
    assert high == pytest.approx((alone[1] + 100.0) / 2, abs=2)
