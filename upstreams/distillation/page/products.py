"""What comes out of each built-in recipe: names, shapes, parameters and multiply-accumulates, before any training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from harness import cost
from harness.interface import HiddenStates
from upstreams.distillation import recipe
from upstreams.distillation.page.words import Shape, shape_of
from upstreams.distillation.procedures.base import Procedure, build
from upstreams.distillation.procedures.gates import Gates
from upstreams.distillation.procedures.gradient_pruning import GradientPruning
from upstreams.distillation.procedures.supernet import Supernet
from upstreams.distillation.recipe import Pretraining, Recipe
from upstreams.students.gendistiller import GenDistiller, GenShape
from upstreams.students.mini import MiniWavLM, parameters, skeleton


@dataclass(frozen=True)
class Product:
    """A model that a recipe gives.

    Attributes:
        name: of the upstream.
        shape: its shape; of a pruned one, that before pruning.
        parameters: of the exposed model.
        at_most: whether ``parameters`` is the limit of a pruning, whose outcome only training knows.
        macs: multiply-accumulates per second of audio at 10 s; ``None`` where they depend on trained weights.
    """

    name: str
    shape: Shape
    parameters: int
    at_most: bool
    macs: float | None


@dataclass(frozen=True)
class Entry:
    """A built-in recipe, what its file says of it in the comment at its head, and what comes out of it."""

    recipe: Recipe | Pretraining
    about: str
    products: tuple[Product, ...]

    @property
    def name(self) -> str:
        """Of the recipe."""
        return self.recipe.name


def entries(folder: Path | None = None) -> list[Entry]:
    """The recipes of a folder by name, by default the built-in ones.

    Raises:
        SlimbenchError: a recipe is faulty.
    """
    files = sorted((folder or recipe.RECIPES).glob("*.yaml"))
    return [entry(file) for file in files]


def entry(file: Path) -> Entry:
    """One recipe.

    Raises:
        SlimbenchError: it is faulty.
    """
    found = recipe.load(file)
    return Entry(found, head_comment(file.read_text(encoding="utf-8")), products(found))


def head_comment(text: str) -> str:
    r"""The comment lines at the head of a YAML file as one paragraph.

    >>> head_comment("# One,\n# two.\nname: a  # b\n")
    'One, two.'
    """
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    return " ".join(lines)


def products(found: Recipe | Pretraining) -> tuple[Product, ...]:
    """The models that a recipe gives, the one of its own name first.

    Raises:
        SlimbenchError: the student or a procedure is faulty.
    """
    if isinstance(found, Pretraining):
        return (whole(found.name, found.iterations[-1].config),)
    shape = shape_of(found.student)
    if isinstance(shape, GenShape):
        return (whole(found.name, shape),)
    stages = [recipe.stage(found, number) for number in range(1 + len(found.stages))]
    procedures = [build(one.procedure, skeleton(shape)) for one in stages]
    limits = [limit for one in procedures if (limit := pruned_to(one)) is not None]
    first = Product(found.name, shape, min(limits), True, None) if limits else whole(found.name, shape)
    last = procedures[-1]
    named = last.named if isinstance(last, Supernet) else {}
    return (first, *(whole(f"{found.name}_{word}", subnet.config(shape)) for word, subnet in named.items()))


def pruned_to(procedure: Procedure) -> int | None:
    """Most parameters that a procedure leaves of the student; ``None`` where it prunes nothing."""
    if isinstance(procedure, Gates | GradientPruning):
        return math.floor((1.0 - procedure.settings.sparsity) * procedure.whole + 1e-6)
    return None


def whole(name: str, shape: Shape) -> Product:
    """A product whose shape is known before training."""
    count, macs = counted(shape)
    return Product(name, shape, count, False, macs)


@lru_cache
def counted(shape: Shape) -> tuple[int, float | None]:
    """Parameters of the exposed model, and multiply-accumulates per second of audio.

    The latter are ``None`` of a model that compresses: how many segments it makes, its weights decide.
    """
    if isinstance(shape, GenShape):
        model = GenDistiller(shape)
        return cost.count_parameters(model), cost.count_macs(Untrained(model))
    macs = None if shape.compress else cost.count_macs(Untrained(MiniWavLM(shape)))
    return parameters(shape), macs


class Untrained:
    """A model with random weights as an upstream, to be counted."""

    name, fingerprint, variable_rate, batch_invariant = "untrained", "", False, True

    def __init__(self, model: MiniWavLM | GenDistiller) -> None:
        self._model = model.eval()
        self.num_states, self.frame_ms, self.min_samples = model.num_states, model.frame_ms, model.min_samples
        self.width = model.config.width if isinstance(model, MiniWavLM) else model.shape.width

    def module(self) -> nn.Module:
        """The model."""
        return self._model

    @torch.no_grad()
    def encode(self, waves: Tensor, lengths: Tensor) -> HiddenStates:
        """States of ``waves`` (B, S) with ``lengths`` (B,) valid samples."""
        states, frames = self._model(waves, lengths)
        return HiddenStates(states, frames, self.frame_ms)
