"""What is told before the first update: mistakes of later stages, names, numbers; and what a half-written export is."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml
from small_recipe import SMALL

from harness.interface import SlimbenchError
from upstreams.distillation import exporting, recipe, teachers, train
from upstreams.distillation.data import pool
from upstreams.distillation.data.batches import Batches
from upstreams.distillation.data.statistics import fit_statistics
from upstreams.distillation.learner import Learner, Moment, Sight, begin, make

SPACE = {"width": [16, 32], "heads": [1, 2], "ratio": [1.0, 2.0], "depth": [1, 2]}


def written(folder, **changes):
    file = folder / "s.yaml"
    file.write_text(yaml.safe_dump({**SMALL, **changes}))
    return file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": [{"procedure": {"kind": "gatez"}}]}, "stage 2: .*gatez"),
        ({"stages": [{"terms": [{"knowledge": "hidden", "of": "nobody"}]}]}, "stage 2: .*no teacher 'nobody'"),
        ({"stages": [{"steps": 3}, {"terms": [{"knowledge": "hidden", "head": "hat"}]}]}, "stage 3: .*'hat'"),
        ({"stages": [{"steps": 0}]}, "stage 2: steps is 0"),
        ({"terms": [{"knowledge": "hidden", "student": [7]}]}, "Recipe s: student .7. is not within 0 to 2"),
        ({"terms": [{"knowledge": "hidden", "head": "mlp", "options": {"mlp_layers": 3.0}}]}, "mlp_layers"),
        ({"terms": [{"knowledge": "hidden", "weight": -1}]}, "weight is -1"),
        ({"procedure": {"kind": "supernet", "space": SPACE, "products": {"../../evil": {"width": 16, "depth": 1,
          "heads": 1, "ratio": 1.0}}}}, "is no name of an upstream"),
        ({"optimiser": {"lr": -1}}, "lr is -1"),
        ({"data": SMALL["data"] | {"real": 40}}, "real is 40"),
        ({"data": SMALL["data"] | {"mixing": {"noise": 30}}}, "noise is 30"),
        ({"targets": {"mode": "masked", "mask_span": -3}}, "mask_span is -3"),
        ({"targets": {"hears": "clean"}, "data": SMALL["data"] | {"queries": {"minutes": -5}}}, "minutes is -5"),
        ({"init": {"width": "slice"}}, "slice cuts layers"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_before_the_pool_is_made(tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(pool, "produce", lambda *_: pytest.fail("the pool is being made"))
    with pytest.raises(SlimbenchError, match=message) as caught:
        train.run(written(tmp_path, **changes), train.Place(tmp_path, None, tmp_path / "students"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "students").exists()


def test_an_export_that_a_kill_cut_short_is_none(tmp_path):
    """The provenance of a new model beside the weights of an old one, or the card of the old one beside both."""
    models = [make(SMALL["student"], "s") for _ in range(2)]
    folder = tmp_path / "s"
    kept = []
    for model, name in zip(models, ("old", "new"), strict=True):
        weights = exporting.export(model, folder, {}, {"identity": name})
        card = exporting.write_card(weights, model, {})
        assert exporting.is_made(folder, name)
        kept.append((weights.read_bytes(), card.read_bytes()))
    assert not exporting.is_made(folder, "old")
    weights.write_bytes(kept[0][0])
    assert not exporting.is_made(folder, "new")
    weights.write_bytes(kept[1][0])
    assert exporting.is_made(folder, "new")
    card.write_bytes(kept[0][1])
    assert not exporting.is_made(folder, "new")
    (folder / "provenance.json").write_text("{")
    with pytest.raises(SlimbenchError, match=r"provenance\.json is damaged"):
        exporting.is_made(folder, "new")


def test_a_pre_training_replaces_no_model_of_another(shards):
    """Its provenance says the steps that were done, which then tell a shorter training from a longer one."""
    own = {"config": {"layers": 1, "width": 32, "ffn": 64, "head_width": 16}, "units": 8, "steps": 9, "lr": 1e-3}
    values = {"name": "p", "kind": "pretrain", "data": {"hours": 0.3, "seed": 0, "seconds": 3}, "iterations": [own]}
    root = shards.parent
    file = root / "p.yaml"
    file.write_text(yaml.safe_dump(values))
    place = train.Place(root, root / "data", root / "students", steps=2)
    (weights,) = train.run(file, place)
    notes = json.loads((weights.parent / "provenance.json").read_text())
    assert [one["steps"] for one in notes["recipe"]["iterations"]] == [2]
    before = weights.read_bytes()
    with pytest.raises(SlimbenchError, match="students/p holds a model of another recipe, or of other steps"):
        train.run(file, replace(place, steps=3))
    file.write_text(yaml.safe_dump({**values, "iterations": [{**own, "lr": 0.5}]}))
    with pytest.raises(SlimbenchError, match="students/p holds a model of another recipe"):
        train.run(file, place)
    assert weights.read_bytes() == before
    file.write_text(yaml.safe_dump({**values, "title": "says nothing about the training"}))
    assert train.run(file, place) == [weights]


@pytest.mark.parametrize("front", ["teacher", "data"])
def test_a_front_of_the_data_stays_so_where_layers_are_taken(shards, front):
    batches = Batches(pool.read(sorted(shards.glob("*.npy"))), 3.0, 0.4, recipe.load("distilhubert_like").data.mixing)
    found = recipe.load("distilhubert_like")
    found = replace(found, init=replace(found.init, front=front))
    known = teachers.load(found.teachers, "cpu")
    student, measured = make(found.student, found.name), make(found.student, found.name)
    own = student.project.weight.detach().clone()
    begin(student, found, known, batches)
    fit_statistics(measured, batches, found.seed)
    teacher = known["wavlm_mini"].model
    source, projected = (teacher, teacher.project.weight) if front == "teacher" else (measured, own)
    assert torch.equal(student.mel_mean, source.mel_mean)
    assert torch.equal(student.mel_std, source.mel_std)
    assert torch.equal(student.project.weight, projected)
    torch.testing.assert_close(student.layers[0].state_dict(), teacher.layers[0].state_dict(), rtol=0, atol=0)


def test_scoring_changes_no_memory_and_sees_each_terms_own_teacher(tmp_path):
    """What a search over subnets asks: the same answer whenever it is asked, as training's last step would have it."""
    more = {"knowledge": "contrastive", "student": "last", "teacher": [3], "of": "distilled_wavlm"}
    changes = {"teachers": [{"name": "wavlm_mini"}, {"name": "distilled_wavlm"}], "terms": [*SMALL["terms"], more]}
    found = recipe.load(written(tmp_path, **changes))
    known = teachers.load(found.teachers, "cpu")
    torch.manual_seed(0)
    learner = Learner(found, make(found.student, found.name), {name: one.side for name, one in known.items()})
    waves = 0.1 * torch.randn(2, 24_000)
    sight = Sight(known, waves, None, found.targets)
    with torch.no_grad():
        view = learner.procedure.view(learner.mini, waves, torch.tensor([24_000, 24_000]), None, 0, 1.0, None)
        asked = [float(learner.matched(view, sight)) for _ in range(3)]
        last = learner.loss(waves, None, sight, Moment(0, 1.0, 0))
    assert asked == [asked[0]] * 3
    assert asked[0] == pytest.approx(float(last.loss))  # the memory was still empty
    assert learner.terms.training


def test_a_generators_own_frame_period_is_what_terms_see():
    from upstreams.distillation.learner import side_of
    from upstreams.students.gendistiller import GenDistiller

    found = recipe.load("gendistiller_like")
    student = make(found.student, found.name)
    assert isinstance(student, GenDistiller)
    assert side_of(student).frame_ms == student.frame_ms == 20.0
    student.frame_ms = 40.0
    assert side_of(student).frame_ms == 40.0


def test_several_processes_are_another_pretraining(monkeypatch):
    from upstreams.distillation import pretrain

    iteration = SimpleNamespace()
    monkeypatch.setattr(pretrain, "said", lambda _: {})
    one = pretrain.identity(iteration, None, [])
    monkeypatch.setattr(pretrain, "rank_and_world", lambda: (0, 2))
    assert pretrain.identity(iteration, None, []) != one
