"""Joint resamples, letters, shares and overall scores against loops, identities and simulations."""

import itertools
import statistics

import numpy as np
import pytest
from fake_records import fake
from scipy.stats import ttest_ind, ttest_rel
from student_records import student

from harness import stats
from leaderboards import letters, overall, scores, tables, uncertainty
from leaderboards.board import board
from leaderboards.gain_kept import gain_kept, share
from leaderboards.render import csv, latex, markdown
from leaderboards.resamples import LEAST_UNITS, Drawn, resample, seed_of

SHAPE = (3, 192, 1_400_000)


def ks(name, level, seeds=1, **changes):
    return student(name, "ks", SHAPE, level, seeds=seeds, noise=0.2, **changes)


def rows_of(record):
    return [record.predictions[str(seed)] for seed in record.seeds]


def test_a_difference_of_draws_is_the_paired_difference_of_the_harness():
    one, two = ks("one", 70.0), ks("two", 60.0)
    drawn = resample(board("s", [one, two])).tasks["ks"]
    assert drawn.units == 40
    _, low, high = stats.paired_difference("accuracy", rows_of(one), rows_of(two), seed=seed_of("ks"))
    found = np.percentile(drawn.draws["one"] - drawn.draws["two"], [2.5, 97.5])
    assert found == pytest.approx([low, high])


def test_a_part_of_the_error_is_that_of_training_seeds():
    one = ks("one", 70.0, seeds=3)
    column = resample(board("s", [one])).tasks["ks"]
    speakers_only = stats.resampled("accuracy", rows_of(one), 1000, seed_of("ks"))
    assert column.draws["one"] == pytest.approx(speakers_only)
    speakers, seeds = column.parts({"one": 1.0})
    assert speakers.variance == pytest.approx(speakers_only.var() * 40 / 39)
    assert speakers.freedom == 39
    assert seeds.variance == pytest.approx(statistics.variance(one.values_per_seed) / 3)
    assert seeds.freedom == 2


def test_one_seed_alone_is_said():
    drawn = resample(board("s", [ks("one", 70.0), ks("two", 60.0)]))
    assert "one, two has one seed" in drawn.notes[0]
    assert len(drawn.tasks["ks"].parts({"one": 1.0, "two": -1.0})) == 1


@pytest.mark.parametrize("task", ["ks", "asr", "asv"])
def test_what_is_drawn_for_one_does_not_depend_on_the_others(task):
    records = [student(name, task, SHAPE, level) for name, level in (("one", 30.0), ("two", 20.0))]
    alone = resample(board("s", records[:1]), repeats=200).tasks[task].draws["one"]
    both = resample(board("s", records), repeats=200).tasks[task].draws["one"]
    assert np.array_equal(alone, both)


def test_tasks_are_resampled_independently():
    shown = board("s", [student("one", task, SHAPE, 60.0, seeds=1) for task in ("ks", "er")])
    drawn = resample(shown, 2000).tasks
    assert abs(np.corrcoef(drawn["ks"].draws["one"], drawn["er"].draws["one"])[0, 1]) < 0.1


def test_what_cannot_be_paired_is_named_and_has_no_letters():
    other = ks("two", 60.0, each=10)
    shown = board("s", [ks("one", 70.0), other, student("one", "er", SHAPE, 50.0), student("two", "er", SHAPE, 50.0)])
    drawn = resample(shown)
    assert set(drawn.tasks) == {"er"}
    assert "No paired resamples of ks: one and two were tested on different items" in drawn.notes[0]
    table = tables.results(shown, drawn)
    assert [cell.letters for cell in table.rows[0]] == ["", "", "a"]
    assert drawn.notes[0] in table.notes


def test_few_speakers_allow_no_letters_and_no_intervals_of_differences():
    few = {"speakers": LEAST_UNITS - 1, "each": 100}
    records = [student("fbank", "ks", (3, 192, 0), 20.0, seeds=1, teacher=None, **few), ks("pupil", 60.0, **few)]
    records.append(student("wavlm_mini", "ks", SHAPE, 90.0, seeds=1, teacher=None, **few))
    shown = board("s", records)
    drawn = resample(shown)
    assert "its test set has 5 speakers" in drawn.notes[0]
    assert letters.signs(drawn) == {}
    assert share(drawn.tasks["ks"], "pupil", "wavlm_mini", "fbank").ci95 is None
    assert letters.ahead(drawn.tasks["ks"]) == set()
    assert [cell.text for cell in gain_kept(shown, drawn).rows[0]] == ["pupil over fbank", "–"]


def test_letters_part_what_differs_and_join_what_does_not():
    levels = {"low": 50.0, "middle": 70.0, "twin": 70.0, "high": 90.0}
    shown = board("s", [ks(name, level) for name, level in levels.items()])
    signs = letters.signs(resample(shown))
    assert signs == {("high", "ks"): "a", ("middle", "ks"): "b", ("twin", "ks"): "b", ("low", "ks"): "c"}


def column_of(scores, seeds=None, repeats=300, rng=None):
    """A column of accuracies from each system's scores by speaker (k, P), seeds averaged, and by seed (k, S)."""
    rng = rng or np.random.default_rng(0)
    count = scores.shape[1]
    times = rng.multinomial(count, np.full(count, 1 / count), size=repeats)
    seeds = scores.mean(axis=1, keepdims=True) if seeds is None else seeds
    names = [f"n{i}" for i in range(len(scores))]
    return Drawn(
        "accuracy",
        dict(zip(names, scores.mean(axis=1).tolist(), strict=True)),
        dict(zip(names, scores @ times.T / count, strict=True)),
        dict(zip(names, map(tuple, seeds.tolist()), strict=True)),
        count,
    )


def test_pairs_apart_by_the_textbook_formulas():
    """Without a spread of seeds the test is the paired t-test with Bonferroni's correction; scipy says which."""
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(5, 25)) + rng.normal(size=25) + np.array([[0.0], [0.3], [0.8], [1.0], [2.0]])
    found = letters.apart(column_of(scores, repeats=60_000))
    pairs = list(itertools.combinations(range(5), 2))
    expected = [(f"n{i}", f"n{j}") for i, j in pairs if ttest_rel(scores[i], scores[j]).pvalue < 0.05 / len(pairs)]
    assert found == expected
    assert 0 < len(found) < len(pairs)


def test_with_seeds_alone_the_test_is_welch_s():
    rng = np.random.default_rng(5)
    for shift in (0.5, 1.0, 2.0, 4.0, 8.0):
        seeds = np.stack([rng.normal(0.0, 1.0, 3), rng.normal(shift, 0.3, 3)])
        column = column_of(np.repeat(seeds.mean(axis=1, keepdims=True), 10, axis=1), seeds)
        expected = ttest_ind(*seeds, equal_var=False)
        assert (letters.apart(column) != []) == (expected.pvalue < 0.05)
        parts = column.parts({"n0": 1.0, "n1": -1.0})
        assert uncertainty.freedom(parts) == pytest.approx(expected.df)
        low, high = expected.confidence_interval()
        assert uncertainty.interval(column.values["n0"] - column.values["n1"], parts) == pytest.approx((low, high))


def test_equal_and_certain_differences():
    same = np.ones((3, 20))
    assert letters.apart(column_of(same)) == []
    assert letters.apart(column_of(same * [[1.0], [1.0], [2.0]])) == [("n0", "n2"), ("n1", "n2")]
    assert letters.apart(column_of(same[:1])) == []
    holes = column_of(same * [[1.0], [1.0], [2.0]])
    holes.draws["n0"][:10] = np.nan
    assert letters.apart(holes) == [("n0", "n2"), ("n1", "n2")]


@pytest.mark.parametrize("seed_noise", [0.0, 1.0, 4.0])
def test_columns_without_differences_rarely_show_one(seed_noise):
    """Five systems that are equal but for chance, 3 seeds and 20 speakers: about one column in twenty may err.

    The error of a seed is the given multiple of the error that the speakers give to a score.
    """
    rng = np.random.default_rng(1)
    repeats, wrong = 300, 0
    for _ in range(repeats):
        noise = rng.normal(size=(5, 3)) * seed_noise / np.sqrt(20)
        speakers = rng.normal(size=(5, 20)) + rng.normal(size=20)
        seeds = speakers.mean(axis=1, keepdims=True) + noise
        wrong += bool(letters.apart(column_of(speakers + noise.mean(axis=1, keepdims=True), seeds, 200, rng)))
    assert wrong <= 0.10 * repeats


def test_intervals_cover_where_seeds_vary():
    """A score's t-interval with 3 seeds and 20 speakers of equal noise holds the truth as often as it says."""
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(400):
        noise, speakers = rng.normal(size=(1, 3)) / np.sqrt(20), rng.normal(size=(1, 20))
        column = column_of(speakers + noise.mean(), speakers.mean() + noise, 200, rng)
        low, high = uncertainty.interval(column.values["n0"], column.parts({"n0": 1.0}))
        covered += low <= 0.0 <= high
    assert 368 <= covered <= 395  # 92 % to 98.75 %


def test_letters_stand_in_all_formats():
    shown = board("s", [ks("low", 50.0), ks("high", 90.0)])
    table = tables.results(shown, resample(shown))
    assert "**90.0** <sup>a</sup>" in markdown(table)
    assert r"\textbf{90.0}\rlap{\textsuperscript{a}}" in latex(table)
    assert {"letters", "mark"} <= set(table.data.columns)
    assert dict(zip(table.data["upstream"], table.data["letters"], strict=True)) == {"low": "b", "high": "a"}
    assert ",a,best," in csv(table)
    assert letters.ABOUT in table.caption


def test_a_share_is_the_ratio_of_paired_differences():
    def trio(task, low, middle, high):
        return [
            student("fbank", task, (3, 192, 1), low, seeds=1, teacher=None),
            student("pupil", task, SHAPE, middle, seeds=1),
            student("wavlm_mini", task, SHAPE, high, seeds=1, teacher=None),
        ]

    shown = board("s", trio("ks", 20.0, 60.0, 80.0) + trio("asr", 80.0, 40.0, 20.0))
    drawn = resample(shown)
    for task in ("ks", "asr"):
        found = share(drawn.tasks[task], "pupil", "wavlm_mini", "fbank")
        assert found.value == pytest.approx(100 * 40 / 60)
        low, middle, high = (
            stats.resampled(r.metric, rows_of(r), 1000, seed_of(task))
            for r in (shown.cells[n, task] for n in shown.upstreams)
        )
        # The percentile interval of the ratio is another way to the same; both are near where the gain is large.
        expected = np.percentile(100 * (middle - low) / (high - low), [2.5, 97.5])
        assert found.ci95 == pytest.approx(expected, abs=2.0)
        assert found.ci95[0] < found.value < found.ci95[1]


def test_a_share_stands_only_where_the_letters_tell_the_teacher_from_the_floor():
    def trio(task, high):
        levels = {"fbank": 50.0, "pupil": 51.0, "wavlm_mini": high}
        return [
            student(
                n,
                task,
                (3, 192, 0) if n == "fbank" else SHAPE,
                v,
                noise=0.3,
                teacher="wavlm_mini" if n == "pupil" else None,
            )
            for n, v in levels.items()
        ]

    shown = board("s", trio("ks", 51.5) + trio("er", 95.0))
    drawn = resample(shown)
    signs = letters.signs(drawn)
    table = gain_kept(shown, drawn)
    (line,) = [line for line in table.rows if line[0].text == "pupil over fbank"]
    for task, cell in zip(shown.tasks, line[1:], strict=True):
        joined = set(signs["fbank", task]) & set(signs["wavlm_mini", task])
        assert (cell.text == "–") == bool(joined)
    assert [cell.text == "–" for cell in line[1:]] == [True, False]


def test_the_overall_interval_is_that_of_the_mean():
    names = {"one": 10.0, "two": 30.0}
    records = [student(n, task, SHAPE, level) for n, level in names.items() for task in ("asr", "ks", "asv")]
    shown = board("s", records)
    drawn = resample(shown)
    found = overall.measured(shown, drawn)
    by_hand = scores.score_records(scores.weighting("slim_mean"), records)
    for name in names:
        parts = [part for task in shown.tasks for part in drawn.tasks[task].parts({name: 1 / 3})]
        assert found.scores[name].value == pytest.approx(by_hand[name].value)
        assert found.scores[name].ci95 == pytest.approx(uncertainty.interval(by_hand[name].value, parts))
    assert found.covers == "slim mean over 3 of 7 metrics"


def test_who_lacks_a_task_has_no_overall_score_and_is_named():
    shown = board("s", [ks("one", 50.0), ks("two", 60.0), student("one", "er", SHAPE, 50.0)])
    found = overall.measured(shown, resample(shown))
    assert set(found.scores) == {"one"}
    assert found.notes == ("No overall score of two: not all tasks are there and comparable.",)


def test_without_resamples_the_overall_score_has_no_interval_and_says_so():
    shown = board("s", [fake("fbank", "ks", 10.0), fake("logmel", "ks", 20.0)])
    found = overall.measured(shown, resample(shown))
    assert found.scores["fbank"].ci95 is None
    assert "no interval" in found.notes[0]
