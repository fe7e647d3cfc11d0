"""Which values of a column are best and second best: one rule for measured and published, for tables and the page."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

Mark = Literal["", "best", "second"]
Key = TypeVar("Key", bound=Hashable)

MEASURED_PRECISION = 0.05
"""Half of the last digit that measured scores are shown with, in points."""


@dataclass(frozen=True)
class Shown:
    """A value that takes part: the number as shown, the value behind it, and how far that may be off, in points."""

    text: str
    value: float
    precision: float


def marks(values: Mapping[Key, Shown], higher_is_better: bool) -> dict[Key, Mark]:
    """The marks of the best and second best; who gets none is absent.

    Values that look the same share a mark. Nobody is marked where all look the same, and a place is not given where the
    next value is nearer than the precisions of the two together: their order is then not known, and with it no later
    place.
    """
    levels: dict[float, list[Key]] = {}
    for key, shown in values.items():
        levels.setdefault(float(shown.text), []).append(key)
    order = [levels[level] for level in sorted(levels, reverse=higher_is_better)]
    found: dict[Key, Mark] = {}
    if len(order) < 2:
        return found
    names: tuple[Mark, ...] = ("best", "second")
    for place, mark in enumerate(names):
        following = order[place + 1] if place + 1 < len(order) else []
        if any(_near(values[one], values[two]) for one in order[place] for two in following):
            break
        found |= dict.fromkeys(order[place], mark)
    return found


def _near(one: Shown, two: Shown) -> bool:
    return abs(one.value - two.value) < one.precision + two.precision - 1e-9
