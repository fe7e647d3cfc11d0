"""Joint resamples and permutation tests against scipy and brute force."""

from itertools import product

import numpy as np
import pytest
from fake_records import fake
from scipy.stats import permutation_test, ttest_rel

from harness import metrics, stats
from harness.interface import SlimbenchError
from leaderboards import paired


def items(right, speakers=None):
    speakers = speakers if speakers is not None else [""] * len(right)
    return [
        {"id": f"u{i}", "speaker": speaker, "ref": "x", "hyp": "x" if good else "y"}
        for i, (good, speaker) in enumerate(zip(right, speakers, strict=True))
    ]


def trials(generator, speakers=8, count=60, noise=1.0, known=True):
    names = generator.integers(0, speakers, (count, 2))
    names[: count // 2, 1] = names[: count // 2, 0]
    names[-2:] = [[0, 1], [2, 3]]
    same = names[:, 0] == names[:, 1]
    return lambda: [
        {
            "enrol": f"e{i}", "test": f"t{i}", "same": bool(s), "score": float(s * 1.2 + generator.normal(0, noise)),
            "speakers": [f"s{a}", f"s{b}"] if known else [],
        }
        for i, ((a, b), s) in enumerate(zip(names, same, strict=True))
    ]  # fmt: skip


def test_exact_permutation_of_utterances_is_scipys():
    generator = np.random.default_rng(0)
    one, two = generator.random(11) < 0.8, generator.random(11) < 0.3
    test = paired.permutation("accuracy", [items(one)], [items(two)])
    reference = permutation_test(
        (one.astype(float), two.astype(float)),
        lambda a, b: np.mean(a) - np.mean(b),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    assert test.p == pytest.approx(reference.pvalue)
    assert (test.unit, test.units, test.exchanges) == ("utterances", 11, 2**11)
    assert test.least == 2 / 2**11


def test_sampled_permutation_of_utterances_is_scipys():
    generator = np.random.default_rng(1)
    one, two = generator.random(200) < 0.62, generator.random(200) < 0.5
    test = paired.permutation("accuracy", [items(one)], [items(two)])
    assert test.exchanges == paired.PERMUTATIONS
    p = ttest_rel(one.astype(float), two.astype(float)).pvalue
    assert 0.005 < p < 0.5
    reference = permutation_test(
        (one.astype(float), two.astype(float)), lambda a, b, axis: np.mean(a, axis) - np.mean(b, axis),
        permutation_type="samples", n_resamples=9999, vectorized=True, rng=np.random.default_rng(2),
    )  # fmt: skip
    assert test.p == pytest.approx(reference.pvalue, abs=0.02)


def test_permutation_by_speaker_with_seeds_and_folds_is_brute_force():
    """Every exchange of whole speakers, scored by the metric itself on the exchanged rows."""
    generator = np.random.default_rng(3)
    speakers = [f"s{i % 5}" for i in range(30)]
    folds = [0 if i % 5 < 2 else 1 for i in range(30)]

    def seeds(share, count):
        made = []
        for _ in range(count):
            right = generator.random(30) < share
            rows = items(right, speakers)
            for row, fold in zip(rows, folds, strict=True):
                row |= {"ref": "x y z", "hyp": "x y z" if row["hyp"] == "x" else "x", "fold": fold}
            made.append(rows)
        return made

    one, two = seeds(0.75, 2), seeds(0.4, 2)

    def difference(exchanged):
        scores = []
        for a, b in zip(one, two, strict=True):
            pairs = [(y, x) if x["speaker"] in exchanged else (x, y) for x, y in zip(a, b, strict=True)]
            scores.append(metrics.score("wer", [x for x, _ in pairs]) - metrics.score("wer", [y for _, y in pairs]))
        return np.mean(scores)

    names = sorted(set(speakers))
    found = [
        difference({n for n, yes in zip(names, choice, strict=True) if yes}) for choice in product((0, 1), repeat=5)
    ]
    assert found[0] == pytest.approx(stats.mean_score("wer", one) - stats.mean_score("wer", two))
    test = paired.permutation("wer", one, two)
    assert test.p == pytest.approx(np.mean(np.abs(found) >= abs(found[0]) - 1e-9))
    assert 0 < test.p < 1
    assert (test.unit, test.units) == ("speakers", 5)


def test_numbers_of_seeds_may_differ_where_scores_are_sums():
    right = np.arange(20) % 3 > 0
    once, twice = [items(right)], [items(right), items(right)]
    other = [items(np.arange(20) % 2 > 0)]
    assert paired.permutation("accuracy", once, other) == paired.permutation("accuracy", twice, other)


def test_verification_permutation_is_brute_force_on_ranks():
    generator = np.random.default_rng(4)
    make = trials(generator, speakers=6)
    one, two = [make(), make()], [make(), make()]
    for rows in one:  # better than the other system, whose scores have another scale
        for row in rows:
            row["score"] = 10 * (row["score"] + 0.8 * row["same"]) + 3

    def ranked(rows):
        order = sorted(row["score"] for row in rows)
        return [dict(row, score=order.index(row["score"])) for row in rows]

    def difference(exchanged):
        scores = []
        for a, b in zip(map(ranked, one), map(ranked, two), strict=True):
            pairs = [(y, x) if x["speakers"][0] in exchanged else (x, y) for x, y in zip(a, b, strict=True)]
            scores.append(metrics.score("eer", [x for x, _ in pairs]) - metrics.score("eer", [y for _, y in pairs]))
        return np.mean(scores)

    names = sorted({row["speakers"][0] for row in one[0]})
    found = [difference(set(np.asarray(names)[list(choice)])) for choice in product((False, True), repeat=len(names))]
    assert found[0] == pytest.approx(stats.mean_score("eer", one) - stats.mean_score("eer", two))
    test = paired.permutation("eer", one, two)
    assert test.p == pytest.approx(np.mean(np.abs(found) >= abs(found[0]) - 1e-9))
    assert test.unit == "enrolment speakers"
    assert test.units == len(names)


def test_a_monotone_change_of_scores_changes_no_verification_test():
    make = trials(np.random.default_rng(5))
    one, two = [make()], [make()]
    stretched = [[dict(row, score=np.exp(3 * row["score"])) for row in one[0]]]
    assert paired.permutation("eer", one, two) == paired.permutation("eer", stretched, two)


def test_trials_without_speakers_are_exchanged_one_by_one():
    make = trials(np.random.default_rng(6), known=False)
    test = paired.permutation("eer", [make()], [make()])
    assert (test.unit, test.units, test.exchanges) == ("trials", 60, paired.TRIAL_PERMUTATIONS)
    with pytest.raises(SlimbenchError, match="1 and 2 seeds"):
        paired.permutation("eer", [make()], [make(), make()])


def test_equal_systems_have_p_of_one_and_few_speakers_can_reach_little():
    right = np.arange(40) % 3 > 0
    assert paired.permutation("accuracy", [items(right)], [items(right)]).p == 1.0
    test = paired.permutation("accuracy", [items(np.ones(40), ["a", "b"] * 20)], [items(np.zeros(40), ["a", "b"] * 20)])
    assert (test.p, test.least, test.units) == (0.5, 0.5, 2)
    some = ["a"] * 20 + [""] * 20
    assert (
        paired.permutation("accuracy", [items(right, some)], [items(right, some)]).unit
        == "speakers or single utterances"
    )


def test_p_values_are_uniform_where_nothing_differs():
    generator = np.random.default_rng(7)
    p = []
    for _ in range(200):
        common = generator.random(10)  # speakers differ, systems do not
        right = [np.repeat(common, 4) > generator.random(40) for _ in range(2)]
        names = [f"s{i // 4}" for i in range(40)]
        p.append(paired.permutation("accuracy", [items(right[0], names)], [items(right[1], names)]).p)
    assert np.mean(np.asarray(p) <= 0.05) <= 0.09
    assert 0.4 < np.mean(p) < 0.65


def test_draws_agree_with_the_harness_interval_and_are_joint():
    generator = np.random.default_rng(8)
    names = [f"s{i // 5}" for i in range(100)]
    one, two = [[items(generator.random(100) < share, names) for _ in range(3)] for share in (0.7, 0.5)]
    a, b = paired.draws("accuracy", one, 1000), paired.draws("accuracy", two, 1000)
    assert a.shape == (3, 1000)
    assert tuple(np.percentile(a.mean(axis=0), [2.5, 97.5])) == pytest.approx(stats.interval("accuracy", one))
    _, low, high = stats.paired_difference("accuracy", one, two)
    assert tuple(np.percentile((a - b.mean(axis=0)).mean(axis=0), [2.5, 97.5])) == pytest.approx((low, high))


def test_resampled_seeds_add_their_spread():
    scores = np.repeat([[10.0], [20.0], [60.0]], 20000, axis=1)
    drawn = paired.over_seeds(scores, np.random.default_rng(9))
    assert drawn.mean() == pytest.approx(30, abs=0.5)
    assert drawn.std() == pytest.approx(np.std([10, 20, 60], ddof=1) / np.sqrt(3), rel=0.02)
    assert (paired.over_seeds(scores[:1], np.random.default_rng(9)) == 10).all()


def record(rows, name="a", task="ks", **more):
    return fake(name, task, 50.0, facts=("t", "f", 1, 1, None, 1, 1, 1.0, 1.0, 1), seeds=[0],
                predictions={"0": rows}, n_test=len(rows), values_per_seed=[50.0], **more)  # fmt: skip


def test_rows_in_another_order_are_put_in_order():
    rows = items(np.arange(6) % 2 > 0)
    found = paired.align({"a": record(rows), "b": record(rows[::-1])})
    assert found["a"] == found["b"] == [rows]


def test_other_test_sets_are_refused_in_a_sentence():
    rows = items(np.arange(6) % 2 > 0)
    with pytest.raises(SlimbenchError, match=r"a and b were tested on different items on ks \(6 and 5, 5 shared\)"):
        paired.align({"a": record(rows), "b": record(rows[:5])})
    with pytest.raises(SlimbenchError, match="different references or speakers on ks"):
        paired.align({"a": record(rows), "b": record([dict(row, ref="z") for row in rows])})
    with pytest.raises(SlimbenchError, match="different references or speakers on ks"):
        paired.align({"a": record(rows), "b": record([dict(row, speaker="z") for row in rows])})
    with pytest.raises(SlimbenchError, match="scored by accuracy and wer"):
        paired.align({"a": record(rows), "b": record(rows, metric="wer")})
