"""Subnets of a once-for-all model of the lab, as LightHuBERT has them (arXiv 2203.15610): shapes, numbers, parameters.

A subnet has one width, and per layer a number of heads and a feed-forward width, given as a ratio to its width. It
takes the leading dimensions, heads and units of the whole; a shallower one leaves out layers in a fixed order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np

from harness.interface import SlimbenchError
from upstreams.distillation.procedures.anatomy import Anatomy
from upstreams.students.mini import MiniConfig, whole_heads

KEYS = ("width", "heads", "ratio", "depth")


@dataclass(frozen=True)
class Subnet:
    """A subnet: its width, and per layer its heads and its feed-forward width over its width."""

    width: int
    heads: tuple[int, ...]
    ratios: tuple[float, ...]

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.heads)

    @property
    def ffns(self) -> tuple[int, ...]:
        """Feed-forward width per layer."""
        return tuple(int(ratio * self.width + 1e-6) for ratio in self.ratios)

    def config(self, whole: MiniConfig) -> MiniConfig:
        """Its shape; layers with fewer heads than others say so in ``kept``."""
        most, ffns = max(self.heads), self.ffns
        usual = most * whole.head_width == self.width
        return replace(
            whole,
            layers=self.depth,
            width=self.width,
            heads=None if usual else most,
            kept=None if min(self.heads) == most else whole_heads(self.heads, whole.head_width),
            ffn=max(ffns),
            ffns=None if len(set(ffns)) == 1 else ffns,
        )

    def layers(self, whole: MiniConfig) -> list[int]:
        """Which layers of the whole it has, from 0."""
        return sorted(number - 1 for number in drop_order(whole.layers)[whole.layers - self.depth :])

    def as_settings(self) -> dict[str, Any]:
        """As a recipe writes it."""
        return {"width": self.width, "heads": list(self.heads), "ratio": list(self.ratios), "depth": self.depth}


def drop_order(layers: int) -> list[int]:
    """Layers, counted from 1, in the order in which subnets lose them: every third of the depth, from the last.

    >>> drop_order(12)[:6]
    [12, 8, 4, 11, 7, 3]
    """
    step = max(layers // 3, 1)
    return [number for offset in range(step) for number in range(layers - offset, 0, -step)]


@dataclass(frozen=True)
class Space:
    """All subnets that a training may draw.

    Attributes:
        whole: shape of the model that they are cut from.
        widths: what a width may be.
        heads: what the heads of a layer may be.
        ratios: what feed-forward width over width may be, layer by layer.
        depths: what a number of layers may be.
    """

    whole: MiniConfig
    widths: tuple[int, ...]
    heads: tuple[int, ...]
    ratios: tuple[float, ...]
    depths: tuple[int, ...]

    @classmethod
    def of(cls, whole: MiniConfig, values: Any) -> Space:
        """The space that a recipe's ``space`` says; what it leaves out is the whole's.

        Raises:
            SlimbenchError: a key is unknown, a value impossible, or more than the whole has.
        """
        if whole.kept is not None or whole.ffns is not None or whole.own_maps is not None:
            raise SlimbenchError(
                "procedure supernet: a pruned student, or one that reuses attention maps, has no subnets; "
                "leave kept, ffns and own_maps out of the student."
            )
        found = _lists(values, "space")
        space = cls(
            whole,
            found.get("width", (whole.width,)),
            found.get("heads", (whole.all_heads,)),
            found.get("ratio", (whole.ffn / whole.width,)),
            found.get("depth", (whole.layers,)),
        )
        space.check(space.largest)
        return space

    def check(self, subnet: Subnet) -> None:
        """Refuse a subnet that the whole does not have.

        Raises:
            SlimbenchError: it is wider, deeper, or has more heads or units.
        """
        whole = self.whole
        sizes = {
            "width": (subnet.width, whole.width),
            "heads": (max(subnet.heads, default=0), whole.all_heads),
            "ratio times width": (max(subnet.ffns, default=0), whole.ffn),
            "depth": (subnet.depth, whole.layers),
        }
        for name, (mine, most) in sizes.items():
            if not 1 <= mine <= most:
                raise SlimbenchError(
                    f"procedure supernet: {name} {mine} is not within 1 and the student's {most}; correct the recipe."
                )

    def even(self, width: int, heads: int, ratio: float, depth: int) -> Subnet:
        """A subnet of equal layers."""
        return Subnet(width, (heads,) * depth, (ratio,) * depth)

    @property
    def largest(self) -> Subnet:
        """The subnet with the most of everything."""
        return self.even(max(self.widths), max(self.heads), max(self.ratios), max(self.depths))

    @property
    def smallest(self) -> Subnet:
        """The subnet with the least of everything."""
        return self.even(min(self.widths), min(self.heads), min(self.ratios), min(self.depths))

    @property
    def size(self) -> int:
        """How many subnets there are."""
        per_layer = len(self.heads) * len(self.ratios)
        total: int = len(self.widths) * sum(per_layer**depth for depth in self.depths)
        return total

    def sample(self, rng: np.random.Generator) -> Subnet:
        """A random subnet: width, depth and every layer's heads and ratio on their own, each with equal chances."""
        width, depth = pick(rng, self.widths), pick(rng, self.depths)
        heads = tuple(pick(rng, self.heads) for _ in range(depth))
        return Subnet(width, heads, tuple(pick(rng, self.ratios) for _ in range(depth)))

    def every(self) -> Iterator[Subnet]:
        """All subnets, for spaces small enough."""
        for width, depth in product(self.widths, self.depths):
            for heads, ratios in product(product(self.heads, repeat=depth), product(self.ratios, repeat=depth)):
                yield Subnet(width, heads, ratios)

    def parameters(self, subnet: Subnet) -> int:
        """Exact parameters of a subnet as an upstream exposes it, by a formula."""
        return count(self.whole, subnet)

    def named(self, values: Any, where: str) -> Subnet:
        """A subnet as a recipe writes it: ``width``, ``depth``, and ``heads`` and ``ratio`` as one value or a list.

        Raises:
            SlimbenchError: a key is unknown, lists do not match the depth, or the whole does not have it.
        """
        found = _lists(values, where)
        top = self.largest
        lengths = {len(found[key]) for key in ("heads", "ratio") if len(found.get(key, ())) > 1}
        depth = found["depth"][0] if "depth" in found else max(lengths, default=top.depth)
        if any(len(found.get(key, (0,))) > 1 for key in ("width", "depth")) or not lengths <= {depth}:
            raise SlimbenchError(
                f"procedure supernet: {where} needs one width and depth, and heads and ratio as one value or one per "
                "layer; correct the recipe."
            )
        heads, ratios = found.get("heads", top.heads[:1]), found.get("ratio", top.ratios[:1])
        subnet = Subnet(
            found.get("width", (top.width,))[0],
            heads * depth if len(heads) == 1 else heads,
            ratios * depth if len(ratios) == 1 else ratios,
        )
        self.check(subnet)
        return subnet


def pick(rng: np.random.Generator, values: tuple[Any, ...]) -> Any:
    """One of several values, with equal chances."""
    return values[int(rng.integers(len(values)))]


@lru_cache(maxsize=1000)
def frame(whole: MiniConfig, width: int, depth: int, heads: int) -> Anatomy:
    """Costs of the parts of subnets with this width, depth and largest number of heads."""
    return Anatomy.of(replace(whole, width=width, layers=depth, heads=heads, ffn=1), "supernet")


def count(whole: MiniConfig, subnet: Subnet) -> int:
    """Parameters of a subnet: those of a model without heads and units, and what its heads and units cost."""
    parts = frame(whole, subnet.width, subnet.depth, max(subnet.heads))
    heads: int = sum(subnet.heads)
    attention = (parts.per_dim * whole.head_width + parts.per_head) * heads + parts.per_attention * subnet.depth
    units = parts.per_unit * sum(subnet.ffns) + parts.per_ffn * subnet.depth
    total: int = parts.fixed + parts.position + attention + units
    return total


def _lists(values: Any, where: str) -> dict[str, Any]:
    """Numbers by key, each as a tuple."""
    if not isinstance(values, Mapping) or set(values) - set(KEYS):
        unknown = sorted(set(values) - set(KEYS), key=str) if isinstance(values, Mapping) else values
        raise SlimbenchError(f"procedure supernet: {where} is a mapping of {', '.join(KEYS)}, not of {unknown}.")
    found = {}
    for key, value in values.items():
        items = tuple(value) if isinstance(value, list | tuple) else (value,)
        kinds = int | float if key == "ratio" else int
        if not items or any(isinstance(item, bool) or not isinstance(item, kinds) or item <= 0 for item in items):
            raise SlimbenchError(f"procedure supernet: {key} of {where} is {value!r}; write numbers above 0.")
        found[key] = items
    return found
