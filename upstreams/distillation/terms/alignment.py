"""Two models on one time axis: resampling between frame periods, common frames, means over valid frames."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from upstreams.distillation.terms.base import View


def resample(states: Tensor, ratio: float) -> Tensor:
    """Bring states from one frame period to another by repetition or averaging.

    A new frame is the mean of the old ones that it overlaps, by length of overlap: with a whole ``ratio`` of 2 each
    frame is repeated, with 0.5 pairs are averaged. New frames that the old do not cover whole are left out.

    Args:
        states: (B, T, D).
        ratio: old period over new period (40 ms to 20 ms: 2).

    Returns:
        (B, floor(T · ratio), D).
    """
    if ratio == 1:
        return states
    batch, old, width = states.shape
    if ratio > 1 and float(ratio).is_integer():
        return states.repeat_interleave(int(ratio), 1)
    if float(1 / ratio).is_integer():
        group = int(1 / ratio)
        return states[:, : old // group * group].reshape(batch, old // group, group, width).mean(2)
    start = torch.arange(old, device=states.device) * ratio
    place = torch.arange(int(old * ratio + 1e-6), device=states.device)[:, None]
    overlap = torch.minimum(place + 1, start + ratio) - torch.maximum(place, start)
    with full_precision(states):
        return (overlap.clamp(min=0).to(states.dtype) @ states).to(states.dtype)


def resampled_frames(frames: Tensor, ratio: float) -> Tensor:
    """Valid frames (B,) after :func:`resample`."""
    return frames if ratio == 1 else (frames * ratio + 1e-6).long()


def meet(student: View, teacher: View, ratio: float) -> tuple[View, View]:
    """Both views at the teacher's frame period, cut to their common length, with the frames valid in both.

    Args:
        student: states (B, T, D).
        teacher: states (B, T', D').
        ratio: the student's frame period over the teacher's. Attention maps of the student are kept only where it is 1.
    """
    mine = tuple(resample(state, ratio) for state in student.states)
    length = min(state.shape[1] for state in (*mine, *teacher.states))
    frames = torch.minimum(resampled_frames(student.frames, ratio), teacher.frames).clamp(max=length)

    def cut(states: tuple[Tensor, ...], maps: tuple[Tensor, ...]) -> View:
        return View(tuple(s[:, :length] for s in states), frames, tuple(m[..., :length, :length] for m in maps))

    return cut(mine, student.maps if ratio == 1 else ()), cut(teacher.states, teacher.maps)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values where the mask (of the same shape) is true; 0 where it is nowhere."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def pooled(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over valid frames, (B, T, D) with (B, T) to (B, D)."""
    return torch.where(mask[..., None], states, 0.0).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def full_precision(tensor: Tensor) -> AbstractContextManager[None]:
    """No automatic half precision within: similarities and their differences need the digits."""
    return torch.autocast(tensor.device.type, enabled=False)
