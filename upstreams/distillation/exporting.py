"""Trained models as upstreams: half-precision weights, configuration, provenance, card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file

from harness.identity import digest_file
from harness.provenance import gather
from upstreams.adapters.mini import card_fields
from upstreams.distillation import files
from upstreams.students.gendistiller import GenDistiller
from upstreams.students.mini import MiniWavLM

Model = MiniWavLM | GenDistiller
PERIODS = (20, 30, 60, 90)
"""Frame periods in milliseconds of the variants of a model that compresses, besides the 45 of its card."""


def export(model: Model, folder: Path, recipe: Mapping[str, Any], origin: Mapping[str, Any]) -> Path:
    """Write half-precision weights, the configuration, and where they come from; returns the weights file.

    ``origin`` joins ``provenance.json``; its ``shards`` name what was trained on: ``real-all`` is ``pretrain/`` and the
    train splits of ``real/``. The weights get their name last, when all else is there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    shape = model.config.to_dict() if isinstance(model, MiniWavLM) else model.shape.to_dict()
    with files.whole(weights) as temporary:
        save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, temporary)
        temporary.chmod(0o644)  # safetensors writes for the owner alone
        notes = {
            "recipe": dict(recipe),
            "sha256": digest_file(temporary),
            "parameters": sum(p.numel() for name, p in model.named_parameters() if name != "mask_embedding"),
            "code": gather(),
        }
        files.write_text(folder / "config.json", json.dumps(shape, indent=1) + "\n")
        files.write_text(folder / "provenance.json", json.dumps(notes | dict(origin), indent=1) + "\n")
    return weights


def is_made(folder: Path, identity: str) -> bool:
    """Whether ``folder`` holds the export of that run, card included."""
    notes = folder / "provenance.json"
    if not (
        notes.is_file()
        and (folder / "model.safetensors").is_file()
        and folder.with_name(f"{folder.name}.yaml").is_file()
    ):
        return False
    return bool(json.loads(notes.read_text(encoding="utf-8")).get("identity") == identity)


def write_card(weights: Path, model: Model, about: Mapping[str, Any]) -> Path:
    """Write the card of exported weights beside their folder, ``<folder's name>.yaml``; returns the card.

    Args:
        weights: the file in its folder.
        model: what is in it.
        about: further fields: title, teacher, source, method, options.
    """
    name = weights.parent.name
    shape = card_fields(model.config) if isinstance(model, MiniWavLM) else generator_fields(model)
    fields: dict[str, Any] = {
        "name": name,
        "title": name,
        "weights": f"{name}/{weights.name}",
        "sha256": digest_file(weights),
    }
    fields |= shape | {"licence": "MIT"} | {key: value for key, value in about.items() if value}
    if isinstance(model, MiniWavLM) and model.config.compress:
        fields["variants"] = {f"{period}ms": {"options": {"period_ms": period}} for period in PERIODS}
    file = weights.parent.parent / f"{name}.yaml"
    files.write_text(file, yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000))
    return file


def generator_fields(model: GenDistiller) -> dict[str, Any]:
    """What a card says of a generator of layers."""
    return {
        "adapter": "upstreams.students.gendistiller:adapter",
        "family": "gendistiller",
        "depth": model.shape.layers,
        "width": model.shape.width,
        "exposes": "embedded features and every generated layer, 20 ms",
    }


def history(runs: Sequence[Path]) -> dict[str, Any]:
    """What runs left in their folders, by folder name: the code they began with, and their curves."""
    return {
        "code_at_start": {run.name: json.loads((run / "started.json").read_text()) for run in runs},
        "curves": {
            run.name: [json.loads(line) for line in (run / "curve.jsonl").read_text().splitlines()] for run in runs
        },
    }
