"""Frozen teachers: any registered upstream by name, with its states brought to one scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness import registry
from harness.interface import SlimbenchError, Upstream
from upstreams.adapters.weights import read_tensors
from upstreams.distillation.recipe import TeacherSpec
from upstreams.distillation.terms.base import Side, View, layer_normed
from upstreams.students.mini import MiniWavLM

FIT_DRAWS = 20
"""Batches over which ``corpus`` normalisation measures mean and deviation."""


class Teacher(Protocol):
    """What a distillation asks of a teacher."""

    name: str
    fingerprint: str
    side: Side

    def view(self, waves: Tensor, masked: Tensor | None = None, maps: bool = False) -> View:
        """States of equal-length waveforms (B, S), ``masked`` (B, T) frames hidden; no gradient."""
        ...


class UpstreamTeacher:
    """A registered upstream. Masked frames are silenced in the waveform; it has no attention maps to show."""

    def __init__(self, name: str, device: str) -> None:
        self.upstream: Upstream = registry.load_upstream(name, device)
        self.name, self.fingerprint = name, self.upstream.fingerprint
        if self.upstream.variable_rate:
            raise SlimbenchError(f"Teacher {name!r} has frames of varying length; take one of a fixed rate.")
        self.side = Side(self.upstream.num_states, self.upstream.width, self.upstream.frame_ms)

    @torch.no_grad()
    def view(self, waves: Tensor, masked: Tensor | None = None, maps: bool = False) -> View:
        """See :class:`Teacher`.

        Raises:
            SlimbenchError: a term asks for attention maps.
        """
        if maps:
            raise SlimbenchError(
                f"Teacher {self.name!r} gives no attention maps; take one of family mini, or no attention term."
            )
        if masked is not None:
            waves = silenced(waves, masked)
        hidden = self.upstream.encode(waves, full(waves))
        return View(tuple(state.float() for state in hidden.states), hidden.lengths)


class MiniTeacher:
    """An upstream of the lab's own family: masks as in its pre-training, attention maps where asked for."""

    def __init__(self, name: str, device: str) -> None:
        upstream = registry.load_upstream(name, device)
        model = upstream.module()
        assert isinstance(model, MiniWavLM)  # noqa: S101
        self.model, self.name, self.fingerprint = model, name, upstream.fingerprint
        weights = registry.card(name).weights
        mask = read_tensors(weights).get("mask_embedding") if weights is not None else None
        self.mask = None if mask is None else mask.float().to(device)
        if upstream.variable_rate:
            raise SlimbenchError(f"Teacher {name!r} has frames of varying length; take one of a fixed rate.")
        if model.repeat:
            raise SlimbenchError(f"Teacher {name!r} repeats its frames; take it without option repeat.")
        self.side = Side(model.num_states, model.config.width, upstream.frame_ms, tuple(model.heads))

    @torch.no_grad()
    def view(self, waves: Tensor, masked: Tensor | None = None, maps: bool = False) -> View:
        """See :class:`Teacher`."""
        if masked is not None and self.mask is None:
            raise SlimbenchError(f"Teacher {self.name!r} has no mask embedding; use targets clean.")
        if self.mask is not None:
            self.model.mask_embedding = nn.Parameter(self.mask, requires_grad=False)
        try:
            passage = self.model.passage(waves, full(waves), masked=masked, maps=maps)
        finally:
            if self.mask is not None:
                del self.model.mask_embedding
        return View(tuple(passage.states), passage.frames, tuple(passage.maps))


class Mixture:
    """Several teachers of equal shape, their states layer-normed and averaged (assistants)."""

    def __init__(self, name: str, parts: Sequence[Teacher], weights: Sequence[float]) -> None:
        sizes = {(part.side.states, part.side.width, part.side.frame_ms) for part in parts}
        if len(sizes) > 1:
            raise SlimbenchError(f"Mixture {name!r} joins models of unequal states {sorted(sizes)}; take equal ones.")
        if min(weights) < 0 or not sum(weights) > 0:
            raise SlimbenchError(f"Mixture {name!r} has weights {list(weights)}; write numbers of at least 0.")
        self.name, self.parts = name, list(parts)
        self.weights = [weight / sum(weights) for weight in weights]
        self.fingerprint = "+".join(f"{w:.6f}*{p.fingerprint}" for w, p in zip(self.weights, parts, strict=True))
        self.side = parts[0].side

    @torch.no_grad()
    def view(self, waves: Tensor, masked: Tensor | None = None, maps: bool = False) -> View:
        """See :class:`Teacher`."""
        return mix([layer_normed(part.view(waves, masked, maps)) for part in self.parts], self.weights)


class Standardised:
    """A teacher whose state dimensions have mean 0 and deviation 1 over a sample of the data."""

    def __init__(self, teacher: Teacher, sample: Iterable[Tensor]) -> None:
        self.teacher, self.name, self.side = teacher, teacher.name, teacher.side
        self.fingerprint = f"corpus:{teacher.fingerprint}"
        seen = [teacher.view(waves).states for waves in sample]
        joined = [torch.cat([s.flatten(0, 1) for s in column]) for column in zip(*seen, strict=True)]
        self.mean = [x.mean(0) for x in joined]
        self.deviation = [x.std(0).clamp(min=1e-5) for x in joined]

    def view(self, waves: Tensor, masked: Tensor | None = None, maps: bool = False) -> View:
        """See :class:`Teacher`."""
        found = self.teacher.view(waves, masked, maps)
        scaled = [(s - m) / d for s, m, d in zip(found.states, self.mean, self.deviation, strict=True)]
        return View(tuple(scaled), found.frames, found.maps)


def mix(views: Sequence[View], weights: Sequence[float]) -> View:
    """The weighted mean of assistants' views, state by state.

    Raises:
        SlimbenchError: they differ in the number of states, in width or in frames, or weights are not on the simplex.
    """
    if len(views) != len(weights) or not math.isclose(sum(weights), 1.0, abs_tol=1e-4) or min(weights) < 0:
        raise SlimbenchError(f"{len(views)} assistants and weights {list(weights)}; write one each, that sum to 1.")
    shapes = [[tuple(state.shape) for state in view.states] for view in views]
    if any(shape != shapes[0] for shape in shapes):
        raise SlimbenchError("assistants of different depths, widths or frame periods cannot be mixed; choose others.")
    if any(not torch.equal(view.frames, views[0].frames) for view in views):
        raise SlimbenchError("assistants that count an utterance's frames differently cannot be mixed; choose others.")
    pairs = [zip(weights, states, strict=True) for states in zip(*(view.states for view in views), strict=True)]
    return View(tuple(torch.stack([w * s for w, s in pair]).sum(0) for pair in pairs), views[0].frames)


def full(waves: Tensor) -> Tensor:
    """(B,) lengths of waveforms without padding."""
    return torch.full((waves.shape[0],), waves.shape[1], device=waves.device)


def silenced(waves: Tensor, masked: Tensor) -> Tensor:
    """Waveforms (B, S) with zeros where (B, T) frames of equal duration are masked."""
    spread = functional.interpolate(masked[:, None].float(), size=waves.shape[1], mode="nearest")[:, 0]
    return waves * (1 - spread)


def load(specs: Sequence[TeacherSpec], device: str) -> dict[str, Teacher]:
    """The teachers of a recipe, by the name that terms call them."""
    found: dict[str, Teacher] = {}
    for spec in specs:
        if spec.name in found:
            raise SlimbenchError(f"Two teachers are called {spec.name!r}; rename one in the recipe.")
        found[spec.name] = _mixture(spec.name, spec.mixture, device) if spec.mixture else single(spec.name, device)
    return found


def _mixture(name: str, weights: Mapping[str, float], device: str) -> Mixture:
    return Mixture(name, [single(part, device) for part in weights], list(weights.values()))


def single(name: str, device: str) -> Teacher:
    """One registered upstream as a teacher."""
    if registry.card(name).adapter.endswith("adapters.mini:Mini"):
        return MiniTeacher(name, device)
    return UpstreamTeacher(name, device)
