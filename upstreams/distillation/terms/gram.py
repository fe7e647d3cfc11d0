"""Gram matrices over time: how alike each two frames of an utterance are; any widths can be compared."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from upstreams.distillation.terms import paired
from upstreams.distillation.terms.alignment import full_precision, masked_mean
from upstreams.distillation.terms.base import Result, View, layer_normed
from upstreams.distillation.terms.options import Option


def gram(first: Tensor, second: Tensor, unit: bool) -> Tensor:
    """Products of frames, (B, T, D) twice to (B, T, T): over the width, or of unit vectors (cosines) if ``unit``."""
    with full_precision(first):
        first, second = first.float(), second.float()
        if unit:
            return functional.normalize(first, dim=-1) @ functional.normalize(second, dim=-1).transpose(1, 2)
        return first @ second.transpose(1, 2) / first.shape[-1]


class GramTime(paired.Paired):
    """Temporal Gram matrices of a student and a teacher state (STaR, arXiv 2312.09040, layer-wise part).

    Option ``normalise: true`` compares cosines instead of products over the width; then scales do not matter. Option
    ``norm: true`` layer-norms the student's states without parameters before; it is on where a recipe takes layers from
    the teacher, whose raw states are of another scale than its normalised ones.

    Figures: ``gram_4``, the distance per teacher state.
    """

    takes_distances = ("mse", "l1")
    takes_options = paired.OPTIONS | {"normalise": Option(False), "norm": Option(False)}

    def products(self, states: Sequence[Tensor], number: int) -> Tensor:
        """The Gram matrix of a state, (B, T, T)."""
        return gram(states[number], states[number], self.option("normalise"))

    def forward(self, student: View, teacher: View) -> Result:
        """Mean squared or absolute difference over pairs of valid frames."""
        mine, theirs = self.meet(layer_normed(student) if self.option("norm") else student, teacher)
        both = mine.mask[:, :, None] & mine.mask[:, None, :]
        losses = []
        for s, t in self.pairs:
            difference = self.products(mine.states, s) - self.products(theirs.states, t).detach()
            losses.append(masked_mean(difference.abs() if self.spec.distance == "l1" else difference.square(), both))
        stacked = torch.stack(losses)
        return Result(self.total(stacked), self.named("gram", stacked.tolist()))


class GramLayers(GramTime):
    """Gram matrices between the frames that enter a layer and those that leave it (STaR, arXiv 2312.09040, intra-layer
    part): what a layer does to an utterance. ``student`` and ``teacher`` name layers, from 1; the option is that of
    :class:`GramTime`.

    Figures: ``gram_4``, the distance per teacher layer.
    """

    of_layers = True

    def products(self, states: Sequence[Tensor], number: int) -> Tensor:
        """The Gram matrix between the states either side of a layer, (B, T, T)."""
        return gram(states[number - 1], states[number], self.option("normalise"))
