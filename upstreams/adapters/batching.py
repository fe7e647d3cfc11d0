"""Batches in and states out, as all adapters of foreign encoders do it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from harness.interface import HiddenStates


class Batch(NamedTuple):
    """A batch where the model is.

    Attributes:
        waves: (B, S), S samples of the longest utterance.
        lengths: (B,) valid samples.
        ends: the lengths, or ``None`` where nothing is padded, so that no mask is needed.
    """

    waves: Tensor
    lengths: Tensor
    ends: Tensor | None


def check_length(lengths: Tensor, min_samples: int) -> None:
    """Raises :class:`ValueError` where an utterance has fewer samples than one frame takes."""
    shortest = int(lengths.min())
    if shortest < min_samples:
        raise ValueError(f"{shortest} samples are too few for one frame")


def batch(waves: Tensor, lengths: Tensor, min_samples: int, device: torch.device) -> Batch:
    """``waves`` (B, S) with ``lengths`` (B,) valid samples on ``device``, without padding behind the longest.

    Raises:
        ValueError: an utterance has fewer than ``min_samples``.
    """
    check_length(lengths, min_samples)
    longest = int(lengths.max())
    padded = bool((lengths != longest).any())
    lengths = lengths.to(device)
    return Batch(waves[:, :longest].to(device), lengths, lengths if padded else None)


def alone(waves: Tensor, lengths: Tensor) -> list[Tensor]:
    """The utterances of a batch, each (S,) without padding."""
    return [wave[:length] for wave, length in zip(waves, lengths.tolist(), strict=True)]


def together(rows: Sequence[Sequence[Tensor]], frame_ms: float, device: torch.device) -> HiddenStates:
    """The states of utterances that were encoded one by one, zero-padded side by side.

    Args:
        rows: per utterance all its states (T, width), of one T.
        frame_ms: time between two frames.
        device: where the states are.
    """
    states = [pad_sequence(list(layer), batch_first=True) for layer in zip(*rows, strict=True)]
    return HiddenStates(states, torch.tensor([len(row[0]) for row in rows], device=device), frame_ms)
