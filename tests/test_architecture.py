"""The direction of the house: the engine knows no model, no task and no board."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OUTSIDE = {"upstreams", "downstreams", "leaderboards", "tests"}
LIGHT = ("interface", "registry", "cards", "suite", "cli", "listing", "identity", "__main__")
HEAVY = {"torch", "torchaudio", "transformers", "numpy", "pandas", "matplotlib", "scipy", "sklearn"}


def imported(tree):
    """Names of all modules that are imported anywhere in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(package):
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, package
    return found


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", files("harness"), ids=lambda p: p.name)
def test_harness_imports_nothing_from_outside(path):
    assert not {name for name in imported(parse(path)) if name.split(".")[0] in OUTSIDE}


@pytest.mark.parametrize("path", files("harness"), ids=lambda p: p.name)
def test_harness_names_no_upstream(path):
    names = {card.stem for card in (ROOT / "upstreams" / "cards").glob("*.yaml")}
    strings = {n.value for n in ast.walk(parse(path)) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    assert names
    assert not names & strings


def test_the_check_sees_an_import_in_a_function():
    tree = ast.parse("def f():\n    from downstreams import ks\n")
    assert "downstreams.ks" in set(imported(tree))


def test_light_modules_reach_nothing_heavy_at_import():
    """Follows module-level imports of the modules that ``--help`` and ``list`` load."""
    seen, todo = set(), [f"harness.{name}" for name in LIGHT]
    while todo:
        module = todo.pop()
        path = ROOT / (module.replace(".", "/") + ".py")
        if module in seen or not path.exists():
            continue
        seen.add(module)
        tree = parse(path)
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = set(imported(tree))
        assert not {name.split(".")[0] for name in names} & HEAVY, module
        todo += [name for name in names if name.startswith("harness")]
    assert {f"harness.{name}" for name in LIGHT} <= seen
