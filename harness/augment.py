"""SpecAugment on features, as SUPERB's ASR applies it (protocol section 4.1, s3prl ``downstream/specaug.py``).

SUPERB augments the weighted sum of the states. Warping and masking are linear and alike for every state, so doing it
to the states before the sum gives the same result, once for all trials.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 5
"""Time warp: furthest shift of the centre, in frames."""
FEATURE_MASKS, FEATURE_WIDTH = 4, 50
TIME_MASKS, TIME_WIDTH = 2, 40
"""Number of masks per utterance and the bound of their widths (exclusive)."""


def spec_augment(x: Tensor, lengths: Tensor, generator: torch.Generator) -> Tensor:
    """Warp and mask states x (L, B, T, D) in place; every utterance its own draw, all states alike.

    Args:
        x: states; overwritten and returned.
        lengths: (B,) valid frames.
        generator: CPU generator that all draws come from.
    """
    for item, length in enumerate(lengths.tolist()):
        if length > 2 * WINDOW:
            centre = _draw(WINDOW, length - WINDOW, generator)
            target = _draw(centre - WINDOW, centre + WINDOW, generator) + 1
            x[:, item, :length] = time_warp(x[:, item, :length], centre, target)
    _, items, frames, width = x.shape
    features = masks(items, width, FEATURE_MASKS, FEATURE_WIDTH, generator).to(x.device)
    times = masks(items, frames, TIME_MASKS, TIME_WIDTH, generator).to(x.device)
    return x.masked_fill_(features[None, :, None, :] | times[None, :, :, None], 0.0)


def time_warp(x: Tensor, centre: int, target: int) -> Tensor:
    """Stretch x (L, T, D) so that frame ``centre`` comes to lie at ``target``, cubic on both sides.

    The cubic weights are those of torch's bicubic interpolation, read off from what it makes of the identity.
    """
    frames = x.shape[1]
    left = _cubic(centre, target).to(x)
    right = _cubic(frames - centre, frames - target).to(x)
    return torch.cat([left @ x[:, :centre], right @ x[:, centre:]], dim=1)


def _cubic(size: int, onto: int) -> Tensor:
    """Matrix (onto, size) that resamples ``size`` frames to ``onto``."""
    identity = torch.eye(size)[None, None]
    return F.interpolate(identity, (onto, size), mode="bicubic", align_corners=False)[0, 0]


def masks(items: int, size: int, count: int, width: int, generator: torch.Generator) -> Tensor:
    """Boolean (items, size): true under any of ``count`` masks, whose starts the longest mask of the batch bounds."""
    widths = torch.randint(0, width, (items, count, 1), generator=generator)
    starts = torch.randint(0, max(1, size - int(widths.max())), (items, count, 1), generator=generator)
    position = torch.arange(size)
    return ((starts <= position) & (position < starts + widths)).any(1)


def _draw(low: int, high: int, generator: torch.Generator) -> int:
    """An integer of [low, high)."""
    return int(torch.randint(low, high, (1,), generator=generator))
