"""k-means codebooks of the teacher's states, fitted once before training and saved with the term."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from harness.interface import SlimbenchError
from upstreams.distillation.terms.alignment import full_precision
from upstreams.distillation.terms.base import Term, View
from upstreams.distillation.terms.options import Option
from upstreams.distillation.units import Codebook

FITS, MOST_FRAMES = 20, 100_000
"""Teacher batches wanted for fitting, and the most frames used of them."""
OPTIONS = {"units": Option(100, least=2), "seed": Option(0, least=0)}
"""``units``: centroids per teacher state; ``seed``: of k-means."""


class Centroids(nn.Module):
    """One :class:`~upstreams.distillation.units.Codebook` per teacher state that a term matches."""

    def __init__(self, term: Term) -> None:
        super().__init__()
        self.units, self.seed, self.where = int(term.option("units")), int(term.option("seed")), term.spec.knowledge
        numbers = sorted({theirs for _, theirs in term.pairs})
        self.books = nn.ModuleDict({str(n): Codebook(self.units, term.teacher.width) for n in numbers})
        self.fitted = False

    def fit(self, views: Iterable[View]) -> None:
        """Fit all codebooks to the valid frames of the teacher's views, at most ``MOST_FRAMES`` evenly spaced ones.

        Raises:
            SlimbenchError: there are fewer frames than units.
        """
        found: dict[str, list[Tensor]] = {name: [] for name in self.books}
        for view in views:
            for name, kept in found.items():
                kept.append(view.states[int(name)][view.mask].float().cpu())
        for name, kept in found.items():
            frames = torch.cat(kept) if kept else torch.zeros(0, 1)
            if len(frames) < self.units:
                raise SlimbenchError(
                    f"{self.where}: {len(frames)} frames are too few to fit {self.units} units; lower option 'units'."
                )
            frames = frames[:: -(-len(frames) // MOST_FRAMES)]
            fitted = Codebook.fit(frames.numpy(), self.units, self.seed)
            self.books[name].load_state_dict(fitted.state_dict())

    def book(self, number: int) -> Codebook:
        """The codebook of a teacher state.

        Raises:
            SlimbenchError: it was not fitted.
        """
        book = cast(Codebook, self.books[str(number)])
        if not self.fitted:
            if not bool(book.centroids.any()):
                raise SlimbenchError(f"{self.where}: its codebooks are not fitted; call fit before the first step.")
            self.fitted = True
        return book

    def nearest(self, number: int, state: Tensor) -> Tensor:
        """Unit of every frame, (B, T, D) to (B, T), of the codebook of teacher state ``number``."""
        with full_precision(state):
            units: Tensor = self.book(number)(state.float())
            return units

    def standardised(self, number: int, state: Tensor) -> Tensor:
        """States (B, T, D) in the codebook's scale: mean 0 and variance 1 in each dimension of the fitted frames."""
        book = self.book(number)
        return (state.float() - book.mean) / book.std

    def distances(self, number: int, state: Tensor) -> Tensor:
        """Squared distance per dimension to every centroid in the codebook's scale, (B, T, D) to (B, T, units)."""
        centroids = self.book(number).centroids
        x = self.standardised(number, state)
        with full_precision(state):
            squares = x.square().sum(-1, keepdim=True) + centroids.square().sum(-1) - 2 * x @ centroids.T
        return squares.clamp(min=0) / x.shape[-1]

    def products(self, number: int, state: Tensor) -> Tensor:
        """Products over the width with every centroid in the codebook's scale, (B, T, D) to (B, T, units)."""
        centroids = self.book(number).centroids
        with full_precision(state):
            return self.standardised(number, state) @ centroids.T / state.shape[-1]
