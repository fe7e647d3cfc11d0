"""Joint resamples, letters, shares and overall scores against loops, identities and simulations."""

import itertools
import statistics

import numpy as np
import pytest
from fake_records import fake
from student_records import student

from harness import stats
from leaderboards import letters, overall, scores, tables
from leaderboards.board import board
from leaderboards.gain_kept import share
from leaderboards.render import csv, latex, markdown
from leaderboards.resamples import LEAST_UNITS, resample, seed_of

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


def test_training_seeds_are_resampled_too():
    one = ks("one", 70.0, seeds=3)
    drawn = resample(board("s", [one])).tasks["ks"].draws["one"]
    speakers_only = stats.resampled("accuracy", rows_of(one), 1000, seed_of("ks"))
    assert drawn.mean() == pytest.approx(one.value, abs=0.3)
    assert drawn.std() > speakers_only.std()


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
    records = [ks(name, level, **few) for name, level in (("fbank", 20.0), ("pupil", 60.0))]
    records.append(student("wavlm_mini", "ks", SHAPE, 90.0, seeds=1, teacher=None, **few))
    shown = board("s", records)
    drawn = resample(shown)
    assert "its test set has 5 speakers" in drawn.notes[0]
    assert letters.signs(drawn) == {}
    found = share(shown, drawn, "ks", "pupil", "wavlm_mini", "fbank")
    assert found.ci95 is None


def test_letters_part_what_differs_and_join_what_does_not():
    levels = {"low": 50.0, "middle": 70.0, "twin": 70.0, "high": 90.0}
    shown = board("s", [ks(name, level) for name, level in levels.items()])
    signs = letters.signs(resample(shown))
    assert signs == {("high", "ks"): "a", ("middle", "ks"): "b", ("twin", "ks"): "b", ("low", "ks"): "c"}


def brute(draws, values):
    """The pairs apart by loops: each statistic is compared with the 95 % quantile of the resampled maxima."""
    pairs = list(itertools.combinations(range(len(values)), 2))
    spread = {(i, j): statistics.pstdev(draws[i] - draws[j]) for i, j in pairs}
    maxima = []
    for column in draws.T:
        found = [0.0]
        for i, j in pairs:
            centre = statistics.fmean(draws[i] - draws[j])
            found.append(abs(column[i] - column[j] - centre) / spread[i, j])
        maxima.append(max(found))
    limit = np.quantile(maxima, 0.95)
    return [(i, j) for i, j in pairs if abs(values[i] - values[j]) > limit * spread[i, j]]


def test_pairs_apart_by_brute_force():
    rng = np.random.default_rng(3)
    values = [1.0, 1.4, 3.0, 4.5]
    draws = np.array(values)[:, None] + rng.normal(size=(4, 200)) * 0.5 + rng.normal(size=200)
    found = letters.apart(draws, values)
    assert found == brute(draws, values)
    assert 0 < len(found) < 6


def test_two_are_apart_where_their_interval_leaves_out_zero():
    rng = np.random.default_rng(4)
    noise = rng.normal(size=4000)
    for shift in (0.5, 1.5, 1.9, 2.1, 3.0):
        draws = np.stack([noise + shift, np.zeros(4000)])
        assert letters.apart(draws, [shift, 0.0]) == ([(0, 1)] if shift > 1.96 else [])


def test_equal_and_certain_differences():
    same = np.ones((3, 50))
    assert letters.apart(same, [1.0, 1.0, 1.0]) == []
    assert letters.apart(same * [[1.0], [1.0], [2.0]], [1.0, 1.0, 2.0]) == [(0, 2), (1, 2)]
    holes = np.array([[1.0, np.nan, 1.0], [2.0, 2.0, 2.0]])
    assert letters.apart(holes, [1.0, 2.0]) == [(0, 1)]
    assert letters.apart(np.empty((1, 0)), [1.0]) == []


def test_columns_without_differences_rarely_show_one():
    """Six systems that are equal but for chance, tested again and again: about one column in twenty may err."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        scored = rng.normal(size=(6, 60)) + rng.normal(size=60)
        times = rng.multinomial(60, np.full(60, 1 / 60), size=300)
        wrong += bool(letters.apart(scored @ times.T / 60, list(scored.mean(axis=1))))
    assert wrong <= 22  # 5 % of 200, and 3.9 standard deviations


def test_letters_stand_in_all_formats():
    shown = board("s", [ks("low", 50.0), ks("high", 90.0)])
    table = tables.results(shown, resample(shown))
    assert "**90.0** <sup>a</sup>" in markdown(table)
    assert r"\textbf{90.0}\textsuperscript{a}" in latex(table)
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
        found = share(shown, drawn, task, "pupil", "wavlm_mini", "fbank")
        assert found.value == pytest.approx(100 * 40 / 60)
        low, middle, high = (
            stats.resampled(r.metric, rows_of(r), 1000, seed_of(task))
            for r in (shown.cells[n, task] for n in shown.upstreams)
        )
        expected = np.percentile(100 * (middle - low) / (high - low), [2.5, 97.5])
        assert found.ci95 == pytest.approx(expected)
        assert found.ci95[0] < found.value < found.ci95[1]


def test_the_overall_interval_is_that_of_the_mean():
    names = {"one": 10.0, "two": 30.0}
    records = [student(n, task, SHAPE, level) for n, level in names.items() for task in ("asr", "ks", "asv")]
    shown = board("s", records)
    drawn = resample(shown)
    found = overall.measured(shown, drawn)
    by_hand = scores.score_records(scores.weighting("slim_mean"), records)
    for name in names:
        draws = [
            drawn.tasks[task].draws[name] * (1 if task == "ks" else -1) + (0 if task == "ks" else 100)
            for task in shown.tasks
        ]
        assert found.scores[name].value == pytest.approx(by_hand[name].value)
        assert found.scores[name].ci95 == pytest.approx(np.percentile(np.mean(draws, axis=0), [2.5, 97.5]))
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
