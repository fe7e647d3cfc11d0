"""A plan is arithmetic on timed parts: a calibration made up here must give the numbers worked out here by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import toy_data
import toy_upstream

from harness import preparing, registry, run, suite
from harness.estimation import estimate, forecast
from harness.estimation.calibrate import Calibration, calibrate
from harness.estimation.encode_timing import Encoding
from harness.estimation.forecast import Once
from harness.estimation.loads import apart, of_suite, passes
from harness.estimation.timing import Speed
from harness.extraction.frames import Room

SIZES = suite.load("superb").sizes
ENCODING = Encoding(start=2.0, second=0.01, check=0.001)
SPEED = Speed(setup=3.0, update=0.5, look=4.0, test=6.0, interval=7.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """What is timed is timed as shortly as it can be, and no process measures memory."""
    monkeypatch.setattr("harness.estimation.timing.SECONDS", 0.0)
    monkeypatch.setattr("harness.estimation.encode_timing.SECONDS", 0.0)
    monkeypatch.setattr("harness.cost._memory", lambda *_: {"peak_memory_mb": None, "idle_memory_mb": None})


@pytest.fixture
def upstream(tmp_path):
    return registry.load_upstream(str(toy_upstream.write_card(tmp_path)), "cpu")


@pytest.fixture
def tiny(tmp_path):
    """Options of a bench on tones."""
    chosen = toy_data.write(tmp_path / "data")
    card = toy_upstream.write_card(tmp_path / "card")
    return preparing.Options(
        str(card), str(chosen), tmp_path / "results", tmp_path / "cache", tmp_path / "data", threads=1
    )


def loads(names, seeds=1, protocol="superb", upstream=None):
    return of_suite(suite.load("superb", protocol), names, seeds, upstream or toy_upstream.toy())[0]


def calibration(names, macs=None, **speeds):
    return Calibration(ENCODING, {name: speeds.get(name, SPEED) for name in names}, macs, "today")


def rows(names, seeds=1, gpu=False, macs=None, protocol="superb", **speeds):
    found = loads(names, seeds, protocol)
    return forecast.forecast(toy_upstream.toy(), found, calibration(names, macs, **speeds), gpu)


def test_the_stated_sizes_are_superbs_counts():
    counts = {task: [SIZES[task][split][0] for split in ("train", "dev", "test")] for task in SIZES}
    assert counts["asr"] == counts["pr"] == [28_539, 2_703, 2_620]
    assert counts["ks"] == [51_094, 6_804, 3_081]
    assert counts["ic"] == [23_132, 3_118, 3_793]
    assert counts["sid"] == [138_361, 6_904, 8_251]
    assert counts["er"] == [3_556, 890, 1_085]


def test_seconds_of_a_task_by_hand():
    (ks,) = rows(["ks"])
    assert ks.extraction == pytest.approx(2.0 + 18.5 * 3600 * 0.01)
    assert ks.train == pytest.approx(3.0 + 200_000 * 0.5)
    assert ks.looks == pytest.approx(40 * 4.0)  # every 5,000 of 200,000 updates
    assert (ks.test, ks.interval) == (6.0, 7.0)
    assert ks.seconds == pytest.approx(ks.extraction + ks.train + ks.looks + 13.0)


def test_folds_and_looks_on_test_multiply():
    er, asv = rows(["er", "asv"])
    assert er.train == pytest.approx(5 * (3.0 + 30_000 * 0.5))
    assert er.looks == pytest.approx(5 * 30 * 4.0)
    assert er.test == pytest.approx(5 * 6.0)
    assert asv.test == pytest.approx((1 + 10) * 6.0)  # ten checkpoints besides the last weights
    assert asv.interval == pytest.approx(2 * 7.0)


def test_the_last_look_comes_after_the_last_update():
    (load,) = loads(["ks"])
    assert replace(load, protocol=replace(load.protocol, steps=11, eval_every=5)).looks == 3


def test_trials_count_rates_and_seeds_per_fold():
    (er,) = loads(["er"], seeds=3)
    assert (er.trials, er.seeds, er.folds) == (5 * 3, 3, 5)


def test_shared_audio_is_encoded_and_stored_for_the_first_task_only():
    asr, pr = rows(["asr", "pr"])
    (alone,) = rows(["pr"])
    assert asr.encode == alone.encode == pytest.approx(111.4 * 3600)
    assert (pr.encode, pr.size, pr.extraction) == (0, 0, 0)
    assert alone.extraction == pytest.approx(2.0 + 111.4 * 3600 * 0.01)
    assert passes(loads(["asr", "pr", "er"])) == ["1, with pr", "0, that of asr", "1, for 5 folds"]


def test_what_is_encoded_on_demand_is_time_of_training_and_takes_no_disk():
    small = Room(disk=1e6)
    found, ways = of_suite(suite.load("superb", "fast"), ["asr", "pr", "ks"], 1, toy_upstream.toy(), small)
    asr, pr, ks = forecast.forecast(toy_upstream.toy(), found, calibration(["asr", "pr", "ks"]), gpu=False)
    assert ways["asr"].together == ways["pr"].together == ("asr", "pr")
    mean = 100.6 * 3600 / 28_539
    seconds = 40_000 * 32 * mean + (20 + 1 + 20 + 1) * 5.4 * 3600
    assert asr.train == pytest.approx(3.0 + 40_000 * 0.5 + seconds * 0.01, rel=1e-6)
    assert pr.train == pytest.approx(3.0 + 20_000 * 0.5)  # what it needs is there when asr had it encoded
    state = toy_upstream.STATES * toy_upstream.WIDTH
    assert asr.size == pytest.approx((28_539 + 2_703 + 2_620) * state * 4)
    assert passes(found) == [f"{seconds / (111.4 * 3600):.0f}, on demand", "those of asr", "1"]
    assert ks.train == pytest.approx(3.0 + 20_000 * 0.5)


def test_the_same_recordings_with_other_effects_are_said_to_be_other_audio():
    (said,) = apart(loads(["ks", "sid", "asv"]))
    assert said.startswith("sid and asv read the same recordings")
    assert "gain -3, silence" in said
    assert apart(loads(["asr", "pr", "ks"])) == []


def test_bytes_are_means_for_all_and_frames_where_some_task_of_the_suite_reads_them():
    asr, ks = rows(["asr", "ks"])
    state = toy_upstream.STATES * toy_upstream.WIDTH
    assert ks.size == pytest.approx((51_094 + 6_804 + 3_081) * state * 4)
    assert asr.size == pytest.approx(111.4 * 3600 * 50 * state * 2 + (28_539 + 2_703 + 2_620) * state * 4)
    weights = sum(p.numel() for p in registry.task("ks").head(toy_upstream.WIDTH, 12, {}).parameters())
    assert ks.training == pytest.approx(5 * 8 * 4 * (weights + toy_upstream.STATES))


def test_the_price_without_a_gpu_is_operations_and_launches():
    (er,) = rows(["er"], macs=1e9)
    head = 12 * 256 + 256 + 256 * 4 + 4 + toy_upstream.STATES
    upstream = 2 * 1e9 * 7 * 3600
    trained = 5 * 5 * 2 * head * (3 * 30_000 * 32 + 30 * 890)
    calls = 5 * (30_000 + 30 * 890 / 32)
    assert er.gpu == pytest.approx((upstream + trained) / 10e12 + calls * 5e-3)
    (longer,) = rows(["asv"])
    mean = min(260 * 3600 / 148_642, 8.0) * 50  # frames, cropped at 8 s
    assert longer.gpu > 200_000 * 50 * mean * 6 * 5 * 1e6 / 10e12  # over a million weights


def test_on_a_gpu_its_own_seconds_are_the_price():
    (ks,) = rows(["ks"], gpu=True, macs=1e9)
    assert ks.gpu == ks.seconds


def test_the_table_adds_up(upstream):
    names = ["asr", "pr", "er"]
    found, made = calibration(names), rows(names)
    text = forecast.describe(loads(names), made, found, Once(60.0, 30.0, 90.0), "cpu").splitlines()
    body = {line.split()[0]: line.split() for line in text[2:6]}
    assert list(body) == [*names, "all"]
    minutes = [sum(row.seconds for row in made) / 60, sum(row.train for row in made) / 60]
    assert float(body["all"][-2]) == pytest.approx(minutes[0], abs=0.01)
    assert float(body["all"][-6]) == pytest.approx(minutes[1], abs=0.01)
    assert float(body["all"][1]) == pytest.approx(111.4 + 7.0)  # shared audio once
    assert forecast.duration(minutes[0] * 60 + 180) in text[6]
    assert "an estimate" in text[-1]
    assert "H100" in text[-1]


def test_what_the_store_has_is_not_planned_again(tiny):
    _, before = run.expected(tiny)
    records = run.bench(replace(tiny, tasks=("pr",)))
    _, after = run.expected(tiny)
    assert [record.task for record in records] == ["pr"]
    assert [load.name for load in before.loads] == ["ks", "sid", "pr", "asv"]
    assert [load.name for load in after.loads] == ["ks", "sid", "asv"]
    assert all(load.missing for load in before.loads)
    assert passes(before.loads)[1:] == [f"0, that of {name}" for name in ("ks", "ks", "ks")]
    assert passes(after.loads) == ["0, in the store"] * 3
    assert sum(after.loads[0].audio.values()) == pytest.approx(32 * 0.6)


def test_the_plan_of_a_folder_leaves_no_features_and_no_records(tiny):
    text = run.describe(tiny)
    assert text.count("to do") == 4
    assert "price: at most" in text
    assert not list(tiny.cache.glob("features/*/*.safetensors"))
    assert not list(tiny.results.rglob("*.json"))
    assert not list(tiny.cache.glob("calibrate-*"))


def test_a_calibration_is_kept_until_it_is_asked_for_again(tiny, monkeypatch):
    run.expected(tiny)
    timed = []

    def fake(upstream, load, *rest):
        timed.append(load.name)
        return SPEED

    monkeypatch.setattr("harness.estimation.calibrate.time_head", fake)
    _, kept = run.expected(tiny)
    assert timed == []
    assert kept.found.speeds["ks"] != SPEED
    _, again = run.expected(tiny, again=True)
    assert timed == ["ks", "sid", "pr", "asv"]
    assert again.found.speeds["ks"] == SPEED
    run.expected(replace(tiny, seeds=1))  # other trials are other work
    assert timed[4:] == ["ks", "sid", "pr", "asv"]


def test_a_suite_without_data_is_timed_on_noise(upstream, tmp_path):
    machine = estimate.Machine(upstream, "cpu", "float16", 20, tmp_path / "cache")
    asked = loads(["ks", "er"], upstream=upstream)
    found = calibrate(machine, asked)
    assert set(found.speeds) == {"ks", "er"}
    assert found.encoding is not None
    assert found.encoding.second > 0
    assert min(found.speeds["er"].update, found.speeds["er"].interval, found.speeds["ks"].look) > 0
    spectrum = 1.25 * 320 * math.log2(320)  # per frame, and two maps of 24 bins onto 12 values
    assert found.macs == pytest.approx(50 * (spectrum + 2 * 24 * 12), rel=1e-3)
    assert Path(machine.file).is_file()
