"""Pruning by learnt gates, as in DPHuBERT (arXiv 2305.17651): Hard-Concrete gates under a target of sparsity.

Every attention head and every feed-forward unit has a gate (:mod:`upstreams.distillation.procedures.hard_concrete`).
The share of parameters that gates leave is held at a target, which rises over the first part of training, by two
multipliers: the penalty is l1 (s - t) + l2 (s - t)², which the model makes small and the multipliers make large. Here
as there the gates and the multipliers have a learning rate of their own, a multiple of the model's. DPHuBERT also gates
the convolutions of its front end; a log-mel front end has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.interface import SlimbenchError
from upstreams.distillation.procedures import hard_concrete as hc
from upstreams.distillation.procedures.anatomy import Anatomy
from upstreams.distillation.procedures.base import Procedure, between, seen, typed
from upstreams.distillation.procedures.pruned import fewest_dropped, gated, remaining
from upstreams.distillation.procedures.ramps import linear
from upstreams.distillation.terms.base import Result, View
from upstreams.students.mini import Gates as LayerGates
from upstreams.students.mini import MiniWavLM


@dataclass(frozen=True)
class GateSettings:
    """Settings of :class:`Gates`.

    Attributes:
        sparsity: share of the student's parameters that is to go.
        begin: progress at which the target starts to rise.
        end: progress at which it is reached.
        speed: learning rate of the gates, as a multiple of the model's.
        climb: learning rate of the multipliers, as a multiple of the model's. DPHuBERT gives gates and multipliers the
            same rate, 0.02, and 50,000 updates; with the few hundred of the lab, both have to be faster to reach the
            target, and multipliers that are faster than the gates overshoot less.
        opened: probability that a gate is open at the start.
    """

    sparsity: float
    begin: float = 0.0
    end: float = 0.5
    speed: float = 100.0
    climb: float = 1000.0
    opened: float = 0.95

    def __post_init__(self) -> None:
        between("sparsity", self.sparsity, 0.0, 0.999)
        between("end", self.end, 0.0, 1.0)
        between("begin", self.begin, 0.0, self.end - 1e-6)
        between("speed", self.speed, 1e-6, 1e6)
        between("climb", self.climb, 1e-6, 1e6)
        between("opened", self.opened, 0.01, 0.999)


class Gates(Procedure):
    """Gates on heads and units of a student, trained with it; the product is the student without what they close.

    Gates and multipliers are kept as ``speed`` and ``climb`` times smaller parameters (see :func:`hc.quick`), all
    vectors, so that the optimiser of the student gives them their own rate and no weight decay.

    Args:
        values: see :class:`GateSettings`.
        model: the student.

    Raises:
        SlimbenchError: a setting is faulty, or so sparse a model cannot be left.
    """

    def __init__(self, values: Mapping[str, Any], model: MiniWavLM) -> None:
        super().__init__()
        self.settings = typed("gates", GateSettings, values)
        self.anatomy = Anatomy.of(model.config, "gates")
        start = hc.logit_of(self.settings.opened) / self.settings.speed
        self.heads = nn.ParameterList(torch.full((n,), start) for n in self.anatomy.heads)
        self.units = nn.ParameterList(torch.full((n,), start) for n in self.anatomy.units)
        self.multipliers = nn.Parameter(torch.zeros(2))
        self.whole = int(self._count(torch.ones_like))
        least = self.anatomy.fixed / self.whole
        if 1 - self.settings.sparsity < least:
            raise SlimbenchError(
                f"procedure gates: sparsity {self.settings.sparsity} cannot be reached, since {least:.1%} of the "
                "student are neither heads nor units; write less."
            )

    def _logits(self) -> tuple[list[Tensor], list[Tensor]]:
        speed = self.settings.speed
        return [hc.quick(h, speed) for h in self.heads], [hc.quick(u, speed) for u in self.units]

    def _count(self, probability: Any) -> Tensor:
        heads, units = self._logits()
        return self.anatomy.expected([probability(h) for h in heads], None, [probability(u) for u in units])

    def sparsity(self) -> Tensor:
        """Expected share of parameters that the gates take away, differentiable."""
        return 1 - self._count(hc.openness) / self.whole

    def target(self, progress: float) -> float:
        """The sparsity that is asked for."""
        return linear(progress, self.settings.sparsity, self.settings.begin, self.settings.end)

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
        """The student with gates drawn anew; with expected gates in evaluation mode."""

        def draw(logits: Tensor) -> Tensor:
            if not self.training:
                return hc.mean(logits)
            return hc.gate(logits, torch.from_numpy(rng.random(len(logits), np.float32)).to(logits.device))

        heads, units = self._logits()
        gates = [LayerGates(heads=draw(h), units=draw(u)) for h, u in zip(heads, units, strict=True)]
        with gated(student, gates):
            return seen(student, waves, lengths, masked, maps)

    def penalty(self, step: int, progress: float) -> Result:
        """The Lagrangian of the target; its multipliers climb. ``undecided`` gates are open with 10 to 90 %."""
        sparsity, target = self.sparsity(), self.target(progress)
        first, second = hc.quick(self.multipliers, -self.settings.climb).unbind()
        gap = sparsity - target
        loss = first * gap + second * gap.square()
        opened = torch.cat([hc.openness(part.detach()) for side in self._logits() for part in side])
        undecided = ((opened > 0.1) & (opened < 0.9)).float().mean()
        figures = {"sparsity": sparsity, "undecided": undecided, "multiplier_1": first, "multiplier_2": second}
        return Result(loss, {k: float(v.detach()) for k, v in figures.items()} | {"target_sparsity": target})

    @torch.no_grad()
    def open(self) -> tuple[list[Tensor], list[Tensor]]:
        """Which heads and units stay: gates close in the order of their openness, until the target is reached."""
        logits = [part.detach().cpu() for part in (*self.heads, *self.units)]
        sizes, layers = [len(part) for part in logits], len(self.heads)
        order = torch.cat(logits).argsort(stable=True)

        def masks(dropped: int) -> tuple[list[Tensor], list[Tensor]]:
            keep = torch.ones(sum(sizes), dtype=torch.bool)
            keep[order[:dropped]] = False
            parts = list(torch.split(keep, sizes))
            return parts[:layers], parts[layers:]

        def count(dropped: int) -> int:
            heads, units = masks(dropped)
            return self.anatomy.count(self.anatomy.by_head(heads), units)

        return masks(fewest_dropped(count, sum(sizes), (1 - self.settings.sparsity) * self.whole))

    @torch.no_grad()
    def products(self, student: MiniWavLM) -> dict[str, MiniWavLM]:
        """The student without the closed parts; the expected gates of those that stay are in its weights."""
        heads, units = self.open()
        head_logits, unit_logits = self._logits()
        factors = self.anatomy.by_head([hc.mean(h) for h in head_logits]), [hc.mean(u) for u in unit_logits]
        return {"": remaining(student, self.anatomy, self.anatomy.by_head(heads), units, *factors)}
