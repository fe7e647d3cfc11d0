"""Hard-Concrete gates: random numbers in [0, 1] that are exactly 0 or 1 with probability, and have a gradient.

After "Learning Sparse Neural Networks through L0 Regularization" (arXiv 1712.01312): a binary Concrete variable is
stretched to (-0.1, 1.1) and clamped, so that its expected L0 norm, the probability of being open, is differentiable.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
"""Temperature and the interval that the Concrete variable is stretched to; the paper's values."""
SHIFT = BETA * math.log(-GAMMA / ZETA)
EDGE = 1e-6


def gate(logits: Tensor, uniform: Tensor) -> Tensor:
    """Gates of any shape from their logits and uniform random numbers of the same shape."""
    u = uniform.clamp(EDGE, 1 - EDGE)
    concrete = torch.sigmoid((torch.log(u) - torch.log1p(-u) + logits) / BETA)
    return (concrete * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def openness(logits: Tensor) -> Tensor:
    """Probability that a gate is not 0."""
    return torch.sigmoid(logits - SHIFT)


def logit_of(probability: float) -> float:
    """The logit at which a gate is open with a probability, the inverse of :func:`openness`."""
    return math.log(probability / (1 - probability)) + SHIFT


def mean(logits: Tensor, points: int = 512) -> Tensor:
    """Expected gate, by the midpoints of ``points`` equal shares of the uniform number."""
    u = (torch.arange(points, device=logits.device, dtype=logits.dtype) + 0.5) / points
    return gate(logits[..., None].expand(*logits.shape, points), u.expand(*logits.shape, points)).mean(-1)


class _Quick(torch.autograd.Function):
    """Multiplies by a factor forward and by its sign backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x * abs(factor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * math.copysign(1.0, ctx.factor), None


def quick(x: Tensor, factor: float) -> Tensor:
    """``x`` times ``|factor|``, whose gradient passes unscaled, or with its sign turned where ``factor`` is negative.

    Adam's updates do not depend on the gradient's scale, so a parameter seen through this moves ``|factor|`` times the
    common learning rate per update, without its gradient outweighing others' where gradients are clipped together; with
    a negative factor it climbs instead of falling.
    """
    product: Tensor = _Quick.apply(x, factor)  # type: ignore[no-untyped-call]
    return product
