"""Prototypes: each frame as its likeness to typical teacher frames."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from upstreams.distillation.terms import centroids, heads, paired
from upstreams.distillation.terms.alignment import full_precision, meet
from upstreams.distillation.terms.base import Result, Side, TermSpec, View
from upstreams.distillation.terms.options import Option


class Prototypes(paired.Paired):
    """Divergence of prototype assignments, KL(teacher || student), after ProC-KD (arXiv 2212.13180).

    Prototypes are the k-means centroids of the teacher's state. A frame's assignment is the softmax of its cosines to
    all of them over ``temperature``; the student's frame comes through a head into the teacher's space and is assigned
    in the same way. With ``balance: true`` every prototype that is nearest to some frame of the batch counts the same,
    however rare, so that silence does not rule.

    Figures: ``agreement_4``, the share of valid frames with the same likeliest prototype.
    """

    takes_heads = ("linear", "none", "identity", "mlp", "upsample")
    takes_distances = ("kl",)
    takes_options = (
        paired.OPTIONS
        | heads.OPTIONS
        | centroids.OPTIONS
        | {"temperature": Option(0.1, least=1e-4), "balance": Option(False)}
    )

    def __init__(self, spec: TermSpec, student: Side, teacher: Side) -> None:
        super().__init__(spec, student, teacher)
        self.fits = centroids.FITS
        self.centroids = centroids.Centroids(self)
        self.heads = heads.Heads(self)

    def fit(self, views: Iterable[View]) -> None:
        """Fit the prototypes."""
        self.centroids.fit(views)

    def assign(self, number: int, state: Tensor) -> Tensor:
        """Log probabilities of the prototypes of teacher state ``number``, (B, T, D) to (B, T, units)."""
        with full_precision(state):
            frames = functional.normalize(self.centroids.standardised(number, state), dim=-1)
            typical = functional.normalize(self.centroids.book(number).centroids, dim=-1)
            return functional.log_softmax(frames @ typical.T / self.option("temperature"), -1)

    def share(self, likeliest: Tensor, mask: Tensor) -> Tensor:
        """Weight of every frame, (B, T), zero where invalid, summing to 1."""
        counts = torch.bincount(likeliest[mask], minlength=self.centroids.units).clamp(min=1)
        each = 1 / counts[likeliest] if self.option("balance") else torch.ones_like(likeliest, dtype=torch.float32)
        each = torch.where(mask, each, 0.0)
        return each / each.sum().clamp(min=1e-8)

    def forward(self, student: View, teacher: View) -> Result:
        """Divergence in nats, weighted mean over valid frames."""
        predicted, ratio = self.heads.view(student, self.ratio)
        mine, theirs = meet(predicted, teacher, ratio)
        losses, same = [], []
        for state, (_, number) in zip(mine.states, self.pairs, strict=True):
            wanted, guess = self.assign(number, theirs.states[number].detach()), self.assign(number, state)
            likeliest = wanted.argmax(-1)
            share = self.share(likeliest, mine.mask)
            losses.append(((wanted.exp() * (wanted - guess)).sum(-1) * share).sum())
            same.append(((guess.argmax(-1) == likeliest) * mine.mask).sum() / mine.mask.sum().clamp(min=1))
        return Result(self.total(torch.stack(losses)), self.named("agreement", torch.stack(same).tolist()))
