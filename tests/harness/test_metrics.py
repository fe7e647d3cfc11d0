import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, roc_curve

from harness import metrics
from harness.interface import SlimbenchError

WORDS = st.lists(st.sampled_from(["A", "B", "C"]), max_size=6)


def distance(a, b):
    """Levenshtein distance, by its definition."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        before, row = row, [i + 1]
        for j, y in enumerate(b):
            row.append(min(before[j] + (x != y), before[j + 1] + 1, row[j] + 1))
    return row[-1]


def rows(pairs):
    return [{"id": str(i), "speaker": "", "ref": ref, "hyp": hyp} for i, (ref, hyp) in enumerate(pairs)]


def trials(same, scores):
    return [
        {"enrol": str(i), "test": "t", "speakers": ["", ""], "same": bool(s), "score": float(v)}
        for i, (s, v) in enumerate(zip(same, scores, strict=True))
    ]


@given(st.lists(st.tuples(WORDS.filter(bool), WORDS), min_size=1, max_size=5))
def test_word_errors_are_edit_distances(pairs):
    joined = rows([(" ".join(ref), " ".join(hyp)) for ref, hyp in pairs])
    numerator, denominator = metrics.counts("wer", joined)
    assert numerator.tolist() == [distance(ref, hyp) for ref, hyp in pairs]
    assert denominator.tolist() == [len(ref) for ref, _ in pairs]
    expected = jiwer.wer([r["ref"] for r in joined], [r["hyp"] for r in joined])
    assert metrics.score("wer", joined) == pytest.approx(100 * expected)
    assert metrics.score("per", joined) == metrics.score("wer", joined)


def test_character_errors_are_edit_distances():
    pairs = [("HE SAID", "HE SAD"), ("NO", "")]
    expected = 100 * sum(distance(*pair) for pair in pairs) / 9
    assert metrics.score("cer", rows(pairs)) == pytest.approx(expected)


def test_accuracy_is_that_of_sklearn():
    generator = np.random.default_rng(0)
    ref, hyp = generator.integers(0, 3, (2, 50)).astype(str)
    expected = 100 * accuracy_score(ref, hyp)
    assert metrics.score("accuracy", rows(zip(ref, hyp, strict=True))) == pytest.approx(expected)


@pytest.mark.parametrize("digits", [1, 8])
def test_equal_error_rate_lies_where_both_errors_meet(digits):
    generator = np.random.default_rng(1)
    same = generator.random(400) < 0.3
    scores = np.round(generator.normal(same * 1.0, 1.0), digits)
    value = metrics.score("eer", trials(same, scores)) / 100
    errors = [((scores >= t)[~same].mean(), (scores < t)[same].mean()) for t in [*np.unique(scores), np.inf]]
    after = next(i for i, (accept, reject) in enumerate(errors) if reject >= accept)
    (a0, r0), (a1, r1) = errors[after - 1], errors[after]
    share = (a0 - r0) / ((a0 - r0) - (a1 - r1))
    assert value == pytest.approx(a0 + share * (a1 - a0))
    accept, hit, _ = roc_curve(same, scores)
    assert np.interp(value, accept, 1 - hit) == pytest.approx(value, abs=0.01)


@pytest.mark.parametrize(("scores", "expected"), [([3, 2, 1, 0], 0), ([0, 1, 2, 3], 100), ([1, 1, 1, 1], 50)])
def test_equal_error_rate_of_clear_cases(scores, expected):
    assert metrics.score("eer", trials([1, 1, 0, 0], scores)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("wer", []),
        ("wer", rows([("", "A")])),
        ("bleu", rows([("A", "A")])),
        ("eer", trials([1, 1], [0, 1])),
        ("eer", trials([1, 0], [0, float("nan")])),
        ("eer", []),
    ],
)
def test_what_cannot_be_scored_is_an_error(name, bad):
    with pytest.raises(SlimbenchError):
        metrics.score(name, bad)


def test_worst_is_beaten_by_every_score():
    for metric in metrics.METRICS.values():
        for value in (0.0, 100.0, 900.0):
            assert metric.better(value, metric.worst)
            assert not metric.better(metric.worst, value)
    assert metrics.METRICS["accuracy"].better(2, 1)
    assert metrics.METRICS["eer"].better(1, 2)
