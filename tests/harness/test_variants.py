"""Variants of a card: upstreams of their own under ``name@variant``."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from harness import cli, registry
from harness.cards import Card, read_card, variants_of
from harness.interface import SlimbenchError

FIELDS = {
    "name": "net", "title": "Net", "adapter": "variant_plugin:Fake", "licence": "MIT", "source": "a test",
    "exposes": "all layers", "depth": 12, "width": 8, "options": {"layers": 12, "rate": 20.0},
    "variants": {
        "slim": {"width": 4, "depth": 6, "options": {"layers": 6}},
        "last": {"title": "Net, last layer", "exposes": "the last layer"},
        "half": {"precision": "float16"},
        "plain": {},
        "unset": {"title": None, "options": None},
    },
}  # fmt: skip
PLUGIN = """
import torch
class Fake:
    num_states, frame_ms, min_samples, variable_rate, batch_invariant = 1, 20.0, 320, False, True
    def __init__(self, card, device):
        self.name, self.options = card.name, card.settings({"layers": 1, "rate": 1.0})
        self.width = {12: 8, 6: 4}[self.options["layers"]]
        self.fingerprint = repr(sorted(self.options.items()))
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    (tmp_path / "variant_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("variant_plugin", None)


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    """The card above, in a folder that is registered."""
    monkeypatch.setenv("SLIMBENCH_CARDS", str(tmp_path / "cards"))
    (tmp_path / "cards").mkdir()
    return written(tmp_path / "cards" / "net.yaml")


def written(file: Path, **fields) -> Path:
    file.write_text(yaml.safe_dump({**FIELDS, **fields}, sort_keys=False))
    return file


def test_a_variant_is_the_card_but_for_what_it_says(file):
    whole = read_card(file)
    slim, last, half, plain, unset = variants_of(whole)
    assert (slim.name, slim.title, slim.depth, slim.width) == ("net@slim", "Net slim", 6, 4)
    assert slim.options == {"layers": 6, "rate": 20.0}
    assert (slim.exposes, slim.licence, slim.file, slim.precision) == ("all layers", "MIT", file, "float32")
    assert (last.title, last.exposes, last.options) == ("Net, last layer", "the last layer", whole.options)
    assert (half.precision, half.width) == ("float16", 8)
    assert (plain.name, plain.options) == ("net@plain", whole.options)
    assert (unset.title, unset.options) == ("Net unset", whole.options)
    assert all(item.variants == {} for item in (slim, last, half, plain, unset))
    assert whole.options == {"layers": 12, "rate": 20.0}  # merging leaves the card as it is


def test_variants_are_found_by_name_and_by_path(file, monkeypatch):
    assert registry.card("net@slim").width == 4
    assert registry.card("net").width == 8
    assert registry.card(f"{file}@slim").name == "net@slim"
    assert registry.card(str(file)).name == "net"
    monkeypatch.chdir(file.parent)
    assert registry.card("net.yaml@half").precision == "float16"


def test_a_folder_with_an_at_sign_is_no_variant(tmp_path):
    (tmp_path / "me@home").mkdir()
    file = written(tmp_path / "me@home" / "net.yaml")
    assert registry.card(str(file)).name == "net"
    assert registry.card(f"{file}@slim").name == "net@slim"


def test_a_variant_loads_as_what_it_says(file, plugin):
    whole, slim = registry.load_upstream("net"), registry.load_upstream("net@slim")
    assert (whole.name, whole.width, slim.name, slim.width) == ("net", 8, "net@slim", 4)
    assert slim.options == {"layers": 6, "rate": 20.0}
    assert whole.fingerprint != slim.fingerprint
    assert registry.load_upstream("net@plain").fingerprint == whole.fingerprint  # the same content is the same


def test_the_width_of_a_variant_must_be_true(file, plugin):
    written(file, variants={"slim": {"options": {"layers": 6}}})
    with pytest.raises(SlimbenchError, match=r"net\.yaml says width 8, but its states are 4 wide"):
        registry.load_upstream("net@slim")


def test_reduced_precision_wraps_the_upstream(file, plugin, monkeypatch):
    calls = []
    real = registry.resolve

    def resolve(target):
        def reduced(upstream, precision, device):
            calls.append((upstream.name, precision, device))
            return upstream

        return reduced if target == "harness.precision:Reduced" else real(target)

    monkeypatch.setattr(registry, "resolve", resolve)
    registry.load_upstream("net")
    assert calls == []
    registry.load_upstream("net@half", "cpu")
    assert calls == [("net@half", "float16", "cpu")]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("net@slm", r"No upstream is called 'net@slm', did you mean 'net@slim'\?"),
        ("nett@slim", r"No upstream is called 'nett@slim', did you mean 'net@slim'\?"),
        ("net@", r"No upstream is called 'net@'"),
    ],
)
def test_did_you_mean(file, name, said):
    with pytest.raises(SlimbenchError, match=said):
        registry.card(name)


def test_did_you_mean_at_a_path(file):
    with pytest.raises(SlimbenchError, match=r"No variant of .*net\.yaml is called 'slm', did you mean 'slim'\?.*half"):
        registry.card(f"{file}@slm")
    with pytest.raises(SlimbenchError, match=r"Cannot read the card .*none\.yaml"):
        registry.card(f"{file.parent / 'none.yaml'}@slim")
    with pytest.raises(SlimbenchError, match=r"No variant of .* is called 'slim'; known: none"):
        registry.card(f"{written(file, variants=None)}@slim")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"variants": "slim"}, r"field 'variants' must be a mapping, not 'slim'"),
        ({"variants": ["slim"]}, r"field 'variants' must be a mapping"),
        ({"variants": {"slim": 3}}, r"variant slim must be a mapping of fields to values"),
        ({"variants": {"slim": None}}, r"variant slim must be a mapping"),
        ({"variants": {"a/b": {}}}, r"variant name 'a/b' must be text of letters"),
        ({"variants": {"a@b": {}}}, r"variant name 'a@b' must be text of letters"),
        ({"variants": {3: {}}}, r"variant name 3 must be text"),
        ({"variants": {"slim": {"weights": "x"}}}, r"variant slim sets 'weights'; a variant may set title, exposes"),
        ({"variants": {"slim": {"name": "x"}}}, r"variant slim sets 'name'"),
        ({"variants": {"slim": {"depth": "6"}}}, r"'depth' of variant slim must be a whole number, not '6'"),
        ({"variants": {"slim": {"depth": True}}}, r"'depth' of variant slim must be a whole number, not True"),
        ({"variants": {"slim": {"options": [1]}}}, r"'options' of variant slim must be a mapping"),
        (
            {"variants": {"slim": {"precision": "float8"}}},
            r"precision 'float8' is not known; write one of float32, flo",
        ),
        ({"precision": "fp16"}, r"precision 'fp16' is not known"),
        ({"precision": 16}, r"field 'precision' must be text, not 16"),
        ({"name": "net@x"}, r"the name 'net@x' must be of letters"),
    ],
)
def test_wrong_variants_name_file_and_field(file, fields, said):
    with pytest.raises(SlimbenchError, match=r"net\.yaml") as error:
        read_card(written(file, **fields))
    assert error.match(said)
    assert "\n" not in str(error.value)


def test_an_unknown_option_of_a_variant_is_found_when_it_is_loaded(file, plugin):
    written(file, variants={"slim": {"options": {"layer": 6}}})
    with pytest.raises(SlimbenchError, match=r"net\.yaml: unknown option 'layer', did you mean 'layers'"):
        registry.load_upstream("net@slim")


def test_the_list_shows_variants_after_their_card(file, capsys):
    assert cli.main(["list", "upstreams", "--json"]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out) if row["file"] == str(file)]
    assert [row["name"] for row in rows] == ["net", "net@slim", "net@last", "net@half", "net@plain", "net@unset"]
    assert [row["width"] for row in rows] == [8, 4, 8, 8, 8, 8]
    assert [row["precision"] for row in rows] == ["float32", "float32", "float32", "float16", "float32", "float32"]
    assert cli.main(["list", "upstreams", "--available"]) == 0
    assert "\nnet@slim " in capsys.readouterr().out


def test_a_card_without_variants_has_none():
    assert variants_of(Card("a", "A", "x:y", "MIT", "here", "all")) == []
