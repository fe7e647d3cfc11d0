"""Trained models as upstreams: half-precision weights, configuration, provenance, card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file

from harness import plain_yaml, registry
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


def own_name(name: str) -> str:
    """The name of what a recipe makes: its own, unless an upstream of that name comes with the project."""
    known = registry.cards().get(name)
    return f"{name}_remade" if known is not None and known.packaged else name


def is_made(folder: Path, identity: str) -> bool:
    """Whether ``folder`` holds the export of that run, card included; what a kill has left half written is none."""
    notes, weights, card = (
        folder / "provenance.json",
        folder / "model.safetensors",
        folder.with_name(f"{folder.name}.yaml"),
    )
    if not (notes.is_file() and weights.is_file() and card.is_file()):
        return False
    told = files.read_json(notes, f"delete {folder} to export the model anew")
    if told.get("identity") != identity:
        return False
    digest = digest_file(weights)
    stated = plain_yaml.load(card, "the card")
    return bool(told.get("sha256") == digest and isinstance(stated, dict) and stated.get("sha256") == digest)


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

    def remedy(run: Path) -> str:
        return f"delete {run} to train that stage anew"

    return {
        "code_at_start": {run.name: files.read_json(run / "started.json", remedy(run)) for run in runs},
        "curves": {run.name: files.read_rows(run / "curve.jsonl", remedy(run)) for run in runs},
    }
