"""What makes a model of others give an utterance the same states alone and in a padded batch.

Two things in the families of wav2vec 2.0 look at the padding: a group norm over time, and every convolution inside
the encoder that reads beyond the end of an utterance. The first gets statistics of the valid frames alone, the second
finds zeros behind the end, as it does where the utterance stands alone. Without padding nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from harness.interface import SAMPLE_RATE

_valid: ContextVar[Tensor | None] = ContextVar("valid samples per utterance of the batch that is encoded", default=None)


@contextmanager
def valid_samples(lengths: Tensor | None) -> Iterator[None]:
    """Within this context models know the valid samples (B,) of each utterance; ``None`` where nothing is padded."""
    token = _valid.set(lengths)
    try:
        yield
    finally:
        _valid.reset(token)


@dataclass(frozen=True)
class Frames:
    """Frames that a stack of convolutions without padding makes of samples.

    >>> stack = Frames((10, 3), (5, 2))
    >>> int(stack(torch.tensor(20))), stack.min_samples
    (1, 20)
    """

    kernels: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, kernels: Sequence[int], strides: Sequence[int]) -> Frames:
        """The stack with these kernels and strides, first layer first."""
        return cls(tuple(kernels), tuple(strides))

    def __call__(self, samples: Tensor) -> Tensor:
        """Frames of that many samples, elementwise."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            samples = torch.div(samples - kernel, stride, rounding_mode="floor") + 1
        return samples

    @property
    def min_samples(self) -> int:
        """Fewest samples that make one frame."""
        samples = 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            samples = (samples - 1) * stride + kernel
        return samples

    @property
    def frame_ms(self) -> float:
        """Time between two frames in milliseconds."""
        return 1000.0 * prod(self.strides) / SAMPLE_RATE


class UtteranceGroupNorm(nn.GroupNorm):
    """A group norm that takes each utterance by itself, over its valid frames; frames of padding become zero."""

    frames: Frames

    @classmethod
    def instead_of(cls, norm: nn.GroupNorm, frames: Frames) -> UtteranceGroupNorm:
        """The same norm with the same parameters, at the point where ``frames`` says how many frames are valid."""
        new = cls(norm.num_groups, norm.num_channels, norm.eps, norm.affine)
        new.weight, new.bias, new.frames = norm.weight, norm.bias, frames
        return new.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``input`` (B, C, T)."""
        samples = _valid.get()
        if samples is None:
            return super().forward(input)
        normed = torch.zeros_like(input)
        for row, count in enumerate(self.frames(samples).tolist()):
            normed[row : row + 1, :, :count] = super().forward(input[row : row + 1, :, :count])
        return normed


def end_at_the_end(feature_extractor: Any, encoder: nn.Module, frames: Frames) -> None:
    """Make group norm and padded convolutions of a model see each utterance as if it stood alone.

    Args:
        feature_extractor: convolutions over the waveform, ``conv_layers``, of which the first may have a group norm.
        encoder: what follows them.
        frames: the frames that all of these convolutions make.
    """
    first = feature_extractor.conv_layers[0]
    if isinstance(first.layer_norm, nn.GroupNorm):
        own = Frames(frames.kernels[:1], frames.strides[:1])
        first.layer_norm = UtteranceGroupNorm.instead_of(first.layer_norm, own)
    zero_behind_the_end(encoder, frames)


def zero_behind_the_end(encoder: nn.Module, frames: Frames) -> None:
    """Let every padded convolution over time in ``encoder`` find zeros where an utterance has ended.

    Args:
        encoder: whose convolutions take (B, C, T).
        frames: how many of these T are valid.
    """
    for part in encoder.modules():
        if isinstance(part, nn.Conv1d) and part.padding != (0,):
            part.register_forward_pre_hook(partial(_zeroed, frames))


def _zeroed(frames: Frames, _module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    samples = _valid.get()
    if samples is None:
        return None
    behind = torch.arange(inputs[0].shape[-1], device=inputs[0].device) >= frames(samples)[:, None]
    return (inputs[0].masked_fill(behind[:, None], 0.0), *inputs[1:])
