"""The weighted sum of the states and the number of frames, against s3prl's own ``Featurizer``."""

from collections import Counter

import parity_cases
import pytest
import s3prl_side
import torch
from torch import nn

from harness.probes.stacked import LAYERS, build_bank

TOLERANCE = 1e-5


@pytest.mark.parametrize("weights", [[0.0, 0.0, 0.0, 0.0], [1.0, -2.0, 0.5, 8.0]])
def test_weighted_sum(weights, tmp_path):
    case = parity_cases.make("ks", tmp_path)
    bank = build_bank([nn.Linear(1, 1)], case.num_states, "cpu")
    with torch.no_grad():
        assert torch.equal(case.featurizer.weights, bank.params[LAYERS][0])  # both start uniform
        case.featurizer.weights.copy_(torch.tensor(weights))
        bank.params[LAYERS][0] = torch.tensor(weights)
    places = [0, 5, 9]
    x, lengths = case.batch(places)
    expected = case.features(places)
    actual = bank.mix(x)[0]
    for row, feature in enumerate(expected):
        assert len(feature) == lengths[row]
        torch.testing.assert_close(actual[row, : lengths[row]], feature, atol=TOLERANCE, rtol=0)
    valid = torch.cat([actual[row, :length] for row, length in enumerate(lengths.tolist())])
    direction = torch.randn(valid.shape, generator=torch.Generator().manual_seed(0))
    (wanted,) = torch.autograd.grad((torch.cat(expected) * direction).sum(), [case.featurizer.weights])
    (found,) = torch.autograd.grad((valid * direction).sum(), [bank.params[LAYERS]])
    torch.testing.assert_close(found[0], wanted, atol=TOLERANCE, rtol=1e-5)


class Rated(nn.Module):
    """An upstream of one state, of which only the rate matters."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def get_downsample_rates(self, key):
        return self.rate

    def forward(self, waves):
        return {"hidden_states": [torch.zeros(1, len(waves[0]) // self.rate, 2)]}


def their_frames(rate, samples, frames):
    """How many frames s3prl keeps of utterances of some ``samples`` in a batch whose longest has ``frames``."""
    weighting = s3prl_side.featurizer(Rated(rate))
    waves = [torch.zeros(size) for size in samples]
    return [len(feature) for feature in weighting.tolist(waves, torch.zeros(len(samples), frames, 2))]


@pytest.mark.parametrize(
    ("samples", "frames"), [(16_000, 50), (16_160, 50), (24_000, 75), (24_160, 76), (128_000, 400)]
)
def test_s3prl_rounds_half_to_even(samples, frames):
    assert their_frames(320, [samples], frames + 3) == [frames]  # three frames more than there are: not capped
    assert round(samples / 320) == frames


def hubert_frames(samples):
    """Frames of HuBERT's seven convolutions: what the upstream yields for an utterance alone."""
    for kernel, stride in ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)):
        samples = (samples - kernel) // stride + 1
    return samples


def test_ours_are_the_frames_of_the_upstream_s3prl_may_take_one_more():
    """Over every length of two seconds, s3prl's rule gives one frame more for 75 % and never more than one.

    Alone, the end of the tensor cuts that frame off. In a batch it is a frame of padding.
    """
    samples = list(range(16_000, 48_000))
    own = [hubert_frames(size) for size in samples]
    surplus = Counter(round(size / 320) - frames for size, frames in zip(samples, own, strict=True))
    assert set(surplus) == {0, 1}
    assert surplus[1] / len(samples) == pytest.approx(0.75, abs=0.003)
    sizes = [16_000, 16_160, 24_000, 24_160, 128_000]
    assert [hubert_frames(size) for size in sizes] == [49, 50, 74, 75, 399]
    for size, frames in zip(sizes, map(hubert_frames, sizes), strict=True):
        assert their_frames(320, [size], frames) == [frames]  # alone: ours
    assert their_frames(320, sizes, 399) == [50, 50, 75, 76, 399]  # in a batch: padding, but for the longest


def test_filter_banks_have_up_to_two_padded_frames_in_a_batch():
    """25 ms windows each 10 ms: s3prl's rule gives two frames more, or one (0.3 % of lengths); alone they are cut."""
    samples = range(16_000, 48_000)
    surplus = Counter(round(size / 160) - ((size - 400) // 160 + 1) for size in samples)
    assert set(surplus) == {1, 2}
    assert surplus[1] / len(samples) == pytest.approx(1 / 320)
    assert their_frames(160, [16_000, 32_000], 198) == [100, 198]
    assert their_frames(160, [16_000], 98) == [98]
