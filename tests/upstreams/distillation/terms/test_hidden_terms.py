"""hidden, mean_top, utterance: heads, distances, weights of layers and resampling against loops."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from term_cases import FRAMES, MINE, THEIRS, cosine, loss, rows, term, view
from torch.nn import functional

from harness.interface import SlimbenchError
from upstreams.distillation.terms import Side, View
from upstreams.distillation.terms.alignment import meet, resample

WIDE = replace(MINE, width=12)


def one(how, x, y, weight=1.0, delta=1.0):
    """The distance of one frame, without torch."""
    gap = np.abs(x - y)
    c = cosine(x, y)
    return {
        "l1": gap.mean(),
        "mse": (gap**2).mean(),
        "cos": 1 - c,
        "l1_cos": gap.mean() + weight * math.log(1 + math.exp(-c)),
        "l1_cos_raw": gap.mean() - weight * c,
        "huber": np.where(gap < delta, gap**2 / 2, delta * (gap - delta / 2)).mean(),
    }[how]


@pytest.mark.parametrize("how", ["l1", "mse", "cos", "l1_cos", "l1_cos_raw", "huber"])
def test_distances_are_means_over_valid_frames(how):
    options = {"cosine": 0.3} if "l1_" in how else {"delta": 0.5} if how == "huber" else {}
    built = term("hidden", WIDE, THEIRS, head="none", distance=how, teacher=[4], options=options)
    mine, theirs = view(1, WIDE), view(2, THEIRS)
    frames = [
        (x, y)
        for a, b in zip(rows(mine.states[3]), rows(theirs.states[4]), strict=True)
        for x, y in zip(a, b, strict=True)
    ]
    assert len(frames) == sum(FRAMES)
    result = built(mine, theirs)
    assert float(result.loss.detach()) == pytest.approx(
        np.mean([one(how, x, y, 0.3, 0.5) for x, y in frames]), rel=1e-5
    )
    assert result.figures["cosine_4"] == pytest.approx(np.mean([cosine(x, y) for x, y in frames]), rel=1e-4)


def pair_losses(built, mine, theirs):
    single = [
        term("hidden", WIDE, THEIRS, head="none", distance="l1", student=[s], teacher=[t]) for s, t in built.pairs
    ]
    return [loss(each, mine, theirs) for each in single]


@pytest.mark.parametrize(
    ("options", "weights", "divide"),
    [
        ({}, [1, 1, 1], 3),
        ({"layer_weights": {"last": 1.0, "others": 0.1}, "reduce": "sum"}, [0.1, 0.1, 1.0], 1),
        ({"layer_weights": [1, 2, 5]}, [1, 2, 5], 8),
    ],
)
def test_pairs_are_weighted(options, weights, divide):
    built = term("hidden", WIDE, THEIRS, head="none", distance="l1", student="layers", options=options)
    assert built.pairs == ((1, 2), (2, 4), (3, 6))
    mine, theirs = view(1, WIDE), view(2, THEIRS)
    expected = np.dot(weights, pair_losses(built, mine, theirs)) / divide
    assert loss(built, mine, theirs) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weights", [[1, 2], [1, -1, 1], [0, 0, 0], {"last": 1}, "all", [True, 1, 1]])
def test_wrong_weights_are_refused(weights):
    with pytest.raises(SlimbenchError, match=r"layer_weights.*list of 3 numbers"):
        term("hidden", WIDE, THEIRS, student="layers", options={"layer_weights": weights})


def test_the_split_head_is_shared_linear_gelu_and_a_matrix_each():
    built = term("hidden", head="split", teacher=[2, 4, 6])
    state = view(1, MINE).states[3]
    head = built.heads.each["all"]
    predictions = built.heads(view(1, MINE).states)
    shared = functional.gelu(functional.linear(state, head.shared.weight, head.shared.bias))
    for n, predicted in enumerate(predictions):
        expected = shared[..., 12 * n : 12 * n + 12] @ head.weight[n] + head.bias[n]
        torch.testing.assert_close(predicted, expected)
    assert sum(p.numel() for p in head.parameters()) == 8 * 36 + 36 + 3 * (12 * 12 + 12)


def test_the_identity_head_begins_as_none_and_is_shared_behind_the_front():
    values = {"student": [0, 2, 3], "teacher": [0, 4, 6], "options": {"shared": True}}
    built = term("hidden", WIDE, THEIRS, head="identity", **values)
    mine, theirs = view(1, WIDE), view(2, THEIRS)
    none = term("hidden", WIDE, THEIRS, head="none", student=[0, 2, 3], teacher=[0, 4, 6])
    assert loss(built, mine, theirs) == loss(none, mine, theirs)
    assert list(built.heads.each) == ["front", "shared"]
    alone = term("hidden", WIDE, THEIRS, head="identity", student=[0, 2, 3], teacher=[0, 4, 6])
    assert len(alone.heads.each) == 3


def test_other_heads_by_hand():
    state = view(1, MINE).states[3]
    gelu = term("hidden", head="gelu").heads
    linear = gelu.each["0"][0]
    torch.testing.assert_close(gelu([None] * 3 + [state])[0], functional.gelu(state @ linear.weight.T + linear.bias))
    mlp = term("hidden", head="mlp", options={"mlp_layers": 3, "mlp_width": 20}).heads.each["0"]
    shapes = [tuple(m.weight.shape) for m in mlp if isinstance(m, torch.nn.Linear)]
    assert shapes == [(20, 8), (20, 20), (12, 20)]
    assert [type(m).__name__ for m in mlp][:3] == ["Linear", "LayerNorm", "GELU"]


def test_upsampling_gives_each_slow_frame_its_own_fast_ones():
    slow = replace(MINE, frame_ms=40.0)
    built = term("hidden", slow, THEIRS, head="upsample", distance="mse", teacher=[6])
    head = built.heads.each["0"]
    mine, theirs = view(1, slow, (4, 3)), view(2, THEIRS)
    squares = []
    for b, n in enumerate((4, 3)):
        for t in range(min(2 * n, FRAMES[b])):
            kernel = head.spread.weight[:, :, t % 2]
            frame = head.project(mine.states[3][b, t // 2] @ kernel + head.spread.bias)
            squares.append(((frame - theirs.states[6][b, t]) ** 2).mean().item())
    assert len(squares) == 8 + 6
    assert loss(built, mine, theirs) == pytest.approx(np.mean(squares), rel=1e-5)


@pytest.mark.parametrize(
    ("values", "mine", "message"),
    [
        ({"head": "none"}, MINE, "needs equal widths, not 8 and 12; write head: linear"),
        ({"head": "split", "student": "layers"}, MINE, "from one student state; write student: last"),
        ({"head": "upsample"}, replace(MINE, frame_ms=30.0), "whole rate ratio, not 1.5"),
        ({"head": "upsample"}, replace(MINE, frame_ms=10.0), "whole rate ratio, not 0.5"),
    ],
)
def test_heads_that_do_not_fit_are_refused(values, mine, message):
    with pytest.raises(SlimbenchError, match=message):
        term("hidden", mine, THEIRS, **values)


@pytest.mark.parametrize(("ratio", "old", "new"), [(2.0, 5, 10), (0.5, 7, 3), (1.5, 5, 7), (4.5, 3, 13), (0.4, 9, 3)])
def test_resampling_is_the_mean_of_a_step_function(ratio, old, new):
    """Each old frame is a step of a function of time; a new frame is the function's mean over its span."""
    torch.manual_seed(0)
    x = torch.randn(1, old, 3)
    found = resample(x, ratio)[0].numpy()
    assert found.shape == (new, 3)
    fine = 1000
    times = (np.arange(new * fine) + 0.5) / fine
    steps = x[0].numpy()[np.floor(times / ratio).astype(int)]
    np.testing.assert_allclose(found, steps.reshape(new, fine, 3).mean(1), atol=2e-3)


def test_views_meet_at_the_shorter_length():
    slow = View((torch.randn(2, 4, 3),), torch.tensor([4, 2]))
    fast = View((torch.randn(2, 7, 5),), torch.tensor([7, 6]))
    mine, theirs = meet(slow, fast, 2.0)
    assert mine.states[0].shape[1] == theirs.states[0].shape[1] == 7
    assert mine.frames.tolist() == theirs.frames.tolist() == [7, 4]


def test_several_student_layers_of_one_target_are_told_apart():
    built = term("hidden", student=[1, 2, 3], teacher=[4, 4, 6])
    assert list(built(view(1, MINE), view(2, THEIRS)).figures) == ["cosine_1_4", "cosine_2_4", "cosine_6"]


@pytest.mark.parametrize(
    ("values", "states"),
    [
        ({}, [3, 4, 5, 6]),
        ({"options": {"top": 2}}, [5, 6]),
        ({"teacher": [1, 5]}, [1, 5]),
        ({"teacher": "layers"}, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_mean_top_is_hidden_with_the_mean_as_target(values, states):
    built = term("mean_top", WIDE, THEIRS, head="none", **values)
    mine, theirs = view(1, WIDE), view(2, THEIRS)
    gaps = []
    for b, n in enumerate(FRAMES):
        for t in range(n):
            target = sum(theirs.states[k][b, t].double() for k in states) / len(states)
            gaps.append(float((mine.states[3][b, t].double() - target).abs().mean()))
    assert loss(built, mine, theirs) == pytest.approx(np.mean(gaps), rel=1e-5)


def test_mean_top_takes_eight_layers_of_twelve():
    assert term("mean_top", MINE, Side(13, 12)).targets == tuple(range(5, 13))


@pytest.mark.parametrize(
    ("values", "message"),
    [({"student": "layers"}, "one student state"), ({"options": {"top": 7}}, "'top' is 7, the teacher has 6 layers")],
)
def test_mean_top_refuses(values, message):
    with pytest.raises(SlimbenchError, match=message):
        term("mean_top", **values)


def test_utterance_compares_means_of_whatever_lengths():
    built = term("utterance", WIDE, THEIRS, head="none", student="layers")
    mine, theirs = view(1, WIDE, (5, 3)), view(2, THEIRS)
    found = []
    for s, t in ((1, 2), (2, 4), (3, 6)):
        for a, b in zip(rows(mine.states[s], (5, 3)), rows(theirs.states[t]), strict=True):
            found.append(np.abs(a.mean(0) - b.mean(0)).mean())
    assert loss(built, mine, theirs) == pytest.approx(np.mean(found), rel=1e-5)
