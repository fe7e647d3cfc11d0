"""A WavLM-style encoder small enough to be trained on a CPU: the embedded teacher and its students.

Differences from WavLM base, each to save compute: a log-mel front end instead of seven raw-wave convolutions (as in
MelHuBERT), pre-norm layers, width 192. Kept: 20 ms frames, a convolutional positional embedding, gated relative
position bias shared by all layers, masked prediction of units, utterance mixing.

Exposed states: the positional-convolution output and the output of every layer, each through a parameter-free layer
norm, so that a weighted sum compares like with like.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional

WINDOW, HOP, FFT = 400, 160, 512


@dataclass(frozen=True)
class MiniConfig:
    """Shape of a :class:`MiniWavLM`.

    Attributes:
        layers: transformer layers.
        width: model dimension; a multiple of ``head_width``.
        ffn: inner dimension of the feed-forward blocks.
        head_width: dimension of one attention head.
        mels: log-mel channels at 10 ms; two frames are stacked to 20 ms.
        conv_kernel: kernel of the depthwise positional convolution, frames.
        buckets: relative-position buckets (both directions together).
        max_distance: distance in frames from which all offsets share a bucket.
    """

    layers: int
    width: int
    ffn: int
    head_width: int = 64
    mels: int = 80
    conv_kernel: int = 31
    buckets: int = 64
    max_distance: int = 200

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MiniConfig:
        """Build from parsed JSON; an unknown or missing key raises ``TypeError``."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


class LogMel(nn.Module):
    """Log-mel front end: (B, S) waveform to (B, T10, mels) at 10 ms, no padding at the edges.

    Level is removed per utterance (mean mel power over its valid frames), so that gain does not matter.
    """

    window: Tensor
    bank: Tensor

    def __init__(self, mels: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        bank = torchaudio.functional.melscale_fbanks(FFT // 2 + 1, 20.0, 8000.0, mels, 16_000, norm="slaney")
        self.register_buffer("bank", bank, persistent=False)

    def forward(self, waves: Tensor) -> Tensor:
        """Log mel power, not level-normalised, (B, 1 + (S - 400) // 160, mels)."""
        frames = waves.unfold(-1, WINDOW, HOP) * self.window
        power = torch.fft.rfft(frames, FFT).abs().square()
        return torch.log(power @ self.bank + 1e-8)


def valid_mask(lengths: Tensor, frames: int) -> Tensor:
    """(B, T) bool, true where a frame belongs to the utterance."""
    return torch.arange(frames, device=lengths.device)[None, :] < lengths[:, None]


def remove_level(logmel: Tensor, mask: Tensor) -> Tensor:
    """Subtract the log of the mean mel power over valid frames, per utterance."""
    power = torch.where(mask[..., None], logmel, -torch.inf).flatten(1)
    counts = (mask.sum(1) * logmel.shape[-1]).clamp(min=1).to(logmel.dtype)
    return logmel - (torch.logsumexp(power, 1) - counts.log())[:, None, None]


class PositionBias(nn.Module):
    """Bucketed relative-position bias (H, T, T), T5-style buckets as in WavLM, shared by all layers."""

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        self.buckets, self.max_distance = config.buckets, config.max_distance
        self.embedding = nn.Embedding(config.buckets, config.width // config.head_width)

    def bucket(self, offset: Tensor) -> Tensor:
        """Bucket of each signed offset (key - query): exact when near, logarithmic when far."""
        half = self.buckets // 2
        exact = half // 2
        distance = offset.abs()
        scale = math.log(self.max_distance / exact)
        far = exact + (torch.log(distance.clamp(min=1) / exact) / scale * (half - exact)).long()
        return (offset > 0).long() * half + torch.where(distance < exact, distance, far.clamp(max=half - 1))

    def forward(self, frames: int) -> Tensor:
        """Bias (H, T, T)."""
        place = torch.arange(frames, device=self.embedding.weight.device)
        bias: Tensor = self.embedding(self.bucket(place[None, :] - place[:, None]))
        return bias.permute(2, 0, 1)


class Layer(nn.Module):
    """Pre-norm transformer layer whose attention adds a gated relative position bias (WavLM, section 3.1)."""

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        d = config.width
        self.heads, self.head_width = d // config.head_width, config.head_width
        self.norm_attention, self.norm_ffn = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.gate = nn.Linear(config.head_width, 2)
        self.gate_scale = nn.Parameter(torch.ones(self.heads))
        self.up, self.down = nn.Linear(d, config.ffn), nn.Linear(config.ffn, d)

    def attend(self, x: Tensor, bias: Tensor, padding: Tensor | None) -> Tensor:
        """Self-attention of x (B, T, D) with position bias (H, T, T) and padding (B, 1, 1, T) of -inf or 0."""
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4)
        update, reset = torch.sigmoid(self.gate(q)).unbind(-1)
        gate = 1.0 + update * (reset * self.gate_scale[:, None] - 1.0) + 1.0
        scores = q @ k.transpose(-1, -2) / math.sqrt(self.head_width) + gate[..., None] * bias
        weights = torch.softmax(scores if padding is None else scores + padding, -1)
        mixed: Tensor = self.out((weights @ v).transpose(1, 2).reshape(b, t, d))
        return mixed

    def forward(self, x: Tensor, bias: Tensor, padding: Tensor | None) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        x = x + self.attend(self.norm_attention(x), bias, padding)
        hidden: Tensor = x + self.down(functional.gelu(self.up(self.norm_ffn(x))))
        return hidden


class MiniWavLM(nn.Module):
    """The encoder. ``forward`` maps waveforms to hidden states; ``encode_mel`` starts from log-mel (training)."""

    min_samples = WINDOW + HOP
    frame_ms = 20.0
    mel_mean: Tensor
    mel_std: Tensor

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        if config.width % config.head_width:
            raise ValueError(f"width {config.width} is not a multiple of head_width {config.head_width}")
        self.config = config
        self.front = LogMel(config.mels)
        self.register_buffer("mel_mean", torch.full((config.mels,), -2.0))
        self.register_buffer("mel_std", torch.full((config.mels,), 2.5))
        self.project = nn.Linear(2 * config.mels, config.width)
        self.positional = nn.Conv1d(
            config.width, config.width, config.conv_kernel, padding=config.conv_kernel // 2, groups=config.width
        )
        self.bias = PositionBias(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.mask_embedding = nn.Parameter(torch.zeros(config.width).uniform_(-0.1, 0.1))

    @property
    def num_states(self) -> int:
        """States exposed: one before the first layer and one after each."""
        return self.config.layers + 1

    def frontend(self, logmel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel (B, T10, mels) with (B,) valid 10 ms frames to projected frames (B, T, D) and (B,) lengths."""
        logmel = remove_level(logmel, valid_mask(lengths, logmel.shape[1]))
        x = (logmel - self.mel_mean) / self.mel_std
        pairs = x.shape[1] // 2
        x = x[:, : 2 * pairs].reshape(x.shape[0], pairs, -1)
        return self.project(x), lengths // 2

    def encode_mel(self, logmel: Tensor, lengths: Tensor, masked: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
        """Hidden states from log-mel.

        Args:
            logmel: (B, T10, mels) log mel power, zero-padded or not.
            lengths: (B,) valid 10 ms frames.
            masked: (B, T) bool, frames replaced by the mask embedding (pre-training only).

        Returns:
            L + 1 residual-stream tensors (B, T, D), *not* normalised, and (B,) valid 20 ms frames.
        """
        x, lengths = self.frontend(logmel, lengths)
        if masked is not None:
            x = torch.where(masked[..., None], self.mask_embedding, x)
        mask = valid_mask(lengths, x.shape[1])
        x = x * mask[..., None]
        x = x + functional.gelu(self.positional(x.transpose(1, 2)).transpose(1, 2))
        padding = None
        if not bool(mask.all()):
            padding = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, -torch.inf)[:, None, None, :]
        bias = self.bias(x.shape[1])
        states = [x]
        for layer in self.layers:
            x = layer(x, bias, padding)
            states.append(x)
        return states, lengths

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """Waveforms (B, S) with (B,) valid samples to L + 1 states (B, T, D), layer-normed, zero where padded."""
        frames = 1 + torch.div(lengths - WINDOW, HOP, rounding_mode="floor")
        states, lengths = self.encode_mel(self.front(waves), frames)
        mask = valid_mask(lengths, states[0].shape[1])[..., None]
        return [functional.layer_norm(s, s.shape[-1:]) * mask for s in states], lengths
