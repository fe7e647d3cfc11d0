"""Masked unit prediction: units, growing, the layers that predict."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchaudio

from upstreams.distillation import pretrain, units
from upstreams.students.mini import MiniConfig, MiniWavLM

TINY = MiniConfig(layers=2, width=32, ffn=64, head_width=16)


def test_deltas_are_torchaudios():
    x = torch.randn(2, 40, 13)
    expected = torchaudio.functional.compute_deltas(x.transpose(1, 2), win_length=5)
    torch.testing.assert_close(units.deltas(x).transpose(1, 2), expected, atol=1e-6, rtol=0)


def test_mean_removed_mfcc_ignores_a_constant_filter():
    logmel = torch.randn(1, 60, 80)
    coloured = logmel + torch.randn(80)
    torch.testing.assert_close(units.mfcc(logmel), units.mfcc(coloured), atol=1e-4, rtol=0)
    assert not torch.allclose(units.mfcc(logmel, remove_mean=False), units.mfcc(coloured, remove_mean=False), atol=0.1)


def test_codebook_names_the_nearest_centroid():
    features = np.random.default_rng(1).normal(size=(500, 6)).astype(np.float32)
    book = units.Codebook.fit(features, 9, seed=0)
    x = torch.from_numpy(features[:50])
    scaled = (x - book.mean) / book.std
    brute = torch.cdist(scaled[None], book.centroids[None])[0].argmin(-1)
    assert torch.equal(book(x[None])[0], brute)


def test_growing_repeats_each_layer_in_place():
    old, new = MiniWavLM(TINY), MiniWavLM(MiniConfig(layers=4, width=32, ffn=64, head_width=16))
    pretrain.grow_from(new, old)
    for index, layer in enumerate(new.layers):
        torch.testing.assert_close(layer.state_dict(), old.layers[index // 2].state_dict(), rtol=0, atol=0)
    assert torch.equal(new.project.weight, old.project.weight)


def test_position_buckets_are_wavlms():
    from transformers.models.wavlm.modeling_wavlm import WavLMAttention

    config = MiniConfig(layers=1, width=32, ffn=64, head_width=16)
    theirs = WavLMAttention(32, 2, num_buckets=config.buckets, max_distance=config.max_distance)
    offset = torch.arange(-400, 401)
    expected = theirs._relative_positions_bucket(offset)
    assert torch.equal(MiniWavLM(config).bias.bucket(offset), expected)


def test_intermediate_supervision_gives_gradient_to_early_layers_only_through_their_own_heads():
    model = pretrain.Pretrainer(TINY, (5, 3), predict=(1, 2))
    early, late = model(torch.randn(2, 48, 80), torch.zeros(2, 24, dtype=torch.bool))
    assert [x.shape[-1] for x in early] == [x.shape[-1] for x in late] == [5, 3]
    early[0].sum().backward()
    assert model.encoder.layers[0].up.weight.grad is not None
    assert model.encoder.layers[1].up.weight.grad is None


def test_a_state_that_is_not_there_cannot_predict():
    with pytest.raises(ValueError, match="within 1 to 2"):
        pretrain.Iteration(TINY, 1, 8, predict=(3,))
