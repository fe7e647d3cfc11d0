"""The trainer: every built-in recipe to a loadable upstream, kills, company, several processes, faulty recipes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from small_recipe import SMALL

from harness import locks, registry
from harness.identity import digest_file
from harness.interface import SlimbenchError
from upstreams.distillation import recipe, train
from upstreams.distillation.data.batches import Mixing
from upstreams.distillation.recipe import Data, Pretraining, Queries, Recipe
from upstreams.distillation.settings import said
from upstreams.students.mini import MiniConfig, parameters

RECIPES = sorted(file.stem for file in recipe.RECIPES.glob("*.yaml"))

STATEFUL = {
    "terms": [*SMALL["terms"], {"knowledge": "contrastive", "student": "last", "teacher": [12], "weight": 0.1}],
    "procedure": {"kind": "gates", "sparsity": 0.3},
}
"""A memory of earlier frames, gates that chance opens, and the multiplier that drives them."""


def _write(folder: Path, **changes: Any) -> Path:
    values = {**SMALL, **changes}
    file = folder / f"{values['name']}.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def _place(shards: Path, **changes: Any) -> train.Place:
    root = shards.parent
    return replace(train.Place(root, root / "data", root / "students"), **changes)


def _weights(file: Path) -> dict[str, torch.Tensor]:
    return load_file(file)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_gives_upstreams_that_the_harness_loads(name, shards):
    found = recipe.load(name)
    queries = None if found.data.queries is None else Queries(0.25, found.data.queries.choose)
    data = replace(found.data, hours=0.3, seed=0, seconds=3.0, queries=queries)
    place = _place(shards, steps=2)
    if isinstance(found, Pretraining):
        layers = [replace(it, units=8, speaker_units=4) for it in found.iterations]
        made = train.pretrained(replace(found, data=data, iterations=tuple(layers)), place)
    else:
        made = train.together([replace(found, data=data)], place)
    for weights in made:
        assert weights.parent.name.startswith(found.name)
        upstream = registry.load_upstream(str(weights.parent.with_name(f"{weights.parent.name}.yaml")))
        hidden = upstream.encode(torch.randn(2, 16_000), torch.tensor([16_000, 12_000]))
        assert len(hidden.states) == upstream.num_states
        assert all(bool(torch.isfinite(state).all()) for state in hidden.states)
        notes = json.loads((weights.parent / "provenance.json").read_text())
        assert notes["sha256"] == digest_file(weights)
        assert notes["shards"] == ["real-all", "synthetic-000-0000"]
        assert [row["step"] for row in list(notes["curves"].values())[-1]] == [2]


def test_company_changes_nothing_but_the_time(shards):
    names = [
        _write(shards.parent, name="a"),
        _write(shards.parent, name="b", steps=6, student=SMALL["student"] | {"width": 48}, **STATEFUL),
    ]
    together = train.cohort(names, _place(shards))
    work = shards.parent / "alone"
    work.mkdir()
    (work / "pool").symlink_to(shards)
    alone = [train.run(name, _place(shards, work=work, out=work))[0] for name in names]
    for first, second in zip(together, alone, strict=True):
        assert first.parent.name == second.parent.name
        torch.testing.assert_close(_weights(first), _weights(second), rtol=0, atol=0)


def test_a_run_killed_with_nine_ends_with_the_same_curve_and_weights(shards):
    root = shards.parent
    file = _write(root, steps=130, **STATEFUL)
    undisturbed = train.run(file, _place(shards))[0]
    work = root / "killed"
    work.mkdir()
    (work / "pool").symlink_to(shards)
    command = [
        sys.executable, "-m", "harness", "distill", str(file), "--work", str(work), "--data", str(root / "data"),
        "--out", str(root / "again"), "--device", "cpu",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if (work / "s" / "state.pt").is_file():
            break
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (root / "again" / "s").exists(), "the run ended before it was killed"
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    torch.testing.assert_close(
        _weights(root / "again" / "s" / "model.safetensors"), _weights(undisturbed), rtol=0, atol=0
    )
    curves = [
        [
            {k: v for k, v in json.loads(line).items() if k != "seconds"}
            for line in (folder / "s" / "curve.jsonl").open()
        ]
        for folder in (root, work)
    ]
    assert curves[0] == curves[1]


def test_two_processes_are_one_with_twice_the_batches(shards):
    root = shards.parent
    alone = train.run(_write(root, name="one", steps=3, optimiser={"accumulate": 2}), _place(shards))[0]
    both = _write(root, name="two", steps=3)
    places = ["--work", str(root), "--data", str(root / "data"), "--out", str(root / "out"), "--device", "cpu"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", "harness", "distill", str(both), *places]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, timeout=300
    )
    found = _weights(root / "out" / "two" / "model.safetensors")
    torch.testing.assert_close(found, _weights(alone), rtol=2e-3, atol=2e-3)
    first, second = ([json.loads(line) for line in (root / n / "curve.jsonl").open()][-1] for n in ("one", "two"))
    assert first["hours"] == pytest.approx(second["hours"], abs=2e-3)


def test_a_run_that_another_process_trains_is_left_alone(shards):
    file = _write(shards.parent, name="taken", steps=2)
    with (
        locks.lock(shards.parent / "taken.lock"),
        pytest.raises(SlimbenchError, match="taken is being trained by another process; wait, or"),
    ):
        train.run(file, _place(shards))
    assert train.run(file, _place(shards))


def test_half_precision_products_train_to_nearly_the_same(shards):
    settings = {"exact": {}, "rough": {"precision": "bfloat16"}, "start": {"lr": 1e-30, "weight_decay": 0.0}}
    weights, gradients = {}, {}
    for name, optimiser in settings.items():
        file = _write(shards.parent, name=name, optimiser=optimiser)
        run = train.trained([recipe.load(file)], _place(shards))[0][0]
        means = [state["exp_avg"] for state in run.loop.optimizer.state.values()]
        gradients[name] = torch.cat([mean.flatten() for mean in means])
        weights[name] = torch.cat([p.detach().flatten() for p in run.learner.parameters()])
    moved, apart = (float((weights["exact"] - weights[other]).norm()) for other in ("start", "rough"))
    assert 1e-4 * moved < apart < 0.2 * moved  # products of single precision in another order are 1e-6 apart
    difference = float((gradients["exact"] - gradients["rough"]).norm() / gradients["exact"].norm())
    assert 1e-4 < difference < 0.05


def test_a_finished_run_is_not_written_again_and_other_settings_are_refused(shards):
    file = _write(shards.parent)
    weights = train.run(file, _place(shards))[0]
    before = (weights.parent / "provenance.json").stat().st_mtime_ns
    assert train.run(file, _place(shards)) == [weights]
    assert (weights.parent / "provenance.json").stat().st_mtime_ns == before
    with pytest.raises(SlimbenchError, match="other settings, data"):  # the data: synthetic speech only
        train.run(file, _place(shards, data=None))
    for changes in ({"optimiser": {"lr": 0.5}}, {"teachers": [{"name": "random_mini"}]}):
        other = _write(shards.parent, **changes)
        with pytest.raises(SlimbenchError, match="students/s holds a model of another recipe"):
            train.run(other, _place(shards))
        with pytest.raises(SlimbenchError, match="other settings, data"):
            train.run(other, _place(shards, out=shards.parent / "elsewhere"))
    with pytest.raises(SlimbenchError, match="or of other steps"):
        train.run(_write(shards.parent), _place(shards, steps=2))
    weights.unlink()
    _write(shards.parent, title="another title")  # says nothing about the training
    assert train.run(file, _place(shards)) == [weights]


def test_a_recipe_of_two_stages_is_found_finished_and_smaller_than_it_began(shards):
    whole = {"family": "mini", "layers": 2, "width": 32, "ffn": 64, "head_width": 16}
    gates = {"kind": "gates", "sparsity": 0.5}
    stages = [{"steps": 2, "procedure": {"kind": "plain"}}]
    file = _write(shards.parent, student=whole, procedure=gates, stages=stages)
    weights = train.run(file, _place(shards))[0]
    before = weights.stat().st_mtime_ns
    assert train.run(file, _place(shards)) == [weights]
    assert weights.stat().st_mtime_ns == before
    notes = json.loads((weights.parent / "provenance.json").read_text())
    assert [curve[-1]["step"] for curve in notes["curves"].values()] == [4, 2]
    assert notes["parameters"] < 0.8 * parameters(MiniConfig(2, 32, 64, head_width=16))


def test_a_later_stage_goes_on_with_the_heads_of_the_first(shards):
    frozen = {"lr": 1e-30, "weight_decay": 0.0}
    other = {"terms": [{"knowledge": "hidden", "student": "last", "teacher": [12]}]}
    for name, stage, alike in (("same", {"steps": 1}, True), ("other", {"steps": 1, **other}, False)):
        run = train.trained(
            [recipe.load(_write(shards.parent, name=name, optimiser=frozen, stages=[stage]))], _place(shards)
        )[0][0]
        first = torch.load(shards.parent / f"{name}-1" / "state.pt", weights_only=True)["model"]
        heads = {key: value for key, value in first.items() if key.startswith("terms.")}
        last = {key: value for key, value in run.learner.state_dict().items() if key.startswith("terms.")}
        assert heads
        assert (heads.keys() == last.keys() and all(torch.equal(heads[key], last[key]) for key in heads)) is alike


def test_a_later_stage_hears_other_batches_than_the_first(shards, monkeypatch):
    drawn: list[int] = []
    draw = train.Batches.draw
    monkeypatch.setattr(train.Batches, "draw", lambda self, step, seed: (drawn.append(step), draw(self, step, seed))[1])
    train.run(_write(shards.parent, steps=3, stages=[{"steps": 2}, {"steps": 1}]), _place(shards))
    assert [step for step in drawn if step < 1_000_000] == [0, 1, 2, 3, 4, 5]


def test_a_short_run_makes_no_more_of_the_pool_than_it_can_hear(shards, monkeypatch):
    asked: list[float] = []
    monkeypatch.setattr(train.pool, "produce", lambda folder, hours, seed, root: asked.append(hours))
    place = _place(shards, steps=600)
    files = place.shards(Data(16.0, 0, seconds=12.0))
    assert asked == [4.0]
    assert len(files) == 1 + 4 * 3  # real speech, and shards of twenty minutes


def test_only_the_teacher_whose_maps_are_matched_is_asked_for_them(shards):
    teachers = [{"name": "wavlm_mini"}, {"name": "logmel"}]
    terms = [
        {"knowledge": "attention", "options": {"average": True}},
        {"knowledge": "hidden", "of": "logmel", "teacher": "last"},
    ]
    assert train.run(_write(shards.parent, teachers=teachers, terms=terms), _place(shards))[0].is_file()


def test_what_is_made_never_has_the_name_of_what_comes_with_the_project(shards):
    weights = train.run(_write(shards.parent, name="distilled_wavlm"), _place(shards))[0]
    card = registry.read_card(weights.parent.with_name(f"{weights.parent.name}.yaml"))
    assert (card.name, card.teacher, card.licence) == ("distilled_wavlm_remade", "wavlm_mini", "MIT")


def test_the_ending_of_a_known_systems_recipe_may_be_left_out():
    assert recipe.load("distilhubert").name == "distilhubert_like"


def test_layers_and_leading_widths_of_the_teacher_are_where_a_student_begins(shards):
    shape = {"family": "mini", "layers": 2, "width": 64, "ffn": 128}
    file = _write(
        shards.parent, steps=1, student=shape, init={"layers": [3, 7], "width": "slice"}, optimiser={"lr": 1e-12}
    )
    found = _weights(train.run(file, _place(shards))[0])
    teacher = registry.load_upstream("wavlm_mini").module().state_dict()
    torch.testing.assert_close(
        found["layers.1.up.weight"].float(), teacher["layers.7.up.weight"][:128, :64], rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "distill"}, "kind: pretrain or kind: distil"),
        ({"stepz": 1}, "unknown key 'stepz', did you mean 'steps'"),
        ({"steps": "many"}, "steps is 'many'; write a whole number"),
        ({"data": {"hours": 1}}, "'seed' is missing"),
        ({"data": {"hours": 1, "seed": 0, "mixing": {"noise": "loud"}}}, "noise is 'loud'; write a number"),
        ({"terms": []}, "no term has a weight"),
        ({"terms": [{"knowledge": "hiden"}]}, "did you mean 'hidden'"),
        ({"terms": [{"knowledge": "hidden", "of": "nobody"}]}, "names no teacher 'nobody'"),
        ({"terms": [{"knowledge": "attention"}], "teachers": [{"name": "logmel"}]}, "attention"),
        ({"teachers": [{"name": "wavlm_minni"}]}, "did you mean 'wavlm_mini'"),
        ({"targets": {"mode": "hidden"}}, "mode 'hidden' is none of clean, masked, crossed"),
        ({"optimiser": {"precision": "int4"}}, "int4"),
        ({"procedure": {"kind": "magic"}}, "'magic'"),
        ({"student": {"family": "mini", "layers": 2, "width": 33, "ffn": 64}}, "33"),
        ({"student": {"family": "maxi"}}, "'maxi' is neither"),
        ({"init": {"layers": [0, 1]}}, "write init width: slice"),
        ({"stages": [{"student": {}}]}, "cannot set 'student'"),
        ({"stages": [{"data": {"hours": 1, "seed": 9}}]}, "cannot set 'data'"),
        ({"name": "../../elsewhere"}, "is no name of an upstream"),
        ({"name": "pool"}, "is no name of an upstream"),
        ({"steps": 0}, "steps is 0; write at least 1"),
        ({"teachers": []}, "teachers is empty"),
        ({"teachers": [{"name": "m", "mixture": {"wavlm_mini": "all"}}]}, "mixture wavlm_mini is 'all'"),
        ({"data": {"hours": 1, "seed": 0, "mixing": {"noise_snr_db": [20, 0]}}}, "write the smaller first"),
        ({"data": {"hours": 1, "seed": 0, "queries": {"minutes": 5}}}, "needs targets hears: clean"),
        ({"student": SMALL["student"] | {"compress": True}}, "needs procedure kind: sequence"),
        ({"student": SMALL["student"] | {"front": "wav2vec2"}}, "write init layers, or front: data"),
    ],
)
def test_a_faulty_recipe_is_one_sentence(shards, changes, message):
    file = shards.parent / "faulty.yaml"
    file.write_text(yaml.safe_dump(SMALL | changes))
    with pytest.raises(SlimbenchError, match=message) as caught:
        train.run(file, _place(shards))
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_is_named_with_the_nearest():
    with pytest.raises(SlimbenchError, match="did you mean 'wide_pred'"):
        recipe.load("wide_preds")


def test_settings_left_at_their_defaults_are_no_part_of_an_identity():
    found = said(Recipe("n", {}, (), 1, Data(1.0, 0, mixing=Mixing(noise=0.5))))
    assert found == {
        "name": "n",
        "student": {},
        "terms": [],
        "steps": 1,
        "data": {"hours": 1.0, "seed": 0, "mixing": {"noise": 0.5}},
    }
