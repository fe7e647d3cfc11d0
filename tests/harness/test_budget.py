"""A budget takes the cheapest tasks first, prices shared audio once, and stops when it is used up."""

from __future__ import annotations

from dataclasses import replace

import pytest
import toy_data
import toy_upstream

from harness import preparing, run, suite
from harness.estimation import budget, forecast
from harness.estimation.calibrate import Calibration
from harness.estimation.encode_timing import Encoding
from harness.estimation.forecast import Once
from harness.estimation.loads import of_suite
from harness.estimation.timing import Speed
from harness.interface import SlimbenchError

ONCE = Once(5.0, 0.0, 5.0)


def asked(**seconds):
    """Loads with nothing to do but a test of so many seconds, on the audio of SUPERB."""
    loads, _ = of_suite(suite.load("superb"), list(seconds), 1, toy_upstream.toy())
    loads = [replace(load, folds=1, protocol=replace(load.protocol, looks_on_test=False)) for load in loads]
    speeds = {name: Speed(0.0, 0.0, 0.0, value, 0.0) for name, value in seconds.items()}
    return loads, Calibration(Encoding(0.0, 1.0, 0.0), speeds, None, "")


@pytest.mark.parametrize(
    ("text", "seconds"), [("2", 7200), ("0.5", 1800), ("30m", 1800), ("90 min", 5400), ("1.5h", 5400), ("45s", 45)]
)
def test_budgets_are_hours_or_say_their_unit(text, seconds):
    assert budget.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "0", "-1", "2 days", "nan", "1e9", "0m"])
def test_other_budgets_are_refused(text):
    with pytest.raises(SlimbenchError, match="30m"):
        budget.parse(text)


def test_the_cheapest_tasks_come_first_as_far_as_they_fit():
    loads, found = asked(ks=300.0, ic=100.0, er=200.0)
    loads = [replace(load, missing={}) for load in loads]
    assert budget.choose(loads, found, ONCE, 10_000) == (["ic", "er", "ks"], [])
    assert budget.choose(loads, found, ONCE, 310) == (["ic", "er"], ["ks"])
    assert budget.choose(loads, found, ONCE, 309) == (["ic"], ["ks", "er"])
    assert budget.choose(loads, found, ONCE, 310, start=1.0) == (["ic"], ["ks", "er"])
    assert budget.choose(loads, found, ONCE, 20) == ([], ["ks", "ic", "er"])


def test_audio_that_a_chosen_task_has_encoded_is_free_for_the_next():
    loads, found = asked(asr=10.0, pr=20.0, ks=400_000.0)
    hours = 111.4 * 3600
    assert budget.choose(loads, found, ONCE, hours + 40) == (["asr", "pr"], ["ks"])
    assert budget.choose(loads, found, ONCE, hours + 39) == (["asr"], ["pr", "ks"])
    assert forecast.times(loads[1], found, set()).seconds == pytest.approx(hours + 20)
    assert forecast.times(loads[1], found, set(loads[0].audio)).seconds == pytest.approx(20)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    chosen = toy_data.write(tmp_path / "data")
    card = toy_upstream.write_card(tmp_path / "card")
    options = preparing.Options(
        str(card), str(chosen), tmp_path / "results", tmp_path / "cache", tmp_path / "data", threads=1
    )
    monkeypatch.setattr("harness.estimation.encode_timing.SECONDS", 0.0)
    monkeypatch.setattr("harness.cost._memory", lambda *_: {"peak_memory_mb": None, "idle_memory_mb": None})
    speeds = {"ks": 300.0, "sid": 100.0, "pr": 200.0, "asv": 9_000.0}
    speed = {name: Speed(0.0, 0.0, 0.0, seconds, 0.0) for name, seconds in speeds.items()}
    monkeypatch.setattr("harness.estimation.calibrate.time_head", lambda upstream, load, *_: speed[load.name])
    return options


def test_a_bench_within_a_budget_does_what_fits_and_names_the_rest(tiny, capsys, monkeypatch):
    monkeypatch.setattr(run, "since_start", lambda: 0.0)
    monkeypatch.setattr("harness.estimation.estimate.since_start", lambda: 0.0)
    records = run.bench_within(tiny, 1_000.0)
    assert {record.task for record in records} == {"ks", "sid", "pr"}
    said = capsys.readouterr().err
    assert "now sid, pr, ks; left for another call: asv" in said
    assert said.index("sid: accuracy") < said.index("pr: per") < said.index("ks: accuracy")
    again = run.bench_within(tiny, 100_000.0)  # the same command goes on
    assert {record.task for record in again} == {"ks", "sid", "pr", "asv"}


def test_no_task_is_begun_once_the_budget_is_used_up(tiny, capsys, monkeypatch):
    clock = iter([0.0, 0.0, 2_000.0])
    monkeypatch.setattr(run, "since_start", lambda: next(clock))
    monkeypatch.setattr("harness.estimation.estimate.since_start", lambda: 0.0)
    records = run.bench_within(tiny, 1_000.0)
    assert [record.task for record in records] == ["sid"]
    assert "used up; left for another call: pr, ks, asv" in capsys.readouterr().err
    assert len(list(tiny.results.glob("*/*/*.json"))) == 1
