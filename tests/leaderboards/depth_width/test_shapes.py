"""Depth against width: budgets by brute force, slopes by polyfit, known gains recovered, published rows kept apart."""

import itertools
import math

import numpy as np
import pytest
from student_records import PER_DOUBLING, SHAPES, student, students

from harness import stats
from leaderboards import uncertainty
from leaderboards.board import board
from leaderboards.depth_width import shapes, trainings
from leaderboards.depth_width.families import Budget, Column, Family, Member
from leaderboards.depth_width.tables import families, published_tables
from leaderboards.published import PUBLISHED, published
from leaderboards.render import latex, markdown
from leaderboards.resamples import NONE, resample, seed_of


@pytest.fixture(scope="module")
def shown():
    return board("s", students(tasks=("asr", "sid", "er")))


@pytest.fixture(scope="module")
def drawn(shown):
    return resample(shown)


def family(*members):
    return Family("f", "t", tuple(Member(f"m{i}", *shape) for i, shape in enumerate(members)))


def test_families_are_of_one_teacher_and_kind():
    records = students(tasks=("ks",))
    records += [student(f"other{d}", "ks", (d, 100, 1_400_000), 50.0, teacher="somebody") for d in (2, 4)]
    records += [student("lone", "ks", (2, 100, 1_400_000), 50.0, teacher="nobody")]
    records += [student(f"random{d}", "ks", (d, 100, 1_400_000), 50.0, teacher=None) for d in (2, 4)]
    found = {f.name: {m.name for m in f.members} for f in shapes.measured_families(board("s", records))}
    assert found == {
        "mini students of wavlm_mini": set(SHAPES),
        "mini students of somebody": {"other2", "other4"},
        "mini, untrained": {"random2", "random4"},
    }


def test_budgets_by_hand():
    found = shapes.budgets(shapes.measured_families(board("s", students(tasks=("ks",))))[0])
    assert [[m.name for m in budget.members] for budget in found] == [
        ["s3x192", "s6x136", "s12x96"], ["m3x384", "m6x272", "m12x192", "m24x136"],
    ]  # fmt: skip
    assert [budget.size for budget in found] == ["1.4 M", "5.4–5.5 M"]
    assert found[0].spread == pytest.approx(1.44 / 1.39 - 1)


@pytest.mark.parametrize("seed", range(12))
def test_budgets_by_brute_force(seed):
    """Nobody is in two, all keep the tolerance, and none could be larger with those that are in no earlier one."""
    rng = np.random.default_rng(seed)
    members = [(int(rng.integers(1, 5)), 100, float(size)) for size in rng.uniform(1e6, 1.6e6, 9)]
    mine = family(*members)
    found = shapes.budgets(mine, 0.1)
    taken = [m.name for budget in found for m in budget.members]
    assert len(taken) == len(set(taken))
    for budget in found:
        sizes = [m.params for m in budget.members]
        assert max(sizes) <= 1.1 * min(sizes)
        assert len({m.depth for m in budget.members}) > 1
    fitting = [
        subset
        for count in range(2, 10)
        for subset in itertools.combinations(mine.members, count)
        if max(m.params for m in subset) <= 1.1 * min(m.params for m in subset)
    ]
    most = max(map(len, fitting), default=0)
    largest = [subset for subset in fitting if len(subset) == most]
    if any(len({m.depth for m in subset}) > 1 for subset in largest) and len(largest) == 1:
        assert most == max(len(budget.members) for budget in found)


def test_one_depth_is_no_budget():
    assert shapes.budgets(family((3, 100, 1e6), (3, 120, 1.01e6))) == []
    assert shapes.budgets(family((3, 100, 1e6), (6, 80, 1.06e6))) == []
    assert len(shapes.budgets(family((3, 100, 1e6), (6, 80, 1.06e6)), 0.06)) == 1


def test_slopes_are_those_of_polyfit():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=6), rng.normal(size=(6, 20))
    assert shapes.slope(x, y) == pytest.approx(np.polyfit(x, y, 1)[0])


def test_known_gains_come_out(shown, drawn):
    (mine,) = shapes.measured_families(shown)
    columns = shapes.measured_columns(shown, drawn)
    for budget, column in itertools.product(shapes.budgets(mine), columns):
        made = shapes.gain(budget, column, "doubling")
        known = PER_DOUBLING[column.task]
        assert made.value == pytest.approx(known, abs=0.1)
        assert made.ci95[0] - 1e-9 <= known <= made.ci95[1] + 1e-9
        assert (made.ci95[0] > 1e-9) == (known > 0)
        per_layer = shapes.gain(budget, column, "layer")
        sign = 1 if column.higher_is_better else -1
        values = [column.values[m.name] for m in budget.members]
        assert per_layer.value == pytest.approx(sign * np.polyfit([m.depth for m in budget.members], values, 1)[0])
        width = shapes.gain(budget, column, "width")
        assert width.value == pytest.approx(100 * sign * np.polyfit([m.width for m in budget.members], values, 1)[0])


def test_of_two_shapes_the_gain_is_the_paired_difference():
    records = [student(n, "asr", s, v, seeds=1, noise=0.1) for n, s, v in (
        ("flat", (3, 192, 1e6), 40.0), ("deep", (12, 96, 1e6), 30.0))]  # fmt: skip
    shown = board("s", records)
    (budget,) = shapes.budgets(shapes.measured_families(shown)[0])
    (column,) = shapes.measured_columns(shown, resample(shown))
    rows = [[r.predictions["0"]] for r in records]
    difference, low, high = stats.paired_difference("wer", *rows, seed=seed_of("asr"))
    made = shapes.gain(budget, column, "layer")
    assert made.value == pytest.approx(difference / 9)
    assert made.ci95 == pytest.approx([low / 9, high / 9], abs=0.15 * (high - low) / 9)  # t against percentiles
    assert shapes.gain(budget, column, "doubling").value == pytest.approx(difference / math.log2(4))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Three students right with probability 0.5, 0.6, 0.7, on fresh speakers each time."""
    covered = 0
    for trial in range(80):
        rng = np.random.default_rng(trial)
        records = []
        for depth, chance in ((2, 0.5), (4, 0.6), (8, 0.7)):
            made = student(f"d{depth}", "ks", (depth, 100, 1e6), 50.0, speakers=30, each=5, seeds=1)
            for row in made.predictions["0"]:
                row["hyp"] = "yes" if rng.random() < chance else "no"
            value = stats.mean_score("accuracy", [made.predictions["0"]])
            records.append(type(made)(**{**vars(made), "value": value}))
        shown = board("s", records)
        (budget,) = shapes.budgets(shapes.measured_families(shown)[0])
        (column,) = shapes.measured_columns(shown, resample(shown, 300, trial))
        low, high = shapes.gain(budget, column, "doubling").ci95
        covered += low <= 10.0 <= high
    assert 68 <= covered <= 80  # 95 % of 80 is 76; 85 % is 68


def test_group_gains_are_means_of_their_tasks(shown, drawn):
    more = board("s", students(tasks=("asr", "pr", "sid")))
    (mine,) = shapes.measured_families(more)
    budget = shapes.budgets(mine)[0]
    single = [shapes.gain(budget, column, "doubling") for column in shapes.measured_columns(more, resample(more, 400))]
    content, speaker = shapes.group_gains(single)
    assert content.value == pytest.approx((single[0].value + single[1].value) / 2)
    # independent tasks: the variance of the mean is a quarter of the sum of the variances
    assert uncertainty.error(content.parts) == pytest.approx(
        math.hypot(*(uncertainty.error(made.parts) for made in single[:2])) / 2
    )
    assert content.ci95[0] < content.value < content.ci95[1]
    assert speaker is None  # one speaker task is no group
    assert shapes.group_gains([None, single[0]]) == [None, None]


def test_no_interval_without_resamples(shown):
    (mine,) = shapes.measured_families(shown)
    made = shapes.gain(shapes.budgets(mine)[0], shapes.measured_columns(shown, NONE)[0], "layer")
    assert made.ci95 is None
    assert made.value == pytest.approx(0.857, abs=0.01)


def test_a_missing_score_leaves_its_student_out():
    budget = Budget(
        family((2, 200, 1e6), (4, 140, 1e6), (8, 100, 1e6)), family((2, 200, 1e6), (4, 140, 1e6), (8, 100, 1e6)).members
    )
    column = Column("ks", "accuracy ↑", True, {"m0": 50.0, "m2": 56.0})
    made = shapes.gain(budget, column, "doubling")
    assert (made.value, made.shapes) == (pytest.approx(3.0), 2)
    assert shapes.gain(budget, Column("ks", "accuracy ↑", True, {"m0": 50.0}), "layer") is None
    assert shapes.best_of(budget, column) == {"m2"}
    assert shapes.best_of(budget, Column("ks", "", True, {"m0": 50.01, "m2": 50.02})) == frozenset()


def test_tables_of_measured_students(shown, drawn):
    made, gains = families(shown, drawn)
    first = made.rows[0]
    assert [cell.text for cell in first] == ["1.4 M: s3x192", "3", "192", "1.40", "40.0", "80.0", "60.0"]
    assert [cell.mark for cell in first[4:]] == ["", "best", ""]  # all three score the same on ER
    assert [cell.letters for cell in first[4:]] == ["c", "a", "a"]
    assert len(gains.rows) == 2 * 3
    assert gains.rows[1][0].text.endswith("1.4 M, 3 shapes: per doubling of depth")
    assert gains.rows[1][1].text == "+4.00"
    assert gains.rows[1][2].text == "−6.00"
    assert {"gain", "ci95_low", "ci95_high", "shapes", "origin"} <= set(gains.data.columns)
    assert set(gains.data["origin"]) == {"measured"}


def test_without_students_there_are_no_tables():
    alone = board("s", [student("one", "ks", (3, 192, 1e6), 50.0)])
    assert all(not table.rows for table in families(alone, resample(alone)))


def test_published_students_are_marked_and_have_no_intervals():
    rows = published().rows
    budgets, gains = published_tables(rows)
    for table in (budgets, gains):
        assert table.title.endswith(", published")
        assert all(PUBLISHED.sign in line[0].text for line in table.rows)
        assert all(not cell.small for line in table.rows for cell in line)
        assert set(table.data["origin"]) == {"published"}
        assert PUBLISHED.footnote in table.notes
        assert "‡" not in latex(table)
        assert PUBLISHED.sign in markdown(table)
    assert any("made in different ways: prediction layer, layer-to-layer" in note for note in gains.notes)
    by_name = {row.system: row for row in rows}
    one, two = by_name["Deep-vs-Wide 3-L ONE (Pred)"], by_name["Deep-vs-Wide 12-L HALF (L2L)"]
    line = next(line for line in gains.rows if "26.9–30.6 M" in line[0].text and "doubling" in line[0].text)
    sid = (two.value("sid.accuracy") - one.value("sid.accuracy")) / 2
    asr = -(two.value("asr.wer") - one.value("asr.wer")) / 2
    header = gains.header
    assert line[header.index("SID Acc")].text == f"{sid:+.2f}".replace("-", "−")
    assert line[header.index("ASR WER")].text == f"{asr:+.2f}"


def test_measured_and_published_never_share_a_family():
    rows = published().rows
    systems = {row.system for row in rows}
    measured = {
        m.name
        for f in shapes.measured_families(board("superb", students(tasks=("ks",), suite="superb")))
        for m in f.members
    }
    theirs = {m.name for f in shapes.published_families(rows) for m in f.members}
    assert theirs <= systems
    assert not measured & theirs
    assert all(column.origin is PUBLISHED and column.drawn is None for column in shapes.published_columns(rows))


def trained(depth, width, method, seed, level, noise=0.0, **more):
    """A student by method and seed of its distillation; ``noise`` is of the probe's seeds."""
    made = student(f"d{depth}_{method}_s{seed}", "ks", (depth, width, 1.4e6), level, noise=noise, **more)
    if method:
        made.upstream["method"] = method
    return made


def test_methods_are_families_of_their_own_and_cards_without_one_are_too():
    shapes_of = ((2, 200), (4, 140))
    records = [trained(d, w, method, 0, 50.0 + d) for method in ("pred", "l2l", "") for d, w in shapes_of]
    found = shapes.measured_families(board("s", records))
    assert {(f.name, f.method, f.kind) for f in found} == {
        ("mini students of wavlm_mini, pred", "pred", "mini students of wavlm_mini"),
        ("mini students of wavlm_mini, l2l", "l2l", "mini students of wavlm_mini"),
        ("mini students of wavlm_mini", "", "mini students of wavlm_mini"),
    }
    assert all(len(f.members) == 2 for f in found)
    by_method = {f.method: shapes.budgets(f)[0] for f in found}
    named = [by_method[method] for method in ("pred", "l2l", "")]
    assert [b.label(named[:2]) for b in named[:2]] == ["pred, 1.4 M", "l2l, 1.4 M"]
    assert named[0].label(named[:1]) == "1.4 M"
    assert named[2].label(named) == "mini students of wavlm_mini, 1.4 M"
    assert not shapes.cautions(named)


def test_trainings_of_a_shape_count_as_their_mean():
    """Unequal numbers of trainings: the slope is that of the means, not of the single students."""
    levels = {(2, 200): (50.0, 60.0), (4, 140): (70.0,), (8, 100): (72.0, 78.0, 72.0)}
    records = [trained(*at, "pred", s, v) for at, values in levels.items() for s, v in enumerate(values)]
    shown = board("s", records)
    (budget,) = shapes.budgets(shapes.measured_families(shown)[0])
    (column,) = shapes.measured_columns(shown, resample(shown, 100))
    value = {at: [column.values[f"d{at[0]}_pred_s{s}"] for s in range(len(v))] for at, v in levels.items()}
    made = shapes.gain(budget, column, "doubling")
    means = [np.mean(values) for values in value.values()]
    assert made.value == pytest.approx(np.polyfit([1, 2, 3], means, 1)[0])
    assert made.shapes == 3
    # by hand: slope weights -1/2, 0, 1/2 on the means; pooled variance with 1 + 2 degrees of freedom
    squares = sum(np.sum((np.array(v) - np.mean(v)) ** 2) for v in value.values())
    (extra,) = trainings.spread(list(value.values()), {"d2_pred_s0": -0.25, "d2_pred_s1": -0.25, **{
        f"d8_pred_s{s}": 1 / 6 for s in range(3)}})  # fmt: skip
    assert extra.freedom == 3.0
    assert extra.variance == pytest.approx(squares / 3 * (0.25 / 2 + 0.25 / 3))
    assert extra.variance == pytest.approx(made.parts[-1].variance)
    without = uncertainty.interval(made.value, made.parts[:-1])
    assert made.ci95[0] < without[0] < without[1] < made.ci95[1]


def test_the_interval_of_twice_trained_students_covers_the_truth_over_trainings():
    """Every training adds its own luck (2 points) to a truth of 5 points per doubling; speakers add theirs."""
    covered, narrow = 0, 0
    for trial in range(80):
        rng = np.random.default_rng(trial)
        records = []
        for depth, width in ((2, 200), (4, 140), (8, 100)):
            for seed in range(2):
                made = trained(depth, width, "pred", seed, 50.0, speakers=30, each=10, seeds=1)
                chance = 0.5 + 0.05 * math.log2(depth) + rng.normal(0, 0.02)
                for row in made.predictions["0"]:
                    row["hyp"] = "yes" if rng.random() < chance else "no"
                value = stats.mean_score("accuracy", [made.predictions["0"]])
                records.append(type(made)(**{**vars(made), "value": value}))
        shown = board("s", records)
        (budget,) = shapes.budgets(shapes.measured_families(shown)[0])
        (column,) = shapes.measured_columns(shown, resample(shown, 200, trial))
        found = shapes.gain(budget, column, "doubling")
        covered += found.ci95[0] <= 5.0 <= found.ci95[1]
        low, high = uncertainty.interval(found.value, found.parts[:1])
        narrow += low <= 5.0 <= high
    assert covered >= 70
    assert covered >= narrow


def test_without_a_second_training_there_is_no_such_source(shown, drawn):
    (mine,) = shapes.measured_families(shown)
    budget, column = shapes.budgets(mine)[0], shapes.measured_columns(shown, drawn)[0]
    made = shapes.gain(budget, column, "doubling")
    weights = dict(zip(("s3x192", "s6x136", "s12x96"), (-0.5, 0.0, 0.5), strict=True))
    assert [p.freedom for p in made.parts] == [p.freedom for p in column.drawn.parts(weights)]
    assert trainings.spread([[1.0], [5.0]], weights) == ()


def test_trainings_are_of_one_shape_and_size():
    members = [
        Member("a", 2, 200, 1e6),
        Member("b", 2, 200, 1e6),
        Member("c", 2, 200, 1.01e6),
        Member("d", 4, 140, 1e6),
    ]
    named = [[member.name for member in group] for group in trainings.groups(members, {"a", "b", "c", "d"})]
    assert named == [["a", "b"], ["c"], ["d"]]
    assert [[m.name for m in group] for group in trainings.groups(members, {"b"})] == [["b"]]
    column = Column("ks", "accuracy ↑", True, {"a": 1.0, "b": 4.0, "d": 7.0})
    mine, (means,) = trainings.joined(Family("f", "t", tuple(members)), [column])
    assert [member.name for member in mine.members] == ["a", "c", "d"]
    assert means.values == {"a": 2.5, "d": 7.0}
