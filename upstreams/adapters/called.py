"""Upstreams of which nothing is known but that they can be called: how many states, how wide, how far apart.

All of that is measured by calling them with noise. They are called with one utterance at a time, without padding, so
that an utterance's states cannot depend on others, unless the card says that they take padded batches (``padded``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.cards import Card
from harness.interface import SAMPLE_RATE, HiddenStates, SlimbenchError
from upstreams.adapters.batching import alone, batch, together

OPTIONS: Mapping[str, Any] = {"frame_ms": 0.0, "padded": False}
"""Card options of all these adapters; ``frame_ms: 0`` means that it is measured."""
SECOND = SAMPLE_RATE

Call = Callable[[Tensor, Tensor], object]
"""``(waves (B, S), lengths (B,))`` to a list of states (B, T, D), one such state, or ``(states, frames (B,))``."""


class _Shape(NamedTuple):
    """What a call gives."""

    num_states: int
    width: int
    min_samples: int
    frame_ms: float


class Called:
    """A frozen callable as an upstream.

    Args:
        card: for messages and the options in :data:`OPTIONS`.
        device: where input goes.
        call: the model.
        module: what holds its weights, for parameter and MAC counts.
        fingerprint: its content key.
        options: the values of :data:`OPTIONS`.

    Raises:
        SlimbenchError: the call fails on one second of noise, or gives something else than states.
    """

    variable_rate = False
    batch_invariant = True

    def __init__(
        self,
        card: Card,
        device: str,
        call: Call,
        module: nn.Module | None,
        fingerprint: str,
        options: Mapping[str, Any],
    ) -> None:
        self.name, self.device, self.fingerprint = card.name, torch.device(device), fingerprint
        self._file, self._call, self._module = card.file, call, module
        self._padded = bool(options["padded"])
        for parameter in () if module is None else module.parameters():
            parameter.requires_grad_(False)
        shape = self._measure(float(options["frame_ms"]))
        self.num_states, self.width, self.min_samples, self.frame_ms = shape

    def module(self) -> nn.Module | None:
        """What computes the states, or ``None`` where it is no module."""
        return self._module

    @torch.no_grad()
    def encode(self, waves: Tensor, lengths: Tensor) -> HiddenStates:
        """States of ``waves`` (B, S) with ``lengths`` (B,) valid samples: tensors (B, T, width).

        Raises:
            ValueError: an utterance is too short for one frame.
        """
        waves, lengths, _ = batch(waves, lengths, self.min_samples, self.device)
        if self._padded:
            states, frames = self._states(waves, lengths)
            return HiddenStates(states, frames, self.frame_ms)
        return together([self._alone(wave) for wave in alone(waves, lengths)], self.frame_ms, self.device)

    def _alone(self, wave: Tensor) -> list[Tensor]:
        """The states (T, width) of one utterance (S,)."""
        states, frames = self._states(wave[None], torch.tensor([len(wave)], device=self.device))
        return [state[0, : int(frames[0])] for state in states]

    def _states(self, waves: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """What the call gives, checked: states (B, T, D) of one shape, and frames (B,)."""
        given = self._call(waves, lengths)
        frames: Tensor | None = None
        if isinstance(given, Sequence) and len(given) == 2 and (isinstance(given[0], Sequence) or _counts(given[1])):
            given, frames = given[0], given[1].to(self.device).long()
        states = [given] if isinstance(given, Tensor) else list(given) if isinstance(given, Sequence) else []
        if not states or not all(isinstance(state, Tensor) and state.is_floating_point() for state in states):
            raise self._refuse(f"gives {type(given).__name__} without states")
        shapes = {tuple(state.shape) for state in states}
        if len(shapes) > 1 or len(states[0].shape) != 3 or len(states[0]) != len(waves):
            raise self._refuse(f"gives states of shapes {sorted(shapes)} for a batch of {len(waves)}")
        if frames is None and self._padded:
            raise self._refuse("gives no frames beside the states, which option 'padded: true' needs")
        if frames is None:
            frames = torch.full((len(waves),), states[0].shape[1], device=self.device)
        return [state.detach().float() for state in states], frames

    def _refuse(self, what: str) -> SlimbenchError:
        return SlimbenchError(
            f"{self._file}: the model {what}; let it return a list of float tensors (B, T, D) of one shape, or "
            "(that list, valid frames (B,))."
        )

    def _measure(self, frame_ms: float) -> _Shape:
        try:
            states, frames = self._try(SECOND)
        except SlimbenchError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(".")
            raise SlimbenchError(
                f"{self._file}: the model fails on one second of noise, (1, 16000) samples with their number "
                f"({reason}); see upstreams/adapters/called.py for how it is called."
            ) from error
        if int(frames[0]) < 4:
            raise self._refuse("gives fewer than four frames for one second")
        first = self._fewest(1, 0, SECOND)
        if frame_ms > 0:
            return _Shape(len(states), states[0].shape[-1], first, frame_ms)
        fewest = int(self._try(first)[1][0])  # one; exported programs may refuse to give fewer than two
        second = self._fewest(fewest + 1, first, SECOND)
        hop, third = second - first, self._fewest(fewest + 2, second, SECOND)
        if third - second != hop or int(frames[0]) != (SECOND - first) // hop + fewest:
            raise SlimbenchError(
                f"{self._file}: the time between frames cannot be measured (they come after {first}, {second} and "
                f"{third} samples, {int(frames[0])} in one second); set option frame_ms."
            )
        return _Shape(len(states), states[0].shape[-1], first, 1000.0 * hop / SAMPLE_RATE)

    @torch.no_grad()
    def _try(self, samples: int) -> tuple[list[Tensor], Tensor]:
        noise = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
        return self._states(noise.to(self.device), torch.tensor([samples], device=self.device))

    def _fewest(self, frames: int, few: int, enough: int) -> int:
        """Fewest samples that give that many frames; ``few`` give less, ``enough`` give them."""
        while enough - few > 1:
            middle = (few + enough) // 2
            try:
                found = int(self._try(middle)[1][0])
            except Exception:  # whatever a model does with too little input
                found = 0
            few, enough = (few, middle) if found >= frames else (middle, enough)
        return enough


def _counts(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() == 1 and not value.is_floating_point()
