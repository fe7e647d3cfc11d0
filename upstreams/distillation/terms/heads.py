"""Throw-away modules between the student's states and what is compared; they train along and are never exported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.interface import SlimbenchError
from upstreams.distillation.terms.base import Term, View
from upstreams.distillation.terms.options import Option

HEADS = ("linear", "none", "identity", "split", "gelu", "mlp", "upsample")
OPTIONS = {
    "shared": Option(False),
    "mlp_layers": Option(4, choices=(2, 3, 4)),
    "mlp_width": Option(0, least=0),
    "norm": Option(False),
}
"""``shared``: head ``identity`` has one matrix for all states after a layer, and one of its own for state 0;
``mlp_layers`` and ``mlp_width``: of head ``mlp``, a width of 0 is twice the teacher's; ``norm``: heads see the states
of the student layer-normed without parameters, as probes do. Layers that were taken from a trained teacher give raw
states of its scale, tens of times what a head begins with, and what a prediction head then learns first is to ignore
them; so where a recipe takes layers, ``norm`` is on unless it says otherwise."""


class Upsample(nn.Module):
    """Transposed convolution whose kernel and stride are the rate ratio, then Linear (FitHuBERT, arXiv 2207.00555)."""

    def __init__(self, width: int, out: int, ratio: int) -> None:
        super().__init__()
        self.spread = nn.ConvTranspose1d(width, width, ratio, ratio)
        self.project = nn.Linear(width, out)

    def forward(self, state: Tensor) -> Tensor:
        """(B, T, width) to (B, T · ratio, out)."""
        projected: Tensor = self.project(self.spread(state.transpose(1, 2)).transpose(1, 2))
        return projected


class Split(nn.Module):
    """Shared Linear, GELU, then one matrix per target (DistilHuBERT, arXiv 2110.01900): all targets from one state."""

    def __init__(self, width: int, out: int, targets: int) -> None:
        super().__init__()
        self.targets = targets
        self.shared = nn.Linear(width, out * targets)
        self.weight = nn.Parameter(torch.randn(targets, out, out) * out**-0.5)
        self.bias = nn.Parameter(torch.zeros(targets, 1, 1, out))

    def forward(self, state: Tensor) -> Tensor:
        """(B, T, width) to (targets, B, T, out)."""
        batch, frames, _ = state.shape
        inner = functional.gelu(self.shared(state)).view(batch, frames, self.targets, -1)
        return torch.einsum("btni,nio->nbto", inner, self.weight) + self.bias


def identity(width: int, out: int) -> nn.Linear:
    """Linear that starts as the identity, cut or zero-filled to the sizes (DPHuBERT, arXiv 2305.17651)."""
    linear = nn.Linear(width, out)
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def mlp(width: int, out: int, layers: int, inner: int) -> nn.Sequential:
    """Linear, LayerNorm and GELU, repeated, then Linear: SimReg's regressor (arXiv 2201.05131) with LayerNorm for
    BatchNorm, so that a frame does not depend on the batch.
    """
    sizes = [width] + [inner] * (layers - 1)
    blocks: list[nn.Module] = []
    for size, following in pairwise(sizes):
        blocks += [nn.Linear(size, following), nn.LayerNorm(following), nn.GELU()]
    return nn.Sequential(*blocks, nn.Linear(sizes[-1], out))


class Heads(nn.Module):
    """The heads of a term: predictions of all its pairs from the student's states.

    Attributes:
        upsamples: whether predictions come at the teacher's frame period.
    """

    def __init__(self, term: Term, out: int | None = None, pairs: Sequence[tuple[int, int]] | None = None) -> None:
        """Build what the term's specification asks for.

        Args:
            term: its head, options and sizes are used.
            out: width of the predictions, the teacher's if not given.
            pairs: (student state, target), the term's if not given.

        Raises:
            SlimbenchError: the head does not fit the sizes.
        """
        super().__init__()
        self.kind, self.pairs = term.spec.head, tuple(pairs or term.pairs)
        self.norm = bool(term.option("norm", False))
        self.upsamples = self.kind == "upsample"
        width, wide = term.student.width, out or term.teacher.width
        where = f"{term.spec.knowledge}: head {self.kind!r}"
        self.keys = [self._key(term, place, state) for place, (state, _) in enumerate(self.pairs)]
        if self.kind == "none" and width != wide:
            raise SlimbenchError(f"{where} needs equal widths, not {width} and {wide}; write head: linear.")
        if self.kind == "split":
            if len({state for state, _ in self.pairs}) > 1:
                raise SlimbenchError(f"{where} predicts all targets from one student state; write student: last.")
            self.each = nn.ModuleDict({"all": Split(width, wide, len(self.pairs))})
            return
        ratio = term.student.frame_ms / term.teacher.frame_ms
        if self.upsamples and not (ratio >= 1 and ratio.is_integer()):
            raise SlimbenchError(f"{where} needs a whole rate ratio, not {ratio:g}; write head: linear.")
        inner = term.option("mlp_width", 0) or 2 * wide
        makers: dict[str, Callable[[], nn.Module]] = {
            "none": nn.Identity,
            "linear": lambda: nn.Linear(width, wide),
            "identity": lambda: identity(width, wide),
            "gelu": lambda: nn.Sequential(nn.Linear(width, wide), nn.GELU()),
            "mlp": lambda: mlp(width, wide, term.option("mlp_layers", 4), inner),
            "upsample": lambda: Upsample(width, wide, int(ratio)),
        }
        self.each = nn.ModuleDict({key: makers[self.kind]() for key in dict.fromkeys(self.keys)})

    def _key(self, term: Term, place: int, state: int) -> str:
        """The head of a pair: its own, or the shared one."""
        if self.kind == "identity" and term.option("shared", False):
            return "shared" if state else "front"
        return str(place)

    def forward(self, states: Sequence[Tensor]) -> list[Tensor]:
        """States (B, T, D) to one prediction (B, T, out) per pair, at ``T · ratio`` frames if ``upsamples``."""
        if self.norm:
            states = [functional.layer_norm(state, state.shape[-1:]) for state in states]
        if self.kind == "split":
            return list(self.each["all"](states[self.pairs[0][0]]))
        found = [self.each[key](states[state]) for key, (state, _) in zip(self.keys, self.pairs, strict=True)]
        return cast(list[Tensor], found)

    def view(self, student: View, ratio: float) -> tuple[View, float]:
        """Predictions as a view, and the frame period that they have left over the teacher's.

        Args:
            student: the student's states.
            ratio: the student's frame period over the teacher's.
        """
        predicted = tuple(self(student.states))
        if self.upsamples:
            return View(predicted, student.frames * int(ratio)), 1.0
        return View(predicted, student.frames), ratio
