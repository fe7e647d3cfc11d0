"""Students of one shape that were trained several times, with different seeds: their mean, and the error it has.

They are of one family (teacher, kind, method), depth and width and have exactly as many parameters.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

import numpy as np

from leaderboards.depth_width.families import Column, Family, Member
from leaderboards.uncertainty import Part


def groups(members: Sequence[Member], known: Container[str]) -> list[list[Member]]:
    """The members that are known, each with the other trainings of its shape, in the order of the first of each."""
    found: dict[tuple[int, int, float], list[Member]] = {}
    for member in members:
        if member.name in known:
            found.setdefault((*member.shape, member.params), []).append(member)
    return list(found.values())


def spread(trained: Sequence[Sequence[float]], weights: Mapping[str, float]) -> tuple[Part, ...]:
    """The error that training a student another time adds to a weighted sum; nothing where none was trained twice.

    The variance between trainings is pooled over the shapes that have several, one degree of freedom for each training
    but the first, and taken for those that have one. The spread of probe seeds within it is not taken out, so that it
    is rather too large than too small.

    Args:
        trained: per shape the scores of its trainings.
        weights: by student, its factor in the sum.
    """
    freedom = sum(len(values) - 1 for values in trained)
    if not freedom:
        return ()
    squares = math.fsum((len(values) - 1) * float(np.var(values, ddof=1)) for values in trained if len(values) > 1)
    return (Part(squares / freedom * math.fsum(weight**2 for weight in weights.values()), float(freedom)),)


def joined(family: Family, columns: Sequence[Column]) -> tuple[Family, list[Column]]:
    """The family with one member for all trainings of a shape, named as the first, and columns with their means."""
    whole = groups(family.members, [member.name for member in family.members])
    first = tuple(trained[0] for trained in whole)
    return replace(family, members=first), [_means(column, whole) for column in columns]


def _means(column: Column, whole: Sequence[Sequence[Member]]) -> Column:
    values = {
        trained[0].name: sum(scores) / len(scores)
        for trained in whole
        if (scores := [column.values[member.name] for member in trained if member.name in column.values])
    }
    return replace(column, values=values, drawn=None)
