"""The cache as a whole: kept within its limit without taking what is needed, listed, verified, pruned."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_upstream import STATES, WIDTH, toy

from harness import audio, cli
from harness.interface import SlimbenchError
from harness.store import cache, digests
from harness.store.features import Entry, FeatureStore

DAY = 86_400


def fill(store, *keys, frames=True, count=500):
    """One shard per key, all of about one size."""
    for key in keys:
        states = torch.randn(STATES, count, WIDTH, generator=torch.Generator().manual_seed(len(key)))
        entries = [Entry(key, count * 0.02, count, frames)]
        store.save(entries, states.mean(1)[None], {key: states} if frames else {}, 1.0)


def file_of(store, key):
    [name] = store.shards_of({key})
    return store.folder / name


def used(store, key, day):
    """Say that a shard was last used on that day."""
    os.utime(file_of(store, key), (day * DAY, day * DAY))


def total(folder):
    return sum(file.stat().st_size for file in folder.glob("features/*/*.safetensors"))


def store_of(folder, seed=0, name="toy"):
    upstream = toy(seed)
    upstream.name = name
    return FeatureStore(folder, upstream)


def run(*arguments):
    return cli.main(["cache", *map(str, arguments)])


@pytest.fixture
def two(tmp_path):
    """Two stores that nobody uses, of three shards each; days of last use 1 to 6, turn by turn."""
    for seed in (0, 1):
        store = store_of(tmp_path, seed, f"toy{seed}")
        fill(store, "a", "b", "c")
        for number, key in enumerate("abc"):
            used(store, key, 1 + 2 * number + seed)
    return tmp_path


SIZE = 2 * 500 * WIDTH * 2 + STATES * WIDTH * 4
"""Bytes of the tensors of one shard; its header comes on top."""


def keys_left(folder):
    return [
        "".join(key for key in "abc" if store_of(folder, seed, f"toy{seed}").has(key, frames=True)) for seed in (0, 1)
    ]


def test_what_was_used_longest_ago_goes_first_over_all_stores(two):
    store = store_of(two, 2, "third")
    one = total(two) / 6
    assert one > SIZE
    assert cache.keep_within(7 * one, store, {"x"}, coming=one) == 0
    assert cache.keep_within(6 * one, store, {"x"}, coming=one) == pytest.approx(one, rel=0.01)
    assert keys_left(two) == ["bc", "abc"]
    cache.keep_within(4 * one, store, {"x"}, coming=0.9 * one)
    assert keys_left(two) == ["c", "bc"]
    assert total(two) + 0.9 * one <= 4 * one


def test_reading_saves_a_shard_from_going_first(two):
    one = total(two) / 6
    store_of(two, 0, "toy0").frames("a")
    cache.keep_within(5 * one, store_of(two, 2), set(), coming=0.0)
    assert keys_left(two) == ["abc", "bc"]


def test_what_the_run_needs_stays_even_if_it_is_the_oldest(two):
    store = store_of(two, 0, "toy0")
    one = total(two) / 6
    cache.keep_within(3 * one, store, {"a", "b", "new"}, coming=0.9 * one)
    del store
    assert keys_left(two) == ["ab", ""]
    store = store_of(two, 0, "toy0")
    assert cache.keep_within(one, store, {"a", "b"}) == 0  # nothing is to come, and both are needed
    del store
    assert keys_left(two) == ["ab", ""]


def test_a_store_whose_last_shard_goes_leaves_nothing_behind(two):
    cache.keep_within(1.0, store_of(two, 2), set())
    assert not list((two / "features").iterdir())


def test_too_small_a_limit_is_one_sentence_and_deletes_nothing(two):
    store = store_of(two, 0, "toy0")
    with pytest.raises(SlimbenchError, match=r"limit is 1e-06 GB; raise it .*--cache-limit.*fewer tasks") as error:
        cache.keep_within(1e3, store, {"a"}, coming=1e6)
    assert "\n" not in str(error.value)
    assert keys_left(two) == ["abc", "abc"]


HOLD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from toy_upstream import toy
from harness.store.features import FeatureStore
store = FeatureStore(Path(sys.argv[1]), toy(0))
print("open", flush=True)
sys.stdin.read()
print(float(store.frames("a").float().sum()))
"""


@pytest.fixture
def other(two):
    """Another process that has the first store open."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(two), str(Path(__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "open\n"
    yield process
    process.kill()
    process.communicate()


def test_nothing_of_a_store_goes_that_another_process_has_open(two, other, capsys):
    one = total(two) / 6
    assert {store.names[0]: store.in_use for store in cache.stores(two)} == {"toy0": True, "toy1": False}
    cache.keep_within(one, store_of(two, 2), set())
    assert run("prune", "--cache", two, "--to", 0, "--yes") == 0
    mine = store_of(two, 0, "toy0")
    assert cache.keep_within(one, mine, set()) == 0
    with pytest.raises(SlimbenchError, match="in use by other runs"):
        cache.keep_within(one, mine, set(), coming=1.0)
    assert keys_left(two) == ["abc", ""]
    del mine
    assert float(other.communicate()[0]) != 0.0
    cache.keep_within(1.1 * one, store_of(two, 2), set())
    assert keys_left(two) == ["a", ""]  # which the other process has read at last


def test_the_limit_comes_from_the_option_then_the_environment(monkeypatch):
    monkeypatch.delenv(cache.LIMIT, raising=False)
    assert cache.limit() is None
    assert cache.keep_within(None, None, set(), 1e18) == 0
    monkeypatch.setenv(cache.LIMIT, "2.5")
    assert cache.limit() == 2.5e9
    assert cache.limit(4) == 4e9
    for wrong in ("much", "0", "-1", "nan", "inf"):
        monkeypatch.setenv(cache.LIMIT, wrong)
        with pytest.raises(SlimbenchError, match=f"{cache.LIMIT} is '{wrong}'; it must be"):
            cache.limit()


def test_list_says_what_is_there(two, capsys):
    fill(store_of(two, 1, "alias"), "pooled", frames=False)
    assert run("list", "--cache", two) == 0
    text = capsys.readouterr().out
    header, newest, oldest, sum_up = text.splitlines()
    assert header.split() == "store upstream fingerprint dtype hours GB frames means only last used".split()
    assert newest.split()[1:8] == ["toy1,", "alias", "toy-1", "float16", "0.01", "0.000", "3"]
    assert newest.split()[8] == "1"
    assert oldest.split()[1:3] == ["toy0", "toy-0"]
    assert "in 2 stores" in sum_up
    assert run("list", "--cache", two, "--json") == 0
    plain = json.loads(capsys.readouterr().out)
    assert [store["upstreams"] for store in plain] == [["toy1", "alias"], ["toy0"]]
    assert plain[1]["hours"] == pytest.approx(3 * 10 / 3600, abs=1e-6)
    assert sum(store["bytes"] for store in plain) == total(two)
    assert run("list", "--cache", two / "nothing") == 0
    assert "no features" in capsys.readouterr().out


def test_verify_names_damage_and_repair_lets_it_be_made_again(two, capsys):
    assert run("verify", "--cache", two) == 0
    assert capsys.readouterr().out == "6 shards are whole\n"
    store = store_of(two, 0, "toy0")
    bit, cut = file_of(store, "a"), file_of(store, "b")
    content = bytearray(bit.read_bytes())
    content[-5] ^= 1
    bit.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:-100])
    assert run("verify", "--cache", two) == 1
    said = capsys.readouterr().out
    assert said.startswith("4 shards are whole, 2 are damaged:\n")
    assert f"{bit}: " in said
    assert f"{cut}: " in said
    assert "--repair" in said
    assert run("verify", "--cache", two, "--repair") == 0
    assert not bit.exists()
    assert not cut.exists()
    store.refresh()
    assert [store.has(key, frames=True) for key in "abc"] == [False, False, True]
    fill(store, "a", "b")
    assert run("verify", "--cache", two) == 0


def test_verifying_is_no_use(two):
    before = sorted((file.name, file.stat().st_mtime) for file in two.glob("features/*/*.safetensors"))
    run("verify", "--cache", two)
    assert sorted((file.name, file.stat().st_mtime) for file in two.glob("features/*/*.safetensors")) == before


def test_verify_reads_remembered_audio_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(digests, "_SETTLED", 0)
    file, memo = tmp_path / "a.wav", tmp_path / audio.MEMO
    file.write_bytes(b"sound")
    os.utime(file, (DAY, DAY))
    audio.file_digests([file], memo)
    assert run("verify", "--cache", tmp_path, "--audio") == 0
    assert "1 of 1 remembered audio files are as they were" in capsys.readouterr().out
    memo.write_text("0" * 64 + memo.read_text()[64:])
    assert run("verify", "--cache", tmp_path, "--audio") == 1
    assert f"{file}: its bytes have changed" in capsys.readouterr().out
    assert run("verify", "--cache", tmp_path, "--audio", "--repair") == 0
    assert run("verify", "--cache", tmp_path, "--audio") == 0


def test_prune_says_first_and_deletes_with_yes(two, capsys, monkeypatch):
    monkeypatch.delenv(cache.LIMIT, raising=False)
    one = total(two) / 6
    assert run("prune", "--cache", two) == 2
    assert "--to GB" in capsys.readouterr().err
    assert run("prune", "--cache", two, "--to", 4.5 * one / 1e9) == 0
    said = capsys.readouterr().out
    assert "nothing is deleted without --yes" in said
    assert total(two) == 6 * one
    assert run("prune", "--cache", two, "--to", 4.5 * one / 1e9, "--yes") == 0
    assert keys_left(two) == ["bc", "bc"]
    assert run("prune", "--cache", two, "--to", 4.5 * one / 1e9, "--yes") == 0
    assert capsys.readouterr().out.endswith("nothing to delete\n")


def test_prune_by_upstream_by_age_and_by_the_limit(two, capsys, monkeypatch):
    one = total(two) / 6
    assert run("prune", "--cache", two, "--upstream", "toy9", "--yes") == 2
    assert "there are toy0, toy1" in capsys.readouterr().err
    assert run("prune", "--cache", two, "--upstream", "toy1", "--to", 4.5 * one / 1e9, "--yes") == 0
    assert keys_left(two) == ["abc", "c"]
    since_day_4 = (cache.os.stat(two).st_mtime - 4 * DAY) / DAY
    assert run("prune", "--cache", two, "--unused-for", since_day_4, "--yes") == 0
    assert keys_left(two) == ["c", "c"]
    monkeypatch.setenv(cache.LIMIT, str(1.5 * one / 1e9))
    assert run("prune", "--cache", two, "--yes") == 0
    assert keys_left(two) == ["", "c"]
    assert run("prune", "--cache", two, "--upstream", "toy-1", "--yes") == 0
    assert keys_left(two) == ["", ""]
