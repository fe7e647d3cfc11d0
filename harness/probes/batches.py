"""Batches of stored features: states of some utterances as one padded tensor.

Crops draw from generators seeded by the place in the run (epoch, batch), never from a running state: a run that goes
on after a kill draws exactly what it would have drawn. In which order utterances come: :mod:`harness.probes.order`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from harness.interface import FeatureSource, Need, SlimbenchError
from harness.processes import free_memory

EVAL_FRAMES = 4_000
"""Padded frames per evaluation batch."""
SHARE = 0.5
"""Part of the free memory that one table of features may take."""
_AT_ONCE = 1024
"""Utterances whose means are read at a time."""


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
    """Features of some utterances, in memory where they take at most :data:`SHARE` of what is free of it.

    What does not fit is read from the source, batch by batch.

    Attributes:
        lengths: frames per utterance; 1 for means.
        means: (N, L, D) float32, where means are read and fit.
        buffer: (L, ΣT, D) all frames end to end, where frames are read and fit.
    """

    def __init__(
        self, features: FeatureSource, ids: Sequence[str], need: Need, device: str | torch.device = "cpu"
    ) -> None:
        self.features = features
        self.ids = list(ids)
        self.need = need
        self.device = torch.device(device)
        self.means: Tensor | None = None
        self.buffer: Tensor | None = None
        if need == "pooled":
            self.lengths = [1] * len(self.ids)
            self._preload_means()
            return
        self.lengths = [features.num_frames(name) for name in self.ids]
        self.starts = torch.as_tensor([0, *self.lengths]).cumsum(0)[:-1]
        if features.stored and self.ids:
            self._preload_frames()

    def _preload_means(self) -> None:
        shape = (len(self.ids), self.features.num_states, self.features.width)
        if not self._fits(torch.float32, shape):
            return
        self.means = torch.empty(shape, device=self.device)
        for start in range(0, len(self.ids), _AT_ONCE):
            part = self.ids[start : start + _AT_ONCE]
            self.means[start : start + len(part)] = self.features.pooled(part).to(self.device)

    def _preload_frames(self) -> None:
        dtype = self.features.frames(self.ids[0]).dtype
        shape = (self.features.num_states, sum(self.lengths), self.features.width)
        if not self._fits(dtype, shape):
            return
        self.buffer = torch.empty(shape, dtype=dtype, device=self.device)
        for place, (start, length) in enumerate(zip(self.starts.tolist(), self.lengths, strict=True)):
            (frames,) = self._fetch([place])
            self.buffer[:, start : start + length] = frames.to(self.device)

    def _fits(self, dtype: torch.dtype, shape: Sequence[int]) -> bool:
        return dtype.itemsize * math.prod(shape) <= SHARE * _free_bytes(self.device)

    def _fetch(self, indices: Sequence[int]) -> list[Tensor]:
        """All states of the utterances at ``indices``, (L, T, D) each."""
        found = self.features.fetch([self.ids[i] for i in indices])
        for i, frames in zip(indices, found, strict=True):
            if frames.shape[1] != self.lengths[i]:
                raise SlimbenchError(
                    f"The features of {self.ids[i]} have {frames.shape[1]} frames instead of {self.lengths[i]}; "
                    "delete the stored ones (make: CACHE, slimbench: --cache) and extract them again."
                )
        return found

    def gather(
        self, indices: Sequence[int], crop: int | None = None, draw: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """States (L, B, T, D) or means (L, B, D), float32, and lengths (B,) of the utterances at ``indices``.

        Args:
            indices: places in ``ids``.
            crop: longest length in frames; longer utterances are cut at a random place. Means cannot be cropped.
            draw: generator of the crops.
        """
        if self.need == "pooled":
            return self._means(indices).transpose(0, 1), torch.ones(len(indices), dtype=torch.long, device=self.device)
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

    def _means(self, indices: Sequence[int]) -> Tensor:
        """(B, L, D)."""
        if self.means is None:
            return self.features.pooled([self.ids[i] for i in indices]).to(self.device)
        return self.means[torch.as_tensor(indices, device=self.device)]

    def _read(self, indices: Sequence[int], offsets: Tensor, lengths: Tensor) -> Tensor:
        """As :meth:`gather`, from the source."""
        parts = []
        for frames, offset, length in zip(self._fetch(indices), offsets.tolist(), lengths.tolist(), strict=True):
            parts.append(frames[:, offset : offset + length].to(self.device).float().transpose(0, 1))
        padded = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)  # (B, T, L, D)
        return padded.permute(2, 0, 1, 3).contiguous()


def _free_bytes(device: torch.device) -> int:
    """Free memory of the device that the features would lie on."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()
