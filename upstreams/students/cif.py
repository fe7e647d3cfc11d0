"""Continuous integrate-and-fire: frames of a fixed rate become segments of varying length (arXiv 1905.11235).

Each frame has a weight in (0, 1]. Weights add up over time; whenever the sum passes a whole number a segment ends, and
a frame that lies on the border is divided. Once-for-all sequence compression (arXiv 2211.02332) mixes the weights with
1: at lambda 0 every frame is a segment of its own, at 1 the learnt weights decide, beyond 1 they shrink further.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from upstreams.students.frontend import valid

FEWEST = 2
"""Segments that every utterance has; shorter sums are stretched to it, as in the public code."""
EPSILON = 1e-4
"""Added to a stretched sum, so that rounding does not lose its last segment."""


def mixed(weights: Tensor, lam: float) -> Tensor:
    """Weights at a compression ``lam`` from 0 (none) to 2 (everything).

    >>> mixed(torch.tensor([0.2, 0.6]), 0.5)
    tensor([0.6000, 0.8000])
    """
    lam = min(lam, 2 - 1e-5)
    return max(1 - lam, 0.0) + (max(lam, 0.0) - 2 * max(lam - 1, 0.0)) * weights


def lambda_of(period_ms: float, frame_ms: float = 20.0) -> float:
    """The compression at which the training of the public model aims at a frame period: 9/7 (1 - frame/period).

    >>> lambda_of(20.0), round(lambda_of(90.0), 6)
    (0.0, 1.0)
    """
    return 9 / 7 * (1 - frame_ms / period_ms)


def period_of(lam: float, frame_ms: float = 20.0) -> float:
    """The frame period in milliseconds that a compression up to 1 aims at, the inverse of :func:`lambda_of`."""
    return frame_ms / (1 - 7 / 9 * lam)


class Weights(nn.Module):
    """One weight per frame: a convolution over five frames, layer norm, ReLU, a linear map and a sigmoid."""

    def __init__(self, width: int, kernel: int = 5) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, 1)

    def forward(self, x: Tensor, frames: Tensor) -> Tensor:
        """Features x (B, T, width) with (B,) valid frames to weights (B, T)."""
        x = x * valid(frames, x.shape[1])[..., None]
        y = functional.relu(self.norm(self.conv(x.transpose(1, 2)).transpose(1, 2)))
        weights: Tensor = torch.sigmoid(self.linear(y)).squeeze(-1)
        return weights


def ends(weights: Tensor, frames: Tensor) -> Tensor:
    """Running sum of the weights (B, T), constant over padding; at least :data:`FEWEST` at the end."""
    weights = weights.float() * valid(frames, weights.shape[1])
    total = weights.sum(1, keepdim=True)
    stretched = weights * ((FEWEST + EPSILON) / total)
    return torch.where(total < FEWEST, stretched, weights).cumsum(1)


def fire(x: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Segments of x (B, T, C) whose running sums of weights are ``end`` (B, T).

    Segment j is the sum of the frames, each times the part of its weight that lies between j and j + 1. What is left
    over at the end of an utterance is dropped.

    Returns:
        (B, S, C), and (B,) segments per utterance.
    """
    segments = end[:, -1].floor().long()
    start = functional.pad(end, (1, 0))[:, :-1]
    border = torch.arange(int(segments.max()), device=x.device)[None, :, None]
    share = torch.minimum(end[:, None], border + 1.0) - torch.maximum(start[:, None], border.to(end.dtype))
    return share.clamp(min=0).to(x.dtype) @ x, segments


def segment_of(end: Tensor, segments: Tensor) -> Tensor:
    """The segment (B, T) in which the middle of each frame's weight lies, for states on the frames' own grid."""
    start = functional.pad(end, (1, 0))[:, :-1]
    return torch.minimum(((start + end) / 2).floor().long(), segments[:, None] - 1)
