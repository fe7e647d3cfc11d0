"""Shapes of equal size: the solver against enumeration by a formula of its own, and the recipes that are written."""

from __future__ import annotations

import json

import pytest
import yaml

from harness.cards import Card
from harness.cost import count_parameters
from harness.cost.macs import count_macs
from harness.interface import SlimbenchError
from upstreams.adapters.mini import Mini
from upstreams.distillation import recipe
from upstreams.distillation.families import family_verb, files, solver
from upstreams.students.mini import MiniConfig


def by_formula(depth, width, ffn, head):
    """Parameters written out part by part, from the architecture's description."""
    heads = width // head
    norms = 4 * width
    attention = (width * 3 * width + 3 * width) + (width * width + width) + (2 * head + 2) + heads
    feed = (width * ffn + ffn) + (ffn * width + width)
    front = 160 * width + width + 31 * width + width + 64 * heads
    return front + depth * (norms + attention + feed)


def enumerated(budget, depth, heads, tolerance=0.02):
    """Every shape with the closest feed-forward size of its width, by trying all of them; then those that fit."""
    found = []
    for head in heads:
        for width in range(head, 1200, head):
            sizes = [f for f in range(8, 8 * width + 1, 8) if f >= 2 * width]
            if by_formula(depth, width, sizes[0], head) > 1.5 * budget:
                break
            ffn = min(sizes, key=lambda f: abs(by_formula(depth, width, f, head) - budget))
            count = by_formula(depth, width, ffn, head)
            if abs(count / budget - 1) <= tolerance:
                found.append((abs(ffn / width - 4), -head, abs(count / budget - 1), width, ffn, count))
    return found


@pytest.mark.parametrize("budget", [200_000, 1_000_000, 2_500_000])
@pytest.mark.parametrize("depth", [1, 3, 12])
@pytest.mark.parametrize("heads", [(16,), (64, 24), solver.HEAD_WIDTHS])
def test_the_solver_finds_what_trying_everything_finds(budget, depth, heads):
    known = enumerated(budget, depth, heads)
    if not known:
        with pytest.raises(SlimbenchError, match="the nearest is width"):
            solver.solve(budget, depth, heads)
        return
    shape = solver.solve(budget, depth, heads)
    best = min(known)
    config = shape.config
    assert (config.width, config.ffn, config.head_width, shape.parameters) == (best[3], best[4], -best[1], best[5])
    assert config.width % config.head_width == 0
    assert config.ffn % 8 == 0
    assert abs(shape.deviation) <= 0.02


def test_parameters_and_macs_are_those_of_the_upstream(tmp_path):
    shape = solver.solve(300_000, 2, (16,))
    (tmp_path / "config.json").write_text(json.dumps(shape.config.to_dict()))
    options = {"random": True, "config": "config.json"}
    card = Card("x", "x", "a:b", "n", "n", "n", options=options, file=tmp_path / "card.yaml", depth=2)
    upstream = Mini(card)
    assert count_parameters(upstream.module()) == shape.parameters
    assert solver.macs_per_second(shape.config) == count_macs(upstream)
    # at 500 frames: products of the layers by hand, and those outside them that do not depend on the depth
    width, ffn, frames = shape.config.width, shape.config.ffn, 499
    layer = frames * (4 * width * width + 2 * width * ffn + 2 * frames * width + 2 * width)
    deeper = MiniConfig(**(shape.config.to_dict() | {"layers": 3}))
    assert solver.macs_per_second(deeper) - solver.macs_per_second(shape.config) == pytest.approx(layer / 10, rel=1e-3)


def test_one_head_size_serves_the_family_where_one_can():
    shapes = solver.grid((1_000_000,), (1, 3, 12))
    assert {shape.config.head_width for shape in shapes} == {16}
    assert all(abs(shape.ratio - 4) <= solver.SLACK for shape in shapes)
    alone = solver.grid((1_000_000,), (2, 3), (64, 32))  # 64 fails at three layers: 192 with 2.4 times the width
    assert {shape.config.head_width for shape in alone} == {32}
    mixed = solver.grid((1_000_000,), (3, 12), (64, 24))  # neither gives both
    assert [shape.config.head_width for shape in mixed] == [
        solver.solve(1_000_000, depth, (64, 24)).config.head_width for depth in (3, 12)
    ]


def test_no_shape_is_one_clear_sentence():
    with pytest.raises(
        SlimbenchError, match=r"No student of 12 layers has 20,000 parameters within 2 %: the nearest is"
    ):
        solver.solve(20_000, 12)
    for wrong in ((0, 1), (1000, 0)):
        with pytest.raises(SlimbenchError, match="no shape"):
            solver.solve(*wrong)


@pytest.mark.parametrize(("text", "number"), [("1.0M", 1_000_000), ("2.5m", 2_500_000), ("800k", 800_000), ("77", 77)])
def test_budgets_are_read(text, number):
    assert family_verb.parameters(text) == number


@pytest.mark.parametrize("text", ["", "x", "-1M", "0", "1.0G", "1e6", "1..0M"])
def test_no_budget(text):
    with pytest.raises(SlimbenchError, match="--params"):
        family_verb.parameters(text)


@pytest.fixture
def written(tmp_path, capsys):
    def call(*more):
        return run("--params", "0.3M,0.6M", "--depths", "2,1,4", "--out", str(tmp_path), "--name", "tiny", *more)

    return tmp_path / "tiny", call, capsys


def run(*words):
    import argparse

    parser = argparse.ArgumentParser()
    family_verb.add_family(parser.add_subparsers())
    options = parser.parse_args(["family", *words])
    return options.run(options)


def test_the_verb_prints_the_grid_and_writes_recipes_that_load(written):
    folder, call, capsys = written
    assert call("--seeds", "2,1", "--steps", "70") == 0
    printed = capsys.readouterr().out.splitlines()
    assert len([line for line in printed if line.startswith(("0.3 M", "0.6 M"))]) == 6
    found = files.read(folder)
    assert len(found.students) == 3 * 2 * (2 + 1)
    assert {file.stem for file in folder.glob("tiny_*.yaml")} == {student.name for student in found.students}
    first = [(student.budget, student.seed, student.macs_per_second) for student in found.students]
    assert first == sorted(first)
    for student in found.students:
        made = recipe.load(found.recipe(student))
        assert (made.name, made.seed, made.steps, made.method) == (student.name, student.seed, 70, student.method)
        assert made.init.front == "teacher"
        assert made.init.layers == ()
        (term,) = made.terms
        shape = MiniConfig(**{key: value for key, value in made.student.items() if key != "family"})
        assert by_formula(shape.layers, shape.width, shape.ffn, shape.head_width) == student.parameters
        if student.method == "pred":
            assert (term.student, term.teacher, term.head) == ("last", (4, 8, 12), "split")
        else:
            assert (term.student, term.teacher, term.head) == ("layers", "depth", "linear")


def test_students_of_a_family_differ_in_shape_method_and_seed_only(written):
    folder, call, _ = written
    call("--seeds", "2")
    alike = set()
    for file in folder.glob("tiny_*.yaml"):
        values = yaml.safe_load(file.read_text())
        for key in ("name", "title", "after", "method", "student", "terms", "seed"):
            del values[key]
        alike.add(json.dumps(values, sort_keys=True))
    assert len(alike) == 1


def test_writing_again_changes_nothing_and_another_recipe_is_refused(written):
    folder, call, _ = written
    call()
    before = {file: file.stat().st_mtime_ns for file in folder.glob("tiny_*.yaml")}
    call("--seeds", "2")  # adds a seed
    assert {file: file.stat().st_mtime_ns for file in before} == before
    with pytest.raises(SlimbenchError, match="is another recipe than this command would write"):
        call("--steps", "99")
    assert {file: file.stat().st_mtime_ns for file in before} == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--methods", "pre"), "No method 'pre', did you mean 'pred'"),
        (("--seeds", "1,2,3"), "3 numbers for 2 budgets"),
        (("--depths", "1,x"), "--depths"),
        (("--depths", "0"), "--depths"),
        (("--teacher", "fbank"), "states no depth"),
        (("--teacher", "wavlm_minny"), "did you mean 'wavlm_mini'"),
        (("--name", "a/b"), "--name"),
        (("--name", "a.b"), "--name"),
        (("--steps", "0"), "--steps"),
    ],
)
def test_bad_words(written, more, said):
    _, call, _ = written
    with pytest.raises(SlimbenchError, match=said):
        call(*more)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("width: ", "width: 1", 1), "does not describe"),
        (lambda text: text.replace("seed: 0", "seed: 7", 1), "does not describe"),
        (lambda text: text.replace("budget", "budgets", 1), "unknown key 'budgets'"),
        (lambda text: text.replace("students:", "pupils:", 1), "write it anew"),
        (lambda text: "", "write it anew"),
    ],
)
def test_a_damaged_list(written, change, said):
    folder, call, _ = written
    call()
    file = folder / files.LIST
    file.write_text(change(file.read_text()))
    with pytest.raises(SlimbenchError, match=said):
        files.read(folder)


def test_thirds_of_other_teachers():
    thirds = {layers: files.METHODS["pred"].term(layers)["teacher"] for layers in (1, 2, 3, 6, 12, 24)}
    assert thirds == {1: [1], 2: [1, 2], 3: [1, 2, 3], 6: [2, 4, 6], 12: [4, 8, 12], 24: [8, 16, 24]}


def test_no_family_is_one_sentence(tmp_path):
    with pytest.raises(SlimbenchError, match="slimbench family --name nobody"):
        files.read(tmp_path / "nobody")


def test_names_are_valid_for_upstreams(tmp_path):
    names = [
        student.name
        for student in files.students("dvw", [(solver.solve(1_250_000, 3), 1.0)], ["pred"], {1_250_000: 1}, 5)
    ]
    assert names == ["dvw_1.25m_d3_pred_s0"]
