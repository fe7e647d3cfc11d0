"""The transformer encoder that all compressed families share; a family is a shape, a front end and what it exposes.

Features -> (layer norm) -> (projection) -> positional convolution -> layers, post-norm or pre-norm, as in wav2vec 2.0.
What compression changes is data: heads, head width and feed-forward width per layer, layers without one of the two,
layers that take an earlier attention map, a shorter frame rate inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from upstreams.students.attention import Attention, RelativePosition
from upstreams.students.frontend import valid


@dataclass(frozen=True)
class LayerShape:
    """One transformer layer.

    Attributes:
        heads: attention heads; 0 leaves attention out.
        head_width: size of one head.
        ffn: inner width of the feed-forward part; 0 leaves it out.
        own_map: whether the layer computes its attention map or takes the one of an earlier layer.
        kept: which of the unpruned model's heads these are; ``None`` for the first ``heads``.
    """

    heads: int
    head_width: int
    ffn: int
    own_map: bool = True
    kept: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Relative:
    """Bucketed relative positions: of how many heads the bias is, and whether layers gate it (WavLM)."""

    heads: int
    buckets: int = 320
    max_distance: int = 800
    gated: bool = False


@dataclass(frozen=True)
class EncoderShape:
    """An encoder.

    Attributes:
        features: channels of the front end.
        width: size of a state.
        layers: from the input up.
        feature_norm: whether features are layer-normed before the projection.
        project: whether there is a projection; without, ``features`` must equal ``width``.
        position_kernel: width of the positional convolution in frames; 0 leaves it out.
        position_groups: its groups.
        norm_first: pre-norm layers with a final norm, instead of post-norm ones with a norm before the first.
        relative: relative-position bias, or none.
        reduce: frames that a convolution joins into one between embedding and first layer (FitHuBERT).
    """

    features: int
    width: int
    layers: tuple[LayerShape, ...]
    feature_norm: bool = True
    project: bool = True
    position_kernel: int = 128
    position_groups: int = 16
    norm_first: bool = False
    relative: Relative | None = None
    reduce: int = 1


def uniform(depth: int, width: int, heads: int, ffn: int) -> tuple[LayerShape, ...]:
    """``depth`` equal layers whose heads together are as wide as the state."""
    return (LayerShape(heads, width // heads, ffn),) * depth


@dataclass(frozen=True)
class Passage:
    """What passes through an encoder.

    Attributes:
        projected: (B, T, width), before the positional convolution.
        embedded: (B, T, width), after it (and after its norm in post-norm models).
        reduced: (B, T', width), input of the first layer.
        layers: outputs of the layers, each (B, T', width).
        final: the last output, after the final norm in pre-norm models.
        frames: (B,) valid frames of ``projected`` and ``embedded``.
        reduced_frames: (B,) valid frames of the others.
    """

    projected: Tensor
    embedded: Tensor
    reduced: Tensor
    layers: list[Tensor]
    final: Tensor
    frames: Tensor
    reduced_frames: Tensor


class PositionalConvolution(nn.Module):
    """Grouped convolution over time with weight norm, added to its input by the encoder."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups)
        self.conv = weight_norm(conv, dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) to (B, T, width)."""
        frames = x.shape[1]
        y: Tensor = functional.gelu(self.conv(x.transpose(1, 2))[..., :frames])
        return y.transpose(1, 2)


class Layer(nn.Module):
    """Attention and feed-forward part, each with a residual and a norm, where the shape has them."""

    def __init__(self, width: int, shape: LayerShape, norm_first: bool, gate: int, keep_map: bool) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.attention = (
            Attention(
                width, shape.heads, shape.head_width,
                own_map=shape.own_map, gate=gate, kept=shape.kept, keep_map=keep_map,
            )
            if shape.heads
            else None
        )  # fmt: skip
        self.attention_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, shape.ffn) if shape.ffn else None
        self.down = nn.Linear(shape.ffn, width) if shape.ffn else None
        self.output_norm = nn.LayerNorm(width)

    def _feed_forward(self, x: Tensor) -> Tensor:
        if self.up is None or self.down is None:
            return torch.zeros_like(x)
        y: Tensor = self.down(functional.gelu(self.up(x)))
        return y

    def forward(
        self, x: Tensor, padding: Tensor | None, position: Tensor | None, kept_map: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """As :meth:`Attention.forward`; norms stay where attention or feed-forward part are left out."""
        if self.attention is not None:
            source = self.attention_norm(x) if self.norm_first else x
            attended, kept_map = self.attention(source, padding, position, kept_map)
            x = x + attended
        if self.norm_first:
            return x + self._feed_forward(self.output_norm(x)), kept_map
        x = self.attention_norm(x)
        return self.output_norm(x + self._feed_forward(x)), kept_map


class Encoder(nn.Module):
    """The encoder of a shape. ``forward`` gives a :class:`Passage`; a family picks its states from that."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        if not shape.project and shape.features != shape.width:
            raise ValueError(f"{shape.features} features need a projection to width {shape.width}")
        self.shape = shape
        self.feature_norm = nn.LayerNorm(shape.features) if shape.feature_norm else None
        self.projection = nn.Linear(shape.features, shape.width) if shape.project else None
        self.position = (
            PositionalConvolution(shape.width, shape.position_kernel, shape.position_groups)
            if shape.position_kernel
            else None
        )
        self.norm = nn.LayerNorm(shape.width)
        self.reduction = nn.Conv1d(shape.width, shape.width, shape.reduce, shape.reduce) if shape.reduce > 1 else None
        relative = shape.relative
        self.relative = (
            RelativePosition(relative.buckets, relative.max_distance, relative.heads) if relative is not None else None
        )
        gate = relative.heads if relative is not None and relative.gated else 0
        borrowed = [not layer.own_map for layer in shape.layers[1:]] + [False]
        self.layers = nn.ModuleList(
            Layer(shape.width, layer, shape.norm_first, gate, layer.own_map and borrowed[index])
            for index, layer in enumerate(shape.layers)
        )

    def forward(self, features: Tensor, frames: Tensor) -> Passage:
        """Features (B, T, C) with (B,) valid frames through all layers."""
        x = features if self.feature_norm is None else self.feature_norm(features)
        projected = x if self.projection is None else self.projection(x)
        x = projected * valid(frames, projected.shape[1])[..., None]  # the positional convolution must not see padding
        if self.position is not None:
            x = x + self.position(x)
        embedded = x if self.shape.norm_first else self.norm(x)
        reduced, inner = self._reduce(embedded, frames)
        x, mask, outputs, kept_map = reduced, valid(inner, reduced.shape[1]), [], None
        padding = None
        if not bool(mask.all()):
            padding = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, -torch.inf)[:, None, None, :]
        position = None if self.relative is None else self.relative(x.shape[1])
        for layer in self.layers:
            x, kept_map = layer(x, padding, position, kept_map)
            outputs.append(x)
        final = self.norm(x) if self.shape.norm_first else x
        return Passage(projected, embedded, reduced, outputs, final, frames, inner)

    def _reduce(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Join ``reduce`` frames into one; frames that fill no group are left out."""
        if self.reduction is None:
            return x, frames
        if int(frames.min()) < self.shape.reduce:
            raise ValueError(f"{int(frames.min())} frames are too few for one reduced frame")
        y: Tensor = self.reduction(x.transpose(1, 2)).transpose(1, 2)
        return y, torch.div(frames, self.shape.reduce, rounding_mode="floor")
