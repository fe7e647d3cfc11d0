"""Similarity distributions: to which frames of its utterance each frame is like."""

from __future__ import annotations

import torch
from torch import Tensor

from upstreams.distillation.terms import paired
from upstreams.distillation.terms.alignment import full_precision, masked_mean
from upstreams.distillation.terms.base import Result, View
from upstreams.distillation.terms.gram import gram
from upstreams.distillation.terms.options import Option


class Similarity(paired.Paired):
    """KL(teacher || student) between each frame's distribution over the other frames of its utterance, the softmax of
    cosines over ``temperature``, after LEAD (arXiv 2212.05225), whose items are the passages of a batch.

    Nothing about widths or layers need agree. With ``adaptive: true`` each pair's weight is multiplied by its part in a
    softmax of all losses over their mean, times the number of pairs: pairs that lag behind count for more. The weights
    carry no gradient. (LEAD weighs layers in another way; this rule is ours.)

    Figures: ``divergence_4``, per teacher state.
    """

    takes_distances = ("kl",)
    takes_options = paired.OPTIONS | {"temperature": Option(0.1, least=1e-4), "adaptive": Option(False)}

    def rows(self, state: Tensor, allowed: Tensor) -> Tensor:
        """Log probabilities (B, T, T) over the allowed frames."""
        with full_precision(state):
            scores = gram(state, state, unit=True) / self.option("temperature")
            return torch.log_softmax(scores.masked_fill(~allowed, -1e9), -1)

    def forward(self, student: View, teacher: View) -> Result:
        """Divergence in nats, mean over valid frames."""
        mine, theirs = self.meet(student, teacher)
        others = ~torch.eye(mine.mask.shape[1], dtype=torch.bool, device=mine.mask.device)
        allowed = mine.mask[:, None, :] & others
        losses = []
        for s, t in self.pairs:
            guess, wanted = self.rows(mine.states[s], allowed), self.rows(theirs.states[t].detach(), allowed)
            apart = torch.where(allowed, wanted.exp() * (wanted - guess), 0.0).sum(-1)
            losses.append(masked_mean(apart, mine.mask))
        stacked = torch.stack(losses)
        found = stacked.detach()
        if self.option("adaptive"):
            stacked = stacked * torch.softmax(found / found.mean().clamp(min=1e-8), 0) * len(self.pairs)
        return Result(self.total(stacked), self.named("divergence", found.tolist()))
