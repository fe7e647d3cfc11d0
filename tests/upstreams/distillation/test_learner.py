"""Where a student begins: with a teacher's layers it is the teacher, and its objective sees it so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from upstreams.distillation import recipe, teachers
from upstreams.distillation.learner import Learner, Moment, Sight, begin, make

WAVES = 0.1 * torch.randn(2, 24_000, generator=torch.Generator().manual_seed(0))


def first_loss(found):
    """Of a student at its first step, with the teacher's loss-free pass."""
    torch.manual_seed(0)
    known = teachers.load(found.teachers, "cpu")
    student = make(found.student, found.name)
    learner = Learner(found, student, {name: teacher.side for name, teacher in known.items()}).eval()
    begin(student, found, known, batches=None)
    sight = Sight(known, WAVES, None, found.targets)
    return learner.loss(WAVES, None, sight, Moment(0, 0.0, 0)).figures


def test_a_student_of_all_the_teachers_layers_is_the_teacher():
    found = replace(recipe.load("dphubert_like"), procedure={}, stages=())
    figures = first_loss(found)  # L1 minus cosine, heads that begin as the identity
    assert figures["loss"] == pytest.approx(-1.0, abs=1e-4)
    assert [figures[f"cosine_{state}"] for state in (0, 4, 8, 12)] == pytest.approx([1.0] * 4, abs=1e-4)


@pytest.mark.parametrize("name", ["distilhubert_like", "wide_pred"])
def test_heads_on_taken_layers_begin_near_their_targets_scale(name):
    found = recipe.load(name)
    assert first_loss(found)["loss"] < 2.5  # a constant prediction of 0 has 0.8 + log 2
    raw = [replace(spec, options={**spec.options, "norm": False}) for spec in found.terms]
    assert first_loss(replace(found, terms=tuple(raw)))["loss"] > 5.0
