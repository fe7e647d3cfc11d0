"""Distances between predicted and wanted states, as means over valid frames."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from upstreams.distillation.terms.alignment import full_precision, masked_mean
from upstreams.distillation.terms.options import Option

Frames = Callable[[Tensor, Tensor, Tensor, "Knobs"], Tensor]
Knobs = dict[str, float]
OPTIONS = {"cosine": Option(1.0, least=0.0), "delta": Option(1.0, least=1e-6)}
"""``cosine``: weight of the cosine part; ``delta``: where Huber's distance turns from square to line."""

DISTANCES: dict[str, Frames] = {
    "l1": lambda p, t, c, k: (p - t).abs().mean(-1),
    "mse": lambda p, t, c, k: (p - t).square().mean(-1),
    "cos": lambda p, t, c, k: 1 - c,
    "l1_cos": lambda p, t, c, k: (p - t).abs().mean(-1) - k["cosine"] * functional.logsigmoid(c),
    "l1_cos_raw": lambda p, t, c, k: (p - t).abs().mean(-1) - k["cosine"] * c,
    "huber": lambda p, t, c, k: functional.huber_loss(p, t, reduction="none", delta=k["delta"]).mean(-1),
}
"""Per frame, (B, T), of predicted p and target t (B, T, D) with their cosine c (B, T) and knobs k: ``l1`` and ``mse``
are means over dimensions, ``cos`` is 1 - cosine (half of SimReg's squared distance of unit vectors, arXiv 2201.05131),
``l1_cos`` adds -log sigmoid(cosine) (DistilHuBERT, arXiv 2110.01900), ``l1_cos_raw`` subtracts the cosine itself
(DPHuBERT, arXiv 2305.17651)."""


def distance(name: str, predicted: Tensor, target: Tensor, mask: Tensor, knobs: Knobs) -> tuple[Tensor, Tensor]:
    """Loss and mean cosine over valid frames.

    Args:
        name: of :data:`DISTANCES`.
        predicted: (B, T, D).
        target: (B, T, D), without gradient.
        mask: (B, T) bool, true at valid frames.
        knobs: ``cosine`` and ``delta``.

    Returns:
        Two scalars; the cosine carries no gradient.
    """
    with full_precision(predicted):
        predicted, target = predicted.float(), target.detach().float()
        cosine = functional.cosine_similarity(predicted, target, dim=-1)
        loss = masked_mean(DISTANCES[name](predicted, target, cosine, knobs), mask)
        return loss, masked_mean(cosine.detach(), mask)


def each(
    name: str, predicted: list[Tensor], targets: list[Tensor], mask: Tensor, knobs: Knobs
) -> tuple[Tensor, list[float]]:
    """:func:`distance` of several pairs: the losses, (pairs,), and the cosines as numbers."""
    found = [distance(name, p, t, mask, knobs) for p, t in zip(predicted, targets, strict=True)]
    cosines: list[float] = torch.stack([cosine for _, cosine in found]).tolist()
    return torch.stack([loss for loss, _ in found]), cosines
