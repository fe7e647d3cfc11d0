"""What is timed is the bench's own work on a sample; a load too large for that is made smaller and scaled up again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import toy_upstream

from harness import suite
from harness.estimation import timing
from harness.estimation.loads import of_suite
from harness.probes.order import Order


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(timing, "SECONDS", 0.0)


def load(name, **changes):
    ((found,), _) = of_suite(suite.load("superb"), [name], 1, toy_upstream.toy())
    return replace(found, protocol=replace(found.protocol, **changes))


def small(name, **changes):
    sizes = {"pr": {"project": 8}, "asv": {"project": 8, "channels": 8, "pool": 16, "embed": 8}}
    return load(name, batch=4, accumulate=1, head=sizes.get(name, {}), **changes)


class Clock:
    """A run whose update takes a second per trial and hundred padded frames, and ten per trial besides."""

    def __init__(self, monkeypatch):
        self.sizes = []
        monkeypatch.setattr(timing, "_time", self.time)

    def time(self, upstream, load, size, *rest):
        self.sizes.append(size)
        frames = 10_000.0 if size.frames is None else 16.0 * size.frames
        update = size.trials * (10.0 + frames / 100)
        speed = timing.Speed(size.trials, update, 2.0 * size.trials, 5.0, 6.0)
        return timing._Timed(speed, frames)


def test_a_small_load_is_timed_as_it_is(monkeypatch, tmp_path):
    clock = Clock(monkeypatch)
    monkeypatch.setattr(timing, "_padded", lambda *_: 10_000.0)
    speed = timing.time_head(toy_upstream.toy(), small("pr"), "cpu", "float16", 10, tmp_path)
    (size,) = clock.sizes
    assert (size.trials, size.frames) == (5, None)
    assert speed == timing.Speed(5.0, 5 * 110.0, 10.0, 5.0, 6.0)


def test_a_large_load_is_timed_in_two_sizes_and_extrapolated(monkeypatch, tmp_path):
    clock = Clock(monkeypatch)
    monkeypatch.setattr(timing, "_padded", lambda *_: 10_000.0)
    monkeypatch.setattr(timing.torch, "get_num_threads", lambda: 2)
    speed = timing.time_head(toy_upstream.toy(), load("asr"), "cpu", "float16", 10, tmp_path)
    assert [size.trials for size in clock.sizes] == [2, 2]
    assert clock.sizes[1].frames == clock.sizes[0].frames // 2
    assert speed.update == pytest.approx(5 * 110.0)
    assert speed.look == pytest.approx(5 * 2.0)


@pytest.mark.parametrize("name", ["ks", "pr", "asv"])
def test_a_head_is_really_trained_looked_at_and_scored(name, tmp_path):
    speed = timing.time_head(toy_upstream.toy(), small(name), "cpu", "float16", 10, tmp_path)
    assert min(speed.setup, speed.update, speed.look, speed.test, speed.interval) > 0
    assert (tmp_path / "probe.pt").is_file()


def test_a_sample_has_blocks_of_neighbours_and_respects_its_bound():
    rows = load("pr").manifest.split("train")
    chosen = timing._blocks(rows, 200, 50)
    order = sorted(rows, key=lambda row: row.seconds)
    places = sorted(order.index(row) for row in chosen)
    assert len(places) == 200
    breaks = [place for place in range(1, 200) if places[place] > places[place - 1] + 1]
    assert breaks == [50, 100, 150]
    mean = sum(row.seconds for row in rows) / len(rows)
    assert sum(row.seconds for row in chosen) / 200 == pytest.approx(mean, rel=0.02)
    assert timing._blocks(rows, len(rows), 50) == list(rows)


def test_padded_frames_are_those_of_the_batches():
    given = small("pr", batching="shuffled", steps=7)
    rows = given.manifest.split("train")
    frames = timing._lengths(toy_upstream.toy(), given, None)
    order = Order(given.protocol, "frames", [frames[row.id] for row in rows], [row.seconds for row in rows])
    by_hand = []
    for step in range(7):
        lengths = [frames[rows[place].id] for place in order.update(step)[0].tolist()]
        by_hand.append(len(lengths) * max(lengths))
    assert timing._padded(given, frames, given.manifest) == pytest.approx(sum(by_hand) / 7)
    assert timing._padded(load("ks"), {}, load("ks").manifest) == 32
