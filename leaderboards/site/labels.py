"""Where a name beside a point has room: not on another name, not on a point, not on a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

Point = tuple[float, float]

LETTER, GAP, ABOVE = 6.4, 8.0, 8.0
"""Width of a letter, distance of a name from its point, and how far a name at the right stands above it, so that a
level that begins at the point does not go through the name."""


@dataclass
class Room:
    """The points and lines of a drawing, and the names set so far.

    Attributes:
        points: all points.
        lines: corners of lines whose parts are horizontal or vertical.
        edges: least and greatest x of a name.
    """

    points: Sequence[Point]
    lines: Sequence[Sequence[Point]]
    edges: tuple[float, float]
    _taken: list[tuple[float, float, float]] = field(default_factory=list)

    def side(self, point: Point, name: str) -> Literal["", "left", "right"]:
        """The side of the point where the name is set, and from then on takes room; empty where there is none."""
        size = LETTER * len(name)
        places: tuple[tuple[Literal["left", "right"], float, float], ...] = (
            ("right", point[0] + GAP, point[1] - ABOVE),
            ("left", point[0] - GAP - size, point[1]),
        )
        for side, start, middle in places if name else ():
            if self._free(point, start, start + size, middle):
                self._taken.append((start, start + size, middle))
                return side
        return ""

    def _free(self, point: Point, start: float, end: float, y: float) -> bool:
        if start < self.edges[0] or end > self.edges[1]:
            return False
        names = all(abs(y - other) > 12 or start > right or end < left for left, right, other in self._taken)
        bare = all(other == point or abs(other[1] - y) > 9 or not start < other[0] < end for other in self.points)
        return names and bare and not any(self._crosses(line, start, end, y) for line in self.lines)

    def _crosses(self, line: Sequence[Point], start: float, end: float, y: float) -> bool:
        """Whether a part of the line goes through the middle of the name (half its height either way)."""
        return any(
            max(a[0], b[0]) > start and min(a[0], b[0]) < end and max(a[1], b[1]) > y - 5 and min(a[1], b[1]) < y + 5
            for a, b in pairwise(line)
        )
