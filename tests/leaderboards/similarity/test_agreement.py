import jiwer
import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, cohen_kappa_score

from harness import metrics
from harness.interface import SlimbenchError
from leaderboards.similarity.agreement import measures
from leaderboards.similarity.tokens import said_in_place

LABELS = ("yes", "no", "up", "down")
RNG = np.random.default_rng


def labelled(said, ref, speakers=6):
    return [
        {"id": f"u{i}", "speaker": f"s{i % speakers}", "ref": r, "hyp": h}
        for i, (r, h) in enumerate(zip(ref, said, strict=True))
    ]


def words(seed, count=90):
    return RNG(seed).choice(LABELS, count, p=(0.5, 0.3, 0.15, 0.05)).tolist()


def mixed(base, other, share, seed):
    return [b if keep else o for b, o, keep in zip(base, other, RNG(seed).random(len(base)) < share, strict=True)]


def trials(scores, same, speakers=8):
    pairs = [(a, b) for a in range(speakers) for b in range(speakers)]
    return [
        {"enrol": f"e{i}", "test": f"t{i}", "speakers": [f"s{pairs[i % 64][0]}", f"s{pairs[i % 64][1]}"],
         "same": bool(s), "score": float(x)}
        for i, (x, s) in enumerate(zip(scores, same, strict=True))
    ]  # fmt: skip


def test_labels_agree_as_counted_and_kappa_is_scikit_learns():
    ref = words(0)
    teacher = mixed(ref, words(1), 0.7, 2)
    student = mixed(teacher, words(3), 0.5, 4)
    found = measures("accuracy", [labelled(student, ref)], [labelled(teacher, ref)], [(0, 0)])
    assert found["agreement"].value == pytest.approx(accuracy_score(teacher, student))
    assert found["kappa"].value == pytest.approx(cohen_kappa_score(teacher, student))
    right = [i for i, (t, r) in enumerate(zip(teacher, ref, strict=True)) if t == r]
    wrong = sorted(set(range(len(ref))) - set(right))
    for name, places in (("on_right", right), ("on_wrong", wrong)):
        assert found[name].value == pytest.approx(np.mean([student[i] == teacher[i] for i in places]))
    assert found["gap"].value == pytest.approx(found["on_right"].value - found["on_wrong"].value)


def test_intervals_are_those_of_speakers_drawn_again():
    ref = words(5)
    teacher, student = mixed(ref, words(6), 0.7, 7), mixed(ref, words(8), 0.7, 9)
    rows = labelled(student, ref), labelled(teacher, ref)
    found = measures("accuracy", rows[:1], rows[1:], [(0, 0)], repeats=150, seed=11)
    draws = {"agreement": [], "kappa": [], "gap": []}
    for times in RNG(11).multinomial(6, np.full(6, 1 / 6), size=150):
        places = [i for i in range(len(ref)) for _ in range(times[i % 6])]
        s, t, r = ([side[i] for i in places] for side in (student, teacher, ref))
        same = np.asarray(s) == np.asarray(t)
        right = np.asarray(t) == np.asarray(r)
        draws["agreement"].append(same.mean())
        draws["kappa"].append(cohen_kappa_score(t, s))
        draws["gap"].append(same[right].mean() - same[~right].mean())
    for name, values in draws.items():
        assert (found[name].low, found[name].high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])))


@pytest.mark.parametrize("metric", ["accuracy", "wer", "per", "eer"])
def test_a_student_that_is_its_teacher_agrees_wholly(metric):
    rng = RNG(12)
    if metric == "eer":
        same = rng.random(128) < 0.4
        rows = trials(rng.standard_normal(128) + same, same)
    elif metric == "accuracy":
        rows = labelled(mixed(words(0), words(1), 0.6, 2), words(0))
    else:
        rows = labelled(sentences(1), sentences(0))
    found = measures(metric, [rows], [rows], [(0, 0)], repeats=100)
    for name in (
        "agreement",
        "kappa",
        "on_right",
        "on_wrong",
        *({"eer": ["ranks"], "accuracy": []}.get(metric, ["closeness"])),
    ):
        assert (found[name].value, found[name].low, found[name].high) == pytest.approx((1.0, 1.0, 1.0)), name
    assert found["gap"].value == pytest.approx(0.0)


def test_unrelated_answers_agree_by_chance_and_kappa_says_so():
    ref = words(20, 4000)
    student, teacher = words(21, 4000), words(22, 4000)
    found = measures("accuracy", [labelled(student, ref)], [labelled(teacher, ref)], [(0, 0)], repeats=100)
    assert found["agreement"].value == pytest.approx(0.5**2 + 0.3**2 + 0.15**2 + 0.05**2, abs=0.03)
    assert abs(found["kappa"].value) < 0.05


def sentences(seed, count=40):
    rng = RNG(seed)
    return [" ".join(rng.choice(["a", "b", "c", "d"], rng.integers(2, 9))) for _ in range(count)]


def test_texts_are_scored_against_the_teachers_as_if_it_were_the_reference():
    ref, teacher, student = sentences(0), sentences(1), sentences(2)
    found = measures("wer", [labelled(student, ref)], [labelled(teacher, ref)], [(0, 0)], repeats=100)
    assert found["closeness"].value == pytest.approx(1.0 - jiwer.wer(teacher, student))
    assert found["closeness"].low < found["closeness"].value < found["closeness"].high
    teacher[3] = teacher[4] = ""  # it says nothing: all that the student says is too much
    student[4] = ""
    found = measures("wer", [labelled(student, ref)], [labelled(teacher, ref)], [(0, 0)], repeats=100)
    spoken = [i for i in range(40) if teacher[i]]
    out = jiwer.process_words([teacher[i] for i in spoken], [student[i] for i in spoken])
    edits = out.substitutions + out.deletions + out.insertions + len(student[3].split())
    assert found["closeness"].value == pytest.approx(1.0 - edits / sum(len(t.split()) for t in teacher))


def test_tokens_stand_in_the_place_of_the_references():
    assert said_in_place(["a b c d"], ["a x c"]) == [["a", "x", "c", ""]]
    assert said_in_place(["a  b", "c"], ["z a b", ""]) == [["a", "b"], [""]]
    rows = [labelled([said], ["a b c d"], 1) for said in ("a b x", "a y x")]
    found = measures("wer", rows[:1], rows[1:], [(0, 0)], repeats=100)
    assert found["agreement"].value == pytest.approx(3 / 4)  # a, x for c, and nothing for d
    assert found["on_right"].value == pytest.approx(1.0)
    assert found["on_wrong"].value == pytest.approx(2 / 3)


def test_a_teacher_that_says_nothing_leaves_the_measure_undefined():
    rows = [labelled(said, ["a b", "c"]) for said in (["a", "b"], ["", ""])]
    found = measures("wer", rows[:1], rows[1:], [(0, 0)], repeats=100)
    assert np.isnan(found["closeness"].value)
    assert np.isnan(found["on_right"].value)
    assert found["on_wrong"].value == pytest.approx(1 / 3)


def test_trials_are_ranked_as_scipy_ranks_them():
    rng = RNG(30)
    same = rng.random(192) < 0.4
    teacher = np.round(rng.standard_normal(192) + same, 1)  # with ties
    student = np.round(teacher + rng.standard_normal(192), 1)
    rows = trials(student, same), trials(teacher, same)
    found = measures("eer", rows[:1], rows[1:], [(0, 0)], repeats=60, seed=1)
    assert found["ranks"].value == pytest.approx(spearmanr(student, teacher).statistic)
    draws = []
    for times in RNG(1).multinomial(8, np.full(8, 1 / 8), size=60):
        sides = [[int(name[1:]) for name in row["speakers"]] for row in rows[0]]
        counts = [times[a] if a == b else times[a] * times[b] for a, b in sides]
        draws.append(spearmanr(np.repeat(student, counts), np.repeat(teacher, counts)).statistic)
    # speakers are numbered by first appearance, which here is s0, s1, …
    assert (found["ranks"].low, found["ranks"].high) == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])))


def test_trials_are_decided_at_the_equal_error_rate():
    rng = RNG(31)
    same = rng.random(400) < 0.5
    teacher = rng.standard_normal(400) + 1.5 * same
    found = measures("eer", [trials(teacher, same)], [trials(2 * teacher - 7, same)], [(0, 0)], repeats=60)
    assert found["agreement"].value == found["ranks"].value == pytest.approx(1.0)  # thresholds are each system's own
    flipped = trials(-teacher, same)
    found = measures("eer", [flipped], [trials(teacher, same)], [(0, 0)], repeats=60)
    assert found["ranks"].value == pytest.approx(-1.0)
    assert found["on_wrong"].value < 0.2


def test_seeds_and_folds_are_averaged():
    ref = words(40)
    rows = [labelled(mixed(ref, words(seed), 0.6, seed), ref) for seed in range(41, 45)]
    found = measures("accuracy", rows[:2], rows[2:], [(0, 0), (1, 1)], repeats=100)
    alone = [measures("accuracy", [rows[i]], [rows[i + 2]], [(0, 0)], repeats=100)["kappa"].value for i in (0, 1)]
    assert found["kappa"].value == pytest.approx(np.mean(alone))
    folded = [[{**row, "fold": i % 3 % 2} for i, row in enumerate(part)] for part in rows[:2]]
    found = measures("accuracy", folded[:1], folded[1:], [(0, 0)], repeats=100)
    places = metrics.folds(folded[0])
    parts = [np.mean([folded[0][i]["hyp"] == folded[1][i]["hyp"] for i in part]) for part in places]
    assert found["agreement"].value == pytest.approx(np.mean(parts))
    assert len({len(part) for part in places}) == 2


def test_a_metric_without_answers_is_refused():
    rows = labelled(["yes"], ["yes"])
    with pytest.raises(SlimbenchError, match="'cer' is not known"):
        measures("cer", [rows], [rows], [(0, 0)])
