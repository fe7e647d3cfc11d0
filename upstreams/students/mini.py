"""A WavLM-style encoder small enough to be trained on a CPU: the embedded teacher and its students.

Differences from WavLM base, each to save compute: a log-mel front end instead of seven raw-wave convolutions (as in
MelHuBERT), pre-norm layers, width 192. Kept: 20 ms frames, a convolutional positional embedding, gated relative
position bias shared by all layers, masked prediction of units, utterance mixing.

What compression does to such a model is in its shape (:class:`upstreams.students.mini_config.MiniConfig`): pruned
heads, dimensions and units, shared attention maps, joined frames at a fixed or a chosen rate.

Exposed states: the positional-convolution output (the input of the first layer) and the output of every layer, each
through a parameter-free layer norm, so that a weighted sum compares like with like.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from upstreams.students import cif, logmel
from upstreams.students.frontend import WAV2VEC2, FrontEnd
from upstreams.students.frontend import min_samples as wav2vec2_samples
from upstreams.students.logmel import HOP, WINDOW, LogMel, remove_level, valid_mask
from upstreams.students.mini_config import MiniConfig, whole_heads
from upstreams.students.mini_layers import Gates, Layer, PositionBias
from upstreams.students.passage import Passage, grid_of

__all__ = [
    "HOP", "WINDOW", "Gates", "Layer", "LogMel", "MiniConfig", "MiniWavLM", "Passage", "PositionBias", "parameters",
    "remove_level", "skeleton", "valid_mask", "whole_heads",
]  # fmt: skip


class MiniWavLM(nn.Module):
    """The encoder. ``forward`` gives the states to expose, ``passage`` what training needs.

    Attributes:
        frame_ms: time between two frames of a state; before compression, where the model compresses.
        min_samples: fewest samples that give one frame.
        lam: compression that ``forward`` uses where the shape says ``compress``, see
            :func:`upstreams.students.cif.mixed`.
        repeat: whether ``forward`` gives joined frames at 20 ms, repeated, instead of on their own grid.
    """

    min_samples = logmel.min_samples()
    frame_ms = 20.0
    mel_mean: Tensor
    mel_std: Tensor
    front: LogMel | FrontEnd

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        self.config, self.lam, self.repeat = config, 0.0, False
        self.frame_ms = 20.0 * config.reduce
        if config.front == "logmel":
            self.min_samples = logmel.min_samples(config.reduce)
            self.front = LogMel(config.mels)
            self.register_buffer("mel_mean", torch.full((config.mels,), -2.0))
            self.register_buffer("mel_std", torch.full((config.mels,), 2.5))
            self.project = nn.Linear(2 * config.mels, config.width)
        else:
            self.min_samples = wav2vec2_samples(WAV2VEC2, config.reduce)
            self.front = FrontEnd()
            self.feature_norm = nn.LayerNorm(self.front.channels)
            self.project = nn.Linear(self.front.channels, config.width)
        self.weights = cif.Weights(config.width) if config.compress else None
        self.positional = nn.Conv1d(
            config.width, config.width, config.conv_kernel, padding=config.conv_kernel // 2, groups=config.width
        )
        width, step = config.width, config.reduce
        self.reduction = nn.Conv1d(width, width, step, step) if step > 1 else None
        self.plans = config.plans
        self.bias = PositionBias(config) if any(plan.own and plan.dims for plan in self.plans) else None
        self.layers = nn.ModuleList(Layer(config, plan) for plan in self.plans)
        self.mask_embedding = nn.Parameter(torch.zeros(config.width).uniform_(-0.1, 0.1))

    @property
    def num_states(self) -> int:
        """States exposed: one before the first layer and one after each."""
        return self.config.layers + 1

    @property
    def heads(self) -> tuple[int, ...]:
        """Attention heads of each layer, those of the maps that ``passage`` gives."""
        return tuple(len(plan.heads) for plan in self.plans)

    def frontend(self, logmel_10ms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel (B, T10, mels) with (B,) valid 10 ms frames to projected frames (B, T, D) and (B,) lengths."""
        if not isinstance(self.front, LogMel):
            raise ValueError("a model with a wav2vec2 front end takes waveforms, not log-mels")  # noqa: TRY004
        x, frames = logmel.stacked(logmel_10ms, lengths, self.mel_mean, self.mel_std)
        return self.project(x), frames

    def embed(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (B, S) with (B,) valid samples to projected frames (B, T, D) at 20 ms and (B,) valid frames."""
        if isinstance(self.front, LogMel):
            return self.frontend(self.front(waves), logmel.mel_frames(lengths))
        features, frames = self.front(waves, lengths)
        return self.project(self.feature_norm(features)), frames

    def encode_mel(self, logmel: Tensor, lengths: Tensor, masked: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
        """Hidden states from log-mel.

        Args:
            logmel: (B, T10, mels) log mel power, zero-padded or not.
            lengths: (B,) valid 10 ms frames.
            masked: (B, T) bool, frames replaced by the mask embedding (pre-training only).

        Returns:
            L + 1 residual-stream tensors (B, T, D), *not* normalised, and (B,) valid frames of these.
        """
        passage = self._encode(*self.frontend(logmel, lengths), masked, maps=False, lam=None)
        return passage.states, passage.frames

    def passage(
        self,
        waves: Tensor,
        lengths: Tensor,
        masked: Tensor | None = None,
        maps: bool = False,
        lam: float | None = None,
    ) -> Passage:
        """What the model makes of a batch, with gradient.

        Args:
            waves: (B, S) samples at 16 kHz.
            lengths: (B,) valid samples.
            masked: (B, T20) bool, frames of 20 ms replaced by the mask embedding.
            maps: whether attention maps are wanted.
            lam: compression, for a model that compresses; ``None`` for its attribute ``lam``.

        Raises:
            ValueError: ``lam`` for a model that does not compress.
        """
        return self._encode(*self.embed(waves, lengths), masked, maps, lam)

    def _encode(self, x: Tensor, grid: Tensor, masked: Tensor | None, maps: bool, lam: float | None) -> Passage:
        """Projected frames x (B, T20, D) with (B,) valid ones through the encoder."""
        if masked is not None:
            x = torch.where(masked[..., None], self.mask_embedding, x)
        x, frames, weights, place = self._compressed(x, grid, lam)
        mask = valid_mask(frames, x.shape[1])
        x = x * mask[..., None]
        x = x + functional.gelu(self.positional(x.transpose(1, 2)).transpose(1, 2))
        if self.reduction is not None:
            place = grid_of(frames, x.shape[1], self.config.reduce)
            x, frames = self._reduced(x, frames)
            mask = valid_mask(frames, x.shape[1])
        padding = None
        if not bool(mask.all()):
            padding = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, -torch.inf)[:, None, None, :]
        states, found = self._layers(x, padding, maps)
        return Passage(states, frames, grid, found, weights, place)

    def _compressed(
        self, x: Tensor, grid: Tensor, lam: float | None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Frames x (B, T20, D) as segments, with their number, the weights and the segment over each frame."""
        if self.weights is None:
            if lam is not None:
                raise ValueError("lam is for models that compress (compress: true in their shape)")
            return x, grid, None, None
        weights = self.weights(x, grid)
        end = cif.ends(cif.mixed(weights, self.lam if lam is None else lam), grid)
        x, segments = cif.fire(x, end)
        return x, segments, weights, cif.segment_of(end, segments)

    def _reduced(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Join ``reduce`` frames into one; frames at the end that fill no group are left out."""
        step = self.config.reduce
        if self.reduction is None or int(frames.min()) < step:
            raise ValueError(f"{int(frames.min())} frames are too few for one reduced frame, which takes {step}")
        y: Tensor = self.reduction(x.transpose(1, 2)).transpose(1, 2)
        return y, torch.div(frames, step, rounding_mode="floor")

    def _layers(self, x: Tensor, padding: Tensor | None, maps: bool) -> tuple[list[Tensor], list[Tensor]]:
        """States from the input of the first layer on, and the maps where they are wanted."""
        bias = None if self.bias is None else self.bias(x.shape[1])
        states, found, lent = [x], [], None
        for layer, plan in zip(self.layers, self.plans, strict=True):
            x, weights = layer(x, bias, padding, lent)
            states.append(x)
            if plan.lends:
                lent = weights
            if maps:
                found.append(x.new_zeros(len(x), 0, x.shape[1], x.shape[1]) if weights is None else weights)
            del weights
        return states, found

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """Waveforms (B, S) with (B,) valid samples to L + 1 states (B, T, D), layer-normed, zero where padded."""
        passage = self.passage(waves, lengths)
        states, frames = passage.repeated() if self.repeat else (passage.states, passage.frames)
        mask = valid_mask(frames, states[0].shape[1])[..., None]
        return [functional.layer_norm(s, s.shape[-1:]) * mask for s in states], frames


def skeleton(config: MiniConfig, device: torch.device | str = "cpu") -> MiniWavLM:
    """A model whose weights take no room and no time, to be called with the weights of another one.

    Constants (mel filters, places of kept dimensions) are on ``device``; for
    :func:`upstreams.students.cutting.passage_with`.
    """
    with torch.device("meta"):
        model = MiniWavLM(config)
    for module in model.modules():
        for name, tensor in list(module.named_buffers(recurse=False)):
            if not tensor.is_meta:
                setattr(module, name, tensor.to(device))
    return model


def parameters(config: MiniConfig) -> int:
    """Parameters of the model as an upstream exposes it, without the mask embedding of pre-training; builds nothing."""
    with torch.device("meta"):
        model = MiniWavLM(config)
    return sum(p.numel() for name, p in model.named_parameters() if name != "mask_embedding")
