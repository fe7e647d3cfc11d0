"""The store alone: what goes in comes out, whole or not at all, under keys of contents."""

import pytest
import torch
from toy_upstream import STATES, WIDTH, toy

from harness.features import Entry, FeatureStore, TaskFeatures
from harness.interface import SlimbenchError


def fill(store, key, frames=True, count=5, seed=0):
    states = torch.randn(STATES, count, WIDTH, generator=torch.Generator().manual_seed(seed))
    entry = Entry(key, count * 0.02, count, frames)
    store.save([entry], states.mean(1)[None], {key: states} if frames else {}, 1.0)
    return states


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

    monkeypatch.setattr("pathlib.Path.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        fill(store, "k1")
    assert not list(store.folder.iterdir())
    assert not FeatureStore(tmp_path, toy()).has("k1", frames=False)


def test_a_damaged_shard_is_named_with_the_remedy(tmp_path):
    store = FeatureStore(tmp_path, toy())
    fill(store, "k1")
    [shard] = store.folder.glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(SlimbenchError, match=r"damaged.*delete it") as error:
        FeatureStore(tmp_path, toy())
    assert str(shard) in str(error.value)


def test_estimate_is_near_what_the_disk_holds(tmp_path):
    store = FeatureStore(tmp_path, toy())
    fill(store, "k1", count=5000)
    [shard] = store.folder.glob("*.safetensors")
    assert store.bytes_needed(100.0, frames=True) == pytest.approx(shard.stat().st_size, rel=0.05)
