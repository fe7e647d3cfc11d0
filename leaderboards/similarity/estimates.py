"""A number with its 95 % interval, and resamples of clusters as :mod:`harness.stats` draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

UNSURE = 0.5
"""An interval is given where at least this share of the resamples has a value."""


@dataclass(frozen=True)
class Estimate:
    """A value with the bounds of its 95 % percentile interval; NaN where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimates:
    """A table of values with the bounds of their intervals, all of one shape."""

    value: Floats
    low: Floats
    high: Floats

    def at(self, *place: int) -> Estimate:
        """One of them."""
        return Estimate(float(self.value[place]), float(self.low[place]), float(self.high[place]))


def clusters(names: Sequence[str]) -> Ints:
    """A number per distinct name, in order of appearance; an item without a name is a cluster of its own."""
    known: dict[str, int] = {}
    return np.asarray([known.setdefault(name or f"\0{i}", len(known)) for i, name in enumerate(names)], dtype=np.int64)


def resamples(units: int, repeats: int, generator: np.random.Generator) -> Floats:
    """How often each cluster counts: ones in the first line, then one line per resample, (1 + repeats, units)."""
    drawn = generator.multinomial(units, np.full(units, 1.0 / units), size=repeats)
    return np.concatenate([np.ones((1, units)), drawn.astype(np.float64)])


def summed_up(values: Floats) -> Estimates:
    """Value and interval from the lines of :func:`resamples`, (1 + repeats, …)."""
    low, high = np.full(values.shape[1:], np.nan), np.full(values.shape[1:], np.nan)
    draws = values[1:]
    sure = np.isfinite(draws).mean(axis=0) >= UNSURE if len(draws) else np.zeros(values.shape[1:], dtype=bool)
    if sure.any():
        low[sure], high[sure] = np.nanpercentile(draws[:, sure], [2.5, 97.5], axis=0)
    return Estimates(values[0], low, high)
