"""Plain YAML: what is data comes through as PyYAML's own safe loader reads it, and nothing else comes through."""

import ast
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import downstreams
import harness
import leaderboards
import upstreams
from harness import plain_yaml
from harness.interface import SlimbenchError

PACKAGES = [Path(package.__file__).parent for package in (harness, upstreams, downstreams, leaderboards)]
FILES = [file for package in PACKAGES for file in sorted(package.rglob("*.yaml"))]
ELSEWHERE = {"downstreams/corpora/official.py", "leaderboards/site/build.py"}
"""Readers of the project's own or the user's own files that call PyYAML themselves."""
CARDS_IN_TRANSIT = {"leaderboards/submissions/cards.py", "leaderboards/submissions/exchange/model_index.py"}
"""Readers of submissions, which have bounds of their own."""

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=8)
DATA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)


class WithoutReferences(yaml.SafeDumper):
    """Writes a value out wherever it occurs."""

    def ignore_aliases(self, data):
        return True


def refused(text, *said):
    """The message for a text that is refused."""
    with pytest.raises(SlimbenchError) as caught:
        plain_yaml.parse(text if isinstance(text, bytes) else text.encode(), "x.yaml")
    message = str(caught.value)
    assert message.startswith("x.yaml is not plain YAML")
    assert "\n" not in message
    assert all(word in message for word in said), message
    return message


@settings(derandomize=True, deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(DATA)
def test_what_was_written_is_read(value):
    assert plain_yaml.parse(yaml.dump(value, Dumper=WithoutReferences, allow_unicode=True).encode(), "x") == value


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_of_the_project_is_plain(file):
    assert plain_yaml.load(file) == yaml.safe_load(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("link", "sign"), [("[*x{0}, *x{0}]", "'*'"), ("{{<<: [*x{0}, *x{0}]}}", "'<<'"), ("{{a: *x{0}, b: *x{0}}}", "'*'")]
)
def test_an_alias_bomb_is_refused_at_its_first_reference(link, sign):
    """Sixty levels of two: written out, more values than any memory holds."""
    lines = ["x0: &x0 {k: v}", *(f"x{i + 1}: &x{i + 1} " + link.format(i) for i in range(60))]
    refused("\n".join(lines), "(line 2)", sign)


def test_a_list_within_itself_is_refused():
    refused("a: &a [*a]", "(line 1)", "'*'")


@pytest.mark.parametrize(
    ("text", "line", "name"),
    [
        ("a: 1\nb: 2\na: 1\n", 3, "a"),
        ("o: {a: 1, b: 2, a: 3}", 1, "a"),
        ("l:\n- a: 1\n  b: 1\n  b: 1\n", 4, "b"),
        ("1: a\ntrue: b\n", 2, "True"),  # one key to Python
    ],
)
def test_a_field_occurs_once(text, line, name):
    refused(text, f"(line {line}): the field {name!r} occurs twice")


@pytest.mark.parametrize(
    "tag",
    ["object/apply:os.mkdir", "object/new:os.mkdir", "object:os.mkdir", "name:os.mkdir", "module:os", "tuple", "str"],
)
@pytest.mark.parametrize("long", [False, True])
def test_nothing_of_python_is_made(tag, long, tmp_path):
    marker = tmp_path / "it-ran"
    kind = f"!<tag:yaml.org,2002:python/{tag}>" if long else f"!!python/{tag}"
    refused(f"a: 1\nb: {kind} ['{marker}']", "(line 2)", "python/")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: !!set {x}", "the kind 'set' is not taken"),
        ("a: !!binary aGk=", "the kind 'binary' is not taken"),
        ("a: !own 1", "the kind '!own' is not taken"),
        ("a: 2024-01-31", "a date stands there without quotes"),
        ("<<: {a: 1}", "'<<' stands there without quotes"),
        ("a: .inf", ".inf is not a finite number"),
        ("a: !!float nan", "nan is not a finite number"),
        ("a: 1.0e+999", "1.0e+999 is not a finite number"),
        ("a: " + "9" * 101, "a number has more than 100 characters"),
        ("a: 1" + ":0" * 60, "a number has more than 100 characters"),
        ('a: "\\ud800"', "a text holds half of a character"),
        ('"\\udfff": a', "a text holds half of a character"),
        ("a: !!int x", "'x' makes no sense here"),
        ("a: !!bool maybe", "'maybe' makes no sense here"),
        ("? [1]\n: 2", "unhashable"),
        ("a: [1", "(line 1)"),
        ("a: 1\n---\na: 1", "(line 2)"),
        (b"\xff\xfe", "utf-8"),
        (b"a: \x00", "not allowed"),
    ],
)
def test_what_is_no_plain_data(text, said):
    refused(text, said)


@pytest.mark.parametrize("kind", ["[", "{a: ", "- ", "? "])
def test_depth_is_bounded(kind):
    """Deeper than Python's recursion; refused at level 41, before the rest is looked at."""
    refused(kind * 50_000, "nested more than 40 deep")


def test_depth_is_that_of_the_value_and_not_of_what_was_read_before():
    text = "[" * 39 + "]" * 39
    assert len(plain_yaml.parse(f"[{', '.join([text] * 5)}]".encode(), "x")) == 5
    refused(f"[[{text}]]", "nested more than 40 deep")


def test_size_is_bounded(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("a: 1 #" + "x" * 94)
    assert plain_yaml.load(file, max_bytes=100) == {"a": 1}
    with pytest.raises(SlimbenchError, match=r"x\.yaml is not plain YAML: it is larger than 99 bytes; correct it\.$"):
        plain_yaml.load(file, max_bytes=99)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs an endless file")
def test_an_endless_file_is_not_read_to_its_end():
    with pytest.raises(SlimbenchError, match="larger than 1,048,576 bytes"):
        plain_yaml.load(Path("/dev/zero"))


@pytest.mark.parametrize("name", ["none.yaml", "", "a\0b", "x" * 300])
def test_a_file_that_cannot_be_read(name, tmp_path):
    with pytest.raises(SlimbenchError, match=r"^Cannot read the thing .*; check the path\.$") as caught:
        plain_yaml.load(tmp_path / name, "the thing")
    assert str(tmp_path) in str(caught.value)


def test_there_is_no_other_reader():
    """Files that call ``yaml.load`` or a sister of it."""
    found = set()
    for package in PACKAGES:
        for file in package.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(("yaml.load", "yaml.safe_load")):
                    found.add(os.path.relpath(file, package.parent).replace(os.sep, "/"))
    assert "harness/plain_yaml.py" in found
    assert found <= {"harness/plain_yaml.py", *ELSEWHERE, *CARDS_IN_TRANSIT}
