"""Schedules of weights: shapes at known points, continuation, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.interpolate import interp1d

from harness.interface import SlimbenchError
from upstreams.distillation.schedules import factor


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", {0: 1, 0.3: 1, 1: 1}),
        ({"kind": "constant"}, {0.5: 1}),
        ("linear", {0: 0, 0.25: 0.25, 1: 1}),
        ({"kind": "linear", "from": 2, "to": 1, "start": 0.2, "end": 0.6}, {0: 2, 0.2: 2, 0.4: 1.5, 0.6: 1, 1: 1}),
        ("cosine", {0: 0, 1 / 3: 0.25, 0.5: 0.5, 2 / 3: 0.75, 1: 1}),
        ({"kind": "cosine", "from": 1, "to": 0, "end": 0.5}, {0.25: 0.5, 0.75: 0}),
        ({"kind": "step", "at": 0.5}, {0.49: 0, 0.5: 1, 1: 1}),
        ({"kind": "step", "from": 3, "to": 0.5, "at": 0.1}, {0: 3, 0.1: 0.5}),
        ({"kind": "piecewise", "points": [[0.25, 2]]}, {0: 2, 1: 2}),
    ],
)
def test_shapes(schedule, expected):
    for progress, value in expected.items():
        assert factor(schedule, progress) == pytest.approx(value)


def test_piecewise_is_interpolation_level_outside():
    points = [[0.1, 1], [0.5, 0.2], [0.9, 3]]
    x, y = zip(*points, strict=True)
    line = interp1d(x, y, bounds_error=False, fill_value=(1, 3))
    for progress in np.linspace(0, 1, 21):
        assert factor({"kind": "piecewise", "points": points}, progress) == pytest.approx(float(line(progress)))


def test_progress_outside_the_training_is_its_end():
    assert factor("linear", -1) == 0
    assert factor("linear", 2) == 1


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_continuation_is_two_terms_with_opposite_schedules(kind):
    """(1 - phi) · smooth + phi · target with phi rising: the two factors always add up to 1."""
    smooth = {"kind": kind, "from": 1, "to": 0, "start": 0.2, "end": 0.8}
    target = {"kind": kind, "from": 0, "to": 1, "start": 0.2, "end": 0.8}
    phis = [factor(target, p) for p in np.linspace(0, 1, 11)]
    assert phis == sorted(phis)
    assert (phis[0], phis[-1]) == (0, 1)
    for p, phi in zip(np.linspace(0, 1, 11), phis, strict=True):
        assert math.isclose(factor(smooth, p), 1 - phi)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("const", r"No schedule is called 'const', did you mean 'constant'\?; known: constant, linear"),
        (0.5, "A schedule is 0.5; write one of constant"),
        ({"from": 0}, "No schedule is called None"),
        ({"kind": "linear", "begin": 0}, "Schedule linear: unknown key 'begin'.*known: from, to, start, end"),
        ({"kind": "linear", "from": "0"}, "'from' is '0'; write a number"),
        ({"kind": "linear", "start": 0.5, "end": 0.5}, "start and end must lie in order within 0 to 1"),
        ({"kind": "cosine", "end": 100}, "start and end must lie in order within 0 to 1"),
        ({"kind": "step"}, "'at' is None; write a number"),
        ({"kind": "step", "at": 2}, "'at' is 2; write a progress within 0 to 1"),
        ("piecewise", r"'points' is None; write \[progress, factor\] pairs"),
        ({"kind": "piecewise", "points": [[0.5, 1], [0.5, 2]]}, r"write \[progress, factor\] pairs, progress rising"),
        ({"kind": "piecewise", "points": [[0, 1], [2, 2]]}, r"write \[progress, factor\] pairs"),
        ({"kind": "piecewise", "points": [[0, float("nan")]]}, r"write \[progress, factor\] pairs"),
    ],
)
def test_wrong_schedules_are_refused(schedule, message):
    with pytest.raises(SlimbenchError, match=message):
        factor(schedule, 0.5)
