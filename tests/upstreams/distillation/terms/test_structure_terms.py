"""Terms that compare structure instead of states: Gram matrices, CKA, maps, similarities, relations, against loops."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from term_cases import FRAMES, MINE, THEIRS, cosine, loss, rows, softmax, term, view

from harness.interface import SlimbenchError
from upstreams.distillation.terms import View
from upstreams.distillation.terms.cka import linear_cka

PAIRS = ((1, 2), (2, 4), (3, 6))


def mean_gap(make, mine, theirs, how):
    """Mean distance of matrices that ``make(states, number)`` gives per utterance, entries of all utterances alike."""
    found = []
    for s, t in PAIRS:
        gaps = [np.ravel(x - y) for x, y in zip(make(mine.states, s), make(theirs.states, t), strict=True)]
        gaps = np.concatenate(gaps)
        found.append(np.mean(np.abs(gaps) if how == "l1" else gaps**2))
    return np.mean(found)


@pytest.mark.parametrize("how", ["mse", "l1"])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("knowledge", ["gram_time", "gram_layers"])
def test_gram_matrices(knowledge, normalise, how):
    def make(states, number):
        first = rows(states[number - 1] if knowledge == "gram_layers" else states[number])
        for a, b in zip(first, rows(states[number]), strict=True):
            one = [[cosine(x, y) if normalise else np.dot(x, y) / len(x) for y in b] for x in a]
            yield np.array(one)

    built = term(knowledge, student="layers", distance=how, options={"normalise": normalise})
    assert built.pairs == PAIRS
    mine, theirs = view(1, MINE), view(2, THEIRS)
    assert loss(built, mine, theirs) == pytest.approx(mean_gap(make, mine, theirs, how), rel=1e-4)


@pytest.mark.parametrize("knowledge", ["gram_time", "gram_layers"])
def test_gram_matrices_of_normed_states_are_those_of_states_that_were_normed(knowledge):
    mine, theirs = view(1, MINE), view(2, THEIRS)
    far = View(tuple(30 * state + 5 for state in mine.states), mine.frames)
    plain, normed = (term(knowledge, student="layers", options=options) for options in ({}, {"norm": True}))
    alike = View(tuple(torch.nn.functional.layer_norm(s, s.shape[-1:]) for s in far.states), mine.frames)
    assert loss(normed, far, theirs) == pytest.approx(loss(plain, alike, theirs), rel=1e-5)
    assert loss(plain, far, theirs) > 100 * loss(normed, far, theirs)


def hsic_cka(x, y):
    """CKA from centred Gram matrices, the other of its two forms."""
    centre = np.eye(len(x)) - 1 / len(x)
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    return np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))


@pytest.mark.parametrize("scope", ["utterance", "batch"])
def test_cka_is_that_of_gram_matrices(scope):
    built = term("cka", student="layers", options={"scope": scope})
    mine, theirs = view(1, MINE), view(2, THEIRS)
    found = []
    for s, t in PAIRS:
        x, y = rows(mine.states[s]), rows(theirs.states[t])
        groups = list(zip(x, y, strict=True)) if scope == "utterance" else [(np.concatenate(x), np.concatenate(y))]
        found.append(np.mean([hsic_cka(a, b) for a, b in groups]))
    result = built(mine, theirs)
    assert float(result.loss.detach()) == pytest.approx(1 - np.mean(found), rel=1e-4)
    assert result.figures["cka_4"] == pytest.approx(found[1], rel=1e-4)


def test_cka_against_centroids():
    wide = replace(MINE, width=12)
    built = term("cka", wide, THEIRS, head="none", options={"scope": "centroids"})
    mine, theirs = view(1, wide), view(2, THEIRS)
    book = built.memory.books["6"]
    mean, std, centroids = (x.double().numpy() for x in (book.mean, book.std, book.centroids))
    x, y = ((np.concatenate(rows(v.states[n])) - mean) / std @ centroids.T for v, n in ((mine, 3), (theirs, 6)))
    assert loss(built, mine, theirs) == pytest.approx(1 - hsic_cka(x, y), rel=1e-4)


def test_cka_does_not_see_rotation_shift_and_scale():
    torch.manual_seed(0)
    x, mask = torch.randn(2, 9, 5), torch.ones(2, 9, dtype=torch.bool)
    turned = 3 * x @ torch.linalg.qr(torch.randn(5, 5)).Q + torch.randn(5)
    torch.testing.assert_close(linear_cka(x, turned, mask), torch.ones(2), atol=1e-5, rtol=0)
    assert linear_cka(x, torch.ones(2, 9, 4), mask).tolist() == [0, 0]


def test_an_unfitted_codebook_is_named():
    built = term("cka", options={"scope": "centroids"}, head="linear")
    built.memory.books["6"].centroids.zero_()
    with pytest.raises(SlimbenchError, match="cka: its codebooks are not fitted; call fit"):
        built(view(1, MINE), view(2, THEIRS))


def map_gap(x, y, how):
    """Mean over queries of the distance of two maps (T, T)."""
    if how == "mse":
        return [sum((x[q, k] - y[q, k]) ** 2 for k in range(len(x))) for q in range(len(x))]
    return [sum(y[q, k] * math.log(y[q, k] / x[q, k]) for k in range(len(x))) for q in range(len(x))]


@pytest.mark.parametrize("how", ["mse", "kl"])
@pytest.mark.parametrize("average", [True, False])
def test_attention_maps_head_by_head_or_averaged(average, how):
    built = term("attention", student="layers", distance=how, options={"average": average})
    mine, theirs = view(1, MINE), view(2, THEIRS)
    found = []
    for s, t in PAIRS:
        for b, n in enumerate(FRAMES):
            x, y = (v.maps[k - 1][b, :, :n, :n].double().numpy() for v, k in ((mine, s), (theirs, t)))
            if average:
                x, y = x.mean(0, keepdims=True), y.mean(0, keepdims=True)
            found += [(s, gap) for a, c in zip(x, y, strict=True) for gap in map_gap(a, c, how)]
    expected = np.mean([np.mean([gap for s, gap in found if s == pair]) for pair, _ in PAIRS])
    assert loss(built, mine, theirs) == pytest.approx(expected, rel=1e-4)


def test_maps_of_different_heads_are_averaged():
    mine, theirs = view(1, MINE, heads=3), view(2, THEIRS, heads=2)
    plain, averaged = term("attention"), term("attention", options={"average": True})
    assert loss(plain, mine, theirs) == loss(averaged, mine, theirs)
    same = view(3, THEIRS, heads=3)
    assert loss(plain, mine, same) != loss(averaged, mine, same)


def test_missing_maps_and_other_frame_periods_are_refused():
    built = term("attention")
    bare = View(view(1, MINE).states, torch.tensor(FRAMES))
    with pytest.raises(SlimbenchError, match="the student gives no map of layer 3; use gram_time instead"):
        built(bare, view(2, THEIRS))
    with pytest.raises(SlimbenchError, match="maps at 40 ms cannot be compared with maps at 20 ms"):
        term("attention", replace(MINE, frame_ms=40.0), THEIRS)
    with pytest.raises(SlimbenchError, match="state 0 lies before the first"):
        term("attention", student=[0])


def divergences(mine, theirs, temperature):
    for s, t in PAIRS:
        found = []
        for x, y in zip(rows(mine.states[s]), rows(theirs.states[t]), strict=True):
            for i in range(len(x)):
                others = [j for j in range(len(x)) if j != i]
                p = softmax([cosine(y[i], y[j]) / temperature for j in others])
                q = softmax([cosine(x[i], x[j]) / temperature for j in others])
                found.append(np.sum(p * np.log(p / q)))
        yield np.mean(found)


@pytest.mark.parametrize("adaptive", [False, True])
def test_similarity_distributions(adaptive):
    built = term("similarity", student="layers", options={"temperature": 0.5, "adaptive": adaptive})
    mine, theirs = view(1, MINE), view(2, THEIRS)
    found = np.array(list(divergences(mine, theirs, 0.5)))
    weights = softmax(found / found.mean()) if adaptive else np.full(3, 1 / 3)
    result = built(mine, theirs)
    assert float(result.loss.detach()) == pytest.approx(np.sum(weights * found), rel=1e-4)
    assert result.figures["divergence_2"] == pytest.approx(found[0], rel=1e-4)


@pytest.mark.parametrize("least", [2, 3, 4])
@pytest.mark.parametrize("centre", [True, False])
def test_relations_between_units(centre, least):
    built = term("relational", student=[2], teacher=[4], options={"centre": centre, "least": least, "units": 4})
    mine, theirs = view(1, MINE), view(2, THEIRS)
    book = built.centroids.books["4"]
    x, y = np.concatenate(rows(mine.states[2])), np.concatenate(rows(theirs.states[4]))
    units = cdist((y - book.mean.numpy()) / book.std.numpy(), book.centroids.numpy()).argmin(1)
    present = [k for k in range(4) if np.sum(units == k) >= least]
    assert len(present) >= 2
    means = [np.array([z[units == k].mean(0) for k in present]) for z in (x, y)]
    if centre:
        means = [m - m.mean(0) for m in means]
    gaps = [
        (cosine(means[0][i], means[0][j]) - cosine(means[1][i], means[1][j])) ** 2
        for i in range(len(present))
        for j in range(len(present))
        if i != j
    ]
    result = built(mine, theirs)
    assert float(result.loss.detach()) == pytest.approx(np.mean(gaps), rel=1e-4)
    assert result.figures["units_4"] == len(present)


def test_no_two_units_are_no_relation():
    built = term("relational", options={"least": 1000})
    result = built(view(1, MINE), view(2, THEIRS))
    assert float(result.loss.detach()) == 0
    assert result.figures["units_6"] == 0
