import pytest
import torch
from toy_probe import ToyFeatures, toy_manifest

from harness.interface import SlimbenchError
from harness.probes import batches
from harness.randomness import generator

MANIFEST = toy_manifest("ks", lambda i: str(i % 3))
IDS = [u.id for u in MANIFEST.utterances]


@pytest.fixture(params=["in memory", "from the store"])
def table(request, monkeypatch):
    if request.param == "from the store":
        monkeypatch.setattr(batches, "_free_bytes", lambda device: 0)
    made = batches.Table(ToyFeatures(MANIFEST), IDS, "frames")
    assert (made.buffer is None) == (request.param == "from the store")
    return made


def test_frames_are_gathered_and_padded_with_zeros(table):
    features = ToyFeatures(MANIFEST)
    x, lengths = table.gather([5, 0, 17])
    assert x.dtype == torch.float32
    assert x.shape[2] == lengths.max()
    for place, index in enumerate([5, 0, 17]):
        expected = features.frames(IDS[index]).float()
        length = int(lengths[place])
        assert torch.equal(x[:, place, :length], expected)
        assert not x[:, place, length:].any()


def test_crops_are_windows_of_the_utterance(table):
    features = ToyFeatures(MANIFEST)
    starts = set()
    for step in range(30):
        x, lengths = table.gather([3, 8], 15, generator("crop", step))
        again, _ = table.gather([3, 8], 15, generator("crop", step))
        assert torch.equal(x, again)
        assert lengths.tolist() == [15, 15]
        whole = features.frames(IDS[3]).float()
        found = [s for s in range(whole.shape[1] - 14) if torch.equal(whole[:, s : s + 15], x[:, 0])]
        assert len(found) == 1
        starts.update(found)
    assert len(starts) > 3
    assert {0, features.num_frames(IDS[3]) - 15} <= starts | {0, features.num_frames(IDS[3]) - 15}


def test_means_are_gathered():
    features = ToyFeatures(MANIFEST)
    x, lengths = batches.Table(features, IDS, "pooled").gather([4, 2])
    assert torch.equal(x, features.pooled([IDS[4], IDS[2]]).transpose(0, 1))
    assert lengths.tolist() == [1, 1]


def test_changed_features_are_an_error():
    features = ToyFeatures(MANIFEST)
    features.num_frames = lambda name: 7
    with pytest.raises(SlimbenchError, match="extract them again"):
        batches.Table(features, IDS, "frames")


def test_evaluation_batches_hold_everything_once_and_bound_the_padding():
    lengths = [3000, 5, 900, 10_000, 50, 60, 70]
    made = batches.evaluation_batches(lengths, 4)
    assert sorted(i for batch in made for i in batch) == list(range(7))
    for batch in made:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= batches.EVAL_FRAMES
        assert len(batch) <= 4
