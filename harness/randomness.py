"""Random numbers that depend on a place alone, never on a running state, so that a restart draws the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def generator(*place: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator whose seed is a digest of ``place``."""
    digest = hashlib.sha256(repr(place).encode()).digest()
    made = torch.Generator(device=device)
    made.manual_seed(int.from_bytes(digest[:7], "big"))
    return made


class Noise:
    """Uniform random numbers for dropout, one tensor per trial; trials of the same seed get the same numbers.

    They depend on ``seeds`` and ``place`` alone, so that neither the other trials nor a restart change them.
    """

    def __init__(self, seeds: Sequence[int], place: int, device: str | torch.device) -> None:
        self.seeds = seeds
        self.device = device
        self.generators = {seed: generator("noise", seed, place, device=device) for seed in set(seeds)}

    def __call__(self, shape: Sequence[int]) -> list[Tensor]:
        """R tensors of ``shape``, uniform on [0, 1); each call draws anew."""
        draws = {
            seed: torch.rand(tuple(shape), generator=made, device=self.device) for seed, made in self.generators.items()
        }
        return [draws[seed] for seed in self.seeds]
