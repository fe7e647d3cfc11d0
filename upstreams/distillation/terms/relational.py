"""Relations between units: how alike the mean frames of each two units are."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from upstreams.distillation.terms import centroids, paired
from upstreams.distillation.terms.alignment import full_precision, masked_mean
from upstreams.distillation.terms.base import Result, Side, TermSpec, View
from upstreams.distillation.terms.options import Option


def unit_means(frames: Tensor, units: Tensor, count: int) -> Tensor:
    """Mean of frames (N, D) by unit (N,), (count, D); zeros for a unit that does not occur."""
    sums = frames.new_zeros(count, frames.shape[1]).index_add(0, units, frames)
    return sums / torch.bincount(units, minlength=count).clamp(min=1)[:, None]


def relations(means: Tensor, present: Tensor, centre: bool) -> Tensor:
    """Cosines between unit means (K, D), (K, K), first less the mean of those ``present`` (K,) if ``centre``."""
    if centre:
        means = means - torch.where(present[:, None], means, 0.0).sum(0) / present.sum().clamp(min=1)
    rows = functional.normalize(means, dim=-1)
    return rows @ rows.T


class Relational(paired.Paired):
    """Squared difference of unit-by-unit relation matrices (HIRE's second-order knowledge, arXiv 2207.11887).

    HIRE groups the nodes of a graph by their type; here frames are grouped by k-means unit of the teacher's state, over
    the whole batch. Only pairs of different units that occur at least ``least`` times each count. ``centre`` takes the
    common mean off first, for states that all point one way. Any widths can be compared.

    Figures: ``relations_4``, the distance per teacher state; ``units_4``, how many units occurred often enough.
    """

    takes_options = paired.OPTIONS | centroids.OPTIONS | {"least": Option(2, least=1), "centre": Option(True)}

    def __init__(self, spec: TermSpec, student: Side, teacher: Side) -> None:
        super().__init__(spec, student, teacher)
        self.fits = centroids.FITS
        self.centroids = centroids.Centroids(self)

    def fit(self, views: Iterable[View]) -> None:
        """Fit the codebooks that give the units."""
        self.centroids.fit(views)

    def forward(self, student: View, teacher: View) -> Result:
        """Mean over ordered pairs of units; 0 where fewer than two occur."""
        mine, theirs = self.meet(student, teacher)
        count, centre = self.centroids.units, bool(self.option("centre"))
        losses, often = [], []
        for s, t in self.pairs:
            wanted = theirs.states[t].detach()
            units = self.centroids.nearest(t, wanted)[mine.mask]
            present = torch.bincount(units, minlength=count) >= self.option("least")
            with full_precision(wanted):
                frames = [mine.states[s][mine.mask].float(), wanted[mine.mask].float()]
                x, y = (relations(unit_means(f, units, count), present, centre) for f in frames)
                both = present[:, None] & present[None, :]
                both = both & ~torch.eye(count, dtype=torch.bool, device=both.device)
                losses.append(masked_mean((x - y).square(), both))
            often.append(present.sum())
        stacked = torch.stack(losses)
        figures = self.named("relations", stacked.tolist()) | self.named("units", torch.stack(often).tolist())
        return Result(self.total(stacked), figures)
