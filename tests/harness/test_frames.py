"""Cache or stream: the choice for SUPERB's sizes, worked out by hand."""

import dataclasses
from types import SimpleNamespace

import pytest
from toy_probe import toy_manifest

from downstreams.asr import ASR
from downstreams.asv import ASV
from downstreams.pr import PR
from harness.extraction.frames import Room, choose, demand, of_manifest

HOURS = 3600.0
TB = 1e12
LIBRI = [(f"libri{i}", 12.69) for i in range(28_539)]
VOX = [(f"vox{i}", 6.3) for i in range(1_000)]
OTHERS = {"dev": 5.4 * HOURS, "test": 5.4 * HOURS}


def wanted(task, rows=LIBRI, size=400e9, **changes):
    return demand(task.name, dataclasses.replace(task.protocol, **changes), rows, OTHERS, size)


def test_a_task_of_a_plan_asks_for_what_the_store_lacks():
    table = toy_manifest("pr", lambda i: "P T")
    keys = {u.id: f"key of {u.id}" for u in table.utterances}
    store = SimpleNamespace(has=lambda key, frames: key.endswith("train3"), bytes_needed=lambda s, frames: 1000 * s)
    made = of_manifest("pr", PR.protocol, table, keys, store)
    assert made.bytes == pytest.approx(63 * 0.6 * 1000)
    assert made.seconds == pytest.approx(64 * 0.6)
    rows = [(keys[u.id], 0.6) for u in table.split("train")]
    assert made.order == demand("pr", PR.protocol, rows, {}, 0.0).order
    other = of_manifest("asr", ASR.protocol, table, keys, store)
    assert other.audio == made.audio
    assert other.order != made.order


def test_superb_passes_over_librispeech_are_those_of_the_published_count():
    both = choose([wanted(PR), wanted(ASR)], Room(disk=0.0))
    train = sum(seconds for _, seconds in LIBRI)
    expected = (2 * 11_280 * HOURS + 2 * 100 * 5.4 * HOURS + 2 * 5.4 * HOURS) / (train + 10.8 * HOURS)
    assert both["pr"].passes == both["asr"].passes == pytest.approx(expected, rel=0.02)
    assert both["pr"].way == both["asr"].way == "stream"
    assert both["pr"].together == ("pr",)
    assert "each for itself as their batches differ" in both["pr"].why


def test_the_same_batches_are_one_pass():
    same = {"batching": "by_length", "batch": 32, "accumulate": 1, "steps": 20_000, "eval_every": 1_000}
    both = choose([wanted(PR, **same), wanted(ASR, **same)], Room(disk=0.0))
    alone = choose([wanted(PR, **same)], Room(disk=0.0))
    assert both["pr"].together == both["asr"].together == ("pr", "asr")
    looks = 20 * 5.4 * HOURS + 5.4 * HOURS
    distinct = sum(seconds for _, seconds in LIBRI) + 10.8 * HOURS
    assert both["asr"].passes == pytest.approx(alone["pr"].passes + looks / distinct)
    assert "in one pass" in both["asr"].why
    other = choose([wanted(PR, **same), wanted(ASR, **{**same, "batch": 16})], Room(disk=0.0))
    assert other["pr"].together == ("pr",)


def test_what_fits_is_cached_and_shared_frames_count_once():
    size = 400e9
    both = [wanted(PR, size=size), wanted(ASR, size=size)]
    chosen = choose(both, Room(disk=1.5 * size))
    assert {choice.way for choice in chosen.values()} == {"cache"}
    assert chosen["pr"].why.startswith("400.0 GB of frames fit into 600.0 GB of disk; when streaming, pr and asr")
    assert chosen["pr"].passes == 1.0
    assert choose(both, Room(disk=TB, cap=100e9))["pr"].why.startswith(
        "400.0 GB of frames do not fit into 100.0 GB of limit of the cache"
    )


def test_the_audio_that_would_be_encoded_most_often_is_cached_first():
    demands = [wanted(ASV, VOX, size=300e9, steps=10), wanted(PR, size=300e9)]
    chosen = choose(demands, Room(disk=400e9))
    assert list(chosen) == ["asv", "pr"]
    assert (chosen["pr"].way, chosen["asv"].way) == ("cache", "stream")
    assert "100.0 GB of free disk" in chosen["asv"].why


def test_memory_that_holds_all_states_means_one_pass():
    chosen = choose([wanted(PR, size=1e9)], Room(disk=0.0, memory=2e9))["pr"]
    assert (chosen.way, chosen.passes) == ("stream", 1.0)
    assert "stay in memory" in chosen.why


@pytest.mark.parametrize("asked", ["cache", "stream"])
def test_the_user_has_the_last_word(asked):
    chosen = choose([wanted(PR)], Room(disk=0.0 if asked == "cache" else TB), asked)["pr"]
    assert chosen.way == asked
    assert chosen.why.startswith(f"--frames {asked} asks for it")


def test_folds_and_further_tests_are_encoded_too():
    rows = [(f"k{i}", 2.0) for i in range(10)]
    once = demand("pr", dataclasses.replace(PR.protocol, steps=10, eval_every=5), rows, {"dev": 3.0, "test": 7.0}, 1.0)
    updates = 10 * 2 * 10 / 10 * 20.0  # batches of at most ten utterances, two for an update
    assert once.encode == pytest.approx(updates + 2 * 3.0 + 7.0)
    more = demand(
        "pr",
        dataclasses.replace(PR.protocol, steps=10, eval_every=5),
        rows,
        {"dev": 3.0, "test": 7.0},
        1.0,
        folds=3,
        tests=2,
    )
    assert more.encode == pytest.approx(3 * (updates + 2 * 3.0 + 2 * 7.0))
    looked = dataclasses.replace(PR.protocol, steps=10, eval_every=5, looks_on_test=True)
    assert demand("pr", looked, rows, {"dev": 3.0, "test": 7.0}, 1.0).encode == pytest.approx(once.encode + 2 * 7.0)


def test_frames_that_are_stored_already_are_not_encoded_again():
    chosen = choose([wanted(PR, size=0.0)], Room(disk=0.0), "stream")["pr"]
    assert (chosen.encode, chosen.passes) == (0.0, 0.0)
    assert "all of them are stored already" in chosen.why


def test_tasks_that_do_not_run_cost_nothing_and_are_in_step_with_nobody():
    same = {"batching": "by_length", "batch": 32, "accumulate": 1, "steps": 20_000, "eval_every": 1_000}
    both = [wanted(PR, **same), wanted(ASR, **same)]
    one = choose(both, Room(disk=0.0), first=["pr"])
    assert one["pr"] == choose(both[:1], Room(disk=0.0))["pr"]
    assert one["asr"].way == "stream"


def test_what_the_user_asks_for_counts_per_task_and_what_runs_now_goes_first():
    demands = [wanted(ASV, VOX, size=300e9, steps=10), wanted(PR, size=300e9)]
    chosen = choose(demands, Room(disk=TB), {"asv": "stream"})
    assert {task: choice.way for task, choice in chosen.items()} == {"asv": "stream", "pr": "cache"}
    chosen = choose(demands, Room(disk=400e9), first=["asv"])
    assert {task: choice.way for task, choice in chosen.items()} == {"asv": "cache", "pr": "stream"}


def test_seconds_to_encode_are_those_of_the_tasks_in_step():
    same = {"batching": "by_length", "batch": 32, "accumulate": 1, "eval_every": 1_000}
    short, long = wanted(PR, **same, steps=20_000), wanted(ASR, **same, steps=40_000)
    both = choose([short, long], Room(disk=0.0))
    mean = sum(seconds for _, seconds in LIBRI) / len(LIBRI)
    by_hand = 40_000 * 32 * mean + (20 + 40 + 2) * 5.4 * HOURS
    assert both["pr"].encode == both["asr"].encode == pytest.approx(by_hand)
    apart = choose([wanted(PR, **same, steps=20_000), wanted(ASR, steps=40_000)], Room(disk=0.0))
    assert apart["pr"].encode == pytest.approx(20_000 * 32 * mean + 21 * 5.4 * HOURS)
    assert choose([short], Room(disk=TB))["pr"].encode == 0.0
    assert choose([short], Room(disk=0.0, memory=TB))["pr"].encode == pytest.approx(short.seconds)
