"""Ranks against scipy.stats, published tables of quantiles, and brute force."""

from itertools import combinations

import numpy as np
import pytest
from fake_records import TASKS, build, fake
from scipy.stats import friedmanchisquare, studentized_range

from harness.interface import SlimbenchError
from leaderboards import ranks, scores
from leaderboards.scores import weighting

TABLE = {
    "a": {"x.accuracy": 90.0, "y.wer": 5.0, "z.eer": 3.0, "v.accuracy": 71.0, "u.per": 9.0},
    "b": {"x.accuracy": 85.0, "y.wer": 7.0, "z.eer": 2.0, "v.accuracy": 71.0, "u.per": 12.0},
    "c": {"x.accuracy": 60.0, "y.wer": 9.0, "z.eer": 8.0, "v.accuracy": 64.0, "u.per": 12.0},
    "d": {"x.accuracy": 20.0, "y.wer": 30.0, "z.eer": 9.0, "v.accuracy": 30.0, "u.per": 50.0},
}


@pytest.mark.parametrize("size", [2, 3, 5, 10, 20])
@pytest.mark.parametrize("probability", [0.9, 0.95, 0.99])
def test_quantiles_of_the_studentised_range_are_scipys(size, probability):
    # scipy integrates the infinite case by a routine of its own
    reference = studentized_range.ppf(probability, size, np.inf)
    assert ranks.studentised_range(probability, size) == pytest.approx(reference, rel=1e-5)


def test_critical_differences_are_those_of_the_printed_table():
    # Demšar 2006, Table 5(a): q of the two-tailed Nemenyi test at 0.05, and his example of 14 data sets (CD 1.25)
    printed = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}
    for size, q in printed.items():
        assert ranks.studentised_range(0.95, size) / np.sqrt(2) == pytest.approx(q, abs=1e-3)
    assert ranks.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


def test_friedman_with_ties_is_scipys():
    found = ranks.differences(TABLE)
    up = [[row[m] * (1 if m.endswith("accuracy") else -1) for m in row] for row in TABLE.values()]
    reference = friedmanchisquare(*up)
    assert found.chi2 == pytest.approx(reference.statistic)
    assert found.p == pytest.approx(reference.pvalue)
    assert found.tasks == 5
    assert dict(found.mean_ranks) == pytest.approx({"a": 1.3, "b": 1.8, "c": 2.9, "d": 4.0})
    assert sum(found.mean_ranks.values()) == pytest.approx(10)


def test_iman_davenport_by_the_printed_example():
    # Demšar's example: k = 4, N = 14, chi2 = 9.28 gives F = 3.69
    chi2, tasks, size = 9.28, 14, 4
    assert (tasks - 1) * chi2 / (tasks * (size - 1) - chi2) == pytest.approx(3.69, abs=0.005)
    found = ranks.differences(TABLE)
    assert found.f == pytest.approx(4 * found.chi2 / (5 * 3 - found.chi2))
    assert 0 < found.f_p < found.p


def test_perfect_agreement_and_perfect_ties():
    same = {name: {f"{t}.accuracy": value for t in "xyz"} for name, value in (("a", 3.0), ("b", 2.0), ("c", 1.0))}
    found = ranks.differences(same)
    assert found.f is None
    assert found.chi2 == pytest.approx(6)
    level = ranks.differences({name: {"x.accuracy": 1.0, "y.wer": 1.0} for name in "abc"})
    assert (level.chi2, level.p) == (0, 1)
    assert level.groups == (("a", "b", "c"),)


def test_groups_are_the_largest_runs_within_the_critical_difference():
    assert ranks.runs({"d": 4.0, "a": 1.0, "b": 2.2, "c": 2.8}, 1.5) == (
        ("a", "b"),
        (
            "b",
            "c",
        ),
        ("c", "d"),
    )
    assert ranks.runs({"a": 1.0, "b": 2.0, "c": 3.0}, 0.5) == (("a",), ("b",), ("c",))
    assert ranks.runs({"a": 1.0, "b": 2.0, "c": 3.0}, 9) == (("a", "b", "c"),)
    found = ranks.differences(TABLE)
    for one, two in combinations(TABLE, 2):
        near = abs(found.mean_ranks[one] - found.mean_ranks[two]) < found.critical
        assert near == any(one in group and two in group for group in found.groups)


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(SlimbenchError, match="three upstreams and two tasks"):
        ranks.differences({name: TABLE[name] for name in "ab"})
    with pytest.raises(SlimbenchError, match=r"d has no x\.accuracy"):
        ranks.differences({**TABLE, "d": {k: v for k, v in TABLE["d"].items() if k != "x.accuracy"}})


@pytest.mark.parametrize("seed", range(8))
def test_letters_are_shared_exactly_by_those_not_told_apart(seed):
    generator = np.random.default_rng(seed)
    names = [f"n{i}" for i in range(7)]
    apart = [pair for pair in combinations(names, 2) if generator.random() < 0.5]
    signs = ranks.letters(names, apart)
    for pair in combinations(names, 2):
        assert (not set(signs[pair[0]]) & set(signs[pair[1]])) == (pair in apart)
    assert signs["n0"].startswith("a")
    assert all(signs.values())


def test_chances_and_places_are_counts():
    generator = np.random.default_rng(0)
    values = generator.integers(0, 4, (4, 300)).astype(float)
    values[:, 7] = np.nan
    columns = [column for column in values.T if not np.isnan(column).any()]
    chances, shares = ranks.beats(values), ranks.places(values)
    for i in range(4):
        for j in range(4):
            wins = np.mean([(c[i] > c[j]) + 0.5 * (c[i] == c[j]) for c in columns])
            assert chances[i, j] == pytest.approx(wins)
            expected = []
            for c in columns:
                above, level = (c > c[i]).sum(), (c == c[i]).sum()
                expected.append(1 / level if above <= j < above + level else 0.0)
            assert shares[i, j] == pytest.approx(np.mean(expected))
    assert shares.sum(axis=0) == pytest.approx(np.ones(4))
    assert shares.sum(axis=1) == pytest.approx(np.ones(4))


def with_rows(name, task, share, rng, seeds=3, count=120):
    """A record whose predictions are right in that share of the utterances of 24 speakers."""
    rows = {
        str(s): [
            {"id": f"u{i}", "speaker": f"s{i % 24}", "ref": "x", "hyp": "x" if rng.random() < share else "y"}
            for i in range(count)
        ]
        for s in range(seeds)
    }
    values = [100 * np.mean([row["ref"] == row["hyp"] for row in found]) for found in rows.values()]
    return fake(name, task, float(np.mean(values)), predictions=rows, seeds=list(range(seeds)),
                values_per_seed=values, n_test=count)  # fmt: skip


def test_stability_orders_what_differs_and_leaves_open_what_does_not():
    rng = np.random.default_rng(3)
    shares = {"wavlm_mini": 0.8, "distilled_wavlm": 0.8, "random_mini": 0.3}
    tasks = {t: {n: with_rows(n, t, share, rng) for n, share in shares.items()} for t in ("ks", "ic", "sid")}
    found = ranks.stability(tasks, weighting("slim_mean"), repeats=400)
    assert found.upstreams == tuple(shares)
    assert set(found.beats) == {"ks", "ic", "sid", "overall"}
    for chances in found.beats.values():
        assert chances + chances.T == pytest.approx(np.ones((3, 3)))
        assert chances[0, 2] == chances[1, 2] == 1.0
        assert 0.02 < chances[0, 1] < 0.98
    assert found.places["overall"][2].tolist() == [0, 0, 1]
    low, high = found.overall["wavlm_mini"]
    mean = np.mean([tasks[t]["wavlm_mini"].value for t in tasks])
    assert low < mean < high
    assert not found.notes
    assert (
        found.beats["ks"].tolist() == ranks.stability(tasks, weighting("slim_mean"), repeats=400).beats["ks"].tolist()
    )


def test_spread_of_seeds_counts():
    rng = np.random.default_rng(4)
    steady = {n: with_rows(n, "ks", 0.6, rng) for n in ("fbank", "logmel")}
    wild = dict(steady)
    parts = [with_rows("fbank", "ks", share, rng, seeds=1).predictions["0"] for share in (0.3, 0.6, 0.95)]
    wild["fbank"] = fake("fbank", "ks", 61.0, predictions={str(i): p for i, p in enumerate(parts)})
    how = weighting("slim_mean")
    widths = [np.ptp(ranks.stability({"ks": found}, how, 400).overall["fbank"]) for found in (steady, wild)]
    assert widths[1] > 2 * widths[0]
    one = {n: with_rows(n, "ks", 0.6, rng, seeds=1) for n in ("fbank", "logmel")}
    assert "has one seed" in ranks.stability({"ks": one}, how, 400).notes[0]


def test_tasks_must_have_the_same_upstreams():
    rng = np.random.default_rng(5)
    tasks = {"ks": {n: with_rows(n, "ks", 0.5, rng) for n in ("fbank", "logmel")}}
    tasks["ic"] = {"fbank": with_rows("fbank", "ic", 0.5, rng)}
    with pytest.raises(SlimbenchError, match="same upstreams on every task"):
        ranks.stability(tasks, weighting("slim_mean"))


def test_a_ranking_of_records_agrees_with_their_scores():
    table = {}
    for record in build():
        table.setdefault(record.upstream["name"], {})[f"{record.task}.{record.metric}"] = record.value
    found = ranks.differences(table)
    assert found.tasks == len(TASKS)
    assert next(iter(found.mean_ranks)) == "wavlm_mini"
    assert scores.higher_is_better("ks.accuracy")
