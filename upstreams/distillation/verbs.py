"""The verbs ``pretrain`` and ``distill`` of the command line; heavy imports wait until a verb runs."""

from __future__ import annotations

import argparse
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from harness.arguments import new_verb, positive

WORK, STUDENTS = Path("runs"), Path("students")
"""Where checkpoints and where models with their cards go, unless said otherwise."""


def place(arguments: argparse.Namespace) -> Any:
    """Where a training runs, from a verb's options; under torchrun the processes find each other first."""
    import torch

    from upstreams.distillation import train

    device = train.device(arguments.device)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
        kind = "nccl" if device.startswith("cuda") else "gloo"
        torch.distributed.init_process_group(kind, timeout=timedelta(hours=6))  # others wait while the pool is made
    return train.Place(arguments.work, arguments.data, arguments.out, device, getattr(arguments, "steps", None))


def _run(arguments: argparse.Namespace) -> int:
    from upstreams.distillation import train

    for weights in train.run(arguments.recipe, place(arguments)):
        print(f"weights: {weights}")
        print(f"card:    {card_of(weights)}")
    return 0


def card_of(weights: Path) -> Path:
    """The card beside the folder of exported weights."""
    return weights.parent.with_name(f"{weights.parent.name}.yaml")


def add_places(parser: argparse.ArgumentParser) -> None:
    """Options that every training verb has."""
    add_folders(parser)
    parser.add_argument("--steps", type=positive, metavar="N", help="updates, in place of what the recipe says")


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Where a verb of the lab works."""
    parser.add_argument("--work", type=Path, default=WORK, help=f"folder for pool, checkpoints and curves ({WORK})")
    parser.add_argument("--data", type=Path, help="folder that holds real/ and pretrain/ (default: synthetic only)")
    parser.add_argument("--out", type=Path, default=STUDENTS, help=f"folder for models and their cards ({STUDENTS})")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (auto: CUDA if there is one)")


def _add(subparsers: Any, verb: str, text: str, default: str) -> None:
    parser = new_verb(subparsers, verb, text)
    parser.add_argument("recipe", nargs="?", default=default, help=f"recipe name or YAML file (default {default})")
    add_places(parser)
    parser.set_defaults(run=_run)


def add_pretrain(subparsers: Any) -> None:
    """Add ``pretrain``: train a teacher from scratch; resumes where a killed run stopped."""
    _add(subparsers, "pretrain", "pre-train a model from scratch, resumably", "wavlm_mini")


def add_distill(subparsers: Any) -> None:
    """Add ``distill``: train a student from a teacher; resumes where a killed run stopped."""
    _add(subparsers, "distill", "distil a student from a teacher, resumably", "distilhubert_like")
