"""Where speech changes: boundaries of segments that guide the weights of integrate-and-fire.

Once-for-all sequence compression (arXiv 2211.02332) takes its guidance from wav2vec-U, an unsupervised recogniser that
is not here. In its place stand changes of the log-mel spectrum (``novelty``) or of units of the teacher (``units``).
A boundary is marked at the first frame of the segment that it opens; frame 0 opens the first.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from upstreams.students.mini import valid_mask


def novelty(logmel: Tensor, context: int = 2) -> Tensor:
    """How much the spectrum changes at each 20 ms frame.

    Args:
        logmel: (B, T10, mels) at 10 ms.
        context: frames of 20 ms on either side that are averaged.

    Returns:
        (B, T10 // 2): distance between the mean of the ``context`` frames before a frame and the mean of those from it
        on; edges repeat.
    """
    pairs = logmel.shape[1] // 2
    x = logmel[:, : 2 * pairs].reshape(logmel.shape[0], pairs, 2, -1).mean(2).transpose(1, 2)
    padded = functional.pad(x, (context, context - 1), mode="replicate")
    means = functional.avg_pool1d(padded, context, 1)
    distance: Tensor = torch.linalg.vector_norm(means[..., context:] - means[..., :-context], dim=1)
    return distance


def peaks(strength: Tensor, frames: Tensor, period: float) -> Tensor:
    """Boundaries (B, T) bool at the strongest local maxima of ``strength`` (B, T), one per ``period`` frames.

    An utterance of n frames gets round(n / period) segments, or fewer where there are fewer maxima; the earlier of two
    equal neighbours counts.
    """
    inside = valid_mask(frames, strength.shape[1])
    inside[:, 0] = False
    x = strength.masked_fill(~inside, -torch.inf)
    edges = functional.pad(x, (1, 1), value=-torch.inf)
    is_peak = (x > edges[:, :-2]) & (x >= edges[:, 2:]) & inside
    rank = x.masked_fill(~is_peak, -torch.inf).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    wanted = (frames / period).round().long() - 1
    found = is_peak & (rank < wanted[:, None])
    found[:, 0] = True
    return found


def changes(units: Tensor, frames: Tensor) -> Tensor:
    """Boundaries (B, T) bool where units (B, T) differ from those of the frame before."""
    found = torch.ones_like(units, dtype=torch.bool)
    found[:, 1:] = units[:, 1:] != units[:, :-1]
    return found & valid_mask(frames, units.shape[1])


def spread(boundaries: Tensor, frames: Tensor) -> Tensor:
    """Weights (B, T) that sum to 1 over each segment: one over its length; 0 at padding."""
    inside = valid_mask(frames, boundaries.shape[1])
    segment = boundaries.long().cumsum(1) - 1
    lengths = torch.zeros_like(segment).scatter_add(1, segment, inside.long())
    return inside / lengths.gather(1, segment).clamp(min=1)


def guidance(weights: Tensor, boundaries: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """How far weights of integrate-and-fire are from segments.

    Args:
        weights: (B, T), not mixed with 1.
        boundaries: (B, T) bool.
        frames: (B,) valid frames.

    Returns:
        Mean over frames of the L1 distance to :func:`spread`, and mean over segments of the L1 distance between the
        running sum of weights at a segment's end and the number of segments up to there.
    """
    inside = valid_mask(frames, weights.shape[1])
    by_frame = (weights - spread(boundaries, frames)).abs()[inside].mean()
    opens_next = functional.pad(boundaries[:, 1:], (0, 1))
    last = torch.arange(weights.shape[1], device=frames.device)[None] == frames[:, None] - 1
    ends = (opens_next | last) & inside
    count = boundaries.long().cumsum(1)
    running = (weights * inside).cumsum(1)
    return by_frame, (running - count)[ends].abs().mean()
