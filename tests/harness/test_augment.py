import torch

from harness.probes import augment
from harness.randomness import generator


def test_augmenting_the_states_is_augmenting_their_sum():
    x = torch.randn(3, 4, 60, 80)
    lengths = torch.tensor([60, 44, 9, 30])
    weights = torch.tensor([0.2, 0.5, 0.3])
    mixed = torch.einsum("l,lbtd->btd", weights, x)[None].clone()
    once = augment.spec_augment(mixed, lengths, generator("place"))[0]
    states = augment.spec_augment(x.clone(), lengths, generator("place"))
    torch.testing.assert_close(torch.einsum("l,lbtd->btd", weights, states), once, atol=1e-5, rtol=0)
    assert (states == 0).any()


def test_draws_follow_the_generator():
    x, lengths = torch.randn(2, 2, 60, 80), torch.tensor([60, 50])
    first, again, other = (augment.spec_augment(x.clone(), lengths, generator("augment", step)) for step in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_warp_leaves_padding_and_short_utterances_alone():
    x = torch.ones(1, 2, 40, 1000)  # so wide that its masks cannot cover every feature
    lengths = torch.tensor([10, 40])
    x[:, 0, 10:] = 7.0
    out = augment.spec_augment(x, lengths, generator("place"))
    assert set(out[0, 0].unique().tolist()) <= {0.0, 1.0, 7.0}
    assert set(out[0, 0, 10:].unique().tolist()) <= {0.0, 7.0}


def test_mask_widths_stay_below_their_bounds():
    for step in range(20):
        mask = augment.masks(8, 200, 1, 40, generator("mask", step))
        assert mask.sum(1).max() < 40
