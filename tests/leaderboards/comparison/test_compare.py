import argparse
import json

import numpy as np
import pytest
from fake_records import fake

from harness import records, stats
from harness.interface import SlimbenchError
from leaderboards.comparison import verb
from leaderboards.comparison.compare import compare, holm
from leaderboards.comparison.verdicts import escaped, markdown, plain, verdict

RIGHT = {"ks": {"wavlm_mini": 0.9, "distilled_wavlm": 0.88, "random_mini": 0.5},
         "asr": {"wavlm_mini": 0.7, "distilled_wavlm": 0.4, "random_mini": 0.1}}  # fmt: skip


def rows(task, share, speakers, rng, count=160):
    right = rng.random(count) < share
    said = {"ks": ("yes", "no"), "asr": ("A B C D", "A B X Y")}[task]
    return [
        {"id": f"u{i}", "speaker": f"s{i % speakers}", "ref": said[0], "hyp": said[0] if good else said[1]}
        for i, good in enumerate(right)
    ]


def record(name, task, share, rng, speakers=20, suite="embedded", **changes):
    found = {str(seed): rows(task, share, speakers, rng) for seed in range(3)}
    metric = {"ks": "accuracy", "asr": "wer"}[task]
    value = stats.mean_score(metric, list(found.values()))
    return fake(name, task, value, suite=suite, predictions=found, n_test=160, **changes)


def everyone(speakers=20, suite="embedded"):
    rng = np.random.default_rng(0)
    return [record(n, t, share, rng, speakers, suite) for t, shares in RIGHT.items() for n, share in shares.items()]


def test_holm_is_the_definition():
    rng = np.random.default_rng(1)
    for _ in range(50):
        p = rng.random(6) ** 3
        p[1] = p[0]
        order = np.sort(p)
        # the smallest level at which a step-down procedure rejects a hypothesis
        steps = np.maximum.accumulate([(6 - k) * order[k] for k in range(6)])
        expected = [min(1.0, max(steps[k] for k in range(6) if order[k] <= value)) for value in p]
        assert holm(p.tolist()) == pytest.approx(expected)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_verdicts_say_who_is_better_by_how_much():
    found = compare(everyone(), ["wavlm_mini", "random_mini"], repeats=400)
    ks = next(pair for pair in found.pairs if pair.task == "ks")
    assert ks.better == "wavlm_mini"
    assert ks.difference == pytest.approx(ks.value_a - ks.value_b)
    assert ks.low < ks.difference < ks.high
    text = verdict(ks)
    assert text.startswith(f"wavlm_mini is better than random_mini on KS by {ks.difference:.1f} points [{ks.low:.1f}, ")
    assert "after Holm, 20 speakers" in text
    asr = next(pair for pair in found.pairs if pair.task == "asr")
    assert asr.better == "wavlm_mini"
    assert asr.difference < 0
    assert f"by {-asr.difference:.1f} points [{-asr.high:.1f}, {-asr.low:.1f}]" in verdict(asr)


def test_turning_the_names_round_turns_the_numbers_round():
    one = compare(everyone(), ["wavlm_mini", "distilled_wavlm"], repeats=400)
    two = compare(everyone(), ["distilled_wavlm", "wavlm_mini"], repeats=400)
    for a, b in zip(one.pairs, two.pairs, strict=True):
        assert (a.p, a.better, a.difference) == (b.p, b.better, pytest.approx(-b.difference))
        assert a.seed_wins == pytest.approx(1 - b.seed_wins)
    ks = next(pair for pair in one.pairs if pair.task == "ks")
    assert ks.better is None
    assert "wavlm_mini and distilled_wavlm cannot be told apart on KS" in verdict(ks)


def test_three_upstreams_are_compared_pair_by_pair_and_over_tasks():
    found = compare(everyone(), ["wavlm_mini", "distilled_wavlm", "random_mini"], repeats=400)
    assert len(found.pairs) == 6
    p = [pair.p for pair in found.pairs]
    assert [pair.p_holm for pair in found.pairs] == holm(p)
    assert list(found.differences.mean_ranks) == ["wavlm_mini", "distilled_wavlm", "random_mini"]
    values = json.loads(json.dumps(plain(found), allow_nan=False))
    assert len(values["pairs"]) == 6
    assert values["pairs"][0]["verdict"]
    assert values["critical_differences"]["tasks"] == 2
    assert np.asarray(values["stability"]["beats"]["overall"]).shape == (3, 3)
    page = markdown(found)
    assert page.count("\n- ") == 6
    assert "Nemenyi" in page
    assert "adjusted for the 6 tests" in page


def test_two_speakers_are_too_few_and_the_verdict_says_so():
    found = compare(everyone(speakers=2), ["wavlm_mini", "random_mini"], ["ks"], repeats=400)
    (pair,) = found.pairs
    assert pair.low > 0
    assert pair.better is None
    assert "With 2 speakers no permutation test can reach p ≤ 0.05." in verdict(pair)


def test_other_test_sets_are_refused_in_one_sentence_and_the_rest_goes_on():
    mine = everyone()
    rng = np.random.default_rng(7)
    mine = [r for r in mine if (r.upstream["name"], r.task) != ("random_mini", "ks")]
    mine.append(record("random_mini", "ks", 0.5, rng, speakers=19))
    found = compare(mine, ["wavlm_mini", "random_mini", "distilled_wavlm"], repeats=400)
    refused = [pair for pair in found.pairs if pair.refusal]
    assert len(refused) == 2
    assert verdict(refused[0]).count(".") == 1
    assert "different references or speakers on ks" in verdict(refused[0])
    assert "random_mini | " in markdown(found)
    assert "Not in the comparison over tasks, since not all are comparable there: ks." in found.notes
    assert set(found.stability.beats) == {"asr", "overall"}


def test_other_conditions_are_said():
    mine = everyone()
    rng = np.random.default_rng(0)
    mine = [r for r in mine if (r.upstream["name"], r.task) != ("random_mini", "ks")]
    mine.append(record("random_mini", "ks", 0.5, rng, protocol={"steps": 9}))
    found = compare(mine, ["wavlm_mini", "distilled_wavlm", "random_mini"], ["ks"], repeats=400)
    said = {(pair.a, pair.b): " ".join(pair.cautions) for pair in found.pairs}
    assert all(("different protocols" in text) == ("random_mini" in names) for names, text in said.items())
    assert len(said) == 3


def run(tmp_path, *words):
    parser = argparse.ArgumentParser()
    verb.add_verb(parser.add_subparsers())
    options = parser.parse_args(["compare", "--results", str(tmp_path / "results"), "--repeats", "200", *words])
    options.run(options)


@pytest.fixture
def saved(tmp_path):
    for found in [*everyone(), *everyone(suite="other")]:
        records.save(found, tmp_path / "results")
    return tmp_path


def test_the_verb_prints_and_writes(saved, capsys):
    run(saved, "wavlm_mini", "random_mini", "--tasks", "ks", "--suite", "other", "--out", str(saved / "out"))
    page = capsys.readouterr().out
    assert page.startswith("# wavlm_mini and random_mini on other\n")
    assert "wavlm_mini is better than random_mini on KS" in page
    assert (saved / "out" / "compare.md").read_text() == page
    (plain,) = json.loads((saved / "out" / "compare.json").read_text())
    assert [pair["task"] for pair in plain["pairs"]] == ["ks"]
    run(saved, "wavlm_mini", "random_mini", "--tasks", "ks", "--json")
    assert [one["suite"] for one in json.loads(capsys.readouterr().out)] == ["embedded", "other"]


@pytest.mark.parametrize("flag", ["--accepted", "--lab"])
def test_records_that_come_with_the_project_join_where_asked(tmp_path, capsys, monkeypatch, flag):
    from leaderboards.submissions import verification

    for found in everyone():
        if found.upstream["name"] == "wavlm_mini":
            records.save(found, tmp_path / "results")
    theirs = [found for found in everyone() if found.upstream["name"] == "random_mini"]
    monkeypatch.setattr(
        verification, "accepted", lambda *folder: theirs if bool(folder) == (flag == "--lab") else pytest.fail(flag)
    )
    with pytest.raises(SlimbenchError, match="--accepted and --lab add the records that come with the project"):
        run(tmp_path, "wavlm_mini", "random_mini", "--tasks", "ks")
    run(tmp_path, "wavlm_mini", "random_mini", "--tasks", "ks", flag)
    assert "wavlm_mini is better than random_mini on KS" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["wavlm_mini"], "needs two different upstreams"),
        (["wavlm_mini", "wavlm_mini"], "needs two different upstreams"),
        (["wavlm_mini", "random_mine"], "did you mean 'random_mini'"),
        (["wavlm_mini", "HuBERT Base"], "published row, without predictions"),
        (["wavlm_mini", "random_mini", "--suite", "superb"], "suite 'superb': use embedded, other"),
        (["wavlm_mini", "random_mini", "--tasks", "qbe"], "task 'qbe': use asr, ks"),
    ],
)
def test_what_cannot_be_compared_is_refused(saved, words, message):
    with pytest.raises(SlimbenchError) as error:
        run(saved, *words)
    assert message in str(error.value)


def test_too_few_resamples_are_refused(saved):
    with pytest.raises(SlimbenchError, match="at least 100"):
        run(saved, "wavlm_mini", "random_mini", "--repeats", "10")


def test_upstreams_without_a_common_suite_or_task(tmp_path):
    rng = np.random.default_rng(0)
    records.save(record("fbank", "ks", 0.5, rng), tmp_path / "results")
    records.save(record("logmel", "ks", 0.5, rng, suite="other"), tmp_path / "results")
    with pytest.raises(SlimbenchError, match="no suite in common"):
        run(tmp_path, "fbank", "logmel")
    records.save(record("logmel", "asr", 0.5, rng), tmp_path / "results")
    with pytest.raises(SlimbenchError, match="share no task"):
        run(tmp_path, "fbank", "logmel")


def test_hostile_names_are_escaped_and_plain_ones_are_not():
    plain = "wavlm_mini is better than x@45ms on KS by 3.1 points [1.0, 5.2] (p = 0.012 after Holm, 20 speakers)."
    assert escaped(plain) == plain
    shown = escaped("<script>alert(1)</script> [x](javascript:y) a|b *c* `d` _e_ \x1b[31m")
    assert "<" not in shown
    assert "\x1b" not in shown
    for raw in ("[x](", "a|b", " *c*", " `d`", " _e_"):
        assert raw not in shown
