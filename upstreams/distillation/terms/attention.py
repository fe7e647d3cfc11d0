"""Attention maps: which frames a layer looks at."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.interface import SlimbenchError
from upstreams.distillation.terms import paired
from upstreams.distillation.terms.alignment import full_precision, masked_mean
from upstreams.distillation.terms.base import Result, Side, TermSpec, View
from upstreams.distillation.terms.options import Option


class Attention(paired.Paired):
    """Maps after the softmax, layer against layer; ``student`` and ``teacher`` name layers, from 1.

    Head by head where both layers have equally many (TinyBERT, arXiv 1909.10351, which compares scores before the
    softmax), else, or with option ``average: true``, the means over heads (STaR, arXiv 2312.09040). Distance ``mse`` is
    the squared difference summed over keys, ``kl`` the divergence of the student's row from the teacher's in nats;
    both are means over valid queries and heads.

    Figures: ``attention_4``, the distance per teacher layer.
    """

    needs_maps = True
    of_layers = True
    takes_distances = ("mse", "kl")
    takes_options = paired.OPTIONS | {"average": Option(False)}

    def __init__(self, spec: TermSpec, student: Side, teacher: Side) -> None:
        super().__init__(spec, student, teacher)
        if student.frame_ms != teacher.frame_ms:
            raise SlimbenchError(
                f"{spec.knowledge}: maps at {student.frame_ms:g} ms cannot be compared with maps at "
                f"{teacher.frame_ms:g} ms; use gram_time instead."
            )

    def maps(self, view: View, layer: int, whose: str) -> Tensor:
        """The map of a layer, (B, heads, T, T).

        Raises:
            SlimbenchError: the view has none.
        """
        if len(view.maps) < layer:
            raise SlimbenchError(
                f"{self.spec.knowledge}: the {whose} gives no map of layer {layer}; use gram_time instead."
            )
        return view.maps[layer - 1].float()

    def forward(self, student: View, teacher: View) -> Result:
        """The distance over valid queries; only valid keys count."""
        mine, theirs = self.meet(student, teacher)
        keys, queries = mine.mask[:, None, None, :], mine.mask[:, None, :]
        losses = []
        for s, t in self.pairs:
            x, y = self.maps(mine, s, "student"), self.maps(theirs, t, "teacher").detach()
            if self.option("average") or x.shape[1] != y.shape[1]:
                x, y = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
            with full_precision(x):
                if self.spec.distance == "mse":
                    apart = (x - y).square()
                else:
                    apart = y * (y.clamp(min=1e-8).log() - x.clamp(min=1e-8).log())
                rows = torch.where(keys, apart, 0.0).sum(-1)
            losses.append(masked_mean(rows, queries.expand_as(rows)))
        stacked = torch.stack(losses)
        return Result(self.total(stacked), self.named("attention", stacked.tolist()))
