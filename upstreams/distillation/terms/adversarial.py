"""Adversarial distillation: a discriminator tells student frames from teacher frames, the student deceives it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from upstreams.distillation.terms import heads, paired
from upstreams.distillation.terms.alignment import full_precision, masked_mean, meet
from upstreams.distillation.terms.base import Result, Side, TermSpec, View
from upstreams.distillation.terms.options import Option


def reverse(x: Tensor, strength: float) -> Tensor:
    """``x`` itself, whose gradient is multiplied by ``-strength`` on the way back (arXiv 1409.7495)."""
    turned = x.view_as(x)
    if turned.requires_grad:
        turned.register_hook(lambda gradient: -strength * gradient)  # type: ignore[no-untyped-call]
    return turned


class Adversarial(paired.Paired):
    """Frame discriminators after ACKD (arXiv 2111.14356), through gradient reversal (arXiv 1409.7495).

    The loss is the discriminator's: the cross-entropy of telling heads of student frames from teacher frames. Its own
    parameters descend it; the student's and its head's gradient is turned round and scaled by ``reversal``, so one
    optimiser serves both. The loss itself says little; ``fooled`` does. ACKD's other half, auxiliary branches at
    several depths, is ``hidden`` with several pairs. Such training is unstable: recipes give it weight 0.

    Figures: ``fooled_4``, the share of valid student frames that pass for the teacher's.
    """

    takes_heads = ("linear", "none", "identity", "mlp", "upsample")
    takes_distances = ("bce",)
    takes_options = paired.OPTIONS | heads.OPTIONS | {"inner": Option(128, least=1), "reversal": Option(1.0, least=0.0)}

    def __init__(self, spec: TermSpec, student: Side, teacher: Side) -> None:
        super().__init__(spec, student, teacher)
        self.heads = heads.Heads(self)
        inner = int(self.option("inner"))
        self.discriminators = nn.ModuleList(
            nn.Sequential(nn.Linear(teacher.width, inner), nn.GELU(), nn.Linear(inner, 1)) for _ in self.pairs
        )

    def forward(self, student: View, teacher: View) -> Result:
        """The discriminators' cross-entropy, mean over valid frames of both sides."""
        predicted, ratio = self.heads.view(student, self.ratio)
        mine, theirs = meet(predicted, teacher, ratio)
        losses, fooled = [], []
        for state, (_, number), discriminator in zip(mine.states, self.pairs, self.discriminators, strict=True):
            with full_precision(state):
                real = discriminator(theirs.states[number].detach().float())[..., 0]
                fake = discriminator(reverse(state.float(), float(self.option("reversal"))))[..., 0]
                losses.append(masked_mean(-functional.logsigmoid(real) - functional.logsigmoid(-fake), mine.mask) / 2)
            fooled.append(masked_mean((fake > 0).float(), mine.mask))
        return Result(self.total(torch.stack(losses)), self.named("fooled", torch.stack(fooled).tolist()))
