"""What passes through a model of the lab, as training and the adapters need it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Passage:
    """States of a batch, on the model's own grid.

    Attributes:
        states: residual-stream tensors (B, T, width), not normalised; state 0 lies before the first layer.
        frames: (B,) valid frames of each.
        maps: per layer the attention after its softmax (B, heads, T, T), without heads for a layer without attention;
            empty unless asked for.
        weights: (B, T20) integrate-and-fire weights of the frames in (0, 1), before they are mixed; ``None`` without.
        place: (B, T20) which frame of the states lies over each frame of 20 ms; ``None`` where they are the same.
        grid_frames: (B,) valid frames of 20 ms.
    """

    states: list[Tensor]
    frames: Tensor
    grid_frames: Tensor
    maps: list[Tensor] = field(default_factory=list)
    weights: Tensor | None = None
    place: Tensor | None = None

    def repeated(self) -> tuple[list[Tensor], Tensor]:
        """The states on the 20 ms grid, each frame repeated over those that it stands for, and (B,) valid frames."""
        if self.place is None:
            return self.states, self.frames
        place = self.place[..., None]
        return [torch.gather(x, 1, place.expand(-1, -1, x.shape[-1])) for x in self.states], self.grid_frames


def grid_of(frames: Tensor, total: int, reduce: int) -> Tensor:
    """(B, total) number of the joined frame over each frame, where ``reduce`` of them are joined.

    Frames at the end that fill no group get the last one's number.

    >>> grid_of(torch.tensor([5, 2]), 5, 2)
    tensor([[0, 0, 1, 1, 1],
            [0, 0, 0, 0, 0]])
    """
    group = torch.arange(total, device=frames.device)[None, :] // reduce
    return torch.minimum(group, (frames // reduce - 1)[:, None]).clamp(min=0)
