"""Batches of stored features: states of some utterances as one padded tensor.

Crops draw from generators seeded by the place in the run (epoch, batch), never from a running state: a run that goes
on after a kill draws exactly what it would have drawn. In which order utterances come: :mod:`harness.order`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from harness.interface import FeatureSource, Need, SlimbenchError

EVAL_FRAMES = 4_000
"""Padded frames per evaluation batch."""


def generator(*place: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator whose seed is a digest of ``place``."""
    digest = hashlib.sha256(repr(place).encode()).digest()
    made = torch.Generator(device=device)
    made.manual_seed(int.from_bytes(digest[:7], "big"))
    return made


def evaluation_batches(lengths: Sequence[int], most: int) -> list[list[int]]:
    """All indices once, longest first, at most ``most`` and about ``EVAL_FRAMES`` padded frames at a time."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batches: list[list[int]] = []
    while order:
        size = max(1, min(most, EVAL_FRAMES // max(1, lengths[order[0]])))
        batches.append(order[:size])
        order = order[size:]
    return batches


class Table:
    """Features of some utterances, in memory where they fit.

    Attributes:
        lengths: frames per utterance; 1 for means.
    """

    def __init__(
        self, features: FeatureSource, ids: Sequence[str], need: Need, device: str | torch.device = "cpu"
    ) -> None:
        self.features = features
        self.ids = list(ids)
        self.device = torch.device(device)
        self.means: Tensor | None = None
        self.buffer: Tensor | None = None
        if need == "pooled":
            self.means = features.pooled(self.ids).to(self.device, torch.float32).transpose(0, 1).contiguous()
            self.lengths = [1] * len(self.ids)
            return
        self.lengths = [features.num_frames(name) for name in self.ids]
        self.starts = torch.as_tensor([0, *self.lengths]).cumsum(0)[:-1]
        self._preload()

    def _preload(self) -> None:
        """Put all frames end to end into one (L, ΣT, D) buffer, where that takes at most half of the free memory."""
        if not self.ids:
            return
        first = self.features.frames(self.ids[0])
        shape = (first.shape[0], sum(self.lengths), first.shape[2])
        if first.element_size() * shape[0] * shape[1] * shape[2] > _free_bytes(self.device) // 2:
            return
        self.buffer = torch.empty(shape, dtype=first.dtype, device=self.device)
        for name, start, length in zip(self.ids, self.starts.tolist(), self.lengths, strict=True):
            self.buffer[:, start : start + length] = self._frames(name, length).to(self.device)

    def _frames(self, name: str, length: int) -> Tensor:
        frames = self.features.frames(name)
        if frames.shape[1] != length:
            raise SlimbenchError(
                f"The stored features of {name} have {frames.shape[1]} frames instead of {length}; extract them again."
            )
        return frames

    def gather(
        self, indices: Sequence[int], crop: int | None = None, draw: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """States (L, B, T, D) or means (L, B, D), float32, and lengths (B,) of the utterances at ``indices``.

        Args:
            indices: places in ``ids``.
            crop: longest length in frames; longer utterances are cut at a random place. Means cannot be cropped.
            draw: generator of the crops.
        """
        if self.means is not None:
            return self.means[:, torch.as_tensor(indices, device=self.device)], torch.ones(
                len(indices), dtype=torch.long, device=self.device
            )
        lengths = torch.as_tensor([self.lengths[i] for i in indices])
        offsets = torch.zeros_like(lengths)
        if crop is not None:
            spare = (lengths - crop).clamp(min=0)
            offsets = (torch.rand(len(indices), generator=draw, dtype=torch.float64) * (spare + 1)).long()
            lengths = lengths.clamp(max=crop)
        if self.buffer is None:
            return self._read(indices, offsets, lengths), lengths.to(self.device)
        begin = self.starts[torch.as_tensor(indices)] + offsets
        position = torch.arange(int(lengths.max()))
        valid = position < lengths[:, None]
        place = torch.where(valid, begin[:, None] + position, begin[:, None]).to(self.device)
        x = self.buffer[:, place.flatten()].float().view(len(self.buffer), *place.shape, -1)
        return x.masked_fill_(~valid.to(self.device)[None, :, :, None], 0.0), lengths.to(self.device)

    def _read(self, indices: Sequence[int], offsets: Tensor, lengths: Tensor) -> Tensor:
        """As :meth:`gather`, from the store."""
        parts = []
        for index, offset, length in zip(indices, offsets.tolist(), lengths.tolist(), strict=True):
            frames = self._frames(self.ids[index], self.lengths[index])[:, offset : offset + length]
            parts.append(frames.to(self.device).float().transpose(0, 1))
        padded = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)  # (B, T, L, D)
        return padded.permute(2, 0, 1, 3).contiguous()


def _free_bytes(device: torch.device) -> int:
    """Free memory of the device that the features would lie on."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
