"""Terms over units, prototypes, memories and discriminators, against loops, scipy and scikit-learn."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.metrics import log_loss
from term_cases import FRAMES, MINE, THEIRS, cosine, loss, rows, softmax, term, view
from torch import distributed, multiprocessing
from torch.nn import functional

from harness.interface import SlimbenchError
from upstreams.distillation.terms import centroids

WIDE = replace(MINE, width=12)


def book_of(built, number="6"):
    book = built.centroids.books[number]
    return tuple(x.double().numpy() for x in (book.mean, book.std, book.centroids))


@pytest.mark.parametrize("how", ["kl", "ce"])
def test_units(how):
    built = term("units", distance=how, options={"temperature": 0.3})
    mine, theirs = view(1, MINE), view(2, THEIRS)
    mean, std, points = book_of(built)
    away = cdist((np.concatenate(rows(theirs.states[6])) - mean) / std, points, "sqeuclidean") / 12
    logits = np.concatenate(rows(built.heads(mine.states)[0]))
    found = []
    for d, z in zip(away, logits, strict=True):
        q = softmax(z)
        p = softmax(-d / 0.3)
        found.append(-math.log(q[d.argmin()]) if how == "ce" else np.sum(p * np.log(p / q)))
    result = built(mine, theirs)
    assert float(result.loss.detach()) == pytest.approx(np.mean(found), rel=1e-4)
    assert result.figures["accuracy_6"] == pytest.approx(np.mean(away.argmin(1) == logits.argmax(1)))
    if how == "ce":
        probabilities = [softmax(z) for z in logits]
        expected = log_loss(away.argmin(1), probabilities, labels=range(5))
        assert float(result.loss.detach()) == pytest.approx(expected, rel=1e-4)


def test_codebooks_are_fitted_to_valid_frames_only(monkeypatch):
    built = term("units")
    spoilt = view(100, THEIRS)
    pad = torch.arange(9)[None, :] >= spoilt.frames[:, None]
    for state in spoilt.states:
        state[pad] = 1e4
    built.fit([spoilt])
    mean, std, _ = book_of(built)
    frames = np.concatenate(rows(view(100, THEIRS).states[6]))
    np.testing.assert_allclose(mean, frames.mean(0), atol=1e-5)
    np.testing.assert_allclose(std, frames.std(0), atol=1e-4)
    monkeypatch.setattr(centroids, "MOST_FRAMES", 8)
    built.fit([spoilt])
    np.testing.assert_allclose(book_of(built)[0], frames[::2].mean(0), atol=1e-5)


def test_too_few_frames_for_the_units_are_refused():
    with pytest.raises(SlimbenchError, match=r"units: 60 frames are too few to fit 61 units; lower option 'units'"):
        term("units", options={"units": 61})


@pytest.mark.parametrize("balance", [False, True])
def test_prototypes(balance):
    built = term("prototypes", WIDE, THEIRS, head="none", options={"temperature": 0.2, "balance": balance})
    mine, theirs = view(1, WIDE), view(2, THEIRS)
    mean, std, points = book_of(built)

    def assign(state):
        for x in (np.concatenate(rows(state)) - mean) / std:
            yield softmax([cosine(x, point) / 0.2 for point in points])

    p, q = list(assign(theirs.states[6])), list(assign(mine.states[3]))
    found = np.array([np.sum(a * np.log(a / b)) for a, b in zip(p, q, strict=True)])
    nearest = np.argmax(p, 1)
    expected = found.mean()
    if balance:
        expected = np.mean([found[nearest == k].mean() for k in set(nearest)])
    result = built(mine, theirs)
    assert float(result.loss.detach()) == pytest.approx(expected, rel=1e-4)
    assert result.figures["agreement_6"] == pytest.approx(np.mean(nearest == np.argmax(q, 1)))


def frames_of(view_, number):
    """(utterance, time, state) of all valid frames."""
    return [(b, t, x) for b, u in enumerate(rows(view_.states[number])) for t, x in enumerate(u)]


def infonce(mine, theirs, near, temperature, old=()):
    found, right = [], []
    for (b, t, x), (_, _, y) in zip(mine, theirs, strict=True):
        wrong = [z for c, u, z in theirs if c != b or abs(u - t) > near] + list(old)
        scores = [cosine(x, z) / temperature for z in (y, *wrong)]
        found.append(-math.log(softmax(scores)[0]))
        right.append(np.argmax(scores) == 0)
    return np.mean(found), np.mean(right)


@pytest.mark.parametrize("near", [0, 2])
def test_contrastive_and_its_memory(near):
    options = {"near": near, "memory": 20, "temperature": 0.2}
    built = term("contrastive", WIDE, THEIRS, head="none", options=options)
    mine, theirs = view(1, WIDE), view(2, THEIRS)
    result = built(mine, theirs)
    expected, right = infonce(frames_of(mine, 3), frames_of(theirs, 6), near, 0.2)
    assert float(result.loss.detach()) == pytest.approx(expected, rel=1e-4)
    assert result.figures["accuracy_6"] == pytest.approx(right)
    built.train()
    for seed in (31, 32):
        built(mine, view(seed, THEIRS))
    built.eval()
    old = [x for seed in (31, 32) for _, _, x in frames_of(view(seed, THEIRS), 6)][-20:]
    expected, _ = infonce(frames_of(mine, 3), frames_of(theirs, 6), near, 0.2, old)
    assert loss(built, mine, theirs) == pytest.approx(expected, rel=1e-4)


def test_contrastive_chooses_evenly_spaced_anchors():
    built = term("contrastive", WIDE, THEIRS, head="none", options={"anchors": 5, "near": 0, "temperature": 0.2})
    mine, theirs = view(1, WIDE), view(2, THEIRS)
    kept = [0, 3, 6, 9, 12]
    chosen = [[frames_of(v, n)[k] for k in kept] for v, n in ((mine, 3), (theirs, 6))]
    assert sum(FRAMES) == 15
    assert loss(built, mine, theirs) == pytest.approx(infonce(*chosen, 0, 0.2)[0], rel=1e-4)


def test_the_memory_can_be_smaller_than_a_batch_or_none():
    for size in (0, 4):
        built = term("contrastive", options={"memory": size}).train()
        for seed in range(3):
            assert torch.isfinite(built(view(seed, MINE), view(seed + 9, THEIRS)).loss)
        assert int(built.filled) == size


def remember_apart(rank, folder):
    """One of two processes, each with frames of its own; leaves what its memory holds."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    built = term("contrastive", options={"memory": 8})
    built.remember(torch.full((len(built.pairs), 2 + rank, THEIRS.width), float(1 + rank)))
    torch.save([built.memory, built.place, built.filled], folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_processes_remember_the_frames_of_all_alike(tmp_path):
    multiprocessing.spawn(remember_apart, (tmp_path,), nprocs=2)
    (one, *_), (other, place, filled) = (torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1))
    assert torch.equal(one, other)
    assert one[0, :, 0].tolist() == [1, 1, 2, 2, 2, 0, 0, 0]
    assert (int(place), int(filled)) == (5, 5)


def adversarial(**options):
    built = term("adversarial", WIDE, THEIRS, head="none", options=options)
    mine, theirs = view(1, WIDE), view(2, THEIRS)
    mine.states[3].requires_grad_()
    return built, mine, theirs


def test_the_discriminator_s_loss_is_binary_cross_entropy():
    built, mine, theirs = adversarial()
    with torch.no_grad():
        scores = [np.concatenate(rows(built.discriminators[0](v.states[n]))) for v, n in ((theirs, 6), (mine, 3))]
    guess = 1 / (1 + np.exp(-np.concatenate(scores)[:, 0]))
    result = built(mine, theirs)
    assert float(result.loss.detach()) == pytest.approx(log_loss([1] * 15 + [0] * 15, guess), rel=1e-4)
    assert result.figures["fooled_6"] == pytest.approx(np.mean(guess[15:] > 0.5))


def test_the_gradient_is_turned_round_for_the_student_only():
    built, mine, theirs = adversarial(reversal=0.7)
    built(mine, theirs).loss.backward()
    turned, own = mine.states[3].grad.clone(), built.discriminators[0][0].weight.grad.clone()
    built.zero_grad()
    mine.states[3].grad = None
    plain = built.discriminators[0]
    mask = mine.mask
    real, fake = plain(theirs.states[6])[mask], plain(mine.states[3])[mask]
    target = torch.cat([torch.ones(15, 1), torch.zeros(15, 1)])
    functional.binary_cross_entropy_with_logits(torch.cat([real, fake]), target).backward()
    torch.testing.assert_close(turned, -0.7 * mine.states[3].grad)
    torch.testing.assert_close(own, plain[0].weight.grad)
