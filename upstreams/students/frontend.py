"""The wav2vec 2.0 front end: a stack of strided convolutions over the waveform, with the layouts that students use.

In a padded batch every utterance comes out as if it were alone: the group norm over time takes its statistics from
valid frames only, and no later convolution pads. Original implementations of base models let padding into those
statistics (protocol section 3.4), so that their states depend on what shares the batch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Convolution(NamedTuple):
    """One convolution of a front end."""

    channels: int
    kernel: int
    stride: int


WAV2VEC2 = (
    Convolution(512, 10, 5),
    *(Convolution(512, 3, 2),) * 4,
    *(Convolution(512, 2, 2),) * 2,
)
"""The front end of wav2vec 2.0, HuBERT and WavLM: 320 samples (20 ms) per frame, 4,200,448 parameters."""


def valid(lengths: Tensor, frames: int) -> Tensor:
    """(B,) lengths to (B, frames) bool, true where a frame belongs to the utterance."""
    return torch.arange(frames, device=lengths.device)[None, :] < lengths[:, None]


def standardise(waves: Tensor, lengths: Tensor, epsilon: float = 1e-5) -> Tensor:
    """Waveforms (B, S) at mean 0 and variance 1 over their valid samples, 0 elsewhere (biased variance + epsilon)."""
    mask, count = valid(lengths, waves.shape[1]), lengths[:, None]
    centred = (waves - (waves * mask).sum(1, keepdim=True) / count) * mask
    return centred / (centred.square().sum(1, keepdim=True) / count + epsilon).sqrt()


def min_samples(convolutions: Sequence[Convolution], frames: int = 1) -> int:
    """Fewest samples of which the convolutions make that many frames.

    >>> min_samples(WAV2VEC2)
    400
    """
    samples = frames
    for layer in reversed(convolutions):
        samples = (samples - 1) * layer.stride + layer.kernel
    return samples


def frame_ms(convolutions: Sequence[Convolution], sample_rate: int = 16_000) -> float:
    """Time between two frames in milliseconds.

    >>> frame_ms(WAV2VEC2)
    20.0
    """
    hop = 1
    for layer in convolutions:
        hop *= layer.stride
    return 1000.0 * hop / sample_rate


class MaskedGroupNorm(nn.GroupNorm):
    """Group norm with one channel per group, whose statistics are those of each utterance's valid frames.

    Without padding it is :class:`torch.nn.GroupNorm` itself.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, x: Tensor, frames: Tensor | None = None) -> Tensor:
        """Normalise x (B, C, T) over time; ``frames`` (B,) are valid, ``None`` means all."""
        if frames is None or bool((frames >= x.shape[-1]).all()):
            return super().forward(x)
        mask = valid(frames, x.shape[-1])[:, None, :]
        wide, count = x.float(), frames[:, None, None]
        mean = (wide * mask).sum(-1, keepdim=True) / count
        variance = ((wide - mean).square() * mask).sum(-1, keepdim=True) / count
        normed = ((wide - mean) / (variance + self.eps).sqrt()).to(x.dtype)
        return normed * self.weight[:, None] + self.bias[:, None]


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of x (B, C, T), frame by frame."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) to (B, C, T)."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class FrontEndLayer(nn.Module):
    """Convolution, norm (``group``, ``layer`` or ``none``), GELU."""

    def __init__(self, channels_in: int, layer: Convolution, norm: str, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels_in, layer.channels, layer.kernel, layer.stride, bias=bias)
        self.norm: nn.Module | None = None
        if norm != "none":
            self.norm = {"group": MaskedGroupNorm, "layer": ChannelNorm}[norm](layer.channels)

    def forward(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, T) with (B,) valid frames to the next layer's."""
        x = self.conv(x)
        frames = torch.div(frames - self.conv.kernel_size[0], self.conv.stride[0], rounding_mode="floor") + 1
        if isinstance(self.norm, MaskedGroupNorm):
            x = self.norm(x, frames)
        elif self.norm is not None:
            x = self.norm(x)
        return functional.gelu(x), frames


class FrontEnd(nn.Module):
    """The stack.

    Args:
        convolutions: its layers.
        norm: ``group``, a group norm over time after the first convolution; ``layer``, a layer norm over channels after
            every one.
        bias: whether convolutions have a bias.
        scale: whether the last layer's channels are multiplied by learnt factors (DPHuBERT's soft mask).
    """

    def __init__(
        self,
        convolutions: Sequence[Convolution] = WAV2VEC2,
        norm: str = "group",
        bias: bool = False,
        scale: bool = False,
    ) -> None:
        super().__init__()
        sizes = [1, *(layer.channels for layer in convolutions)]
        self.layers = nn.ModuleList(
            FrontEndLayer(sizes[i], layer, norm if norm == "layer" or i == 0 else "none", bias)
            for i, layer in enumerate(convolutions)
        )
        self.scale = nn.Parameter(torch.ones(sizes[-1])) if scale else None
        self.channels, self.min_samples = sizes[-1], min_samples(convolutions)

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (B, S) with (B,) valid samples to features (B, T, C) with (B,) valid frames.

        Raises:
            ValueError: an utterance is too short for one frame.
        """
        if int(lengths.min()) < self.min_samples:
            raise ValueError(f"{int(lengths.min())} samples are too few for one frame, which takes {self.min_samples}")
        x, frames = waves[:, None, :], lengths
        for layer in self.layers:
            x, frames = layer(x, frames)
        x = x.transpose(1, 2)
        return x if self.scale is None else x * self.scale, frames


_TUPLE = r"\(\s*(\d{1,5})\s*,\s*(\d{1,5})\s*,\s*(\d{1,5})\s*\)"
_LIST = rf"\[\s*(?:{_TUPLE}\s*,?\s*)+\]\s*(?:\*\s*\d{{1,2}})?"


def parse_convolutions(text: object) -> tuple[Convolution, ...]:
    """The layers that fairseq writes as text, lists of (channels, kernel, stride) added and multiplied, or as a list.

    >>> parse_convolutions("[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2") == WAV2VEC2
    True

    Raises:
        ValueError: it says something else, or a size is 0; nothing of it is evaluated.
    """
    found: list[Convolution] = []
    if isinstance(text, list | tuple):
        rows = [tuple(row) for row in text if isinstance(row, list | tuple)]
        if len(rows) == len(text) and all(len(row) == 3 and all(type(n) is int for n in row) for row in rows):
            found = [Convolution(*row) for row in rows]
    elif isinstance(text, str) and len(text) < 1000 and re.fullmatch(rf"\s*{_LIST}(?:\s*\+\s*{_LIST})*\s*", text):
        for part in re.findall(r"(\[[^\]]*\])\s*(?:\*\s*(\d{1,2}))?", text):
            layers = [Convolution(*map(int, row)) for row in re.findall(_TUPLE, part[0])]
            found += layers * int(part[1] or 1)
    if not found or not all(0 < size < 100_000 for row in found for size in row):
        raise ValueError(f"convolutions {text!r} are not of the form '[(channels, kernel, stride)] * n + ...'")
    return tuple(found)
