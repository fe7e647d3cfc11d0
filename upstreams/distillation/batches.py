"""Training batches from the pool: equal-length crops, so nothing is padded, with noise and second speakers mixed in.

Mixing happens in the mel power domain, where it costs next to nothing; targets always come from the clean crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upstreams.distillation.pool import Shard

CROPS = (96, 192, 320)
"""Crop lengths in 10 ms frames."""


def hours(logmel: Tensor) -> float:
    """Hours of audio in equal-length crops of log-mel (B, T10, mels) at 10 ms."""
    return logmel.shape[0] * logmel.shape[1] / 100 / 3600


@dataclass(frozen=True)
class Mixing:
    """How crops are corrupted (after WavLM: noise and a second speaker on at most half of the crop)."""

    noise: float = 0.3
    noise_snr_db: tuple[float, float] = (0.0, 25.0)
    speaker: float = 0.2
    speaker_snr_db: tuple[float, float] = (-3.0, 10.0)


class Batches:
    """Draws batches of about ``seconds`` of audio from shards; a share ``real`` of the crops is real speech."""

    def __init__(self, shards: Sequence[Shard], seconds: float, real: float, mixing: Mixing) -> None:
        self.seconds, self.real, self.mixing = seconds, real, mixing
        self.index: dict[tuple[str, int], list[tuple[int, int, int]]] = {}
        for s, shard in enumerate(shards):
            lengths = np.diff(shard.offsets)
            for crop in CROPS:
                rows = [(s, int(shard.offsets[i]), int(lengths[i])) for i in np.flatnonzero(lengths >= crop)]
                self.index.setdefault((shard.origin, crop), []).extend(rows)
        self.shards = shards

    def draw(self, step: int, seed: int) -> tuple[Tensor, Tensor]:
        """Clean and mixed log-mel (B, T10, mels) of one step; depends on ``(seed, step)`` only."""
        rng = np.random.default_rng((seed, step))
        crop = int(rng.choice(CROPS, p=(0.25, 0.3, 0.45)))
        count = max(2, int(self.seconds * 100 / crop))
        clean = np.stack([self._crop(rng, crop) for _ in range(count)]).astype(np.float32)
        mixed = np.stack([self._mix(rng, x, clean) for x in clean])
        return torch.from_numpy(clean), torch.from_numpy(mixed)

    def _crop(self, rng: np.random.Generator, crop: int) -> NDArray[np.float16]:
        origin = "real" if rng.random() < self.real else "synthetic"
        rows = self.index.get((origin, crop)) or self.index[("synthetic", crop)]
        shard, offset, length = rows[int(rng.integers(len(rows)))]
        start = offset + int(rng.integers(length - crop + 1))
        return self.shards[shard].mel[start : start + crop]

    def _mix(
        self, rng: np.random.Generator, x: NDArray[np.float32], others: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        power, level = np.exp(x), float(np.exp(x).mean())
        if rng.random() < self.mixing.noise:
            snr = rng.uniform(*self.mixing.noise_snr_db)
            power = power + mel_noise(rng, *x.shape) * level * 10 ** (-snr / 10)
        if rng.random() < self.mixing.speaker:
            other = np.exp(others[int(rng.integers(len(others)))])
            span = int(rng.integers(x.shape[0] // 8, x.shape[0] // 2 + 1))
            to, at = (int(rng.integers(x.shape[0] - span + 1)) for _ in range(2))
            gain = level / max(float(other.mean()), 1e-8) * 10 ** (-rng.uniform(*self.mixing.speaker_snr_db) / 10)
            power[to : to + span] += gain * other[at : at + span]
        return np.log(power).astype(np.float32)


def mel_noise(rng: np.random.Generator, frames: int, mels: int) -> NDArray[np.float64]:
    """Mel power of stationary coloured noise with slow modulation, unit mean, (frames, mels)."""
    tilt = np.exp(np.cumsum(rng.normal(0, 0.12, mels)) + rng.normal(0, 1.5) * np.linspace(-1, 1, mels))
    knots = np.abs(rng.standard_normal(frames // 25 + 3))
    envelope = 0.4 + rng.random() * np.interp(np.arange(frames) / 25, np.arange(knots.size), knots)
    noise: NDArray[np.float64] = rng.gamma(3.0, 1.0, (frames, mels)) * tilt * envelope[:, None]
    noise /= noise.mean()
    return noise


def span_mask(rng: np.random.Generator, batch: int, frames: int, start: float, span: int) -> Tensor:
    """(B, T) bool mask of spans: each frame starts one with probability ``start`` (HuBERT's scheme)."""
    starts = rng.random((batch, frames)) < start
    starts[:, 0] |= ~starts.any(1)
    mask = starts.copy()
    for shift in range(1, span):
        mask[:, shift:] |= starts[:, :-shift]
    return torch.from_numpy(mask)
