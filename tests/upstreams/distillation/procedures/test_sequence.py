"""Sequence compression: the drawn periods, states on the grid, guidance that is learnt, units of a teacher."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from procedure_cases import TINY, noise, student, train

from harness.interface import SlimbenchError
from upstreams.distillation.procedures import segments
from upstreams.distillation.procedures.base import build, chance
from upstreams.distillation.procedures.sequence import fitted
from upstreams.distillation.terms.base import View
from upstreams.students import cif

SHAPE = replace(TINY, compress=True)


def make(model, **settings):
    return build({"kind": "sequence", **settings}, model)


def test_periods_are_drawn_equally_from_20_to_90_ms():
    procedure, periods = make(student(SHAPE), guidance="none"), []

    class Told(Exception):  # noqa: N818
        pass

    class Asked:
        def passage(self, *_, lam, **__):
            periods.append(cif.period_of(lam))
            raise Told

    for step in range(2000):
        with pytest.raises(Told):
            procedure.view(Asked(), None, None, None, step, 0.0, chance(0, step))
    assert min(periods) >= 20
    assert max(periods) <= 90 + 1e-6
    counts = np.histogram(periods, bins=7, range=(20, 90))[0]
    assert counts.min() > 220  # of 286


def test_states_are_those_of_segments_repeated_over_their_frames():
    model = student(SHAPE)
    procedure = make(model, shortest=60.0, longest=60.0)
    masked = torch.rand(2, 24) < 0.3
    view = procedure.view(model, *noise(), masked, 0, 0.0, chance(0, 0))
    passage = model.passage(*noise(), masked=masked, lam=cif.lambda_of(60.0))
    assert view.frames.tolist() == [24, 24]
    assert passage.states[0].shape[1] < 24
    for state, segment in zip(view.states, passage.states, strict=True):
        for row in range(2):
            for frame in range(24):
                assert torch.equal(state[row, frame], segment[row, passage.place[row, frame]])
    figures = procedure.penalty(0, 0.0).figures
    assert figures["period_asked"] == 60.0
    assert figures["period"] == pytest.approx(20 * 48 / float(passage.frames.sum()))


def test_the_penalty_is_the_weighted_guidance_of_unmixed_weights():
    model = student(SHAPE)
    procedure = make(model, frame_weight=0.7, segment_weight=0.2, period=60.0)
    waves, lengths = noise()
    procedure.view(model, waves, lengths, None, 0, 0.0, chance(0, 0))
    weights = model.passage(waves, lengths, lam=0.0).weights
    boundaries = segments.peaks(segments.novelty(procedure.front(waves)), torch.tensor([24, 24]), 3.0)
    assert boundaries.sum(1).tolist() == procedure.boundaries(waves, torch.tensor([24, 24]), 24).sum(1).tolist()
    by_frame, by_segment = segments.guidance(weights, boundaries, torch.tensor([24, 24]))
    got = procedure.penalty(0, 0.0)
    assert got.loss.item() == pytest.approx(0.7 * by_frame.item() + 0.2 * by_segment.item(), rel=1e-5)
    assert procedure.penalty(0, 0.0) is None


def test_guidance_is_learnt_and_teaches_the_period():
    model = student(SHAPE)
    procedure = make(model, shortest=90.0, longest=90.0)
    _, figures = train(procedure, model, 25, lambda view, waves, lengths: view.states[-1].mean() * 0)
    assert figures[-1]["guide_frames"] < 0.6 * figures[0]["guide_frames"]
    assert abs(figures[-1]["period"] - 90) < abs(figures[0]["period"] - 90)


def teacher_view(seed=0):
    """Eight states for every third frame of 24, far from each other."""
    rng = np.random.default_rng(seed)
    places = rng.permutation(8)
    state = torch.from_numpy(np.eye(8)[places.repeat(3)]).float()[None].repeat(2, 1, 1)
    return View((torch.zeros(2, 24, 8), state), torch.tensor([24, 24])), places


def test_units_of_the_teacher_guide_where_they_change():
    model = student(SHAPE)
    procedure = make(model, guidance="units", units=8)
    assert procedure.fits > 0
    assert procedure.observes
    with pytest.raises(SlimbenchError, match="call fit and observe first"):
        procedure.view(model, *noise(), None, 0, 0.0, chance(0, 0))
    procedure.fit([teacher_view(seed)[0] for seed in range(procedure.fits)])
    procedure.observe(teacher_view(3)[0])
    found = procedure.boundaries(noise()[0], torch.tensor([24, 24]), 24)
    assert found[0].nonzero()[:, 0].tolist() == list(range(0, 24, 3))
    procedure.view(model, *noise(), None, 0, 0.0, chance(0, 0))
    assert procedure.penalty(0, 0.0).figures["guide_frames"] > 0


def test_fitted_units_survive_a_checkpoint():
    model = student(SHAPE)
    procedure = make(model, guidance="units", units=8)
    procedure.fit([teacher_view(seed)[0] for seed in range(8)])
    resumed = make(model, guidance="units", units=8)
    resumed.load_state_dict(copy.deepcopy(procedure.state_dict()))
    assert torch.equal(procedure.codebook.centroids, resumed.codebook.centroids)
    assert not make(model).state_dict()


def test_frames_are_cut_or_repeated():
    x = torch.tensor([[3, 5, 8]])
    assert fitted(x, 2).tolist() == [[3, 5]]
    assert fitted(x, 5).tolist() == [[3, 5, 8, 8, 8]]
    assert fitted(x, 5).dtype == x.dtype


def test_faulty_sequences_are_refused():
    with pytest.raises(SlimbenchError, match="write compress: true"):
        make(student())
    model = student(SHAPE)
    with pytest.raises(SlimbenchError, match="guidance 'phones' is none of novelty"):
        make(model, guidance="phones")
    with pytest.raises(SlimbenchError, match=r"longest is 100\.0, not within"):
        make(model, longest=100.0)
    with pytest.raises(SlimbenchError, match="attention maps"):
        make(model).view(model, *noise(), None, 0, 0.0, chance(0, 0), maps=True)
