"""Pruning by gradients inside of heads, as in GRAIN (arXiv 2212.07634).

Parts are single dimensions of queries, keys and values, and feed-forward units. The importance of a part is
|sum of w · dL/dw| over its weights, averaged over steps; the least important per parameter go, for good, so that
sparsity follows a cubic schedule. A dimension counts less, the fewer are left of its head, so that heads go as a whole.

Other than there: importance comes from the gradient of the whole loss, since a distillation has no other; importance is
compared per parameter saved; keys and values go together, since that is what the lab's models can leave out. The
form of the regularisation, a factor tanh(share left / alpha), is recalled and not checked against the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from harness.interface import SlimbenchError
from upstreams.distillation.loop import rank_and_world
from upstreams.distillation.procedures.anatomy import Anatomy
from upstreams.distillation.procedures.base import Procedure, between, seen, typed
from upstreams.distillation.procedures.pruned import fewest_dropped, gated, remaining
from upstreams.distillation.procedures.ramps import cubic
from upstreams.distillation.terms.base import Result, View
from upstreams.students.mini import Gates, MiniWavLM


@dataclass(frozen=True)
class PruningSettings:
    """Settings of :class:`GradientPruning`.

    Attributes:
        sparsity: share of the student's parameters that is to go.
        begin: progress at which pruning starts.
        end: progress at which the sparsity is reached.
        memory: share of the past in the moving average of importance.
        alpha: how strongly heads that have lost dimensions lose the others: the larger, the more; 0 for not at all.
    """

    sparsity: float
    begin: float = 0.1
    end: float = 0.6
    memory: float = 0.98
    alpha: float = 0.5

    def __post_init__(self) -> None:
        between("sparsity", self.sparsity, 0.0, 0.999)
        between("end", self.end, 0.0, 1.0)
        between("begin", self.begin, 0.0, self.end - 1e-6)
        between("memory", self.memory, 0.0, 0.99999)
        between("alpha", self.alpha, 0.0, 1e6)


class GradientPruning(Procedure):
    """Masks on dimensions and units that close as training goes on; the product is the student without what they close.

    Args:
        values: see :class:`PruningSettings`.
        model: the student.

    Raises:
        SlimbenchError: a setting is faulty, or so sparse a model cannot be left.
    """

    keep: Tensor
    importance: Tensor

    def __init__(self, values: Mapping[str, Any], model: MiniWavLM) -> None:
        super().__init__()
        self.settings = typed("gradient_pruning", PruningSettings, values)
        self.anatomy = Anatomy.of(model.config, "gradient_pruning")
        self.sizes = [*self.anatomy.dims, *self.anatomy.units]
        self.register_buffer("keep", torch.ones(sum(self.sizes), dtype=torch.bool))
        self.register_buffer("importance", torch.zeros(sum(self.sizes)))
        self.whole = self.anatomy.count(*self.parts(self.keep))
        least = self.anatomy.fixed / self.whole
        if 1 - self.settings.sparsity < least:
            raise SlimbenchError(
                f"procedure gradient_pruning: sparsity {self.settings.sparsity} cannot be reached, since {least:.1%} "
                "of the student are neither heads nor units; write less."
            )

    def parts(self, joined: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Values of all parts in one vector, as values of dimensions and of units per layer."""
        split = list(torch.split(joined, self.sizes))
        return split[: len(self.anatomy.dims)], split[len(self.anatomy.dims) :]

    def view(
        self,
        student: MiniWavLM,
        waves: Tensor,
        lengths: Tensor,
        masked: Tensor | None,
        step: int,
        progress: float,
        rng: np.random.Generator,
        maps: bool = False,
    ) -> View:
        """The student without the parts that are gone so far."""
        dims, units = self.parts(self.keep.to(waves.dtype))
        with gated(student, [Gates(dims=d, units=u) for d, u in zip(dims, units, strict=True)]):
            return seen(student, waves, lengths, masked, maps)

    def penalty(self, step: int, progress: float) -> Result:
        """No penalty; logs the sparsity."""
        left = self.anatomy.count(*self.parts(self.keep))
        return Result(self.importance.new_zeros(()), {"sparsity": 1 - left / self.whole})

    @torch.no_grad()
    def after_backward(self, student: MiniWavLM, step: int, progress: float) -> None:
        """Renew importance by the gradients, then close what the schedule says.

        Raises:
            SlimbenchError: weights that are pruned by gradients have none, as they are frozen.
        """
        found = torch.cat([products(layer, name) for name in ("dims", "units") for layer in student.layers])
        if rank_and_world()[1] > 1:
            distributed.all_reduce(found)
            found = found / rank_and_world()[1]
        memory = self.settings.memory
        self.importance.mul_(memory).add_(found.abs().to(self.importance), alpha=1 - memory)
        target = cubic(progress, self.settings.sparsity, self.settings.begin, self.settings.end)
        if target > 0:
            self.close((1 - target) * self.whole)

    def scores(self) -> Tensor:
        """What ranks the parts: importance per parameter, of dimensions less as their head has lost others."""
        dims, units = self.parts(self.importance)
        kept, _ = self.parts(self.keep)
        ranked = []
        for score, alive, place in zip(dims, kept, self.anatomy.head_of, strict=True):
            if self.settings.alpha and len(place):
                head = place.to(score.device)
                total = torch.bincount(head).to(score.dtype)
                density = torch.zeros_like(total).index_add(0, head, alive.to(score.dtype)) / total
                score = score * torch.tanh(density[head] / self.settings.alpha)
            ranked.append(score / self.anatomy.per_dim)
        return torch.cat([*ranked, *(score / self.anatomy.per_unit for score in units)])

    @torch.no_grad()
    def close(self, most: float) -> None:
        """Close the parts of least score until at most ``most`` parameters are left."""
        alive = self.keep.nonzero()[:, 0]
        order = alive[self.scores()[alive].argsort(stable=True)]

        def mask(dropped: int) -> Tensor:
            keep = self.keep.clone()
            keep[order[:dropped]] = False
            return keep

        dropped = fewest_dropped(lambda n: self.anatomy.count(*self.parts(mask(n))), len(order), most)
        self.keep.copy_(mask(dropped))

    def products(self, student: MiniWavLM) -> dict[str, MiniWavLM]:
        """The student without the parts that are gone."""
        return {"": remaining(student, self.anatomy, *self.parts(self.keep))}


def products(layer: Any, kind: str) -> Tensor:
    """Sum of weight times gradient over the weights of each part of a layer: ``dims`` (K,) or ``units`` (F,).

    A dimension has its rows of query, key and value with their biases, and its column of the output map; a unit its row
    with its bias, and its column.
    """
    present = len(layer.plan.dims) if kind == "dims" else layer.plan.ffn
    if not present:
        return torch.zeros(0, device=layer.out.bias.device)
    rows, columns = (layer.qkv, layer.out) if kind == "dims" else (layer.up, layer.down)
    for tensor in (rows.weight, rows.bias, columns.weight):
        if tensor.grad is None:
            raise SlimbenchError("procedure gradient_pruning: weights of a layer have no gradient; do not freeze them.")
    by_row = (rows.weight * rows.weight.grad).sum(1) + rows.bias * rows.bias.grad
    by_column = (columns.weight * columns.weight.grad).sum(0)
    total: Tensor = by_row.view(-1, present).sum(0) + by_column
    return total
