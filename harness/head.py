"""What a head is to the harness: a module whose many copies, one per trial, are computed side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn
from torch.func import functional_call, vmap

from harness.randomness import Noise


class Head(nn.Module):
    """Base of all heads. ``forward(x, lengths)`` maps states (B, T, D), or time means (B, D), to outputs.

    Attributes:
        min_frames: fewest frames that an utterance must have.
        one_by_one: on a CPU the trials are best computed in turn, so that each can have a thread of its own.
    """

    min_frames: int = 1
    one_by_one: bool = False

    def stacked(self, params: Mapping[str, Tensor], x: Tensor, lengths: Tensor, noise: Noise | None) -> Tensor:
        """Outputs of R trials.

        Mapped over the trials by :func:`torch.func.vmap`; a head of which that is not possible (LSTMs, dropout)
        writes its own.

        Args:
            params: the head's parameters by name, each with a leading axis of R trials.
            x: (R, B, T, D) mixed states, or (R, B, D) time means.
            lengths: (B,) valid frames.
            noise: draws the uniform numbers of dropout in training; ``None`` otherwise.
        """

        def one(own: dict[str, Tensor], frames: Tensor) -> Tensor:
            return cast(Tensor, functional_call(self, own, (frames, lengths)))

        return vmap(one, randomness="error")(dict(params), x)
