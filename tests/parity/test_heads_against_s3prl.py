"""Our heads against s3prl 0.4.18's own modules with copied weights: outputs, gradients, parameter counts."""

import parity_cases
import pytest
import s3prl_side
import torch
from torch import nn

from downstreams import heads
from downstreams.asv import ASV
from harness.interface import Labels

TOLERANCE = 1e-5
WIDTH = 24


def s3prl(module):
    return s3prl_side.module(f"downstream.{module}")


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


WIDTHS = (768, 1024, 384, 640)
COUNTS = {  # protocol section 4.0, in the order of WIDTHS
    "ks": (199_948, 265_484, 101_644, 167_180),
    "ic": (203_032, 268_568, 104_728, 170_264),
    "sid": (518_371, 583_907, 420_067, 485_603),
    "er": (197_892, 263_428, 99_588, 165_124),
    "pr": (215_882, 281_418, 117_578, 183_114),
    "asr": (42_828_832, 43_090_976, 42_435_616, 42_697_760),
    "asv": (6_730_204, 6_861_276, 6_533_596, 6_664_668),
}


@pytest.mark.parametrize(("width", "place"), [(width, place) for place, width in enumerate(WIDTHS)])
@pytest.mark.parametrize("name", COUNTS)
def test_parameter_for_parameter_at_the_published_sizes(name, width, place, tmp_path):
    """Every tensor of our head has its counterpart of the same shape in s3prl's expert, and none is left over."""
    task = parity_cases.TASKS[name]
    assert task.superb_labels == s3prl_side.CLASSES[name]
    with torch.device("meta"):
        theirs = s3prl_side.expert(name, width, tmp_path)
        ours = task.head(width, task.superb_labels, {})
    expected = {key: value.shape for key, value in theirs.named_parameters()}
    actual = {s3prl_side.their_name(name, key): value.shape for key, value in ours.named_parameters()}
    assert actual == expected
    assert sum(value.numel() for value in ours.parameters()) == COUNTS[name][place]


def test_initial_weights_have_the_same_distribution(tmp_path):
    """Both sides leave torch's initialisation alone; the speakers of AM-softmax are Xavier normal on both."""
    smaller = {"asr": {"project": 300, "hidden": 128}, "asv": {"pool": 400}}
    for name, task in parity_cases.TASKS.items():
        sizes = smaller.get(name, {})
        torch.manual_seed(0)
        theirs = s3prl_side.expert(name, 256, tmp_path, sizes)
        torch.manual_seed(1)
        ours = task.head(256, task.superb_labels, sizes)
        other = theirs.state_dict()
        for key, value in ours.state_dict().items():
            expected = other[s3prl_side.their_name(name, key)]
            if value.numel() > 2_000:
                assert float(value.std() / expected.std()) == pytest.approx(1.0, abs=0.1), key
            assert float(value.abs().max() / expected.abs().max()) == pytest.approx(1.0, abs=0.5), key
