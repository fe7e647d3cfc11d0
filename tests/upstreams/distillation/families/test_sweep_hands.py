"""The hands of a sweep: what they take for done, what they ask of children; the plan and the verb."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from harness import suite
from harness.identity import digest_file
from harness.interface import SlimbenchError
from harness.registry import load_upstream
from upstreams.distillation import recipe
from upstreams.distillation.families import files, sweep_child, sweep_hands, sweep_plan, sweep_verb
from upstreams.distillation.families.sweep import Column, Job

TEACHER = load_upstream("wavlm_mini", "cpu").fingerprint


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A real family of two recipes and hands whose children are stubs: (workshop, requests)."""
    parser = argparse.ArgumentParser()
    from upstreams.distillation.families import family_verb

    family_verb.add_family(parser.add_subparsers())
    words = ["family", "--params", "0.3M", "--depths", "2", "--out", str(tmp_path), "--name", "tiny", "--steps", "3"]
    options = parser.parse_args(words)
    options.run(options)
    found = files.read(tmp_path / "tiny")
    place = sweep_hands.Place(tmp_path / "work", tmp_path / "out", tmp_path / "results", tmp_path / "cache")
    asked = []

    def ask(what, request):
        asked.append((what, request))
        if what == "train":
            for file in request["recipes"]:
                make(Path(request["out"]), recipe.load(file))
        if what == "bench":
            name = Path(request["options"]["upstream"]).stem
            record = Path(request["options"]["suite"], name, f"{request['options']['tasks'][0]}-0.json")
            file = request["options"]["results"] / record
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).touch()
            return {"record": str(record), "said": "accuracy 1.0"}
        return None

    monkeypatch.setattr(sweep_child, "ask", ask)
    return sweep_hands.Workshop(found, place), asked


def make(out, made, **more):
    folder = out / made.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(made.name.encode())
    (folder / "config.json").write_text("{}")
    shards = ["synthetic-001-" + f"{number:04d}" for number in range(int(3 * made.data.hours))]  # of 20 minutes
    digest = digest_file(folder / "model.safetensors")
    notes = {"recipe": asdict(made), "sha256": digest, "teachers": {"wavlm_mini": TEACHER}, "shards": shards} | more
    (folder / "provenance.json").write_text(json.dumps(notes))
    (out / f"{made.name}.yaml").write_text("name: x\n")


def test_hands_train_a_cohort_in_one_child_and_know_what_is_there(shop):
    hands, asked = shop
    one, two = hands.family.students
    assert not hands.trained(one)
    hands.train([one, two])
    assert [what for what, _ in asked] == ["pool", "train"]
    assert hands.trained(one)
    assert hands.trained(two)
    hands.train([one])
    assert [what for what, _ in asked] == ["pool", "train", "train"]
    for name in (f"{one.name}.yaml", f"{one.name}/config.json", f"{one.name}/model.safetensors"):
        (hands.place.out / name).rename(hands.place.out / "away")
        assert not hands.trained(one)
        (hands.place.out / "away").rename(hands.place.out / name)
    assert hands.trained(one)


def _with(found, where, value):
    """A recipe with something else in one of its mappings."""
    if where == "options":
        return replace(found, terms=(replace(found.terms[0], options=value), *found.terms[1:]))
    return replace(found, **{where: {**getattr(found, where), **value} if where == "student" else value})


@pytest.mark.parametrize(
    ("where", "value", "same"),
    [
        ("title", "another", True),
        ("steps", 4, False),
        ("seed", 9, False),
        ("procedure", {"kind": "gates", "sparsity": 0.75}, False),
        ("stages", ({"steps": 5},), False),
        ("student", {"reduce": 2}, False),
        ("options", {"norm": True}, False),
    ],
)
def test_a_model_of_another_recipe_is_refused(shop, where, value, same):
    hands, _ = shop
    student = hands.family.students[0]
    make(hands.place.out, _with(recipe.load(hands.family.recipe(student)), where, value))
    if same:
        assert hands.trained(student)
    else:
        with pytest.raises(SlimbenchError, match="was made by another recipe"):
            hands.trained(student)


def test_a_provenance_from_before_a_setting_was_known_is_of_its_default(shop):
    hands, _ = shop
    student = hands.family.students[0]
    found = recipe.load(hands.family.recipe(student))
    older = {key: value for key, value in asdict(found).items() if key not in ("stages", "procedure")}
    make(hands.place.out, found, recipe=older)
    assert hands.trained(student)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"teachers": {"wavlm_mini": "0" * 64}}, "from another teacher than wavlm_mini is now"),
        ({"shards": ["real-all"]}, "on other speech than this sweep would take"),
    ],
)
def test_a_model_of_another_teacher_or_other_speech_is_refused(shop, more, said):
    hands, _ = shop
    student = hands.family.students[0]
    make(hands.place.out, recipe.load(hands.family.recipe(student)), **more)
    with pytest.raises(SlimbenchError, match=said):
        hands.trained(student)


def test_a_bench_is_done_while_model_suite_and_record_stay(shop, monkeypatch):
    hands, asked = shop
    hands.train(hands.family.students)
    student = hands.family.students[0]
    job = Job(Column("embedded", "ks"), student)
    assert hands.benched(job) is None
    assert hands.bench(job) == "accuracy 1.0"
    assert asked[-1][1]["options"]["upstream"] == str(hands.card(student))
    assert asked[-1][1]["options"]["data"] is None
    assert hands.benched(job) is not None
    assert hands.benched(Job(Column("embedded", "pr"), student)) is None
    assert hands.benched(Job(Column("embedded", "ks"), hands.family.students[1])) is None
    fresh = sweep_hands.Workshop(hands.family, replace(hands.place, seeds=1))
    assert fresh.benched(job) is None  # other seeds are another record
    fresh = sweep_hands.Workshop(hands.family, hands.place)
    weights = hands.place.out / student.name / "model.safetensors"
    weights.write_bytes(b"other")
    assert fresh.benched(job) is None
    weights.write_bytes(student.name.encode())
    fresh = sweep_hands.Workshop(hands.family, hands.place)
    assert fresh.benched(job) is not None
    monkeypatch.setattr(sweep_hands, "PROTOCOL_VERSION", -1)
    assert fresh.benched(job) is None
    monkeypatch.undo()
    next(hands.place.results.rglob("ks-0.json")).unlink()
    assert fresh.benched(job) is None


@pytest.mark.parametrize("changed", ["data/real/ks/manifest.csv", "data/real/pr/lexicon.txt", "card", "config.json"])
def test_a_bench_is_done_anew_when_what_it_read_has_changed(shop, tmp_path, changed):
    hands, _ = shop
    hands.train(hands.family.students)
    student = hands.family.students[0]
    place = {"card": hands.card(student), "config.json": hands.place.out / student.name / "config.json"}
    file = place.get(changed, tmp_path / changed)
    (tmp_path / "data" / "real").mkdir(parents=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("name: a\n")

    def here():
        return sweep_hands.Workshop(hands.family, replace(hands.place, bench_data=tmp_path / "data" / "real"))

    job = Job(Column("real-mini", "ks"), student)
    here().bench(job)
    assert here().benched(job) is not None
    file.write_text("name: bb\n")
    assert here().benched(job) is None


def test_a_suite_without_its_data_is_refused_before_anything_is_trained(shop, tmp_path):
    hands, _ = shop
    assert hands.data_of("embedded") is None
    with pytest.raises(SlimbenchError, match="Suite real-mini runs on data that you bring; give --bench-data"):
        hands.data_of("real-mini")
    there = sweep_hands.Workshop(hands.family, replace(hands.place, data=tmp_path))
    with pytest.raises(SlimbenchError, match="real is no folder"):
        there.data_of("real-mini")
    (tmp_path / "real").mkdir()
    assert there.data_of("real-mini") == tmp_path / "real"


def test_columns_are_complete_and_cheapest_first():
    found = sweep_hands.columns(["embedded", "real-mini"], [])
    by_suite = {name: [c.task for c in found if c.suite == name] for name in ("embedded", "real-mini")}
    assert list(by_suite) == list(dict.fromkeys(column.suite for column in found))
    for name, tasks in by_suite.items():
        assert set(tasks) == set(suite.load(name).tasks)
        assert set(tasks[:4]) == {"ks", "ic", "sid", "er"}  # those that read means
    assert sweep_hands.columns(["embedded"], ["sid", "ks"]) == [Column("embedded", "sid"), Column("embedded", "ks")]
    with pytest.raises(SlimbenchError, match="ks"):
        sweep_hands.columns(["embedded"], ["kss"])


def test_the_plan_adds_up(shop):
    hands, _ = shop
    said = sweep_plan.describe(hands.family, [Column("embedded", "ks")], hands, 1, lambda student: (100.0, 50.0))
    assert "together 0:12:30" not in said
    assert "together 12:30" in said  # 3 steps of 50 s shared, and of 100 s for each of two students
    assert "benches: 2 of 2 to do, no time known before the first" in said
    make(hands.place.out, recipe.load(hands.family.recipe(hands.family.students[0])))
    said = sweep_plan.describe(hands.family, [Column("embedded", "ks")], hands, 1, lambda student: (100.0, 50.0))
    assert "together 7:30" in said
    hands.train(hands.family.students)
    hands.bench(Job(Column("embedded", "ks"), hands.family.students[0]))
    said = sweep_plan.describe(hands.family, [Column("embedded", "ks")], hands, 1, lambda student: (1 / 0, 0.0))
    assert "training: all students are trained" in said
    assert "benches: 1 of 2 to do, about" in said


def test_a_step_is_timed_on_the_recipe_itself(shop):
    hands, _ = shop
    own, shared = sweep_plan.Timer(hands.family, "cpu")(hands.family.students[0])
    assert own > 0
    assert shared > 0


def call(*words):
    parser = argparse.ArgumentParser()
    sweep_verb.add_sweep(parser.add_subparsers())
    options = parser.parse_args(["sweep", *words])
    return options.run(options)


def test_the_verb_exits_with_1_after_a_failure(shop, tmp_path, capsys, monkeypatch):
    hands, asked = shop
    places = [f"--{n}={tmp_path / n}" for n in ("work", "out", "results", "cache")]
    words = ["tiny", f"--families={tmp_path}", "--tasks=ks", *places]
    monkeypatch.setattr("harness.cli.main", lambda arguments: asked.append(("report", arguments)))
    assert call(*words) == 0
    assert [what for what, _ in asked] == ["pool", "train", "bench", "bench", "report"]
    assert call(*words) == 0
    assert len(asked) == 5  # nothing was done, and nothing reported
    (tmp_path / "out" / hands.family.students[0].name / "config.json").unlink()
    monkeypatch.setattr(sweep_child, "ask", lambda what, request: (_ for _ in ()).throw(SlimbenchError("no.")))
    assert call(*words) == 1
    assert f"{hands.family.students[0].name}: no." in capsys.readouterr().out
    with pytest.raises(SlimbenchError, match="slimbench family --name none"):
        call("none", f"--families={tmp_path}")


def test_weights_that_a_kill_left_beside_another_provenance_are_trained_again(shop):
    hands, _ = shop
    one = hands.family.students[0]
    hands.train([one])
    assert hands.trained(one)
    (hands.place.out / one.name / "model.safetensors").write_bytes(b"older")
    assert not hands.trained(one)
    hands.train([one])
    assert hands.trained(one)
