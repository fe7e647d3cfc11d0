"""Recipes: YAML in, a trained encoder with its provenance out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from safetensors.torch import load_file, save_file

from harness.identity import digest_file
from harness.interface import SlimbenchError
from harness.provenance import gather
from upstreams.distillation import distil, pool, pretrain
from upstreams.distillation.batches import Mixing
from upstreams.distillation.loop import rank_and_world
from upstreams.students.mini import MiniConfig, MiniWavLM

RECIPES = Path(__file__).parent / "recipes"
WEIGHTS = Path(__file__).parent.parent / "weights"
T = TypeVar("T", pretrain.Iteration, distil.Distillation)


def load(name: str) -> dict[str, Any]:
    """Read a built-in recipe by name, or any recipe by path."""
    file = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(f.stem for f in RECIPES.glob("*.yaml")))
        raise SlimbenchError(f"{file} is missing; give a recipe file or one of: {known}.")
    recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(recipe, dict) or recipe.get("kind") not in {"pretrain", "distil"}:
        raise SlimbenchError(f"{file}: a recipe is a mapping with kind: pretrain or kind: distil.")
    return recipe


def settings(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Typed settings from parsed YAML; an unknown key is an error that names it."""
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise SlimbenchError(f"Recipe {where}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}.")
    typed = dict(values) | {"config": MiniConfig.from_dict(values["config"])}
    if "mixing" in values:
        typed["mixing"] = Mixing(**values["mixing"])
    for key in ("pairs", "copy_layers"):
        if key in values:
            typed[key] = tuple(tuple(v) if isinstance(v, list) else v for v in values[key])
    return kind(**typed)


def load_encoder(folder: Path) -> MiniWavLM:
    """An exported encoder (``config.json`` + ``model.safetensors``) in float32, eval mode."""
    model = MiniWavLM(MiniConfig.from_dict(json.loads((folder / "config.json").read_text())))
    model.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
    return model.eval()


def export(
    model: MiniWavLM, folder: Path, recipe: Mapping[str, Any], curves: Mapping[str, Path], shards: list[str]
) -> Path:
    """Write half-precision weights, the configuration, and where they come from; returns the weights file.

    ``shards`` names what was trained on: ``real-all`` is ``pretrain/`` and the train splits of ``real/``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, weights)
    (folder / "config.json").write_text(json.dumps(model.config.to_dict(), indent=1) + "\n")
    origin = {
        "recipe": dict(recipe),
        "sha256": digest_file(weights),
        "parameters": sum(p.numel() for p in model.parameters()),
        "code": gather(),
        "shards": shards,
        "curves": {k: [json.loads(line) for line in f.read_text().splitlines()] for k, f in curves.items()},
    }
    (folder / "provenance.json").write_text(json.dumps(origin, indent=1) + "\n")
    return weights


def make_pool(recipe: Mapping[str, Any], folder: Path, real_root: Path | None) -> None:
    """Fill the pool (first process only; the others wait)."""
    rank, world = rank_and_world()
    if rank == 0:
        pool.produce(folder, float(recipe["pool"]["hours"]), int(recipe["pool"]["seed"]), real_root)
    if world > 1:
        torch.distributed.barrier()


def run(name: str, work: Path, real_root: Path | None, out: Path | None = None) -> Path:
    """Carry out a recipe in ``work``, resumably.

    Args:
        name: built-in recipe or path of a YAML file.
        work: folder for the pool, checkpoints and curves.
        real_root: folder that holds ``real/`` and ``pretrain/``; ``None`` trains on synthetic speech only.
        out: where the weights go, by default beside the embedded ones.

    Returns:
        The weights file.
    """
    recipe = load(name)
    torch.set_num_threads(1)
    make_pool(recipe, work / "pool", real_root)
    curves: dict[str, Path] = {}
    if recipe["kind"] == "pretrain":
        model: MiniWavLM | None = None
        for number, values in enumerate(recipe["iterations"], 1):
            folder = work / f"{recipe['name']}-{number}"
            curves[folder.name] = folder / "curve.jsonl"
            model = pretrain.run(settings(pretrain.Iteration, values, name), model, work / "pool", folder)
        if model is None:
            raise SlimbenchError(f"Recipe {name} lists no iterations.")
    else:
        folder = work / str(recipe["name"])
        curves[folder.name] = folder / "curve.jsonl"
        teacher = load_encoder(WEIGHTS / str(recipe["teacher"]))
        model = distil.run(settings(distil.Distillation, recipe["student"], name), teacher, work / "pool", folder)
    shards = [file.stem for file in pool.shard_files(work / "pool")]
    return export(model, out or WEIGHTS / str(recipe["name"]), recipe, curves, shards)
