"""The page of recipes: up to date in what recipe files say, and true to the records in what it says of scores."""

import argparse
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "leaderboards"))
from fake_records import TASKS, fake

from harness.cost import count_parameters
from harness.interface import SlimbenchError
from harness.show import interval, number
from upstreams.distillation import recipe
from upstreams.distillation.families import solver
from upstreams.distillation.page import products, render, verb, words
from upstreams.distillation.procedures.base import build
from upstreams.students.mini import MiniConfig, MiniWavLM

ROOT = Path(__file__).parents[4]
TINY = "{family: mini, layers: 2, width: 32, ffn: 64, head_width: 16%s}"
RECIPE = """\
# First line of the comment,
# and the second.
name: %s
title: a tiny one
after: somebody (arXiv 0000.00000)
kind: distil
student: %s
init: {front: teacher, layers: [0, 1], width: slice}
terms:
  - {knowledge: hidden, student: last, teacher: [4, 8, 12], head: split, distance: l1_cos, weight: 0.5}
data: {hours: 2, seed: 3, seconds: 6}
optimiser: {accumulate: 2}
steps: 30
"""
PRUNED = "procedure: {kind: gates, sparsity: 0.5}\nstages: [{steps: 12, procedure: {kind: plain}}]\n"
NETS = """\
stages:
  - steps: 12
    procedure:
      kind: supernet
      space: {width: [16, 32], heads: [1, 2], ratio: [2.0], depth: [1, 2]}
      products: {small: {width: 16, heads: 1, ratio: 2.0, depth: 1}}
"""
FILES = {"tiny": ("", ""), "pruned": ("", PRUNED), "nets": ("", NETS), "rates": (", compress: true", "")}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    for name, (shape, more) in FILES.items():
        (folder / f"{name}.yaml").write_text(RECIPE % (name, TINY % shape) + more)
    return products.entries(folder)


@pytest.fixture(scope="module")
def built_in():
    return products.entries()


def entry(found, name):
    return next(one for one in found if one.name == name)


def parameters(model):
    """Counted on the model itself, without what serves pre-training only."""
    del model.mask_embedding
    return count_parameters(model)


def record(name, task, value, period=20.0, params=4321, macs=7.7e6, **changes):
    one = fake(name, task, value, facts=(name, "mini", 2, 32, "wavlm_mini", 3, params, macs, 0.01, 10), **changes)
    one.upstream["frame_ms"] = period
    return one


def rows(text, suite):
    """Cells by upstream of a suite's table, as they stand in the page."""
    part = text.split(f"### Suite {suite}\n")[1].split("\n### ")[0]
    lines = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("|")]
    return {cells[0].replace("\\", ""): cells[1:] for cells in [lines[0], *lines[2:]]}


def bare(cell):
    return re.sub(r"</?u>|\*\*|\\", "", cell)


def shown(one, odd=""):
    return f"{number(one.value)}{odd} <sub>{interval(one.ci95)}</sub>"


def test_the_page_in_docs_says_what_the_recipes_say(built_in):
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    now = render.described(built_in).strip()
    assert render.recipe_part(page) == now, "run: python -m harness recipes --write docs/recipes.md"


def test_every_built_in_recipe_has_its_section_and_command(built_in):
    files = sorted(file.stem for file in recipe.RECIPES.glob("*.yaml"))
    text = render.described(built_in)
    assert re.findall(r"`make distill RECIPE=(\w+) DATA=folder`", text) == files
    assert [name.replace("\\", "") for name in re.findall(r"^### (.*)$", text, re.M)] == files
    assert all(one.about and one.recipe.title for one in built_in)


def test_a_page_without_marks_is_refused():
    with pytest.raises(SlimbenchError, match="--write"):
        render.recipe_part("# Recipes")


def test_parameters_and_macs_are_those_of_the_models(found):
    config = MiniConfig(2, 32, 64, head_width=16)
    (tiny,) = entry(found, "tiny").products
    assert tiny.parameters == parameters(MiniWavLM(config))
    assert tiny.macs == solver.macs_per_second(config)
    (rates,) = entry(found, "rates").products
    assert rates.macs is None
    assert rates.parameters == parameters(MiniWavLM(replace(config, compress=True)))


def test_what_pruning_may_leave_is_what_it_leaves(found):
    (pruned,) = entry(found, "pruned").products
    one = entry(found, "pruned").recipe
    torch.manual_seed(0)
    student = MiniWavLM(words.shape_of(one.student))
    left = parameters(build(one.procedure, student).products(student)[""])
    assert pruned.at_most
    assert pruned.macs is None
    assert 0.9 * pruned.parameters < left <= pruned.parameters


def test_subnets_are_products_of_their_own(found):
    one = entry(found, "nets")
    student = MiniWavLM(words.shape_of(one.recipe.student))
    carved = build(recipe.stage(one.recipe, 1).procedure, student).products(student)
    assert {p.name: p.parameters for p in one.products} == {
        f"nets{suffix}": parameters(model) for suffix, model in carved.items()
    }


def test_words_of_a_recipe(found):
    one = entry(found, "pruned")
    assert one.about == "First line of the comment, and the second."
    assert words.loss_words(one.recipe) == ("hidden: last state to states 4, 8, 12, head split, l1_cos, weight 0.5")
    assert words.begin_words(one.recipe.init).startswith("layers 1, 2 of the teacher, leading dimensions")
    assert words.stage_list(one.recipe) == ["30 updates, procedure gates (sparsity 0.5)", "12 updates"]
    assert words.steps(one.recipe) == [30, 12]
    assert words.audio_seconds(one.recipe) == 12.0
    assert words.numbers([0, 1, 2, 5, 7, 8]) == "0 to 2, 5, 7, 8"
    assert words.plain({"a": {"b": [1, 2.5]}, "c": True}) == "a: (b 1/2.5), c yes"


def test_scores_in_the_page_are_those_of_the_records(found, tmp_path):
    records = [record("tiny", task, 40.0 + number, half=1.23) for number, task in enumerate(TASKS)]
    records += [record("pruned", "ks", 91.26), record("pruned", "sid", 12.34)]
    records += [fake("wavlm_mini", task, 93.3) for task in ("ks", "asr")]
    records += [fake("fbank", "ks", 8.0), record("stranger", "ks", 99.0), record("tiny", "ks", 3.3, suite="real-mini")]
    page = render.page(found, records, tmp_path, ["embedded", "real-mini"])
    for suite in ("embedded", "real-mini"):
        table = rows(page, suite)
        titles = table.pop("Upstream")
        assert titles[:3] == ["Params (M)", "MMACs/s", "Updates"]
        assert [title.split()[0].lower() for title in titles[3:]] == ["asr", "pr", "ks", "ic", "sid", "asv", "er"]
        there = {(r.upstream["name"], r.task): shown(r) for r in records if r.suite == suite}
        for name, cells in table.items():
            for title, cell in zip(titles[3:], cells[3:], strict=True):
                assert bare(cell) == there.pop((name, title.split()[0].lower()), "–")
        assert {name for name, _ in there} <= {"stranger"}
    embedded = rows(page, "embedded")
    assert list(embedded) == ["Upstream", "fbank", "wavlm_mini", "nets", "nets_small", "pruned", "rates", "tiny"]
    assert embedded["pruned"][5].startswith("**91.3**")  # the reference is better and has no mark
    assert embedded["wavlm_mini"][5].startswith("93.3")
    assert "stranger" not in page


def test_rates_of_a_model_stand_below_it_by_period(found, tmp_path):
    periods = {"rates@90ms": 90.0, "rates@20ms": 20.0, "rates": 45.0}
    records = [record(name, "ks", period, period) for name, period in periods.items()]
    table = rows(render.page(found, records, tmp_path, ["embedded"]), "embedded")
    names = [name for name in table if name.startswith("rates")]
    assert names == ["rates", "rates@20ms", "rates@90ms"]
    assert [bare(table[name][5]) for name in names] == [shown(r) for n in names for r in records
                                                        if r.upstream["name"] == n]  # fmt: skip
    assert table["rates@20ms"][2] == "30"


def test_of_a_noisy_suite_only_what_was_benched_stands_there(found, tmp_path):
    suites = ["embedded", "embedded-noisy", "real-mini-noisy"]
    records = [record("tiny", "ks", 40.0), record("tiny", "ks", 31.0, suite="embedded-noisy")]
    page = render.page(found, records, tmp_path, suites)
    table = rows(page, "embedded-noisy")
    assert [title.split()[0] for title in table.pop("Upstream")[3:]] == ["KS"]
    assert list(table) == ["tiny"]
    assert bare(table["tiny"][3]) == shown(records[1])
    assert "pruned" in rows(page, "embedded")
    assert "Suite real-mini-noisy" not in page


def student(folder, name, notes):
    (folder / name).mkdir()
    (folder / name / "provenance.json").write_text(notes if isinstance(notes, str) else json.dumps(notes))
    (folder / f"{name}.yaml").write_text(
        f"name: {name}\nweights: {name}/model.safetensors\n"
        "title: t\nadapter: a:b\nlicence: none\nsource: s\nexposes: e\n"
    )


def test_sizes_and_updates_come_from_what_was_trained(found, tmp_path):
    curves = {"pruned-1": [{"step": 5}, {"step": 20}], "pruned-2": [{"step": 7}]}
    student(tmp_path, "pruned", {"parameters": 2_222_222, "curves": curves})
    student(tmp_path, "tiny", {"parameters": 5_000_000, "curves": {}})
    page = render.page(found, [record("tiny", "ks", 50.0)], tmp_path, ["embedded"])
    table = rows(page, "embedded")
    assert table["pruned"][:3] == ["2.22", "–", "27"]
    assert table["tiny"][:3] == ["0.00", "7.7", "30"]
    limit = entry(found, "pruned").products[0].parameters
    assert rows(render.page(found, [], tmp_path / "no", ["embedded"]), "embedded")["pruned"][:3] == [
        f"≤ {limit / 1e6:.2f}", "–", "42",
    ]  # fmt: skip
    assert (
        "tiny: the records are of a model of 4,321 parameters, the trained one has 5,000,000; bench it again." in page
    )
    assert "pruned: the records" not in page


@pytest.mark.parametrize("notes", ["{", "[]", '{"curves": {}}', '{"parameters": 1, "curves": {"a": [{}]}}'])
def test_a_broken_provenance_is_named(found, tmp_path, notes):
    student(tmp_path, "tiny", notes)
    with pytest.raises(SlimbenchError, match=r"tiny.provenance\.json is no provenance"):
        render.page(found, [], tmp_path, ["embedded"])


def test_the_verb_lists_and_writes(found, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("upstreams.distillation.page.products.entries", lambda: found)
    monkeypatch.setattr("leaderboards.gather.gather", lambda results, accepted, lab: [record("tiny", "ks", 61.7)])
    parser = argparse.ArgumentParser()
    verb.add_recipes(parser.add_subparsers())

    def call(*words):
        options = parser.parse_args(["recipes", *words])
        return options.run(options)

    assert call() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", "nets", "nets_small", "pruned", "rates", "tiny"]
    assert "30 + 12" in lines[3]
    assert "gates + plain" in lines[3]
    file = tmp_path / "recipes.md"
    assert call("--write", str(file), "--students", str(tmp_path), "--suites", "embedded") == 0
    assert "61.7" in file.read_text(encoding="utf-8")
    assert render.recipe_part(file.read_text(encoding="utf-8")) == render.described(found).strip()
    with pytest.raises(SlimbenchError, match="--suites"):
        call("--write", str(file), "--suites", ",")
