"""What can be pruned of a :class:`MiniWavLM`, what each part costs, and the smaller model that is left.

Parts are attention heads, single dimensions of queries, keys and values, and units of feed-forward blocks. Counts are
of the parameters that an upstream exposes (:func:`upstreams.students.mini.parameters`): without the mask embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.interface import SlimbenchError
from upstreams.students.mini import MiniConfig, parameters


@dataclass(frozen=True)
class Anatomy:
    """Parts of a model, layer by layer, and their parameters.

    Attributes:
        config: shape of the model.
        head_of: per layer, the place among the layer's heads of each dimension.
        fixed: parameters that no pruning removes.
        per_dim: of a dimension: its rows of the maps to query, key and value, its column of the output map.
        per_head: of a head besides its dimensions: its scale of the position bias.
        per_attention: of a layer that has any head: a norm, and the gate of the position bias.
        per_unit: of a unit: its row and its column.
        per_ffn: of a layer that has any unit: a norm.
        position: of the position bias, shared by all layers that have any head.
    """

    config: MiniConfig
    head_of: tuple[Tensor, ...]
    fixed: int
    per_dim: int
    per_head: int
    per_attention: int
    per_unit: int
    per_ffn: int
    position: int

    @classmethod
    def of(cls, config: MiniConfig, procedure: str) -> Anatomy:
        """The parts of a model of this shape.

        Raises:
            SlimbenchError: some layers take their attention map from others, whose heads then cannot go one by one.
        """
        if config.own_maps is not None and not all(config.own_maps):
            raise SlimbenchError(
                f"procedure {procedure}: layers that reuse attention maps (own_maps) cannot be pruned; "
                "leave own_maps out of the student."
            )
        places = [[plan.heads.index(dim // config.head_width) for dim in plan.dims] for plan in config.plans]
        bare = replace(config, kept=((),) * config.layers, ffns=(0,) * config.layers)
        width = config.width
        return cls(
            config,
            tuple(torch.tensor(place, dtype=torch.long) for place in places),
            fixed=parameters(bare),
            per_dim=4 * width + 3,
            per_head=1,
            per_attention=2 * width + 2 * config.head_width + 2,
            per_unit=2 * width + 1,
            per_ffn=2 * width,
            position=config.buckets * config.all_heads,
        )

    @property
    def heads(self) -> list[int]:
        """Heads per layer."""
        return [len(plan.heads) for plan in self.config.plans]

    @property
    def dims(self) -> list[int]:
        """Dimensions of queries, keys and values per layer."""
        return [len(plan.dims) for plan in self.config.plans]

    @property
    def units(self) -> list[int]:
        """Feed-forward units per layer."""
        return [plan.ffn for plan in self.config.plans]

    def by_head(self, heads: Sequence[Tensor]) -> list[Tensor]:
        """Values of heads, per layer (H,), as values of their dimensions (K,)."""
        return [h[place.to(h.device)] for h, place in zip(heads, self.head_of, strict=True)]

    def expected(self, heads: Sequence[Tensor], dims: Sequence[Tensor] | None, units: Sequence[Tensor]) -> Tensor:
        """Expected parameters, differentiable, of parts that stay independently of each other with a probability.

        Args:
            heads: per layer (H,), probability that a head stays.
            dims: per layer (K,), probability that a dimension stays, given its head; ``None`` for 1.
            units: per layer (F,), probability that a unit stays.

        Returns:
            A scalar; at probabilities of 0 and 1, the exact number of parameters of what is left. A head counts as
            left when its probability says so, whether or not dimensions of it are.
        """
        total = heads[0].new_tensor(float(self.fixed))
        any_head = []
        for layer, (of_heads, of_units) in enumerate(zip(heads, units, strict=True)):
            place = self.head_of[layer].to(of_heads.device)
            of_dims = of_heads[place] if dims is None else of_heads[place] * dims[layer]
            any_head.append(some(of_heads))
            total = total + self.per_dim * of_dims.sum() + self.per_head * of_heads.sum()
            total = total + self.per_attention * any_head[-1]
            total = total + self.per_unit * of_units.sum() + self.per_ffn * some(of_units)
        return total + self.position * some(torch.stack(any_head))

    def count(self, dims: Sequence[Tensor], units: Sequence[Tensor]) -> int:
        """Exact parameters of what is left: masks (K,) and (F,) bool per layer; a head stays with any dimension."""
        alive = [
            torch.zeros(number).index_add(0, place, mask.float().cpu()).clamp(max=1)
            for number, place, mask in zip(self.heads, self.head_of, dims, strict=True)
        ]
        double = [mask.double().cpu() for mask in dims], [mask.double().cpu() for mask in units]
        return round(float(self.expected([a.double() for a in alive], *double)))

    def left(self, dims: Sequence[Tensor], units: Sequence[Tensor]) -> MiniConfig:
        """The shape of what is left, of masks as in :meth:`count`."""
        plans = self.config.plans
        kept = tuple(
            tuple(dim for dim, stays in zip(plan.dims, mask.tolist(), strict=True) if stays)
            for plan, mask in zip(plans, dims, strict=True)
        )
        return replace(
            self.config, heads=self.config.all_heads, kept=kept, ffns=tuple(int(mask.sum()) for mask in units)
        )


def some(probabilities: Tensor) -> Tensor:
    """Probability that at least one of independent things (N,) happens; 0 of none."""
    return 1 - (1 - probabilities).prod()
