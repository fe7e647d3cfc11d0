"""The verbs that search after a training: subnets under a budget, mixtures of assistants."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from harness import cli, registry
from upstreams.distillation.data import pool

PLAIN = {
    "name": "net",
    "kind": "distil",
    "student": {"family": "mini", "layers": 3, "width": 48, "ffn": 96, "head_width": 16},
    "terms": [{"knowledge": "mean_top", "student": "last", "distance": "l1"}],
    "data": {"hours": 0.3, "seed": 0, "seconds": 3.0},
    "steps": 2,
}
SPACE = {"width": [16, 32, 48], "heads": [1, 2, 3], "ratio": [1.0, 2.0], "depth": [2, 3]}
SUPERNET = PLAIN | {
    "procedure": {
        "kind": "supernet",
        "space": SPACE,
        "products": {"small": {"width": 16, "heads": 1, "ratio": 2.0, "depth": 2}},
    }
}


def _places(shards: Path) -> list[str]:
    root = shards.parent
    return ["--work", str(root), "--data", str(root / "data"), "--out", str(root / "students"), "--device", "cpu"]


def _subnets(shards: Path, recipe: dict[str, object], budget: str) -> int:
    file = shards.parent / "net.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return cli.main(
        ["subnets", str(file), "--params", budget, "--generations", "2", "--batches", "1", *_places(shards)]
    )


def test_the_subnet_found_keeps_the_budget_and_is_an_upstream(shards, capsys):
    assert _subnets(shards, SUPERNET, "30k") == 0
    said = capsys.readouterr().out
    upstream = registry.load_upstream(str(shards.parent / "students" / "net-30k.yaml"))
    count = sum(p.numel() for p in upstream.module().parameters())
    assert 27_000 <= count <= 30_000
    assert f"{count:,}" in said
    assert {row.split()[0] for row in said.splitlines()} >= {"small", "found"}


@pytest.mark.parametrize(
    ("recipe", "budget", "message"),
    [
        (PLAIN, "30k", "trains no subnets"),
        (SUPERNET, "1k", "no subnet with 900 to 1000 parameters"),
        (SUPERNET, "some", "no number of parameters"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence(shards, capsys, recipe, budget, message):
    assert _subnets(shards, recipe, budget) == 2
    assert message in capsys.readouterr().err


def test_a_mixture_that_holds_the_teacher_gives_it_all_the_weight(shards, capsys, monkeypatch):
    monkeypatch.setattr(pool, "produce", lambda *_: None)  # the pool is there, under another number of hours
    monkeypatch.setattr(pool, "shard_files", lambda *_: [shards / "real-all.npy", shards / "synthetic-000-0000.npy"])
    assert cli.main(["mixture", "random_mini,wavlm_mini", "--hours", "0.3", "--batches", "2", *_places(shards)]) == 0
    weights = dict(re.findall(r"(\w+_mini): ([0-9.]+)", capsys.readouterr().out))
    assert float(weights["wavlm_mini"]) > 0.9
    assert sum(map(float, weights.values())) == pytest.approx(1.0, abs=2e-3)
