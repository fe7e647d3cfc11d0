"""SpecAugment on the states before the weighted sum, against s3prl's own module on the sum, from the same draws."""

from unittest import mock

import pytest
import s3prl_side
import torch

from harness.probes import augment

TOLERANCE = 1e-5
LAYERS = 3
SHAPES = {  # frames of the utterances, width
    "asr": ([120, 340, 77, 205], 768),
    "narrow": ([50, 60, 41], 60),
    "too short to warp": ([10, 9, 3], 90),
    "just long enough": ([11, 11, 10, 12], 90),
    "one of the longest of LibriSpeech": ([1750], 240),
}


def compared(shape, seed):
    """Our mixture of augmented states and s3prl's augmented mixture, per utterance; and whether the streams agree."""
    lengths, width = SHAPES[shape]
    data = torch.Generator().manual_seed(100)
    x = torch.randn(LAYERS, len(lengths), max(lengths), width, generator=data)
    for row, length in enumerate(lengths):
        x[:, row, length:] = 0.0
    weights = torch.tensor([0.2, 0.5, 0.3], requires_grad=True)
    mixed = torch.einsum("l,lbtd->btd", weights, x)
    draw = torch.Generator().manual_seed(seed)
    with s3prl_side.draws_from(draw):
        specaug = s3prl_side.module("downstream.specaug").SpecAug(**s3prl_side.SPECAUG)
        theirs, _ = specaug([mixed[row, :length] for row, length in enumerate(lengths)])
    own = torch.Generator().manual_seed(seed)
    ours = augment.spec_augment(x.clone(), torch.tensor(lengths), own)
    ours = torch.einsum("l,lbtd->btd", weights.detach(), ours)
    assert torch.equal(own.get_state(), draw.get_state())  # as many draws on both sides
    return [ours[row, :length] for row, length in enumerate(lengths)], [part.detach() for part in theirs], mixed


@pytest.mark.parametrize("shape", SHAPES)
def test_same_draws_same_features(shape):
    changed = masked = 0
    for seed in range(2 if shape == "asr" else 8):
        ours, theirs, mixed = compared(shape, seed)
        for row, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            torch.testing.assert_close(mine, other, atol=TOLERANCE, rtol=0)
            assert torch.equal(mine == 0, other == 0)
            masked += int((other == 0).sum())
            kept = other != 0
            changed += int(((other - mixed[row, : len(other)]).abs()[kept] > 0.1).sum())
    assert masked
    assert (changed > 0) == (shape != "too short to warp")


@pytest.mark.parametrize("frames", [11, 30, 333])
def test_every_warp(frames):
    """All centres (some, for long utterances) and shifts that can be drawn, alone."""
    x = torch.randn(1, frames, 6, generator=torch.Generator().manual_seed(0))
    warp = s3prl_side.module("downstream.specaug").TimeWarp(window=augment.WINDOW)
    for centre in {5, 6, frames // 2, frames - 6} & set(range(5, frames - 5)):
        for target in range(centre - 4, centre + 6):
            draws = iter([torch.tensor([centre]), torch.tensor([target - 1])])
            with mock.patch.object(torch, "randint", lambda *args, draws=draws, **kwargs: next(draws)):
                expected = warp.time_warp(x.clone())
            torch.testing.assert_close(augment.time_warp(x, centre, target), expected, atol=TOLERANCE, rtol=0)


def test_starts_of_masks_are_bounded_by_the_longest_of_the_batch():
    """A batch with a mask of 39 frames leaves every utterance's last 39 starts out: seen in s3prl and in ours."""
    size, items, last = 60, 64, torch.zeros(2)
    for seed in range(200):
        ours = augment.masks(items, size, 2, 40, torch.Generator().manual_seed(seed))
        spec = torch.ones(items, size, 1)
        with s3prl_side.draws_from(torch.Generator().manual_seed(seed)):
            module = s3prl_side.module("downstream.specaug")
            module.MaskAlongAxis(mask_width_range=(0, 40), num_mask=2, dim="time")(spec)
        assert torch.equal(ours, spec[:, :, 0] == 0)
        last += torch.stack([ours[:, -1].float().mean(), ours[:, size // 2].float().mean()])
    assert last[0] < 0.2 * last[1]


def test_the_settings_are_those_of_the_published_configuration():
    given = s3prl_side.SPECAUG
    assert given["time_warp_window"] == augment.WINDOW
    assert given["freq_mask_width_range"] == [0, augment.FEATURE_WIDTH]
    assert given["time_mask_width_range"] == [0, augment.TIME_WIDTH]
    assert (given["num_freq_mask"], given["num_time_mask"]) == (augment.FEATURE_MASKS, augment.TIME_MASKS)
