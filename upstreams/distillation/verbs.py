"""The verbs ``pretrain`` and ``distill`` of the command line; heavy imports wait until a verb runs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any


def _run(arguments: argparse.Namespace) -> int:
    import torch

    from upstreams.distillation import recipe

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        torch.distributed.init_process_group("gloo")
    weights = recipe.run(arguments.recipe, arguments.work, arguments.data, arguments.out)
    print(f"weights: {weights}")
    return 0


def _add(subparsers: Any, verb: str, text: str, default: str) -> None:
    parser = subparsers.add_parser(verb, help=text, description=text)
    parser.add_argument("recipe", nargs="?", default=default, help=f"recipe name or YAML file (default {default})")
    parser.add_argument("--work", type=Path, default=Path("runs"), help="folder for pool, checkpoints and curves")
    parser.add_argument("--data", type=Path, help="folder that holds real/ and pretrain/ (default: synthetic only)")
    parser.add_argument("--out", type=Path, help="folder for the weights (default: beside the embedded ones)")
    parser.set_defaults(run=_run)


def add_pretrain(subparsers: Any) -> None:
    """Add ``pretrain``: train the embedded teacher; resumes where a killed run stopped."""
    _add(subparsers, "pretrain", "Train the embedded teacher from scratch, resumably.", "wavlm_mini")


def add_distill(subparsers: Any) -> None:
    """Add ``distill``: train a student from a teacher; resumes where a killed run stopped."""
    _add(subparsers, "distill", "Distil a student from a teacher, resumably.", "distilled_wavlm")
