"""Units: the student predicts which k-means unit of the teacher each frame is."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.nn import functional

from upstreams.distillation.terms import centroids, heads, paired
from upstreams.distillation.terms.alignment import full_precision, masked_mean, meet
from upstreams.distillation.terms.base import Result, Side, TermSpec, View
from upstreams.distillation.terms.options import Option


class Units(paired.Paired):
    """Logit distillation on units (MelHuBERT, arXiv 2211.09944), of any teacher.

    The teacher's logits are minus the squared distances per dimension to the centroids of its state, over option
    ``temperature``; with distance ``kl`` the student's logits are drawn to their softmax, with ``ce`` to the nearest
    centroid alone, as in HuBERT's pre-training (arXiv 2106.07447) and DiceHuBERT (arXiv 2507.02911). The student's head
    ends in ``units`` logits, so its width is free.

    Figures: ``accuracy_4``, the share of valid frames whose likeliest unit is the nearest centroid.
    """

    takes_heads = ("linear", "mlp", "upsample")
    takes_distances = ("kl", "ce")
    takes_options = paired.OPTIONS | heads.OPTIONS | centroids.OPTIONS | {"temperature": Option(0.1, least=1e-4)}

    def __init__(self, spec: TermSpec, student: Side, teacher: Side) -> None:
        super().__init__(spec, student, teacher)
        self.fits = centroids.FITS
        self.centroids = centroids.Centroids(self)
        self.heads = heads.Heads(self, self.centroids.units)

    def fit(self, views: Iterable[View]) -> None:
        """Fit the codebooks."""
        self.centroids.fit(views)

    def forward(self, student: View, teacher: View) -> Result:
        """Cross-entropy or divergence in nats, mean over valid frames."""
        predicted, ratio = self.heads.view(student, self.ratio)
        mine, theirs = meet(predicted, teacher, ratio)
        losses, right = [], []
        for logits, (_, number) in zip(mine.states, self.pairs, strict=True):
            away = self.centroids.distances(number, theirs.states[number].detach())
            with full_precision(logits):
                guess = functional.log_softmax(logits.float(), -1)
                unit = away.argmin(-1)
                if self.spec.distance == "ce":
                    frames = -guess.gather(-1, unit[..., None])[..., 0]
                else:
                    wanted = functional.log_softmax(-away / self.option("temperature"), -1)
                    frames = (wanted.exp() * (wanted - guess)).sum(-1)
            losses.append(masked_mean(frames, mine.mask))
            right.append(masked_mean((guess.argmax(-1) == unit).float(), mine.mask))
        return Result(self.total(torch.stack(losses)), self.named("accuracy", torch.stack(right).tolist()))
