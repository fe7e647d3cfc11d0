"""Drafting cards, with a toy format of a plug-in."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness import cli, drafting
from harness.cards import read_card
from harness.identity import digest_bytes
from harness.interface import SlimbenchError

PLUGIN = """
from harness.interface import SlimbenchError
def toy(path):
    text = path.read_text() if path.is_file() else ""
    if text.startswith("broken"):
        raise SlimbenchError(f"{path} is a toy of another year; convert it.")
    if not text.startswith("toy"):
        return None
    return {"adapter": "toys:Toy", "family": "toy", "depth": 2, "width": 12, "exposes": "all states, 20 ms",
            "options": {"half": True, "list": [1, 2]}}
def odd(path):
    if path.suffix == ".odd":
        return {"adapter": "toys:Odd", "weights": path.with_suffix(".bin")}
    if path.suffix == ".wrong":
        return {"adapter": "toys:Odd", "depht": 2}
def twin(path):
    return {"adapter": "toys:Twin"} if path.name == "twin.toy" else None
"""
POINTS = "[slimbench.formats]\ntoy = some_formats:toy\nodd = some_formats:odd\ntwin = some_formats:twin\n"


@pytest.fixture(autouse=True)
def plugin(tmp_path, monkeypatch):
    """An installed package that knows three formats, and nothing else does."""
    site = tmp_path / "site"
    info = site / "some_formats-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "some_formats.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-formats\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(site))
    only = drafting.registry.formats
    monkeypatch.setattr(
        drafting.registry, "formats", lambda: {n: f for n, f in only().items() if n in ("toy", "odd", "twin")}
    )
    yield
    sys.modules.pop("some_formats", None)


@pytest.fixture
def toy(tmp_path):
    file = tmp_path / "models" / "my student.toy"
    file.parent.mkdir()
    file.write_text("toy weights")
    return file


def test_a_draft_says_what_is_known_and_marks_what_is_not(toy, tmp_path):
    file = drafting.draft(toy, out=tmp_path / "cards")
    assert file == tmp_path / "cards" / "my_student.yaml"
    assert len(file.read_text().splitlines()) <= 20
    assert yaml.safe_load(file.read_text()) == {
        "name": "my_student",
        "title": "my student",
        "adapter": "toys:Toy",
        "weights": "../models/my student.toy",
        "sha256": digest_bytes(b"toy weights"),
        "family": "toy",
        "depth": 2,
        "width": 12,
        "licence": "TODO licence of the weights, for example MIT",
        "source": "TODO where the weights come from",
        "exposes": "all states, 20 ms",
        "options": {"half": True, "list": [1, 2]},
    }
    card = read_card(file)
    assert card.weights == toy
    assert drafting.left_open(card) == ["licence", "source"]
    assert drafting.next_steps(file) == f"fill in licence, source, then check it: make check UPSTREAM={file}"


def test_what_is_filled_in_is_no_longer_asked_for(toy, tmp_path):
    file = drafting.draft(toy, out=tmp_path / "cards")
    file.write_text(file.read_text().replace("TODO licence of the weights, for example MIT", "MIT"))
    assert drafting.left_open(read_card(file)) == ["source"]
    file.write_text(file.read_text().replace("TODO where the weights come from", "here").replace("true", "TODO x"))
    assert drafting.left_open(read_card(file)) == ["options.half"]


def test_name_and_place_can_be_chosen(toy, tmp_path):
    file = drafting.draft(toy, "other", tmp_path / "deep" / "down" / "cards")
    assert read_card(file).name == "other"
    assert read_card(file).weights == toy  # from far away by its whole path
    assert str(toy) in file.read_text()


@pytest.mark.parametrize("stem", ["model", "checkpoint_best", "Pytorch_Model"])
def test_a_file_name_that_says_nothing_gives_way_to_the_folder(tmp_path, stem):
    (tmp_path / "tiny").mkdir()
    file = tmp_path / "tiny" / f"{stem}.toy"
    file.write_text("toy")
    assert drafting.draft(file, out=tmp_path / "cards").stem == "tiny"


def test_weights_that_lie_elsewhere_are_the_ones_that_are_pinned(tmp_path):
    (tmp_path / "a.odd").write_text("{}")
    (tmp_path / "a.bin").write_bytes(b"abc")
    card = read_card(drafting.draft(tmp_path / "a.odd", out=tmp_path / "cards"))
    assert card.weights == tmp_path / "a.bin"
    assert card.sha256 == digest_bytes(b"abc")
    assert drafting.left_open(card) == ["licence", "source", "exposes"]


def test_nothing_is_overwritten_and_no_name_taken(toy, tmp_path):
    drafting.draft(toy, out=tmp_path / "cards")
    before = (tmp_path / "cards" / "my_student.yaml").read_bytes()
    with pytest.raises(SlimbenchError, match=r"The name my_student is taken by .*my_student\.yaml; choose another"):
        drafting.draft(toy, out=tmp_path / "cards")
    with pytest.raises(SlimbenchError, match=r"The name fbank is taken by .*fbank\.yaml"):
        drafting.draft(toy, "fbank", tmp_path / "cards")
    assert [file.read_bytes() for file in (tmp_path / "cards").iterdir()] == [before]


def test_what_nobody_knows_is_one_sentence_with_what_is_known(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("words")
    with pytest.raises(
        SlimbenchError, match=r"notes\.txt is no checkpoint that is known here; known are odd, toy, twin"
    ):
        drafting.draft(file, out=tmp_path / "cards")
    with pytest.raises(SlimbenchError, match=r"There is no .*none\.toy; name a checkpoint file or a model folder"):
        drafting.draft(tmp_path / "none.toy", out=tmp_path / "cards")
    with pytest.raises(SlimbenchError, match=r"No format is called 'tyo', did you mean 'toy'"):
        drafting.draft(file, out=tmp_path / "cards", kind="tyo")
    assert not (tmp_path / "cards").exists()


def test_what_two_know_must_be_decided(tmp_path):
    file = tmp_path / "twin.toy"
    file.write_text("toy")
    with pytest.raises(SlimbenchError, match="is recognised as toy and as twin; choose one with --format"):
        drafting.draft(file, out=tmp_path / "cards")
    assert read_card(drafting.draft(file, out=tmp_path / "cards", kind="twin")).adapter == "toys:Twin"


def test_what_a_format_refuses_is_said_unless_another_knows_it(tmp_path):
    for name, stem in (("x.toy", "x"), ("x.odd", None)):
        file = tmp_path / name
        file.write_text("broken")
        if stem:
            with pytest.raises(SlimbenchError, match="is a toy of another year; convert it"):
                drafting.draft(file, out=tmp_path / "cards")
    (tmp_path / "x.bin").write_bytes(b"")
    assert read_card(drafting.draft(tmp_path / "x.odd", out=tmp_path / "cards")).adapter == "toys:Odd"


def test_a_format_that_gives_no_card_leaves_none(tmp_path):
    (tmp_path / "a.wrong").write_text("")
    with pytest.raises(SlimbenchError, match="unknown field 'depht', did you mean 'depth'"):
        drafting.draft(tmp_path / "a.wrong", out=tmp_path / "cards")
    assert not list((tmp_path / "cards").iterdir())


def test_a_card_stays_short(toy, tmp_path, monkeypatch):
    many = {f"field{n}": n for n in range(20)}
    monkeypatch.setattr(drafting.registry, "formats", lambda: {"toy": lambda _path: {"adapter": "x:y", **many}})
    with pytest.raises(SlimbenchError, match="a card at most 20"):
        drafting.draft(toy, out=tmp_path / "cards")


def test_the_verb(toy, tmp_path, capsys):
    out = str(tmp_path / "cards")
    assert cli.main(["new-upstream", str(toy), "--name", "tiny", "--out", out]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith((tmp_path / "cards" / "tiny.yaml").read_text())
    assert f"written to {Path(out) / 'tiny.yaml'}; fill in licence, source, then check it" in shown
    assert cli.main(["new-upstream", str(toy), "--name", "tiny", "--out", out]) == 2
    error = capsys.readouterr().err
    assert error.startswith("slimbench: The name tiny is taken")
    assert error.count("\n") == 1


def test_drafting_loads_no_torch_unless_a_format_does():
    code = "import sys, harness.drafting, harness.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
