"""The best subnet of a once-for-all model under a budget of parameters, by an evolutionary search.

LightHuBERT (arXiv 2203.15610) does not say how its published subnets were picked; this search is our own, after the
usual one for once-for-all networks (arXiv 1908.09791): the best of a population have children by mutation and crossing,
and what exceeds the budget is never looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from harness.interface import SlimbenchError
from upstreams.distillation.procedures.space import Space, Subnet, pick
from upstreams.distillation.procedures.supernet import Supernet
from upstreams.distillation.terms.base import View
from upstreams.students.mini import MiniWavLM

T = TypeVar("T")
Score = Callable[[Subnet], float]
"""What is to be small."""
TRIES = 30
"""Draws per wanted subnet after which new ones that fit are taken to be out of reach."""


@dataclass(frozen=True)
class Found:
    """A subnet, its score, its parameters, and how many subnets were scored to find it."""

    subnet: Subnet
    score: float
    parameters: int
    scored: int


@dataclass(frozen=True)
class Evolution:
    """How the search goes.

    Attributes:
        population: subnets of a generation.
        parents: the best that have children.
        generations: rounds of children.
        mutation: probability that a choice of a child is drawn anew.
    """

    population: int = 32
    parents: int = 10
    generations: int = 12
    mutation: float = 0.15


def search(
    space: Space, score: Score, budget: int, seed: int, evolution: Evolution | None = None, least: int = 0
) -> Found:
    """The best subnet found with at most ``budget`` parameters.

    Args:
        space: what may be chosen.
        score: asked once per subnet; must be deterministic.
        budget: parameters at most, as an upstream exposes them.
        seed: the same seed gives the same subnet.
        evolution: how it goes.
        least: parameters at least, to compare at equal size.

    Raises:
        SlimbenchError: no subnet within the budget is found.
    """
    settings = evolution or Evolution()
    rng = np.random.default_rng((seed, 13))
    scores: dict[Subnet, float] = {}

    def fits(subnet: Subnet) -> bool:
        return least <= space.parameters(subnet) <= budget

    def best(count: int) -> list[Subnet]:
        return sorted(scores, key=lambda subnet: scores[subnet])[:count]

    def look(subnets: Sequence[Subnet]) -> None:
        for subnet in subnets:
            if subnet not in scores:
                scores[subnet] = float(score(subnet))

    look([subnet for subnet in {space.smallest: 0, space.largest: 0} if fits(subnet)])
    look(_distinct(lambda: space.sample(rng), fits, settings.population, scores))
    if not scores:
        raise SlimbenchError(
            f"no subnet with {least} to {budget} parameters was found; the space has "
            f"{space.parameters(space.smallest)} to {space.parameters(space.largest)}. Change the budget."
        )
    for _ in range(settings.generations):
        parents, half = tuple(best(settings.parents)), settings.population // 2

        def mutant(parents: tuple[Subnet, ...] = parents) -> Subnet:
            return mutated(space, pick(rng, parents), rng, settings.mutation)

        def child(parents: tuple[Subnet, ...] = parents) -> Subnet:
            return crossed(pick(rng, parents), pick(rng, parents), rng)

        look(_distinct(mutant, fits, half, scores))
        look(_distinct(child, fits, half, scores))
    (top,) = best(1)
    return Found(top, scores[top], space.parameters(top), len(scores))


def _distinct(
    draw: Callable[[], Subnet], fits: Callable[[Subnet], bool], count: int, known: Collection[Subnet]
) -> list[Subnet]:
    """Up to ``count`` new subnets that fit; fewer where draws bring nothing new any more."""
    found: dict[Subnet, None] = {}
    for _ in range(TRIES * count):
        if len(found) == count:
            break
        subnet = draw()
        if subnet not in known and subnet not in found and fits(subnet):
            found[subnet] = None
    return list(found)


def mutated(space: Space, subnet: Subnet, rng: np.random.Generator, chance: float) -> Subnet:
    """A subnet of which each choice is drawn anew with a probability; layers that are added are copies of the last."""
    width = pick(rng, space.widths) if rng.random() < chance else subnet.width
    depth = pick(rng, space.depths) if rng.random() < chance else subnet.depth

    def renewed(values: tuple[Any, ...], choices: tuple[Any, ...]) -> tuple[Any, ...]:
        longer = (values + values[-1:] * depth)[:depth]
        return tuple(pick(rng, choices) if rng.random() < chance else value for value in longer)

    return Subnet(width, renewed(subnet.heads, space.heads), renewed(subnet.ratios, space.ratios))


def crossed(one: Subnet, other: Subnet, rng: np.random.Generator) -> Subnet:
    """A child that has each choice from either parent; depth from one, and its further layers."""
    deep, shallow = (one, other) if rng.random() < 0.5 else (other, one)

    def joined(mine: tuple[Any, ...], theirs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            theirs[layer] if layer < len(theirs) and rng.random() < 0.5 else value for layer, value in enumerate(mine)
        )

    width = one.width if rng.random() < 0.5 else other.width
    return Subnet(width, joined(deep.heads, shallow.heads), joined(deep.ratios, shallow.ratios))


class DistillationScore(Generic[T]):
    """How far a subnet is from its teacher on held-out batches: the mean of a loss, without gradient.

    Args:
        supernet: the procedure that trained the student.
        student: the whole.
        batches: (waves (B, S), lengths (B,), what teachers make of them) of audio that is not trained on.
        loss: of a subnet's view and that, such as the weighted sum of the trained terms; must be deterministic.

    Raises:
        SlimbenchError: there is no batch.
    """

    def __init__(
        self,
        supernet: Supernet,
        student: MiniWavLM,
        batches: Sequence[tuple[Tensor, Tensor, T]],
        loss: Callable[[View, T], Tensor],
    ) -> None:
        if not batches:
            raise SlimbenchError("a search over subnets needs held-out batches to score them on; give some.")
        self.supernet, self.student, self.batches, self.loss = supernet, student, batches, loss

    @torch.no_grad()
    def __call__(self, subnet: Subnet) -> float:
        """The mean loss of one subnet."""
        losses = [
            float(self.loss(self.supernet.passed(self.student, subnet, waves, lengths), taught))
            for waves, lengths, taught in self.batches
        ]
        return sum(losses) / len(losses)
