"""Centred kernel alignment: do two sets of features have the same structure, whatever their width and rotation."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from upstreams.distillation.terms import centroids, heads, paired
from upstreams.distillation.terms.alignment import full_precision, meet
from upstreams.distillation.terms.base import Result, Side, TermSpec, View
from upstreams.distillation.terms.options import Option

SCOPES = ("utterance", "batch", "centroids")


def linear_cka(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """Linear CKA (Kornblith et al., arXiv 1905.00414) between rows of features, per group.

    Args:
        first: (G, N, D).
        second: (G, N, E).
        mask: (G, N) bool, the rows that count.

    Returns:
        (G,) between 0 and 1; 0 where one side does not vary.
    """
    with full_precision(first):

        def centred(x: Tensor) -> Tensor:
            x = torch.where(mask[..., None], x.float(), 0.0)
            mean = x.sum(1, keepdim=True) / mask.sum(1).clamp(min=1)[:, None, None]
            return torch.where(mask[..., None], x - mean, 0.0)

        x, y = centred(first), centred(second)
        cross = (y.transpose(1, 2) @ x).square().sum((1, 2))
        own = [(z.transpose(1, 2) @ z).square().sum((1, 2)) for z in (x, y)]
        return cross / (own[0] * own[1]).clamp(min=1e-12).sqrt()


class Cka(paired.Paired):
    """1 - CKA of a student and a teacher state (feature structure distillation, arXiv 2204.08922).

    Option ``scope``: rows are the frames of one ``utterance`` (the paper's intra-feature structure) or all frames of
    the ``batch`` (local inter-feature). With ``centroids`` (global inter-feature) they are all frames, and features
    their products with a memory, the k-means centroids of the teacher's state; the student comes through a head to the
    teacher's width then, elsewhere it needs none. CKA does not fix the basis: where that matters add ``hidden``.

    Figures: ``cka_4``, the mean per teacher state.
    """

    takes_heads = ("none", "linear", "identity", "mlp")
    takes_distances = ("cka",)
    takes_options = paired.OPTIONS | heads.OPTIONS | centroids.OPTIONS | {"scope": Option("utterance", choices=SCOPES)}

    def __init__(self, spec: TermSpec, student: Side, teacher: Side) -> None:
        super().__init__(spec, student, teacher)
        self.memory: centroids.Centroids | None = None
        self.heads: heads.Heads | None = None
        if self.option("scope") == "centroids":
            self.fits = centroids.FITS
            self.memory = centroids.Centroids(self)
        if self.memory is not None or spec.head != "none":
            self.heads = heads.Heads(self)

    def fit(self, views: Iterable[View]) -> None:
        """Fit the memory, if the scope has one."""
        if self.memory is not None:
            self.memory.fit(views)

    def forward(self, student: View, teacher: View) -> Result:
        """1 - CKA, mean over utterances or of the batch."""
        chosen = [student.states[s] for s, _ in self.pairs] if self.heads is None else self.heads(student.states)
        mine, theirs = meet(View(tuple(chosen), student.frames), teacher, self.ratio)
        mask = mine.mask if self.option("scope") == "utterance" else mine.mask.reshape(1, -1)
        found = []
        for x, (_, number) in zip(mine.states, self.pairs, strict=True):
            y = theirs.states[number].detach()
            if self.memory is not None:
                x, y = self.memory.products(number, x), self.memory.products(number, y)
            groups = [z.reshape(*mask.shape, -1) for z in (x, y)]
            found.append(linear_cka(groups[0], groups[1], mask).mean())
        alike = torch.stack(found)
        return Result(self.total(1 - alike), self.named("cka", alike.tolist()))
