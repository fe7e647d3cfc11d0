"""Disturbances at a given signal-to-noise ratio: what training mixes into crops and what noisy test audio carries."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.interface import SAMPLE_RATE

Wave = NDArray[np.float32]

SLOW = SAMPLE_RATE // 4
"""Samples between two knots of a noise's envelope."""
FLOOR = 1e-10
"""Lowest power that is told from silence: below half a step of 16-bit audio."""


def power(wave: Wave) -> float:
    """Mean square of a waveform, at least :data:`FLOOR`."""
    return max(float(np.square(wave, dtype=np.float64).mean()), FLOOR)


def gain(signal: float, disturbance: float, snr_db: float) -> np.float32:
    """The factor that brings a disturbance of a given power to ``snr_db`` below the signal's power.

    >>> round(float(gain(1.0, 4.0, 20.0)), 6)
    0.05
    """
    return np.float32((signal / disturbance * 10 ** (-snr_db / 10)) ** 0.5)


def coloured_noise(rng: np.random.Generator, samples: int) -> Wave:
    """Stationary noise of a random spectrum with slow modulation and power 1, (samples,)."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    walk = np.cumsum(rng.normal(0, 0.12, 80)) + rng.normal(0, 1.5) * np.linspace(-1, 1, 80)
    spectrum *= np.exp(0.5 * np.interp(np.linspace(0, 79, spectrum.size), np.arange(80), walk))
    knots = np.abs(rng.standard_normal(samples // SLOW + 3))
    envelope = 0.4 + rng.random() * np.interp(np.arange(samples) / SLOW, np.arange(knots.size), knots)
    noise = np.fft.irfft(spectrum, samples) * np.sqrt(envelope)
    scaled: Wave = (noise / np.sqrt(np.square(noise).mean())).astype(np.float32)
    return scaled
