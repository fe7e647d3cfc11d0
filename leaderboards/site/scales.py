"""Axes of the page's figures: from values to places, with round ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """A scale from values to places in user units of the drawing.

    Attributes:
        low: value at ``start``.
        high: value at ``end``; ``end`` lies before ``start`` where the axis is turned.
        log: whether equal distances are equal ratios.
        ticks: values with a label, in rising order.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    ticks: tuple[float, ...] = ()

    def at(self, value: float) -> float:
        """The place of a value, to a hundredth of a unit; values outside stay at the edge."""
        low, high, there = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, there = math.log10(low), math.log10(high), math.log10(there)
        return round(self.start + (there - low) / (high - low) * (self.end - self.start), 2)

    def labels(self) -> list[tuple[float, str]]:
        """Place and text of every tick."""
        return [(self.at(tick), f"{tick:g}") for tick in self.ticks]


LEAST_RANGE = 2.0
"""Points that a score axis spans at least, as in the report: scores that are all but equal are drawn so."""


def linear(values: Sequence[float], start: float, end: float, count: int = 5, least: float = LEAST_RANGE) -> Axis:
    """An axis around the values, of at least that range, with about ``count`` ticks at 1, 2 or 5 · 10ⁿ."""
    low, high = min(values), max(values)
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
    room = 0.04 * (high - low)
    low, high = low - room, high + room
    step = _step((high - low) / count)
    first = math.ceil(low / step)
    ticks = []
    while first * step <= high:
        ticks.append(round(first * step, 10))
        first += 1
    return Axis(low, high, start, end, ticks=tuple(ticks))


def logarithmic(values: Sequence[float], start: float, end: float) -> Axis:
    """A logarithmic axis around positive values, with ticks at 1, 2 and 5, or at decades where the range is long."""
    low, high = min(values), max(values)
    room = max(1.3, (high / low) ** 0.07)
    low, high = low / room, high * room
    steps = (1,) if high / low > 2000 else (1, 2, 5)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)

    def within(factors: Sequence[float]) -> tuple[float, ...]:
        ticks = [float(f"{factor}e{decade}") for decade in decades for factor in factors]
        return tuple(tick for tick in ticks if low <= tick <= high)

    ticks = within(steps)
    return Axis(low, high, start, end, True, ticks if len(ticks) > 2 else within((1, 1.5, 2, 3, 4, 5, 7)))


def _step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * 0.999)
