"""Training batches from the pool: equal-length crops, so nothing is padded, with noise and second speakers mixed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.interface import SAMPLE_RATE, SlimbenchError
from harness.noise import Wave, coloured_noise, gain, power
from upstreams.distillation.data.pool import FULL_SCALE, Shard
from upstreams.distillation.settings import within

CROPS = (15_600, 30_960, 51_440)
"""Crop lengths in samples: 48, 96 and 160 frames of 20 ms (hop 320, window 400)."""
CHANCES = (0.25, 0.3, 0.45)


def hours(waves: Tensor) -> float:
    """Hours of audio in equal-length crops (B, S)."""
    return waves.shape[0] * waves.shape[1] / SAMPLE_RATE / 3600


@dataclass(frozen=True)
class Mixing:
    """How crops are corrupted (after WavLM: noise and a second speaker on at most half of the crop).

    Attributes:
        noise: share of crops that get noise.
        noise_snr_db: range of its signal-to-noise ratio.
        speaker: share that get a second speaker.
        speaker_snr_db: range of the ratio to the second speaker.
    """

    noise: float = 0.3
    noise_snr_db: tuple[float, float] = (0.0, 25.0)
    speaker: float = 0.2
    speaker_snr_db: tuple[float, float] = (-3.0, 10.0)

    def __post_init__(self) -> None:
        for name, (low, high) in (("noise_snr_db", self.noise_snr_db), ("speaker_snr_db", self.speaker_snr_db)):
            if low > high:
                raise ValueError(f"{name} runs from {low} to {high}; write the smaller first")
        within("noise", self.noise, 0, 1)
        within("speaker", self.speaker, 0, 1)


class Batches:
    """Draws batches of about ``seconds`` of audio from shards; a share ``real`` of the crops is real speech.

    Args:
        shards: the pool.
        seconds: audio per batch.
        real: share of real speech, as far as there is any.
        mixing: noise and second speakers.
        allowed: (shard, utterance) that may be drawn; ``None`` for all.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        seconds: float,
        real: float,
        mixing: Mixing,
        allowed: frozenset[tuple[int, int]] | None = None,
    ) -> None:
        self.seconds, self.real, self.mixing = seconds, real, mixing
        self.index: dict[tuple[str, int], list[tuple[int, int, int]]] = {}
        for s, shard in enumerate(shards):
            lengths = np.diff(shard.offsets)
            for crop in CROPS:
                rows = [
                    (s, int(shard.offsets[i]), int(lengths[i]))
                    for i in np.flatnonzero(lengths >= crop)
                    if allowed is None or (s, int(i)) in allowed
                ]
                self.index.setdefault((shard.origin, crop), []).extend(rows)
        self.shards = shards

    def draw(self, step: int, seed: int) -> tuple[Tensor, Tensor]:
        """Clean and mixed waveforms (B, S) in [-1, 1] of one step; depends on ``(seed, step)`` only."""
        rng = np.random.default_rng((seed, step))
        crop = int(rng.choice(CROPS, p=CHANCES))
        count = max(2, int(self.seconds * SAMPLE_RATE / crop))
        clean: Wave = np.stack([self._crop(rng, crop) for _ in range(count)]).astype(np.float32) / np.float32(
            FULL_SCALE
        )
        mixed = np.stack([self._mix(rng, x, clean) for x in clean])
        return torch.from_numpy(clean), torch.from_numpy(mixed)

    def _crop(self, rng: np.random.Generator, crop: int) -> NDArray[np.int16]:
        origin = "real" if rng.random() < self.real else "synthetic"
        rows = self.index.get((origin, crop)) or self.index.get(("synthetic", crop)) or self.index.get(("real", crop))
        if not rows:
            raise SlimbenchError(f"No clip of the pool is {crop / SAMPLE_RATE:.1f} s long; give more hours or queries.")
        shard, offset, length = rows[int(rng.integers(len(rows)))]
        start = offset + int(rng.integers(length - crop + 1))
        return self.shards[shard].wave[start : start + crop]

    def _mix(self, rng: np.random.Generator, x: Wave, others: Wave) -> Wave:
        mixed, level = x.copy(), power(x)
        if rng.random() < self.mixing.noise:
            mixed += coloured_noise(rng, x.size) * gain(level, 1.0, rng.uniform(*self.mixing.noise_snr_db))
        if rng.random() < self.mixing.speaker:
            other = others[int(rng.integers(len(others)))]
            span = int(rng.integers(x.size // 8, x.size // 2 + 1))
            to, at = (int(rng.integers(x.size - span + 1)) for _ in range(2))
            ratio = gain(level, power(other), rng.uniform(*self.mixing.speaker_snr_db))
            mixed[to : to + span] += ratio * other[at : at + span]
        return mixed


def span_mask(rng: np.random.Generator, batch: int, frames: int, start: float, span: int) -> Tensor:
    """(B, T) bool mask of spans: each frame starts one with probability ``start`` (HuBERT's scheme)."""
    starts = rng.random((batch, frames)) < start
    starts[:, 0] |= ~starts.any(1)
    mask = starts.copy()
    for shift in range(1, span):
        mask[:, shift:] |= starts[:, :-shift]
    return torch.from_numpy(mask)
