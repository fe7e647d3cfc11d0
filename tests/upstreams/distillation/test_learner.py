"""Where a student begins: with a teacher's layers it is the teacher. Its objective: each term has its own teacher."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from upstreams.distillation import recipe, teachers
from upstreams.distillation.learner import Learner, Moment, Sight, begin, make
from upstreams.distillation.recipe import Data, Recipe, TeacherSpec
from upstreams.distillation.terms import specify
from upstreams.distillation.terms.base import View

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


@pytest.fixture(scope="module")
def several():
    """A learner of three terms of three teachers, and these."""
    mixture = TeacherSpec("mix", {"wavlm_mini": 3.0, "random_mini": 1.0})
    weights = {"wavlm_mini": 1.0, "mix": 0.25, "logmel": 0.5}
    terms = [
        specify({"knowledge": "hidden", "of": name, "teacher": "last", "weight": w}) for name, w in weights.items()
    ]
    shape = {"layers": 2, "width": 32, "ffn": 64, "head_width": 16}
    known = (TeacherSpec("wavlm_mini"), TeacherSpec("logmel"), mixture)
    found = Recipe("s", shape, tuple(terms), 1, Data(1.0, 0), teachers=known)
    loaded = teachers.load(found.teachers, "cpu")
    torch.manual_seed(0)
    learner = Learner(found, make(shape, "s"), {name: teacher.side for name, teacher in loaded.items()}).eval()
    return found, learner, loaded, weights


class Backwards:
    """A teacher that hears everything from its end."""

    def __init__(self, teacher):
        self.teacher = teacher

    def view(self, waves, masked=None, maps=False):
        return self.teacher.view(waves.flip(1), masked, maps)


@torch.no_grad()
def test_the_objective_is_the_weighted_sum_of_what_each_teacher_says_to_its_term(several):
    found, learner, known, weights = several
    passage = learner.student.passage(WAVES, torch.tensor([WAVES.shape[1]] * 2))
    mine, total = View(tuple(passage.states), passage.frames), 0.0
    for (name, weight), term in zip(weights.items(), learner.terms, strict=True):
        seen = known[name].view(WAVES)
        states = tuple(functional.layer_norm(state, state.shape[-1:]) for state in seen.states)
        total += weight * float(term(mine, View(states, seen.frames)).loss)
    loss = learner.loss(WAVES, None, Sight(known, WAVES, None, found.targets), Moment(0, 0.0, 0)).figures["loss"]
    assert loss == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(("number", "name"), [(0, "wavlm_mini"), (1, "mix"), (2, "logmel")])
def test_another_view_of_one_teacher_changes_the_figure_of_its_term_alone(number, name, several):
    found, learner, known, _ = several

    def figures(heard):
        told = learner.loss(WAVES, None, Sight(heard, WAVES, None, found.targets), Moment(0, 0.0, 0)).figures
        return [value for key, value in sorted(told.items()) if "cosine" in key]

    before, after = figures(known), figures(known | {name: Backwards(known[name])})
    assert len(before) == 3
    assert [abs(a - b) > 1e-5 for a, b in zip(before, after, strict=True)] == [n == number for n in range(3)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [n != number for n in range(3)]
