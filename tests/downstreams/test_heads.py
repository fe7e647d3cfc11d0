import pytest
import torch
from torch import nn

from downstreams import heads
from downstreams.asr import ASR
from downstreams.asv import ASV
from downstreams.er import ER
from downstreams.ic import IC
from downstreams.ks import KS
from downstreams.pr import PR
from downstreams.sid import SID
from harness.interface import SlimbenchError, Task
from harness.probes.stacked import build_bank
from harness.randomness import Noise

COUNTS = {ASR: 42_828_832, PR: 215_882, KS: 199_948, IC: 203_032, SID: 518_371, ASV: 6_730_204, ER: 197_892}
WIDE = {ASR: 43_090_976, PR: 281_418, KS: 265_484, IC: 268_568, SID: 583_907, ASV: 6_861_276, ER: 263_428}
SMALL = {
    "RecurrentHead": {"project": 10, "hidden": 6},
    "FrameHead": {"project": 9},
    "UtteranceHead": {"project": 9},
    "SpeakerHead": {"project": 8, "channels": 10, "pool": 12, "embed": 6},
}


def small(kind):
    return getattr(heads, kind)(14, 5, **SMALL[kind])


@pytest.mark.parametrize("task", COUNTS, ids=lambda task: task.name)
def test_parameter_counts_are_those_of_superb(task):
    assert isinstance(task, Task)
    for width, expected in ((768, COUNTS[task]), (1024, WIDE[task])):
        head = task.head(width, task.superb_labels, {})
        assert sum(p.numel() for p in head.parameters()) == expected


def test_unknown_head_size_is_named():
    with pytest.raises(SlimbenchError, match=r"'channel'.*channels"):
        ASV.head(16, 4, {"channel": 3})


def test_mean_commutes_with_the_first_linear():
    head = small("UtteranceHead")
    x, lengths = torch.randn(4, 40, 14), torch.tensor([40, 7, 23, 1])
    means = torch.stack([item[:length].mean(0) for item, length in zip(x, lengths.tolist(), strict=True)])
    torch.testing.assert_close(head(means, lengths), head(x, lengths), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("kind", SMALL)
def test_output_does_not_depend_on_padding_or_neighbours(kind, mode):
    head = getattr(small(kind), mode)()
    head.dropout = 0.0
    x, lengths = torch.randn(3, 40, 14), torch.tensor([40, 17, 29])
    together = head(x, lengths)
    for i, length in enumerate(lengths.tolist()):
        alone = head(x[i : i + 1, :length], lengths[i : i + 1])[0]
        item = together[i] if together.dim() == 2 else together[i, :length]
        torch.testing.assert_close(item, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", SMALL)
def test_bank_computes_each_head(kind):
    own = [small(kind).eval() for _ in range(3)]
    bank = build_bank(own, num_states=2, device="cpu")
    bank.params["layers"].data.normal_()
    x, lengths = torch.randn(2, 4, 30, 14), torch.tensor([30, 16, 20, 25])
    output = bank(x, lengths)
    for r, head in enumerate(own):
        weights = bank.params["layers"][r].softmax(0)
        mixed = weights[0] * x[0] + weights[1] * x[1]
        torch.testing.assert_close(output[r], head(mixed, lengths), atol=1e-5, rtol=0)


def test_lstm_equals_packed_sequence_with_gradients():
    head = heads.RecurrentHead(14, 5, project=10, hidden=6).eval()
    x, lengths = torch.randn(3, 12, 14, requires_grad=True), torch.tensor([5, 12, 9])
    valid = heads.frame_mask(lengths, 12)
    packed = nn.utils.rnn.pack_padded_sequence(head.projector(x), lengths, batch_first=True, enforce_sorted=False)
    for rnn in (head.rnn1, head.rnn2):
        packed, _ = rnn(packed)
    expected = head.linear(nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)[0])[valid]
    actual = head(x, lengths)[valid]
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)
    inputs = [x, *head.parameters()]
    weight = torch.randn_like(expected)
    grads = [torch.autograd.grad((value * weight).sum(), inputs) for value in (actual, expected)]
    for mine, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_dropout_follows_the_seed():
    head = heads.RecurrentHead(14, 5, project=10, hidden=6).train()
    bank = build_bank([head, head, head], num_states=1, device="cpu")
    x, lengths = torch.randn(1, 2, 30, 14), torch.tensor([30, 30])
    first, second, third = bank(x, lengths, Noise([0, 1, 0], 7, "cpu"))
    assert torch.equal(first, third)
    assert not torch.allclose(first, second)
    assert torch.equal(bank(x, lengths, Noise([1, 1, 1], 7, "cpu"))[0], second)
    assert not torch.allclose(bank(x, lengths, Noise([0, 1, 0], 8, "cpu"))[0], first)


def test_dropout_keeps_the_mean_and_drops_a_fifth():
    head = heads.RecurrentHead(14, 5, project=10, hidden=6)
    noise = Noise([0], 0, "cpu")
    (uniform,) = noise((4, 500, 12))
    kept = (uniform >= head.dropout).float().mean().item()
    assert kept == pytest.approx(0.8, abs=0.01)


def test_gradient_is_finite_where_a_channel_never_varies():
    x = torch.zeros(2, 20, 4, requires_grad=True)
    heads.statistics(x, torch.tensor([20, 11])).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_statistics_are_those_of_the_valid_frames():
    x, lengths = torch.randn(2, 20, 4), torch.tensor([20, 11])
    expected = torch.stack([torch.cat([v[:n].mean(0), v[:n].std(0)]) for v, n in zip(x, lengths.tolist(), strict=True)])
    torch.testing.assert_close(heads.statistics(x, lengths), expected, atol=1e-6, rtol=0)
