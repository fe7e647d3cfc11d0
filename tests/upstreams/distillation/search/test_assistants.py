"""The mixture of assistants against a grid over the simplex, scikit-learn's ridge and made-up truths."""

from itertools import product

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from harness.interface import SlimbenchError
from upstreams.distillation.search import assistants
from upstreams.distillation.search.assistants import RidgeProbe, aligned, on_simplex, search
from upstreams.distillation.teachers import mix
from upstreams.distillation.terms.base import View


def grid(count, steps):
    rows = (row for row in product(range(steps + 1), repeat=count) if sum(row) == steps)
    return np.array(list(rows)) / steps


def frames(seed=0, count=400, width=6):
    """A teacher that is 0.6 of the first assistant and 0.3 of the second, and a third that is noise."""
    rng = np.random.default_rng(seed)
    first, second, noise = (rng.normal(size=(count, width)) for _ in range(3))
    target = (0.6 * first + 0.3 * second) @ rng.normal(size=(width, 8)) + 0.05 * rng.normal(size=(count, 8))
    return [first, second, noise], target


def test_the_stick_covers_the_simplex_equally_and_reaches_its_corners():
    x = np.random.default_rng(0).random((4000, 3))
    weights = np.stack([on_simplex(row) for row in x])
    assert weights.min() >= 0
    assert np.allclose(weights.sum(1), 1)
    assert np.allclose(weights.mean(0), 0.25, atol=0.01)  # Dirichlet(1, 1, 1, 1)
    assert np.allclose(weights.var(0), 3 / 80, atol=0.003)
    corners = {tuple(on_simplex(np.array(c, float)).tolist()) for c in product((0, 1), repeat=3)}
    assert corners == {(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)}


def test_the_probe_is_scikit_learns_ridge():
    parts, target = frames()
    weights = np.array([0.5, 0.2, 0.3])
    x = sum(w * p for w, p in zip(weights, parts, strict=True))
    centred = x[:300] - x[:300].mean(0)
    model = Ridge(alpha=1e-3 * (centred**2).sum() / 6).fit(x[:300], target[:300])
    error = ((model.predict(x[300:]) - target[300:]) ** 2).sum()
    expected = error / ((target[300:] - target[:300].mean(0)) ** 2).sum()
    assert RidgeProbe(parts, target, 300)(weights) == pytest.approx(expected, rel=1e-9)


def test_the_search_beats_a_grid_and_finds_the_made_up_weights():
    parts, target = frames()
    probe = RidgeProbe(parts, target, 300)
    found = search(3, probe, seed=0)
    assert found.value <= min(probe(row) for row in grid(3, 40)) + 1e-9
    assert found.weights == pytest.approx((2 / 3, 1 / 3, 0.0), abs=0.03)
    assert found.value == pytest.approx(probe(np.array(found.weights)))
    assert search(3, probe, seed=0) == found


def test_the_search_takes_any_criterion_and_reaches_the_border():
    def criterion(w):
        return float(((w - np.array([-0.5, 0.9, 0.6])) ** 2).sum())

    found = search(3, criterion, seed=1)
    best = min(grid(3, 60), key=criterion)
    assert found.weights == pytest.approx(tuple(best), abs=0.02)
    assert found.weights == pytest.approx((0.0, 0.65, 0.35), abs=1e-3)  # the projection onto the simplex


def test_one_assistant_needs_no_search():
    assert search(1, lambda w: 3.0, seed=0) == assistants.Mixture((1.0,), 3.0, 1)


def test_alignment_gives_the_teachers_width_and_undoes_a_linear_map():
    rng = np.random.default_rng(2)
    target = rng.normal(size=(300, 4)) + 3
    narrow = target @ rng.normal(size=(4, 6)) - 1
    assert np.allclose(aligned(narrow, target, 200, ridge=1e-9), target, atol=1e-4)


def test_a_mixed_view_is_the_weighted_mean_of_states():
    views = [View(tuple(torch.randn(2, 5, 3) for _ in range(2)), torch.tensor([5, 4])) for _ in range(3)]
    mixed = mix(views, (0.5, 0.3, 0.2))
    for number in range(2):
        expected = sum(w * v.states[number] for w, v in zip((0.5, 0.3, 0.2), views, strict=True))
        torch.testing.assert_close(mixed.states[number], expected)
    assert torch.equal(mixed.frames, views[0].frames)


def test_what_cannot_be_mixed_is_refused():
    parts, target = frames()
    with pytest.raises(SlimbenchError, match="align them to one width"):
        RidgeProbe([parts[0], parts[1][:, :3]], target, 300)
    with pytest.raises(SlimbenchError, match="keep some of them held out"):
        RidgeProbe(parts, target, 400)
    with pytest.raises(SlimbenchError, match="is nan at weights"):
        search(2, lambda w: float("nan"), seed=0)
    with pytest.raises(SlimbenchError, match="at least one"):
        search(0, lambda w: 0.0, seed=0)
    views = [View((torch.randn(1, 5, 3),), torch.tensor([5])), View((torch.randn(1, 5, 4),), torch.tensor([5]))]
    with pytest.raises(SlimbenchError, match="different depths, widths"):
        mix(views, (0.5, 0.5))
    with pytest.raises(SlimbenchError, match="sum to 1"):
        mix(views[:1], (0.5,))
