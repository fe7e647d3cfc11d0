from pathlib import Path

import pytest
import yaml
from fake_records import build, fake

from harness.interface import SlimbenchError
from leaderboards import scores
from leaderboards.published import published
from leaderboards.scores import read, score_published, score_records, weighting

EXPECTED = yaml.safe_load((Path(__file__).parent / "data" / "recomputed_scores.yaml").read_text())

TRUNCATED = "the STaR table cuts the decimals off instead of rounding"
OTHER_SUPERB_S = {
    "ARMHuBERT-S": (828, 828.66, TRUNCATED),
    "ARMHuBERT-S-100h": (800, 800.52, TRUNCATED),
    "STaRHuBERT-100h": (831, 831.56, TRUNCATED),
    "DPHuBERT-100h": (819, 820.60, "the STaR table disagrees with its own columns"),
}
OTHER_MEAN = {"LightHuBERT Base (a_Base)": (80.4, None, "the columns of its tasks were not found")}


@pytest.mark.parametrize(
    ("name", "printed", "matching", "exceptions"),
    [("superb_s", 37, 33, OTHER_SUPERB_S), ("mean11", 23, 22, OTHER_MEAN)],
)
def test_printed_scores_come_out_again(name, printed, matching, exceptions):
    rows = [row for row in published().listed() if name in row.values]
    found = score_published(weighting(name), rows)
    assert len(rows) == printed
    same = [r.system for r in rows if found[r.system].text == f"{r.value(name):.{found[r.system].digits}f}"]
    assert len(same) == matching
    assert {row.system for row in rows} - set(same) == set(exceptions)
    for system, (stated, computed, reason) in exceptions.items():
        assert published().row(system).value(name) == stated
        assert found[system].value == (computed and pytest.approx(computed, abs=0.005)), reason


def test_every_row_scores_as_another_program_computed_it():
    rows = published().listed()
    for place, name in enumerate(("superb_s", "mean11")):
        found = {s: v for s, v in score_published(weighting(name), rows).items() if v.value is not None}
        assert {system: round(v.value, v.digits) for system, v in found.items()} == {
            system: pytest.approx(pair[place]) for system, pair in EXPECTED.items()
        }


def test_superb_s_by_hand():
    hubert = {
        "pr.per": 5.41, "asr.wer": 6.42, "ks.accuracy": 96.3, "qbe.mtwv": 7.36, "sid.accuracy": 81.42, "asv.eer": 5.11,
        "sd.der": 5.88, "ic.accuracy": 98.34, "sf.f1": 88.53, "sf.cer": 25.2, "er.accuracy": 64.92,
    }  # fmt: skip
    shares = [
        (82.01 - 5.41) / (82.01 - 3.53), (23.18 - 6.42) / (23.18 - 3.62), (96.3 - 41.3826674) / (96.66 - 41.3826674),
        (7.36 - 0.58) / (7.36 - 0.58),
        (81.42 - 20.058174) / (90.3 - 20.058174), 1.0, (10.05 - 5.88) / (10.05 - 5.62),
        (98.34 - 9.649354219) / (98.76 - 9.649354219),
        ((88.53 - 69.64) / (89.81 - 69.64) + (52.94 - 25.2) / (52.94 - 21.76)) / 2,
        (64.92 - 48.23672168) / (67.62 - 48.23672168),
    ]  # fmt: skip
    by_hand = 1000 * sum(shares) / 10
    assert scores.scores(weighting("superb_s"), {"x": hubert})["x"].value == pytest.approx(by_hand)
    assert round(by_hand) == 941


def test_two_sets_of_fbank_have_two_means():
    rows = [published().row("FBANK"), published().row("FBANK (paper)")]
    assert [score.text for score in score_published(weighting("mean11"), rows).values()] == ["46.5", "40.5"]
    assert score_published(weighting("superb_s"), rows)["FBANK"].text == "0"


def test_a_row_with_a_gap_gets_no_superb_score_and_says_why():
    score = score_published(weighting("superb_s"), [published().row("DistilHuBERT-100h")])["DistilHuBERT-100h"]
    assert score.value is None
    assert score.text == "–"
    assert "pr.per" in score.missing
    assert set(score.used) == {"asr.wer", "sid.accuracy", "ic.accuracy"}


def test_measured_records_get_a_score_of_another_name():
    found = score_records(weighting("slim_mean"), build())
    assert found["wavlm_mini"].name == "slim mean"
    goodness = [100 - 38.4, 100 - 16.7, 94.2, 90.3, 95.8, 100 - 17.2, 71.6]
    assert found["wavlm_mini"].value == pytest.approx(sum(goodness) / 7)
    part = score_records(weighting("slim_mean"), build(tasks=("ks", "asr")))["wavlm_mini"]
    assert part.name == "slim mean over 2 of 7 metrics"
    assert part.value == pytest.approx((94.2 + 61.6) / 2)
    assert set(part.missing) == {"pr.per", "ic.accuracy", "sid.accuracy", "asv.eer", "er.accuracy"}


@pytest.mark.parametrize("name", ["superb_s", "mean11"])
def test_measured_records_get_no_superb_score(name):
    with pytest.raises(SlimbenchError, match="score of published values, these are measured") as error:
        score_records(weighting(name), build())
    assert "slim_mean" in str(error.value)
    with pytest.raises(SlimbenchError, match="score of measured values"):
        score_published(weighting("slim_mean"), published().rows)


def test_no_measured_weighting_sounds_like_superb():
    measured = [weighting(name) for name in scores.names() if weighting(name).data != "published"]
    assert len(measured) == 3
    assert not any("superb" in (how.name + how.title).lower() for how in measured)


def test_z_scores_by_hand():
    found = score_records(weighting("slim_z"), build(tasks=("ks", "asr")))
    accuracy, wer = [8.6, 44.0, 61.3, 94.2, 90.7], [96.1, 88.2, 91.5, 38.4, 47.9]

    def z(values, value):
        mean = sum(values) / 5
        return (value - mean) / (sum((v - mean) ** 2 for v in values) / 5) ** 0.5

    assert found["wavlm_mini"].value == pytest.approx((z(accuracy, 94.2) - z(wer, 38.4)) / 2)
    assert sum(score.value for score in found.values()) == pytest.approx(0, abs=1e-12)


def test_gain_between_reference_systems_and_without_a_gap():
    found = score_records(weighting("slim_gain"), build())
    assert found["fbank"].value == 0
    assert found["wavlm_mini"].value == pytest.approx(1000)
    ends = {"fbank": 50.0, "wavlm_mini": 50.5, "x": 90.0}
    table = {name: {"ks.accuracy": value, "asr.wer": value} for name, value in ends.items()}
    score = scores.scores(weighting("slim_gain"), table)["x"]
    assert score.value is None
    assert "not at least 1 points better" in score.missing["ks.accuracy"]
    assert "not at least 1 points better" in score.missing["asr.wer"]


def test_mixed_suites_and_doubled_records_have_no_score():
    with pytest.raises(SlimbenchError, match="several suites"):
        score_records(weighting("slim_mean"), [*build(), *build(suite="other")])
    with pytest.raises(SlimbenchError, match="two records of ks"):
        score_records(weighting("slim_mean"), [fake("fbank", "ks", 1.0), fake("fbank", "ks", 2.0, created="later")])


OWN = """
name: mine
title: my score
about: a board's own
source: me
data: any
scale: points
unit: points
digits: 1
missing: zero
groups:
  A: {weight: 3, metrics: {ks.accuracy: {zero: 50, full: 100}}}
  B: {weight: 1, metrics: {asr.wer: {zero: 100, full: 0}, pr.per: {zero: 100, full: 50}}}
"""


def own(tmp_path, old="", new=""):
    assert old in OWN
    path = tmp_path / "mine.yaml"
    path.write_text(OWN.replace(old, new, 1))
    return path


def test_a_weighting_of_ones_own(tmp_path):
    how = weighting(str(own(tmp_path)))
    table = {"x": {"ks.accuracy": 75.0, "asr.wer": 20.0, "pr.per": 60.0}, "y": {"ks.accuracy": 75.0, "asr.wer": 20.0}}
    found = scores.scores(how, table)
    assert found["x"].value == pytest.approx((3 * 500 + (800 + 800) / 2) / 4)
    assert found["y"].value == pytest.approx((3 * 500 + (800 + 0) / 2) / 4)
    assert found["y"].name == "my score (1 of 3 metrics missing, counted 0)"
    refuse = scores.scores(read(own(tmp_path, "missing: zero", "missing: refuse")), table)
    assert (refuse["x"].value is None, refuse["y"].value is None) == (False, True)
    omit = scores.scores(read(own(tmp_path, "missing: zero", "missing: omit")), table)["y"]
    assert (omit.value, omit.name) == (pytest.approx((3 * 500 + 800) / 4), "my score over 2 of 3 metrics")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("missing: zero", "missing: skip", "use one of refuse, omit, zero"),
        ("missing: zero\n", "", "'missing' is missing"),
        ("name: mine", "name: yours", "not that of the file"),
        ("title: my score", "title: SUPERB_s", "superb in its name"),
        ("scale: points", "scale: zscore", "let missing be refuse or omit"),
        ("scale: points", "scale: percent", "unknown field 'zero'"),
        ("weight: 3", "weight: 0", "weight"),
        ("weight: 3", "weight: -1", "weight"),
        ("zero: 50, full: 100", "zero: 100, full: 50", "must be better than its zero"),
        ("zero: 50, full: 100", "zero: 50, full: 50", "are equal"),
        ("zero: 50, full: 100", "zero: 50", "'full' is missing"),
        ("ks.accuracy", "ks.right", "Unknown metric 'right'"),
        ("pr.per: {zero: 100, full: 50}", "ks.accuracy: {zero: 1, full: 50}", "each of them once"),
        ("unit: points", "unit: points\nreference: {zero: a, full: b, least_gap: 0}", "least_gap"),
        ("unit: points", "unit: points\nextra: 1", "unknown field 'extra'"),
    ],
)
def test_a_wrong_weighting_is_refused(tmp_path, old, new, message):
    with pytest.raises(SlimbenchError) as error:
        read(own(tmp_path, old, new))
    assert message in str(error.value)


def test_an_unknown_weighting_names_the_nearest():
    with pytest.raises(SlimbenchError, match="did you mean 'superb_s'"):
        weighting("superb")
