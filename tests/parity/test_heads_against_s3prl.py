"""Our heads, losses and augmentation against s3prl 0.4.18's own modules with copied weights: outputs and gradients."""

import importlib

import numpy as np
import pytest
import torch
from torch import nn

from downstreams import heads
from downstreams.asv import ASV
from harness import augment, metrics
from harness.interface import Labels

pytest.importorskip("s3prl", reason="s3prl is not installed (it comes with the dev extra)")
TOLERANCE = 1e-5
WIDTH = 24


def s3prl(module):
    return importlib.import_module(f"s3prl.downstream.{module}")


def copy(pairs):
    with torch.no_grad():
        for ours, theirs in pairs:
            ours.copy_(theirs)


def assert_same(pairs):
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.grad, theirs.grad, atol=TOLERANCE, rtol=1e-4)


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.randn(3, 30, WIDTH), torch.tensor([30, 21, 17])


def linear_pairs(ours, theirs):
    return [(ours.weight, theirs.weight), (ours.bias, theirs.bias)]


def test_frame_head(batch):
    x, lengths = batch
    projector = nn.Linear(WIDTH, 256)
    theirs = s3prl("model").FrameLevel(256, 11)
    ours = heads.FrameHead(WIDTH, 11)
    pairs = linear_pairs(ours.projector, projector) + linear_pairs(ours.linear, theirs.linear)
    copy(pairs)
    expected, _ = theirs(projector(x), lengths)
    actual = ours(x, lengths)
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)
    weight = torch.randn_like(expected)
    (expected * weight).sum().backward()
    (actual * weight).sum().backward()
    assert_same(pairs)


def test_utterance_head(batch):
    x, lengths = batch
    projector = nn.Linear(WIDTH, 256)
    theirs = s3prl("model").UtteranceLevel(256, 7)
    ours = heads.UtteranceHead(WIDTH, 7)
    pairs = linear_pairs(ours.projector, projector) + linear_pairs(ours.linear, theirs.post_net.linear)
    copy(pairs)
    expected, _ = theirs(projector(x), lengths)
    actual = ours(x, lengths)
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)
    expected.square().sum().backward()
    actual.square().sum().backward()
    assert_same(pairs)


def test_recurrent_head(batch):
    x, lengths = batch
    projector = nn.Linear(WIDTH, 20)
    theirs = (
        s3prl("asr.model")
        .RNNs(
            20,
            32,
            320,
            "LSTM",
            True,
            [16, 16],
            [0.2, 0.2],
            [False, False],
            [False, False],
            [1, 1],
            "concat",
            total_rate=-1,
        )
        .eval()
    )
    ours = heads.RecurrentHead(WIDTH, 32, project=20, hidden=16).eval()
    pairs = linear_pairs(ours.projector, projector) + linear_pairs(ours.linear, theirs.linear)
    for mine, other in zip((ours.rnn1, ours.rnn2), theirs.rnns, strict=True):
        pairs += [(mine.get_parameter(name), value) for name, value in other.layer.named_parameters()]
    copy(pairs)
    expected, _ = theirs(projector(x), lengths)
    actual = ours(x, lengths)
    valid = heads.frame_mask(lengths, x.shape[1])
    torch.testing.assert_close(actual[valid], expected[valid], atol=TOLERANCE, rtol=0)
    weight = torch.randn_like(actual[valid])
    (actual[valid] * weight).sum().backward()
    (expected[valid] * weight).sum().backward()
    assert_same(pairs)


@pytest.fixture
def speaker_models():
    torch.manual_seed(2)
    module = s3prl("sv_voxceleb1.model")
    projector = nn.Linear(WIDTH, 12)
    options = {"dropout_p": 0.0, "batch_norm": False, "agg_dim": 18}
    theirs = module.Model(12, 18, "SP", "XVector", "UtteranceExtractor", options)
    objective = module.AMSoftmaxLoss(12, 5)
    ours = heads.SpeakerHead(WIDTH, 5, project=12, channels=12, pool=18, embed=12)
    pairs = [*linear_pairs(ours.projector, projector), (ours.speakers, objective.W)]
    for mine, other in zip(ours.tdnn, theirs.framelevel_feature_extractor.module, strict=True):
        pairs += linear_pairs(mine, other.kernel)
    extractor = theirs.utterancelevel_feature_extractor
    pairs += linear_pairs(ours.embed1, extractor.linear1) + linear_pairs(ours.embed2, extractor.linear2)
    copy(pairs)
    return ours, projector, theirs, objective, pairs


def test_speaker_head_and_am_softmax(batch, speaker_models):
    ours, projector, theirs, objective, pairs = speaker_models
    x, _ = batch
    targets = [[3], [0], [4]]
    expected = objective(theirs(projector(x), torch.zeros(3, 30)), torch.tensor([3, 0, 4]))
    lengths = torch.full((3,), 30)
    labels = Labels((tuple("abcde"),))
    actual = ASV.loss(ours.train()(x, lengths), lengths, targets, labels).mean()
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=1e-6)
    expected.backward()
    actual.backward()
    assert_same(pairs)


def test_speaker_embedding_is_the_one_that_s3prl_scores(batch, speaker_models):
    ours, projector, theirs, _, _ = speaker_models
    x, lengths = batch
    actual = ours.eval()(x, lengths)
    for i, length in enumerate(lengths.tolist()):  # alone, where s3prl's pooling has no frame too many
        alone = x[i : i + 1, :length]
        expected = theirs.inference(projector(alone), torch.zeros(1, length))
        torch.testing.assert_close(actual[i], nn.functional.normalize(expected, dim=-1)[0], atol=TOLERANCE, rtol=0)


def test_equal_error_rate():
    generator = np.random.default_rng(0)
    same = generator.random(300) < 0.4
    scores = np.round(generator.normal(same * 1.2, 1.0), 1)  # rounding makes ties
    expected, _ = s3prl("sv_voxceleb1.utils").EER(same.astype(int), scores)
    assert metrics.equal_error_rate(same, scores) == pytest.approx(100 * expected, abs=1e-9)


@pytest.mark.parametrize(("centre", "shift"), [(8, -3), (20, 5), (12, 0)])
def test_time_warp(monkeypatch, centre, shift):
    draws = iter([torch.tensor([centre]), torch.tensor([centre + shift - 1])])
    x = torch.randn(1, 30, WIDTH)
    expected = x.clone()
    monkeypatch.setattr(torch, "randint", lambda *args, **kwargs: next(draws))
    expected = s3prl("specaug").TimeWarp(window=5).time_warp(expected)
    actual = augment.time_warp(x, centre, centre + shift)
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)


def test_masks(monkeypatch):
    generator = torch.Generator().manual_seed(3)
    kept = []
    real = torch.randint

    def recorded(low, high, size, generator=None, device=None):
        kept.append(real(low, high, size, generator=generator))
        return kept[-1]

    monkeypatch.setattr(torch, "randint", recorded)
    ours = augment.masks(4, 60, 2, 40, generator)
    draws = iter([draw.squeeze(2) for draw in kept])
    monkeypatch.setattr(torch, "randint", lambda *args, **kwargs: next(draws))
    spec = torch.ones(4, 60, 8)
    s3prl("specaug").MaskAlongAxis(mask_width_range=(0, 40), num_mask=2, dim="time")(spec)
    assert ours.any()
    assert torch.equal(ours, spec[:, :, 0] == 0)
