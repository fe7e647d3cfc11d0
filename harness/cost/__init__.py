"""What an upstream costs: parameters, multiply-accumulates, real-time factor, memory and bytes."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

from harness.cards import Card, weights_of
from harness.cost.macs import Macs, count_macs, count_superb_macs, noise
from harness.cost.memory import peak_memory
from harness.cost.packed import packed_weights
from harness.identity import weight_files
from harness.interface import SAMPLE_RATE, SlimbenchError, Upstream
from harness.superb_lengths import BUCKETS

__all__ = [
    "VERSION", "Macs", "bytes_on_disk", "count_macs", "count_parameters", "count_superb_macs", "measure",
    "parameter_bytes", "peak_memory", "real_time_factor",
]  # fmt: skip

VERSION = 2
"""Raised when a cost is measured in another way, so that kept ones are measured again."""


def measure(upstream: Upstream, card: Card, device: str, threads: int, notes: list[str]) -> dict[str, Any]:
    """All costs of an upstream as a record states them; ``None`` and a note for what cannot be measured.

    Args:
        upstream: loaded from ``card`` onto ``device``.
        card: its card.
        device: torch device.
        threads: threads of torch in this process; the memory is measured with as many.
        notes: what a reader must know is added here.
    """
    module = upstream.module()
    return {
        "params": count_parameters(module),
        "parameter_bytes": parameter_bytes(module),
        **_macs(upstream, notes),
        "bytes_on_disk": bytes_on_disk(card),
        "real_time_factor": real_time_factor(upstream),
        **_memory(card, device, threads, notes),
        "device": device,
        "threads": threads,
    }


def _macs(upstream: Upstream, notes: list[str]) -> dict[str, Any]:
    """MACs per second of audio as they are, over SUPERB's utterances in G (10^9)."""
    names = ["macs_per_second", "macs_superb", *(f"macs_superb_{bucket}" for bucket in BUCKETS)]
    try:
        found = count_superb_macs(upstream)
    except SlimbenchError as error:
        notes.append(f"no MACs in this record: {error}")
        return {**dict.fromkeys(names), "macs_counted": None}
    if found.counted == "passes":
        notes.append("MACs counted in passes over noise: what this upstream computes may depend on what is said")
    sums = [found.total, *(found.buckets[bucket] for bucket in BUCKETS)]
    values = [found.per_second, *(value / 1e9 for value in sums)]
    return {**dict(zip(names, values, strict=True)), "macs_counted": found.counted}


def _memory(card: Card, device: str, threads: int, notes: list[str]) -> dict[str, Any]:
    """The most memory that loading and encoding took in a process of its own, and what that process held before."""
    try:
        found = peak_memory(card, device, threads=threads)
    except SlimbenchError as error:
        notes.append(f"no memory in this record: {error}")
        return {"peak_memory_mb": None, "idle_memory_mb": None}
    return {"peak_memory_mb": found.peak, "idle_memory_mb": found.idle}


def count_parameters(module: nn.Module | None) -> int:
    """Number of parameters, shared ones once; 0 for an upstream without a module.

    >>> count_parameters(nn.Linear(3, 2))
    8
    """
    return sum(weight.numel() for weight in _weights(module))


def parameter_bytes(module: nn.Module | None) -> int:
    """Bytes of the same numbers in the precision that they run in, scales of quantised weights not counted.

    >>> parameter_bytes(nn.Linear(3, 2).half())
    16
    """
    return sum(weight.numel() * weight.element_size() for weight in _weights(module))


def _weights(module: nn.Module | None) -> list[Tensor]:
    """Parameters, and weights and biases that torch's quantisation has packed."""
    if module is None:
        return []
    return [*module.parameters(), *(weight for part in module.modules() for weight in packed_weights(part))]


def real_time_factor(upstream: Upstream, seconds: float = 10.0, repeats: int = 5) -> float:
    """Seconds of computing per second of audio for one utterance: the median of ``repeats`` after one warm-up."""
    waves, lengths = noise(round(seconds * SAMPLE_RATE))
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        states = upstream.encode(waves, lengths).states
        if states[0].is_cuda:
            torch.cuda.synchronize(states[0].device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:]) / seconds


def bytes_on_disk(card: Card) -> int:
    """Size of the upstream's weight files; 0 where it has none."""
    place = weights_of(card)
    return 0 if place is None else sum(file.stat().st_size for file in weight_files(place))
