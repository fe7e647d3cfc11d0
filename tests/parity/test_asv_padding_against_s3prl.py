"""What s3prl's ASV makes of unequal lengths: its statistics take in one padded frame of all but the longest."""

import parity_cases
import pytest
import s3prl_side
import torch

from downstreams import heads

PLACES = [0, 1, 2, 3, 4, 5]


def pooled_by_s3prl(case, x, lengths):
    """s3prl's statistics of x (B, T, D), its mask as its expert makes it."""
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(n) for n in lengths], batch_first=True)
    return case.expert.model.agg_method(x, (1.0 - mask) * -100_000.0)


def test_s3prl_pools_one_frame_of_padding(tmp_path):
    case = parity_cases.make("asv", tmp_path)
    lengths = torch.tensor([9, 12, 20, 19])
    x = torch.randn(4, 20, 6, generator=torch.Generator().manual_seed(0))
    theirs = pooled_by_s3prl(case, x, lengths.tolist())
    valid = heads.statistics(x, lengths)
    one_more = heads.statistics(x, (lengths + 1).clamp(max=20))
    torch.testing.assert_close(theirs, one_more, atol=1e-5, rtol=0)
    torch.testing.assert_close(theirs[2], valid[2], atol=1e-5, rtol=0)  # the longest has no padding
    assert ((theirs - valid).abs().amax(1) > 0.05).tolist() == [True, True, False, True]


def losses(case, places):
    """Our mean loss, s3prl's on the batch, and s3prl's with each utterance alone."""
    targets = [case.targets[i] for i in places]
    x, lengths = case.batch(places)
    ours = case.task.loss(case.head.train()(x.mean(0), lengths), lengths, targets, case.labels).mean()
    batch, _ = s3prl_side.loss("asv", case.expert, case.features(places), targets)
    alone = [s3prl_side.loss("asv", case.expert, case.features([i]), [case.targets[i]])[0] for i in places]
    return ours, batch, torch.stack(alone).mean()


@pytest.mark.parametrize("equal", [True, False])
def test_only_unequal_lengths_in_a_batch_make_a_difference(equal, tmp_path):
    """Ours is s3prl's with every utterance alone, and s3prl's own batch where all are of one length."""
    case = parity_cases.make("asv", tmp_path, equal=equal)
    with torch.no_grad():
        for weight in case.expert.model.parameters():  # random weights are small: the biases would outweigh the speech
            weight.mul_(3.0 if weight.dim() > 1 else 1.0)
        s3prl_side.copied("asv", case.head, case.expert)
        ours, batch, alone = losses(case, PLACES)
    torch.testing.assert_close(ours, alone, atol=1e-5, rtol=1e-6)
    difference = float((batch - alone).abs())
    assert difference < 2e-5 if equal else 1e-3 < difference < 0.5


def test_its_size_falls_with_the_length(tmp_path):
    """The quirk in statistics of ReLU outputs: relative change of the pooled vector, by frames pooled."""
    case = parity_cases.make("asv", tmp_path)
    draw = torch.Generator().manual_seed(0)
    change = {}
    for length in (10, 100, 385):
        x = torch.randn(8, length + 5, 30, generator=draw).relu()
        lengths = torch.tensor([length] * 7 + [length + 5])
        theirs, valid = pooled_by_s3prl(case, x, lengths.tolist()), heads.statistics(x, lengths)
        change[length] = float(((theirs - valid)[:7].norm(dim=1) / valid[:7].norm(dim=1)).mean())
    assert change[10] > 5 * change[100] > 10 * change[385] > 0
    assert change[385] < 0.005
