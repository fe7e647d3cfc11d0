"""SpecAugment on features, as SUPERB's ASR applies it (protocol section 4.1, s3prl ``downstream/specaug.py``).

SUPERB augments the weighted sum of the states. Warping and masking are linear and alike for every state, so doing it
to the states before the sum gives the same result, once for all trials. From a generator in the same state, s3prl draws
the same numbers in the same order: per utterance the centre of the warp and where it goes to, then widths and starts of
the feature masks, then those of the time masks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 5
"""Time warp: furthest shift of the centre, in frames (``time_warp_window`` of ``downstream/asr/config.yaml``)."""
FEATURE_MASKS, FEATURE_WIDTH = 4, 50
"""``num_freq_mask`` and the bound of ``freq_mask_width_range`` (exclusive) of the same file."""
TIME_MASKS, TIME_WIDTH = 2, 40
"""``num_time_mask`` and the bound of ``time_mask_width_range`` (exclusive) of the same file."""
TAPS = 4
"""Frames that a cubic interpolation looks at."""


def spec_augment(x: Tensor, lengths: Tensor, draw: torch.Generator) -> Tensor:
    """Warp and mask states x (L, B, T, D) in place; every utterance its own draw, all states alike.

    Utterances of at most ``2 * WINDOW`` frames are not warped, padding is not either. Masks are drawn on T frames, the
    padding included, as s3prl does.

    Args:
        x: states, or features of several trials; overwritten and returned.
        lengths: (B,) valid frames.
        draw: CPU generator that all draws come from.
    """
    for item, length in enumerate(lengths.tolist()):
        if length > 2 * WINDOW:
            centre = _integer(WINDOW, length - WINDOW, draw)
            target = _integer(centre - WINDOW, centre + WINDOW, draw) + 1
            x[:, item, :length] = time_warp(x[:, item, :length], centre, target)
    _, items, frames, width = x.shape
    features = masks(items, width, FEATURE_MASKS, FEATURE_WIDTH, draw).to(x.device)
    times = masks(items, frames, TIME_MASKS, TIME_WIDTH, draw).to(x.device)
    return x.masked_fill_(features[None, :, None, :] | times[None, :, :, None], 0.0)


def time_warp(x: Tensor, centre: int, target: int) -> Tensor:
    """Stretch x (L, T, D) so that frame ``centre`` comes to lie at ``target``, cubic on both sides.

    s3prl interpolates images of T by D; where D stays as it is, that is the same map for every feature, and each
    frame that comes out is a sum of four that go in.
    """
    frames = x.shape[1]
    left, right = _cubic(centre, target), _cubic(frames - centre, frames - target)
    places = torch.cat([left[0], right[0] + centre]).to(x.device)
    weights = torch.cat([left[1], right[1]]).to(x)
    warped = torch.zeros_like(x)
    for tap in range(TAPS):
        warped.addcmul_(x.index_select(1, places[:, tap]), weights[:, tap, None])
    return warped


def _cubic(size: int, onto: int) -> tuple[Tensor, Tensor]:
    """Which of ``size`` frames make up each of ``onto``, and how much of each: both (onto, 4); ``size`` is at least 4.

    The weights are read off torch's own interpolation, so that they round as it does: no two of four neighbours have
    the same remainder modulo 4, so four combs tell all weights apart.
    """
    combs = F.one_hot(torch.arange(size) % TAPS, TAPS).float()
    weights = F.interpolate(combs[None, None], (onto, TAPS), mode="bicubic", align_corners=False)[0, 0]
    source = (torch.arange(onto, dtype=torch.float64) + 0.5) * size / onto - 0.5
    first = (source.floor().long() - 1).clamp(0, size - TAPS)[:, None]
    return first + (torch.arange(TAPS) - first) % TAPS, weights


def masks(items: int, size: int, count: int, width: int, draw: torch.Generator) -> Tensor:
    """Boolean (items, size): true under any of ``count`` masks.

    The longest mask of the batch bounds where all of them start, so that the last places are masked less often.
    """
    widths = torch.randint(0, width, (items, count, 1), generator=draw)
    starts = torch.randint(0, max(1, size - int(widths.max())), (items, count, 1), generator=draw)
    position = torch.arange(size)
    return ((starts <= position) & (position < starts + widths)).any(1)


def _integer(low: int, high: int, draw: torch.Generator) -> int:
    """An integer of [low, high)."""
    return int(torch.randint(low, high, (1,), generator=draw))
