"""Estimates are multiplication of measured parts; the parts are checked against runs of known size."""

from __future__ import annotations

import pytest
import toy_upstream

from harness import estimate, registry, suite

SIZES = suite.load("superb").sizes


@pytest.fixture
def upstream(tmp_path):
    return registry.load_upstream(str(toy_upstream.write_card(tmp_path)), "cpu")


def loads(names, seeds=1, protocol="superb"):
    return estimate.of_suite(suite.load("superb", protocol), names, seeds)


def test_the_stated_sizes_are_superbs_counts():
    counts = {task: [SIZES[task][split][0] for split in ("train", "dev", "test")] for task in SIZES}
    assert counts["asr"] == counts["pr"] == [28_539, 2_703, 2_620]
    assert counts["ks"] == [51_094, 6_804, 3_081]
    assert counts["ic"] == [23_132, 3_118, 3_793]
    assert counts["sid"] == [138_361, 6_904, 8_251]
    assert counts["er"] == [3_556, 890, 1_085]


def test_shared_audio_is_encoded_for_the_first_task_only():
    asr, pr, ks = loads(["asr", "pr", "ks"])
    assert asr.encode == pytest.approx(111.4 * 3600)
    assert pr.encode == 0
    assert ks.encode > 0
    assert loads(["pr"])[0].encode == asr.encode


def test_trials_count_rates_seeds_and_folds():
    (er,) = loads(["er"], seeds=3)
    assert er.trials == 5 * 3 * 5


def test_hours_grow_with_the_work(upstream, monkeypatch):
    monkeypatch.setattr(estimate, "update_seconds", lambda *_: 0.5)
    monkeypatch.setattr(estimate.cost, "real_time_factor", lambda *_, **__: 0.01)
    (ks,) = loads(["ks"])
    table = estimate.describe(upstream, [ks], "cpu", "float16").splitlines()
    name, audio, encode, probes, stored, training = table[2].split()
    assert name == "ks"
    assert float(audio) == 18.5
    assert float(encode) == pytest.approx(0.185, abs=0.006)
    updates = 200_000 * 5 * 0.5 / 3600
    assert updates < float(probes) < 1.1 * updates
    pooled = (51_094 + 6_804 + 3_081) * upstream.num_states * upstream.width * 4 / 1e9
    assert float(stored) == pytest.approx(pooled, abs=0.006)
    weights = ks.task.head(upstream.width, 12, {}).parameters()
    assert float(training) == pytest.approx(5 * 8 * 4 * sum(p.numel() for p in weights) / 1e9, abs=0.006)
    assert table[-1].split()[1:] == [audio, encode, probes, stored, training]


@pytest.mark.parametrize("task", ["ks", "pr", "ic", "asv"])
def test_an_update_is_really_made_and_timed(upstream, task):
    (load,) = loads([task])
    assert 0 < estimate.update_seconds(upstream, load, "cpu") < 600
