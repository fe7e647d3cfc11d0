"""Boundaries, weights and guidance against loops over frames."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from upstreams.distillation.procedures import segments

FRAMES = torch.tensor([23, 17])


def test_novelty_is_the_distance_between_means_before_and_after():
    logmel = torch.randn(1, 41, 5)
    x = np.array([(logmel[0, 2 * t] + logmel[0, 2 * t + 1]).numpy() / 2 for t in range(20)])
    got = segments.novelty(logmel, context=3)
    assert got.shape == (1, 20)
    for t in range(20):
        before, after = x[[max(t - k, 0) for k in (3, 2, 1)]].mean(0), x[[min(t + k, 19) for k in range(3)]].mean(0)
        assert float(got[0, t]) == pytest.approx(np.linalg.norm(before - after), abs=1e-5)


def test_steps_of_the_spectrum_are_found_where_they_are():
    levels = torch.tensor([0.0, 3.0, -2.0, 5.0, 1.0])
    logmel = levels.repeat_interleave(10)[None, :, None] + 0.01 * torch.randn(1, 50, 8)
    found = segments.peaks(segments.novelty(logmel), torch.tensor([25]), period=5.0)
    assert found[0].nonzero()[:, 0].tolist() == [0, 5, 10, 15, 20]


def test_peaks_are_the_strongest_local_maxima():
    strength = torch.rand(2, 23)
    found = segments.peaks(strength, FRAMES, period=4.0)
    for row, frames, mine in zip(strength.tolist(), FRAMES.tolist(), found, strict=True):
        row = [-np.inf, *row[1:frames], -np.inf]
        inner = [t for t in range(1, frames) if row[t] > row[t - 1] and row[t] >= row[t + 1]]
        wanted = round(frames / 4.0) - 1
        best = sorted(inner, key=lambda t: -row[t])[:wanted]
        assert mine.nonzero()[:, 0].tolist() == sorted([0, *best])


def test_changes_of_units():
    units = torch.tensor([[4, 4, 7, 7, 7, 4], [1, 2, 2, 2, 9, 9]])
    found = segments.changes(units, torch.tensor([6, 4]))
    assert found.tolist() == [[True, False, True, False, False, True], [True, True, False, False, False, False]]


def test_weights_and_guidance_are_those_of_a_loop():
    boundaries = segments.peaks(torch.rand(2, 23), FRAMES, period=3.0)
    weights = torch.rand(2, 23)
    by_frame, by_segment = [], []
    spread = segments.spread(boundaries, FRAMES)
    for b, frames in enumerate(FRAMES.tolist()):
        starts = [t for t in range(frames) if boundaries[b, t]] + [frames]
        assert float(spread[b, frames:].sum()) == 0
        for number, (start, end) in enumerate(pairwise(starts), 1):
            for t in range(start, end):
                assert float(spread[b, t]) == pytest.approx(1 / (end - start))
                by_frame.append(abs(float(weights[b, t]) - 1 / (end - start)))
            by_segment.append(abs(float(weights[b, :end].sum()) - number))
    got = segments.guidance(weights, boundaries, FRAMES)
    assert [float(g) for g in got] == pytest.approx([np.mean(by_frame), np.mean(by_segment)], abs=1e-5)


def test_weights_that_follow_the_segments_cost_nothing():
    boundaries = segments.peaks(torch.rand(2, 23), FRAMES, period=3.0)
    got = segments.guidance(segments.spread(boundaries, FRAMES), boundaries, FRAMES)
    assert [float(g) for g in got] == pytest.approx([0, 0], abs=1e-5)
