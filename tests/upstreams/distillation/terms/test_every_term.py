"""What holds for every knowledge: a new entry of KNOWLEDGE is tested here without being named."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from term_cases import FRAMES, MINE, THEIRS, Tiny, loss, term, view

from upstreams.distillation.terms import KNOWLEDGE, Side, View

RISING = {"adversarial"}
"""The student's part of the training raises the loss: it deceives a discriminator."""
EVERY = [(name, head, how) for name, k in KNOWLEDGE.items() for head in k.takes_heads for how in k.takes_distances]
OF_LAYERS = {name for name, kind in KNOWLEDGE.items() if getattr(kind, "of_layers", False)}


def sides(head):
    """Equal widths where a head needs them."""
    return (replace(MINE, width=12), THEIRS) if head == "none" else (MINE, THEIRS)


def batch():
    torch.manual_seed(7)
    return torch.randn(2, 9, 6), torch.tensor(FRAMES)


def descend(parameters, made):
    """Sixty steps of Adam on the loss that ``made`` gives."""
    optimiser = torch.optim.Adam(parameters, lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        made().loss.backward()
        optimiser.step()


@pytest.mark.parametrize("knowledge", KNOWLEDGE)
def test_the_student_learns_while_all_else_is_frozen(knowledge):
    built = term(knowledge, *sides(KNOWLEDGE[knowledge].takes_heads[0]))
    student = Tiny(built.student, seed=1)
    with torch.no_grad():
        target = Tiny(built.teacher, seed=2)(*batch())
        still = student(*batch())
    built.fit([target])
    if knowledge in RISING:
        untrained = loss(built, still, target)
        descend(built.discriminators.parameters(), lambda: built(still, target))
        assert loss(built, still, target) < 0.5 * untrained
    built.requires_grad_(False)
    first = loss(built, student(*batch()), target)
    descend(student.parameters(), lambda: built(student(*batch()), target))
    last = loss(built, student(*batch()), target)
    assert last > 1.1 * first if knowledge in RISING else last < 0.9 * first


@pytest.mark.parametrize(("knowledge", "head", "how"), EVERY)
def test_gradients_reach_student_and_head_and_not_the_teacher(knowledge, head, how):
    built = term(knowledge, *sides(head), head=head, distance=how).train()
    mine, theirs = view(1, built.student), view(2, built.teacher)
    for tensor in (*mine.states, *theirs.states, *mine.maps, *theirs.maps):
        tensor.requires_grad_()
    result = built(mine, theirs)
    result.loss.backward()
    assert result.loss.shape == ()
    assert torch.isfinite(result.loss)
    assert any(x.grad is not None and bool(x.grad.any()) for x in (*mine.states, *mine.maps))
    assert not any(x.grad is not None and bool(x.grad.any()) for x in (*theirs.states, *theirs.maps))
    silent = [name for name, p in built.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert not silent


@pytest.mark.parametrize(("knowledge", "head", "how"), EVERY)
def test_padded_frames_have_no_influence(knowledge, head, how):
    built = term(knowledge, *sides(head), head=head, distance=how)

    def spoil(view_, by):
        pad = torch.arange(view_.states[0].shape[1])[None, :] >= view_.frames[:, None]
        states = tuple(torch.where(pad[..., None], by, s) for s in view_.states)
        maps = tuple(torch.where(pad[:, None, :, None] | pad[:, None, None, :], abs(by), m) for m in view_.maps)
        return View(states, view_.frames, maps)

    mine, theirs = view(1, built.student), view(2, built.teacher)
    clean, spoilt = built(mine, theirs), built(spoil(mine, 50.0), spoil(theirs, -70.0))
    assert float(spoilt.loss.detach()) == pytest.approx(float(clean.loss.detach()), rel=1e-5, abs=1e-7)
    assert dict(spoilt.figures) == pytest.approx(dict(clean.figures), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("knowledge", KNOWLEDGE)
def test_utterances_cut_to_their_lengths_give_what_padded_ones_do(knowledge):
    built = term(knowledge, *sides(KNOWLEDGE[knowledge].takes_heads[0]))
    mine, theirs = view(1, built.student, (6, 6), 9), view(2, built.teacher, (6, 6), 9)

    def cut(v):
        return View(tuple(s[:, :6] for s in v.states), v.frames, tuple(m[..., :6, :6] for m in v.maps))

    assert loss(built, cut(mine), cut(theirs)) == pytest.approx(loss(built, mine, theirs), rel=1e-5)


@pytest.mark.parametrize("knowledge", KNOWLEDGE)
def test_a_term_resumes_from_its_state_without_fitting(knowledge):
    built = term(knowledge, *sides(KNOWLEDGE[knowledge].takes_heads[0]))
    built.train()(view(5, built.student), view(6, built.teacher))
    again = KNOWLEDGE[knowledge](built.spec, built.student, built.teacher)
    again.load_state_dict(built.state_dict())
    mine, theirs = view(1, built.student), view(2, built.teacher)
    assert loss(again.eval(), mine, theirs) == loss(built.eval(), mine, theirs)


@pytest.mark.parametrize("period", [40.0, 10.0, 30.0])
@pytest.mark.parametrize("knowledge", [name for name, kind in KNOWLEDGE.items() if not kind.needs_maps])
def test_students_of_other_frame_periods_are_compared(knowledge, period):
    mine, theirs = sides(KNOWLEDGE[knowledge].takes_heads[0])
    built = term(knowledge, replace(mine, frame_ms=period), theirs)
    frames = tuple(int(n * 20 / period) for n in FRAMES)
    assert torch.isfinite(built(view(1, built.student, frames), view(2, built.teacher)).loss)


@pytest.mark.parametrize("knowledge", KNOWLEDGE)
def test_figures_are_plain_numbers(knowledge):
    built = term(knowledge, *sides(KNOWLEDGE[knowledge].takes_heads[0]))
    figures = built(view(1, built.student), view(2, built.teacher)).figures
    assert figures
    assert all(type(value) in (float, int) for value in figures.values())


@pytest.mark.parametrize("knowledge", KNOWLEDGE)
def test_half_precision_regions_change_little(knowledge):
    built = term(knowledge, *sides(KNOWLEDGE[knowledge].takes_heads[0]))
    mine, theirs = view(1, built.student), view(2, built.teacher)
    with torch.autocast("cpu", torch.bfloat16):
        rough = loss(built, mine, theirs)
    assert rough == pytest.approx(loss(built, mine, theirs), rel=0.03)


@pytest.mark.parametrize("knowledge", KNOWLEDGE)
def test_each_term_names_its_source(knowledge):
    assert re.search(r"arXiv\s+\d{4}\.\d{4,5}", KNOWLEDGE[knowledge].__doc__ or "")


@pytest.mark.parametrize("knowledge", sorted(OF_LAYERS))
def test_terms_of_layers_begin_at_one(knowledge):
    assert term(knowledge, Side(13, 8), Side(3, 8), student="layers").pairs[0] == (1, 1)
