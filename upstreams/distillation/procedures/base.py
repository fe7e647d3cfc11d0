"""What every procedure of training shares: its hooks, its settings, its source of chance.

A procedure decides what of the student is trained at a step (all, a subnet, a gated or a compressed version), adds a
penalty, and says at the end which models come out. The trainer calls, per step: :meth:`Procedure.view`, the terms,
:meth:`Procedure.penalty`, the backward pass, :meth:`Procedure.after_backward`; and once, at the end,
:meth:`Procedure.products`. Parameters of a procedure are trained by the student's optimiser, buffers are saved with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any, TypeVar

import numpy as np
from torch import Tensor, nn

from harness.interface import SlimbenchError
from upstreams.distillation.terms.base import Result, View
from upstreams.students.mini import MiniWavLM

ROOM = "upstreams.distillation.procedures"
KINDS: dict[str, str] = {
    "plain": f"{ROOM}.base:plain",
    "gates": f"{ROOM}.gates:Gates",
    "gradient_pruning": f"{ROOM}.gradient_pruning:GradientPruning",
    "supernet": f"{ROOM}.supernet:Supernet",
    "sequence": f"{ROOM}.sequence:Sequence",
}
"""Procedures by the word that a recipe uses, as ``module:maker``; a maker takes (settings, model)."""
T = TypeVar("T")


class Procedure(nn.Module):
    """The plain procedure: the whole student, no penalty, one product.

    Attributes:
        fits: how many teacher batches :meth:`fit` wants before the first step; 0 for none.
        observes: whether :meth:`observe` must be called with the teacher's view before each :meth:`view`.
    """

    fits: int = 0
    observes: bool = False

    def fit(self, views: Iterable[View]) -> None:
        """Fit codebooks and the like to the teacher's views, once, before the first step."""

    def observe(self, teacher: View) -> None:
        """What the first teacher makes of the batch that :meth:`view` gets next."""

    def view(
        self,
        student: MiniWavLM,
        waves: Tensor,
        lengths: Tensor,
        masked: Tensor | None,
        step: int,
        progress: float,
        rng: np.random.Generator,
        maps: bool = False,
    ) -> View:
        """What the student makes of a batch at this step, with gradient.

        Args:
            student: the model in training.
            waves: (B, S) samples at 16 kHz.
            lengths: (B,) valid samples.
            masked: (B, T) bool, frames that the student does not see, or ``None``.
            step: number of the step, from 0.
            progress: share of the training that lies behind, 0 to 1.
            rng: source of all chance of this step, see :func:`chance`.
            maps: whether a term asks for attention maps.
        """
        return seen(student, waves, lengths, masked, maps)

    def penalty(self, step: int, progress: float) -> Result | None:
        """What is added to the loss of the view made last, ``None`` for nothing."""
        return None

    def after_backward(self, student: MiniWavLM, step: int, progress: float) -> None:
        """Look at the gradients, after the backward pass and before the update."""

    @property
    def names(self) -> tuple[str, ...]:
        """The suffixes of the products' names."""
        return ("",)

    def products(self, student: MiniWavLM) -> dict[str, MiniWavLM]:
        """The trained models by the suffix of their name; ``""`` is the one with the recipe's own name."""
        return {"": student}


def seen(student: MiniWavLM, waves: Tensor, lengths: Tensor, masked: Tensor | None, maps: bool, **more: Any) -> View:
    """A student's passage as a view; ``more`` goes to :meth:`MiniWavLM.passage`."""
    passage = student.passage(waves, lengths, masked=masked, maps=maps, **more)
    return View(tuple(passage.states), passage.frames, tuple(passage.maps))


def plain(settings: Mapping[str, Any], model: MiniWavLM) -> Procedure:
    """The plain procedure, which has no settings."""
    if settings:
        raise SlimbenchError(f"procedure plain: unknown key {sorted(settings)[0]!r}; it has no settings.")
    return Procedure()


def build(settings: Mapping[str, Any], model: MiniWavLM) -> Procedure:
    """The procedure that a recipe asks for.

    Args:
        settings: ``kind``, a key of :data:`KINDS` (default ``plain``), and the settings of that kind.
        model: the student, at its start.

    Raises:
        SlimbenchError: the kind or a setting is unknown, or does not suit the student.
    """
    kind = settings.get("kind", "plain")
    if not isinstance(kind, str) or kind not in KINDS:
        raise SlimbenchError(f"procedure kind {kind!r} is none of {', '.join(KINDS)}; correct the recipe.")
    if kind != "plain" and not isinstance(model, MiniWavLM):
        raise SlimbenchError(f"procedure {kind} is for students of family mini; leave it out or change the student.")
    module, name = KINDS[kind].split(":")
    maker: Callable[[Mapping[str, Any], MiniWavLM], Procedure] = getattr(import_module(module), name)
    return maker({key: value for key, value in settings.items() if key != "kind"}, model)


def chance(seed: int, step: int) -> np.random.Generator:
    """The source of chance of one step: depends on ``(seed, step)`` only, so that a resumed run repeats it.

    The third number keeps it apart from the source that draws the batch of the same step.
    """
    return np.random.default_rng((seed, step, 7))


def typed(kind: str, form: type[T], values: Mapping[str, Any]) -> T:
    """Settings as a dataclass: unknown keys are named, lists become tuples, whole numbers become floats where due.

    Raises:
        SlimbenchError: a key is unknown or missing, or a value is of another type or out of range.
    """
    known = {f.name: str(f.type) for f in fields(form)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known), key=str)
    if unknown:
        raise SlimbenchError(
            f"procedure {kind}: unknown key {unknown[0]!r}; known are {', '.join(known)}. Correct the recipe."
        )
    ready: dict[str, Any] = {}
    for key, value in values.items():
        if known[key] in ("float", "int"):
            numbers = int | float if known[key] == "float" else int
            if isinstance(value, bool) or not isinstance(value, numbers):
                raise SlimbenchError(f"procedure {kind}: {key} is {value!r}; write a number ({known[key]}).")
        ready[key] = tuple(value) if isinstance(value, list) else value
    try:
        return form(**ready)
    except (TypeError, ValueError) as error:
        raise SlimbenchError(f"procedure {kind}: {error}; correct the recipe.") from error


def between(name: str, value: float, least: float, most: float) -> None:
    """Refuse a setting out of range, for :func:`typed` to say of which procedure.

    Raises:
        ValueError: it is.
    """
    if not least <= value <= most:
        raise ValueError(f"{name} is {value}, not within {least} to {most}")
