"""Schedules: the factor of a term's weight over training.

Written in a recipe as a word or a mapping with ``kind``. Progress is the share of the steps that are done, 0 to 1.

- ``constant``: 1.
- ``linear``, ``cosine``: from ``from`` to ``to`` between the progress ``start`` and ``end``, straight or along half a
  cosine; by default from 0 to 1 over the whole training.
- ``piecewise``: ``points: [[0, 1], [0.5, 0.2]]``, straight lines between (progress, factor), level outside.
- ``step``: ``from`` before the progress ``at``, ``to`` afterwards.

Continuation (arXiv 2212.05998), an easy objective that gives way to the real one, is two terms with opposite schedules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from harness.cards import hint
from harness.interface import SlimbenchError

RAMP = {"from": 0.0, "to": 1.0, "start": 0.0, "end": 1.0}
DEFAULTS: dict[str, dict[str, Any]] = {
    "constant": {},
    "linear": RAMP,
    "cosine": RAMP,
    "piecewise": {"points": None},
    "step": {"from": 0.0, "to": 1.0, "at": None},
}
"""Keys of each kind besides ``kind``; ``None`` must be given."""


def factor(schedule: Any, progress: float) -> float:
    """Factor of a weight.

    Args:
        schedule: a word or mapping, see above.
        progress: share of the training done; values outside 0 to 1 count as the nearest.

    Raises:
        SlimbenchError: the schedule is not one of those above.

    >>> factor({"kind": "linear", "from": 1, "to": 0, "end": 0.5}, 0.25)
    0.5
    """
    values = parse(schedule)
    progress = min(max(progress, 0.0), 1.0)
    kind = values["kind"]
    if kind == "constant":
        return 1.0
    if kind == "step":
        return float(values["to"] if progress >= values["at"] else values["from"])
    if kind == "piecewise":
        return interpolate(values["points"], progress)
    done = min(max((progress - values["start"]) / (values["end"] - values["start"]), 0.0), 1.0)
    if kind == "cosine":
        done = (1 - math.cos(math.pi * done)) / 2
    return float(values["from"] + (values["to"] - values["from"]) * done)


def interpolate(points: list[list[float]], progress: float) -> float:
    """Height at ``progress`` of straight lines between (progress, factor) points in order."""
    if progress <= points[0][0]:
        return float(points[0][1])
    for (left, low), (right, high) in pairwise(points):
        if progress < right:
            return float(low + (high - low) * (progress - left) / (right - left))
    return float(points[-1][1])


def parse(schedule: Any) -> dict[str, Any]:
    """A schedule with all its keys, checked.

    Raises:
        SlimbenchError: an unknown kind or key, one that is missing, or values out of order.
    """
    given = {"kind": schedule} if isinstance(schedule, str) else schedule
    if not isinstance(given, Mapping):
        raise SlimbenchError(
            f"A schedule is {schedule!r}; write one of {', '.join(DEFAULTS)}, or a mapping with 'kind'."
        )
    kind = given.get("kind")
    if kind not in DEFAULTS:
        raise SlimbenchError(
            f"No schedule is called {kind!r}{hint(str(kind), DEFAULTS)}; known: {', '.join(DEFAULTS)}."
        )
    known = DEFAULTS[kind]
    for key in given:
        if key != "kind" and key not in known:
            listed = ", ".join(known) or "none"
            raise SlimbenchError(f"Schedule {kind}: unknown key {key!r}{hint(str(key), known)}; known: {listed}.")
    values: dict[str, Any] = {**known, **given}
    for key in known:
        fits = _are_points(values[key]) if key == "points" else _is_number(values[key])
        if not fits:
            wanted = "[progress, factor] pairs, progress rising within 0 to 1" if key == "points" else "a number"
            raise SlimbenchError(f"Schedule {kind}: {key!r} is {values[key]!r}; write {wanted}.")
    if "start" in known and not 0 <= values["start"] < values["end"] <= 1:
        raise SlimbenchError(f"Schedule {kind}: start and end must lie in order within 0 to 1; correct them.")
    if kind == "step" and not 0 <= values["at"] <= 1:
        raise SlimbenchError(f"Schedule step: 'at' is {values['at']:g}; write a progress within 0 to 1.")
    return values


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _are_points(value: Any) -> bool:
    """Whether it is a list of [progress, factor] with progress rising within 0 to 1."""
    if not isinstance(value, list | tuple) or not value:
        return False
    if not all(isinstance(p, list | tuple) and len(p) == 2 and all(map(_is_number, p)) for p in value):
        return False
    places = [p[0] for p in value]
    return all(0 <= place <= 1 for place in places) and all(a < b for a, b in pairwise(places))
