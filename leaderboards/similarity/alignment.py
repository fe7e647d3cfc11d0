"""Frames of two upstreams over the same audio, brought onto one grid of time.

Frame i of an upstream that makes one every p milliseconds is taken to stand at (i + 1/2) p. Where both make frames at
the same rate, frame i stands beside frame i. Otherwise the coarser one gives the grid, and beside its frame j, which
covers j P to (j + 1) P, stands the mean of the finer one's frames in that span.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def grid_ms(first_ms: float, second_ms: float) -> float:
    """The coarser of two frame periods."""
    return max(first_ms, second_ms)


def on_grid(states: Tensor, frame_ms: float, period_ms: float) -> Tensor:
    """States (L, T, D) every ``frame_ms`` as states (L, U, D) every ``period_ms``, which is not shorter; float32.

    A last span that holds no frame's place is not there.
    """
    states = states.to(torch.float32)
    if math.isclose(frame_ms, period_ms, rel_tol=1e-6):
        return states
    spans = torch.floor((torch.arange(states.shape[1], dtype=torch.float64) + 0.5) * frame_ms / period_ms).long()
    count = int(spans[-1]) + 1
    sums = torch.zeros(states.shape[0], count, states.shape[2]).index_add_(1, spans, states)
    return sums / torch.bincount(spans, minlength=count)[None, :, None]
