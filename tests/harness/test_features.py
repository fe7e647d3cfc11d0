"""The store alone: what goes in comes out, whole or not at all, under keys of contents."""

import json
import os
import zlib

import pytest
import torch
import toy_processes
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toy_upstream import STATES, WIDTH, toy

from harness.interface import SlimbenchError
from harness.store.features import Entry, FeatureStore, TaskFeatures, sweep

DTYPES = {"float16": 2**-11, "bfloat16": 2**-8, "float32": 0.0}
"""Relative rounding error of each stored precision: half a unit in its last place."""


def fill(store, key, frames=True, count=5, seed=0):
    states = torch.randn(STATES, count, WIDTH, generator=torch.Generator().manual_seed(seed))
    entry = Entry(key, count * 0.02, count, frames)
    store.save([entry], states.mean(1)[None], {key: states} if frames else {}, 1.0)
    return states


def shards(store):
    return sorted(store.folder.glob("*.safetensors"))


def test_what_goes_in_comes_out_also_in_a_new_process_view(tmp_path):
    states = fill(FeatureStore(tmp_path, toy()), "k1")
    fill(FeatureStore(tmp_path, toy()), "k2", frames=False, count=7, seed=1)
    store = FeatureStore(tmp_path, toy())
    assert store.has("k1", frames=True)
    assert store.has("k2", frames=False)
    assert not store.has("k2", frames=True)
    assert not store.has("k3", frames=False)
    assert (store.num_frames("k1"), store.num_frames("k2")) == (5, 7)
    assert store.frames("k1").dtype == torch.float16
    torch.testing.assert_close(store.frames("k1").float(), states, atol=2e-3, rtol=1e-3)
    pooled = store.pooled(["k2", "k1"])
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled[1], states.mean(1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_frames_are_rounded_to_the_stored_precision_and_means_are_not(tmp_path, dtype):
    states = fill(FeatureStore(tmp_path, toy(), dtype), "k1", count=50)
    store = FeatureStore(tmp_path, toy(), dtype)
    assert store.frames("k1").dtype == getattr(torch, dtype)
    assert ((store.frames("k1").float() - states).abs() <= DTYPES[dtype] * states.abs() + 2**-25).all()
    assert torch.equal(store.pooled(["k1"])[0], states.mean(1))


def test_a_task_sees_its_utterances_in_its_own_order(tmp_path):
    store = FeatureStore(tmp_path, toy())
    one, two = fill(store, "k1"), fill(store, "k2", count=3, seed=2)
    source = TaskFeatures(store, {"u": "k2", "v": "k1", "again": "k2"})
    torch.testing.assert_close(source.pooled(["u", "v", "again"]), torch.stack([t.mean(1) for t in (two, one, two)]))
    assert source.num_frames("u") == 3
    assert source.frames("v").shape == (STATES, 5, WIDTH)


def test_other_weights_under_the_same_name_and_other_precision_hit_nothing(tmp_path):
    fill(FeatureStore(tmp_path, toy(0)), "k1")
    assert FeatureStore(tmp_path, toy(0)).has("k1", frames=True)
    assert toy(0).name == toy(1).name
    assert not FeatureStore(tmp_path, toy(1)).has("k1", frames=False)
    assert not FeatureStore(tmp_path, toy(0), "float32").has("k1", frames=False)


def test_a_store_says_all_names_of_its_upstream(tmp_path):
    fill(FeatureStore(tmp_path, toy()), "k1")
    renamed = toy()
    renamed.name = "another"
    store = FeatureStore(tmp_path, renamed)
    assert store.has("k1", frames=True)
    about = json.loads((store.folder / "about.json").read_text())
    assert (about["names"], about["upstream"], about["dtype"]) == (["toy", "another"], "toy-0", "float16")


def test_the_ledger_counts_an_encoding_again_when_it_is_done_again(tmp_path):
    store = FeatureStore(tmp_path, toy())
    fill(store, "k1", count=50)
    fill(store, "k2", count=100)
    assert store.ledger({"k1", "k2"}).ratio == 1.0
    fill(store, "k1", count=50)
    ledger = FeatureStore(tmp_path, toy()).ledger({"k1", "k2", "not there"})
    assert ledger.encoded_seconds == pytest.approx(4.0)
    assert ledger.distinct_seconds == pytest.approx(3.0)
    assert ledger.wall_seconds == pytest.approx(3.0)
    assert FeatureStore(tmp_path, toy()).ledger({"k2"}).ratio == 1.0


def test_a_half_written_shard_is_none(tmp_path, monkeypatch):
    store = FeatureStore(tmp_path, toy())

    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", stop)
        store.folder.mkdir(parents=True)
        with pytest.raises(KeyboardInterrupt):
            fill(store, "k1")
    assert not list(store.folder.glob("*safetensors*"))
    assert not FeatureStore(tmp_path, toy()).has("k1", frames=False)


def test_the_header_states_the_checksums_of_the_bytes(tmp_path):
    store = FeatureStore(tmp_path, toy(), "bfloat16")
    fill(store, "k1")
    [shard] = shards(store)
    with safe_open(shard, framework="pt") as file:
        sums = json.loads(file.metadata()["sums"])
    tensors = load_file(shard)
    assert sums.keys() == tensors.keys() == {"pooled", "k1"}
    for name, tensor in tensors.items():
        assert sums[name] == zlib.crc32(tensor.view(torch.int16 if name == "k1" else torch.int32).numpy().tobytes())


def test_a_cut_shard_is_named_with_the_remedy(tmp_path):
    store = FeatureStore(tmp_path, toy())
    fill(store, "k1")
    [shard] = shards(store)
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(SlimbenchError, match=r"damaged.*delete it") as error:
        FeatureStore(tmp_path, toy())
    assert str(shard) in str(error.value)


def flip(shard, place):
    """Turn one bit of the file."""
    content = bytearray(shard.read_bytes())
    content[place] ^= 0x10
    shard.write_bytes(content)


@pytest.mark.parametrize("place", [-1, "k1", "pooled"])
def test_one_wrong_bit_in_a_tensor_is_found_when_it_is_read(tmp_path, place):
    fill(FeatureStore(tmp_path, toy()), "k1")
    store = FeatureStore(tmp_path, toy())
    [shard] = shards(store)
    if isinstance(place, str):
        with safe_open(shard, framework="pt") as file:
            wanted = file.get_tensor(place).numpy().tobytes()
        place = shard.read_bytes().rindex(wanted) + 3
    flip(shard, place)
    with pytest.raises(SlimbenchError, match=r"do not match their checksum.*cache verify --repair"):
        (store.pooled(["k1"]), store.frames("k1"))


def test_a_wrong_digit_in_the_header_is_found(tmp_path):
    """An entry that claims another length is as bad as wrong states."""
    store = FeatureStore(tmp_path, toy())
    fill(store, "k1")
    [shard] = shards(store)
    content = shard.read_bytes()
    shard.write_bytes(content.replace(b'\\"num_frames\\": 5', b'\\"num_frames\\": 6'))
    assert shard.read_bytes() != content
    with pytest.raises(SlimbenchError, match="seal"):
        store.frames("k1")


def test_shards_of_an_early_version_are_read_and_taken_into_the_index(tmp_path):
    store = FeatureStore(tmp_path, toy())
    states = fill(store, "k1")
    [shard] = shards(store)
    with safe_open(shard, framework="pt") as file:
        early = {name: value for name, value in file.metadata().items() if name in ("entries", "wall_seconds")}
    save_file(load_file(shard), shard, metadata=early)
    (store.folder / "index.jsonl").unlink()
    for _ in range(2):
        again = FeatureStore(tmp_path, toy())
        torch.testing.assert_close(again.pooled(["k1"])[0], states.mean(1))
        assert again.frames("k1").shape == states.shape
    assert len((store.folder / "index.jsonl").read_text().splitlines()) == 1


def test_a_known_shard_is_not_opened_before_it_is_read(tmp_path, monkeypatch):
    fill(FeatureStore(tmp_path, toy()), "k1")
    monkeypatch.setattr("harness.store.shards.safe_open", None)
    store = FeatureStore(tmp_path, toy())
    assert store.has("k1", frames=True)
    assert store.ledger({"k1"}).ratio == 1.0


@pytest.mark.parametrize("harm", ["lost", "cut", "garbage", "empty"])
def test_a_harmed_index_costs_time_and_nothing_else(tmp_path, harm):
    store = FeatureStore(tmp_path, toy())
    one, two = fill(store, "k1"), fill(store, "k2", seed=1)
    index = store.folder / "index.jsonl"
    content = index.read_bytes()
    if harm == "lost":
        index.unlink()
    else:
        index.write_bytes({"cut": content[:-20], "garbage": b"\x00\xff[1]\n{}\n" + content[40:], "empty": b""}[harm])
    for view in (FeatureStore(tmp_path, toy()), FeatureStore(tmp_path, toy())):
        torch.testing.assert_close(view.pooled(["k1", "k2"]), torch.stack([one.mean(1), two.mean(1)]))
    fill(store, "k3", seed=2)
    store.refresh()
    assert all(store.has(key, frames=True) for key in ("k1", "k2", "k3"))


def test_which_of_two_encodings_is_read_does_not_depend_on_who_wrote_first(tmp_path):
    """Two shards with the same audio, in both orders of the index: the same one is read."""
    for folder, order in (("a", (0, 1)), ("b", (1, 0))):
        for number in order:
            store = FeatureStore(tmp_path / folder, toy())
            other = f"other{number}"
            states = torch.full((2, STATES, 4, WIDTH), float(number))
            entries = [Entry(key, 0.08, 4, True) for key in ("k", other)]
            store.save(entries, states.mean(2), dict(zip(("k", other), states, strict=True)), 1.0)
    read = [FeatureStore(tmp_path / folder, toy()).frames("k") for folder in "ab"]
    assert torch.equal(*read)


def test_a_shard_that_is_gone_is_said_with_the_remedy_and_forgotten_at_the_next_look(tmp_path):
    fill(FeatureStore(tmp_path, toy()), "k1")
    store = FeatureStore(tmp_path, toy())
    shards(store)[0].unlink()
    with pytest.raises(SlimbenchError, match=r"is gone.*repeat the command"):
        store.frames("k1")
    store.refresh()
    assert not store.has("k1", frames=False)
    states = fill(store, "k1", seed=3)
    torch.testing.assert_close(store.pooled(["k1"])[0], states.mean(1))


def test_estimate_is_near_what_the_disk_holds(tmp_path):
    store = FeatureStore(tmp_path, toy())
    fill(store, "k1", count=5000)
    [shard] = shards(store)
    assert store.bytes_needed(100.0, frames=True) == pytest.approx(shard.stat().st_size, rel=0.05)


def test_reading_marks_a_shard_as_used(tmp_path):
    fill(FeatureStore(tmp_path, toy()), "k1")
    store = FeatureStore(tmp_path, toy())
    [shard] = shards(store)
    os.utime(shard, (1_000_000_000, 1_000_000_000))
    store.refresh()
    assert shard.stat().st_mtime == 1_000_000_000
    store.frames("k1")
    assert shard.stat().st_mtime > 1_600_000_000


def test_a_store_that_cannot_be_written_can_be_read(tmp_path, monkeypatch):
    """As on a shared folder of another user; root may write anywhere, so the system's answer is made up."""
    states = fill(FeatureStore(tmp_path, toy()), "k1")
    [index] = tmp_path.glob("features/*/index.jsonl")
    index.unlink()
    really = os.open

    def refused(path, flags, *rest, **more):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(13, "Permission denied", str(path))
        return really(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refused)
    monkeypatch.setattr(os, "utime", lambda path: refused(path, os.O_RDWR))
    store = FeatureStore(tmp_path, toy())
    torch.testing.assert_close(store.pooled(["k1"])[0], states.mean(1))
    assert not index.exists()


@pytest.fixture
def other(tmp_path):
    """Another process that holds a claim until it is told to end."""
    process, line = toy_processes.start(toy_processes.claim, tmp_path)
    assert line.recv() is True
    yield process, line
    process.kill()
    process.join()


def locks(store):
    return list((store.folder / ".locks").glob("*.lock"))


def test_of_two_processes_one_may_do_a_piece_of_work(tmp_path, other):
    store = FeatureStore(tmp_path, toy())
    with store.claim("batch 1", wait=False) as mine, store.claim("batch 2", wait=False) as another:
        assert (mine, another) == (False, True)
    sweep(store.folder)
    assert len(locks(store)) == 1
    process, line = other
    line.send("end")
    process.join()
    assert process.exitcode == 0
    with store.claim("batch 1", wait=True) as mine:
        assert mine
    assert not locks(store)


def test_a_killed_process_leaves_no_claim_and_its_file_is_swept(tmp_path, other):
    store = FeatureStore(tmp_path, toy())
    process, _ = other
    process.kill()
    process.join()
    assert len(locks(store)) == 1
    sweep(store.folder)
    assert not locks(store)
    with store.claim("batch 1", wait=False) as mine:
        assert mine


def test_who_has_claimed_knows_what_others_have_stored(tmp_path):
    mine, theirs = FeatureStore(tmp_path, toy()), FeatureStore(tmp_path, toy())
    fill(theirs, "k1")
    assert not mine.has("k1", frames=True)
    with mine.claim("a", wait=True) as may:
        assert may
        assert mine.has("k1", frames=True)


def test_two_processes_with_the_same_work_do_each_piece_once(tmp_path):
    processes = [toy_processes.start(toy_processes.race, tmp_path) for _ in range(2)]
    for _, line in processes:
        line.send("go")
    said = [line.recv() for _, line in processes]
    for process, _ in processes:
        process.join()
    assert [process.exitcode for process, _ in processes] == [0, 0]
    assert sorted(key for keys in said for key in keys) == sorted(f"k{number}" for number in range(40))
    store = FeatureStore(tmp_path, toy())
    assert store.ledger({f"k{number}" for number in range(40)}).ratio == 1.0
    assert len(list(store.folder.glob("*.safetensors"))) == 40
    lines = (store.folder / "index.jsonl").read_text().splitlines()
    assert len(set(lines)) == 40  # who opens the store between a shard and its line writes the same line too
    assert not locks(store)
