"""How sparsity grows over a training, as a function of its progress from 0 to 1."""

from __future__ import annotations


def linear(progress: float, final: float, begin: float, end: float) -> float:
    """0 until ``begin``, then in a straight line to ``final`` at ``end``.

    >>> linear(0.25, 0.8, 0.0, 0.5)
    0.4
    """
    return final * min(max((progress - begin) / (end - begin), 0.0), 1.0)


def cubic(progress: float, final: float, begin: float, end: float) -> float:
    """0 until ``begin``, ``final`` from ``end`` on, fast first and slow last (arXiv 1710.01878).

    >>> round(cubic(0.5, 0.8, 0.0, 1.0), 6)
    0.7
    """
    left = 1 - min(max((progress - begin) / (end - begin), 0.0), 1.0)
    return final * (1 - left**3)
