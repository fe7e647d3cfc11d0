"""Recipes: YAML in, a trained encoder with its provenance out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file

from harness import plain_yaml
from harness.identity import digest_file
from harness.interface import SlimbenchError
from harness.provenance import gather
from upstreams.distillation import distil, files, pool, pretrain
from upstreams.distillation.batches import Mixing
from upstreams.distillation.loop import rank_and_world
from upstreams.students.mini import MiniConfig, MiniWavLM

RECIPES = Path(__file__).parent / "recipes"
WEIGHTS = Path(__file__).parent.parent / "weights"
FORMS: dict[type, str] = {str: "text", dict: "mapping", list: "list"}
NEEDED: dict[str, dict[str, type]] = {
    "pretrain": {"name": str, "pool": dict, "iterations": list},
    "distil": {"name": str, "pool": dict, "teacher": str, "student": dict},
}
"""The keys of each kind of recipe besides ``kind``, and their YAML forms."""
T = TypeVar("T", pretrain.Iteration, distil.Distillation)


def load(name: str) -> dict[str, Any]:
    """Read a built-in recipe by name, or any recipe by path."""
    file = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(f.stem for f in RECIPES.glob("*.yaml")))
        raise SlimbenchError(f"{file} is missing; give a recipe file or one of: {known}.")
    recipe = plain_yaml.load(file, "the recipe")
    if not isinstance(recipe, dict) or recipe.get("kind") not in NEEDED:
        raise SlimbenchError(f"{file}: a recipe is a mapping with kind: pretrain or kind: distil.")
    for key, form in NEEDED[recipe["kind"]].items():
        if not isinstance(recipe.get(key), form) or not recipe[key]:
            raise SlimbenchError(
                f"{file}: {key!r} is missing, empty or not a {FORMS[form]}; add it as in a built-in recipe."
            )
    if not {"hours", "seed"} <= set(recipe["pool"]):
        raise SlimbenchError(f"{file}: 'pool' needs hours and seed; add them as in a built-in recipe.")
    return recipe


def settings(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Typed settings from parsed YAML; an unknown key is an error that names it."""
    if not isinstance(values, Mapping) or not isinstance(values.get("config"), Mapping):
        raise SlimbenchError(f"Recipe {where}: settings need a mapping 'config', the encoder's shape; add it.")
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise SlimbenchError(f"Recipe {where}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}.")
    try:
        typed = dict(values) | {"config": MiniConfig.from_dict(values["config"])}
        if "mixing" in values:
            typed["mixing"] = Mixing(**values["mixing"])
        for key in ("pairs", "copy_layers"):
            if key in values:
                typed[key] = tuple(tuple(v) if isinstance(v, list) else v for v in values[key])
        return kind(**typed)
    except (TypeError, ValueError) as error:
        raise SlimbenchError(f"Recipe {where}: {error}; mend the settings.") from error


def teacher_folder(name: str) -> Path:
    """Folder of an embedded encoder by name."""
    folder = WEIGHTS / name
    if not (folder / "model.safetensors").is_file():
        known = ", ".join(sorted(f.parent.name for f in WEIGHTS.glob("*/model.safetensors"))) or "none yet"
        raise SlimbenchError(f"No teacher {name!r}: {folder} has no model.safetensors; pretrain it, or use: {known}.")
    return folder


def load_encoder(folder: Path) -> MiniWavLM:
    """An exported encoder (``config.json`` + ``model.safetensors``) in float32, eval mode."""
    model = MiniWavLM(MiniConfig.from_dict(json.loads((folder / "config.json").read_text())))
    model.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
    return model.eval()


def export(model: MiniWavLM, folder: Path, recipe: Mapping[str, Any], origin: Mapping[str, Any]) -> Path:
    """Write half-precision weights, the configuration, and where they come from; returns the weights file.

    ``origin`` joins ``provenance.json``; its ``shards`` name what was trained on: ``real-all`` is ``pretrain/`` and the
    train splits of ``real/``. The weights get their name last, when all else is there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    with files.whole(weights) as temporary:
        save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, temporary)
        notes = {
            "recipe": dict(recipe),
            "sha256": digest_file(temporary),
            "parameters": sum(p.numel() for p in model.parameters()),
            "code": gather(),
        }
        files.write_text(folder / "config.json", json.dumps(model.config.to_dict(), indent=1) + "\n")
        files.write_text(folder / "provenance.json", json.dumps(notes | dict(origin), indent=1) + "\n")
    return weights


def history(runs: Sequence[Path]) -> dict[str, Any]:
    """What runs left in their folders, by folder name: the code they began with, and their curves."""
    return {
        "code_at_start": {run.name: json.loads((run / "started.json").read_text()) for run in runs},
        "curves": {
            run.name: [json.loads(line) for line in (run / "curve.jsonl").read_text().splitlines()] for run in runs
        },
    }


def make_pool(recipe: Mapping[str, Any], folder: Path, real_root: Path | None) -> list[Path]:
    """Fill the pool (first process only; the others wait); returns the shards to train on."""
    rank, world = rank_and_world()
    hours, seed = float(recipe["pool"]["hours"]), int(recipe["pool"]["seed"])
    if rank == 0:
        pool.produce(folder, hours, seed, real_root)
    if world > 1:
        torch.distributed.barrier()
    return pool.shard_files(folder, hours, seed, real_root is not None)


def run(name: str, work: Path, real_root: Path | None, out: Path | None = None) -> Path:
    """Carry out a recipe in ``work``, resumably.

    Args:
        name: built-in recipe or path of a YAML file.
        work: folder for the pool, checkpoints and curves.
        real_root: folder that holds ``real/`` and ``pretrain/``; ``None`` trains on synthetic speech only.
        out: where the weights go, by default beside the embedded ones.

    Returns:
        The weights file.

    Raises:
        SlimbenchError: the recipe is faulty, ``work`` holds another run under its name, or the disk is full.
    """
    recipe = load(name)
    torch.set_num_threads(1)
    target = out or WEIGHTS / str(recipe["name"])
    origin: dict[str, Any] = {}
    if recipe["kind"] == "pretrain":
        iterations = [settings(pretrain.Iteration, values, name) for values in recipe["iterations"]]
        runs = [work / f"{recipe['name']}-{number}" for number in range(1, len(iterations) + 1)]
        shards = make_pool(recipe, work / "pool", real_root)
        model = pretrain.run(iterations[0], None, shards, runs[0])
        for iteration, folder in zip(iterations[1:], runs[1:], strict=True):
            model = pretrain.run(iteration, model, shards, folder)
    else:
        student, runs = settings(distil.Distillation, recipe["student"], name), [work / str(recipe["name"])]
        source = teacher_folder(recipe["teacher"])
        origin["teacher_sha256"] = digest_file(source / "model.safetensors")
        teacher = load_encoder(source)
        shards = make_pool(recipe, work / "pool", real_root)
        model = distil.run(student, teacher, shards, runs[0])
    if rank_and_world()[0] == 0:
        export(model, target, recipe, origin | {"shards": [file.stem for file in shards]} | history(runs))
    return target / "model.safetensors"
