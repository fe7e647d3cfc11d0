"""What teacher and student get of a batch, and what becomes of the teacher's states: masks, clean audio, scales."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from procedure_cases import TINY, moved_burst, student
from safetensors.torch import load_file

from harness import registry
from upstreams.distillation import exporting, teachers, train
from upstreams.distillation.data.batches import Mixing
from upstreams.distillation.learner import Learner, Moment, Sight, make
from upstreams.distillation.recipe import Data, Recipe, Targets, TeacherSpec
from upstreams.distillation.terms import specify
from upstreams.students.mini import MiniConfig, MiniWavLM

FRAMES, SAMPLES = 60, 60 * 324
WAVES = 0.1 * torch.randn(2, SAMPLES, generator=torch.Generator().manual_seed(0))
MASKED = torch.zeros(2, FRAMES, dtype=torch.bool)
MASKED[0, 3:12] = MASKED[0, 40:51] = MASKED[1, :9] = MASKED[1, 55:] = True


def small(**changes):
    """A recipe of two updates, with a second speaker in all that the student hears."""
    data = Data(0.3, 0, seconds=3.0, mixing=Mixing(noise=0.0, speaker=1.0))
    shape = {"layers": 2, "width": 32, "ffn": 64, "head_width": 16}
    terms = (specify({"knowledge": "hidden", "student": "layers", "teacher": [0, 0]}),)
    return Recipe("s", shape, terms, 2, data, teachers=(TeacherSpec("logmel"),), **changes)


def trained(shards, recipe):
    return train.trained([recipe], train.Place(shards.parent, shards.parent / "data", shards.parent / "students"))[0][0]


def reduced(folder):
    """The card of a model with frames of 40 ms."""
    model = student(replace(TINY, reduce=2))
    return exporting.write_card(exporting.export(model, folder / "reduced", {}, {}), model, {"source": "a test"})


@torch.no_grad()
def by_hand(card):
    """States of all audio and of what is left of it, from the model itself: silence or its mask embedding within."""
    if card.weights is None:
        left = WAVES.clone()
        for row, frame in MASKED.nonzero().tolist():
            left[row, 324 * frame : 324 * (frame + 1)] = 0
        upstream = registry.load_upstream(card.name)
        return [upstream.encode(waves, torch.tensor([SAMPLES] * 2)).states for waves in (WAVES, left)]
    model = MiniWavLM(MiniConfig.from_dict(json.loads(card.weights.with_name("config.json").read_text())))
    model.load_state_dict(load_file(card.weights))
    return [model.passage(WAVES, torch.tensor([SAMPLES] * 2), masked=masked).states for masked in (None, MASKED)]


@pytest.mark.parametrize(("name", "frame_ms"), [("logmel", 10.0), ("wavlm_mini", 20.0), ("reduced", 40.0)])
def test_crossed_targets_are_of_all_audio_under_the_mask_and_of_what_is_left_elsewhere(name, frame_ms, tmp_path):
    name = str(reduced(tmp_path)) if name == "reduced" else name
    teacher = teachers.single(name, "cpu")
    assert teacher.side.frame_ms == frame_ms
    targets = Targets(mode="crossed", normalise="none")
    found = Sight({"t": teacher}, WAVES, MASKED, targets).view("").states
    whole, left = by_hand(registry.card(name))
    for state, seen, heard in zip(found, whole, left, strict=True):
        expected = heard.clone()
        for frame in range(state.shape[1]):
            middle = (frame + 0.5) * frame_ms
            under = next(n for n in range(FRAMES) if 20 * n <= middle < 20 * (n + 1))
            for row in range(2):
                if MASKED[row, under]:
                    expected[row, frame] = seen[row, frame]
        assert not torch.allclose(seen, heard, atol=0.1)
        torch.testing.assert_close(state, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["filter bank", "mini", "mixture", "standardised"])
def test_a_teacher_hears_nothing_of_masked_frames(kind):
    one, other, masked = moved_burst()
    specs = {"mini": TeacherSpec("wavlm_mini"), "mixture": TeacherSpec("mix", {"wavlm_mini": 1.0})}
    (teacher,) = teachers.load([specs.get(kind, TeacherSpec("logmel"))], "cpu").values()
    if kind == "standardised":
        teacher = teachers.Standardised(teacher, [WAVES])
    hidden = [teacher.view(waves, masked).states[-1] for waves in (one, other)]
    heard = [teacher.view(waves).states[-1] for waves in (one, other)]
    torch.testing.assert_close(*hidden, atol=1e-3, rtol=0)
    assert float((heard[0] - heard[1]).abs().max()) > 0.5
    assert float((hidden[0] - teacher.view(one.flip(0), masked).states[-1]).abs().max()) > 0.5


def test_the_objective_hides_masked_audio_from_the_student():
    one, other, masked = moved_burst()
    recipe = small()
    known = teachers.load(recipe.teachers, "cpu")
    torch.manual_seed(0)
    learner = Learner(recipe, make(recipe.student, "s"), {"logmel": known["logmel"].side}).eval()
    sight = Sight(known, one, None, recipe.targets)

    def loss(waves, mask):
        return learner.loss(waves, mask, sight, Moment(0, 0.0, 0)).figures["loss"]

    assert loss(one, masked) == pytest.approx(loss(other, masked), abs=1e-6)
    assert abs(loss(one, None) - loss(other, None)) > 1e-4


@pytest.mark.parametrize(
    ("mode", "hears"), [("clean", "same"), ("clean", "clean"), ("masked", "clean"), ("crossed", "same")]
)
def test_teacher_and_student_get_what_the_recipe_says(mode, hears, shards, monkeypatch):
    taught, learnt = [], []
    view, passage = teachers.UpstreamTeacher.view, MiniWavLM.passage

    def teacher(self, waves, masked=None, maps=False):
        taught.append((waves, masked))
        return view(self, waves, masked, maps)

    def pupil(self, waves, lengths, masked=None, **others):
        learnt.append((waves, masked))
        return passage(self, waves, lengths, masked=masked, **others)

    monkeypatch.setattr(teachers.UpstreamTeacher, "view", teacher)
    monkeypatch.setattr(MiniWavLM, "passage", pupil)
    targets = Targets(mode=mode, hears=hears, mask_start=0.02, mask_span=7)
    run = trained(shards, small(targets=targets))
    each = 2 if mode == "crossed" else 1
    assert (len(learnt), len(taught)) == (2, 2 * each)
    for step, (waves, masked) in enumerate(learnt):
        clean, mixed = run.batches.draw(step, 0)
        assert not torch.equal(clean, mixed)
        assert torch.equal(waves, mixed)
        asked = taught[each * step : each * (step + 1)]
        assert all(torch.equal(given, clean if hears == "clean" else mixed) for given, _ in asked)
        assert asked[0][1] is None
        assert mode != "crossed" or torch.equal(asked[1][1], masked)
        assert (masked is None) is (mode == "clean")
        for line in [] if masked is None else masked.int().tolist():
            spans = [span for span in "".join(map(str, line)).rstrip("1").split("0") if span]  # the end cuts the last
            assert 0 < sum(line) < len(line)
            assert min(map(len, spans), default=7) >= 7
    assert mode == "clean" or not torch.equal(learnt[0][1][:2, :40], learnt[1][1][:2, :40])


@pytest.mark.parametrize("how", ["layer_norm", "none"])
def test_targets_are_layer_normed_unless_the_recipe_says_otherwise(how):
    teacher = teachers.single("logmel", "cpu")
    x = teacher.view(WAVES).states[0].numpy()
    (found,) = Sight({"t": teacher}, WAVES, None, Targets(normalise=how)).view("").states
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(found.numpy(), scaled if how == "layer_norm" else x, atol=1e-4, rtol=1e-4)


def test_a_standardised_teacher_has_the_scale_of_its_sample():
    teacher = teachers.single("logmel", "cpu")
    sample = [WAVES[:, :8_000], 3 * WAVES[:, 6_000:]]
    (found,) = teachers.Standardised(teacher, sample).view(WAVES).states
    seen = np.concatenate([teacher.view(waves).states[0].reshape(-1, 240).numpy() for waves in sample])
    expected = (teacher.view(WAVES).states[0].numpy() - seen.mean(0)) / seen.std(0, ddof=1)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3, rtol=1e-3)


def test_corpus_targets_have_mean_0_and_deviation_1_over_the_data(shards):
    run = trained(shards, small(targets=Targets(normalise="corpus")))
    raw = teachers.single("logmel", "cpu")
    scaled, plain = [], []
    for step in range(40, 60):
        waves = run.batches.draw(step, 0)[0]
        scaled += [Sight(run.teachers, waves, None, run.recipe.targets).view("").states[0].flatten(0, 1)]
        plain += [raw.view(waves).states[0].flatten(0, 1)]
    mean, deviation = torch.cat(scaled).mean(0), torch.cat(scaled).std(0)
    assert float(mean.abs().max()) < 0.1
    assert 0.9 < float(deviation.min()) < float(deviation.max()) < 1.1
    assert float(torch.cat(plain).mean(0).abs().max()) > 5


def test_targets_are_not_rounded_where_the_student_is():
    teacher, model = teachers.single("wavlm_mini", "cpu"), student()
    lengths = torch.tensor([SAMPLES] * 2)

    def states():
        targets = Sight({"t": teacher}, WAVES, None, Targets()).view("").states
        return targets, model.passage(WAVES, lengths).states[-1].float()

    exact, own = states()
    with torch.autocast("cpu", torch.bfloat16):
        again, rough = states()
    assert all(torch.equal(a, b) for a, b in zip(exact, again, strict=True))
    assert not torch.equal(own, rough)
