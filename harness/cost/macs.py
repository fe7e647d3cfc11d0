"""The multiply-accumulates of an upstream: per second of audio, and over SUPERB's 32 utterances.

One definition for both (:mod:`harness.cost.formulas`): the products of convolutions, linear layers, attention and
recurrent layers, in any precision, and Fourier transforms by formula. The profiler of SUPERB's leaderboard adds to that
elementwise work inside torch's fused attention: per layer, for T frames of width D and H heads, 3·T·D for the biases,
T·D for the scale and 4·H·T² for mask, softmax and dropout, which is 0.2 % of a base model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harness.cost.meter import Meter, Weights, plain_kernels
from harness.cost.shapes import Shape, ShapeMeter
from harness.interface import SAMPLE_RATE, SlimbenchError, Upstream
from harness.superb_lengths import BUCKETS


@dataclass(frozen=True)
class Macs:
    """What an upstream multiplies.

    Attributes:
        per_second: MACs per second of one utterance of 10 s.
        buckets: MACs over the utterances of each of SUPERB's buckets, one at a time.
        counted: ``shapes`` where only shapes went through the model, which gives what a pass over any audio of these
            lengths gives; ``passes`` where values decide what is computed, so that noise had to be encoded.
    """

    per_second: float
    buckets: Mapping[str, int]
    counted: Literal["shapes", "passes"]

    @property
    def total(self) -> int:
        """MACs over all 32 utterances."""
        return sum(self.buckets.values())


def count_macs(upstream: Upstream, seconds: float = 10.0) -> float:
    """MACs per second of audio, counted on one utterance of ``seconds`` of noise.

    Attention grows with the square of the length, so the figure holds for that length.

    Raises:
        SlimbenchError: the upstream has parts that cannot be counted: an operator without a known cost, or a weight
            matrix that the pass never read.
    """
    return _checked_pass(upstream, round(seconds * SAMPLE_RATE)) / seconds


def count_superb_macs(upstream: Upstream, buckets: Mapping[str, tuple[int, ...]] = BUCKETS) -> Macs:
    """MACs over utterances of SUPERB's lengths, and per second of 10 s.

    A pass over noise of 10 s is counted first, and every weight matrix must be read in it. The lengths are then counted
    on shapes alone, if that gives the same for 10 s as the pass did; else in passes over noise, which takes as long as
    encoding all of it.

    Args:
        upstream: what is counted.
        buckets: lengths in samples, by the name of their bucket.

    Raises:
        SlimbenchError: as :func:`count_macs`.
    """
    samples = 10 * SAMPLE_RATE
    macs = _checked_pass(upstream, samples)
    by_shape = _shape_pass(upstream, samples) == macs
    found: dict[str, int] = {}
    for name, lengths in buckets.items():
        counts = [_shape_pass(upstream, length) if by_shape else _pass(upstream, length) for length in lengths]
        if None in counts:  # values decide at this length only
            return _by_passes(upstream, buckets, macs)
        found[name] = sum(count for count in counts if count is not None)
    return Macs(macs / 10, found, "shapes" if by_shape else "passes")


def _by_passes(upstream: Upstream, buckets: Mapping[str, tuple[int, ...]], macs: int) -> Macs:
    found = {name: sum(_pass(upstream, length) for length in lengths) for name, lengths in buckets.items()}
    return Macs(macs / 10, found, "passes")


def _checked_pass(upstream: Upstream, samples: int) -> int:
    """MACs of a pass over noise in which every weight matrix is read."""
    weights = Weights(upstream.module())
    macs = _pass(upstream, samples, weights)
    if untouched := sorted(weights.names - weights.read):
        raise SlimbenchError(
            f"The MACs of {upstream.name} cannot be counted: its forward pass never touches {untouched[0]} "
            f"({len(untouched)} such weights); expose only the module that computes the states."
        )
    return macs


def _pass(upstream: Upstream, samples: int, weights: Weights | None = None) -> int:
    """MACs of a pass over noise."""
    waves, lengths = noise(samples)
    meter = Meter(upstream.name, weights or Weights(None))
    try:
        with torch.no_grad(), plain_kernels(), meter.weights.watch_packed(), meter:
            upstream.encode(waves, lengths)
    except Exception as error:
        if meter.refusal is not None:
            raise meter.refusal from error
        raise
    return meter.macs


def _shape_pass(upstream: Upstream, samples: int) -> int | None:
    """MACs of a pass over shapes; ``None`` where the upstream needs values."""
    waves = Shape(torch.empty(1, samples, device="meta"), torch.device("cpu"))
    meter = ShapeMeter(upstream.name, Weights(None))
    try:
        with torch.no_grad(), plain_kernels(), meter:
            upstream.encode(waves, torch.tensor([samples]))
    except Exception:  # whatever foreign code raises on a tensor without values: a real pass tells, and may refuse
        return None
    return meter.macs


def noise(samples: int) -> tuple[Tensor, Tensor]:
    """One utterance of noise: waves (1, samples) and its length (1,)."""
    waves = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
    return waves, torch.tensor([samples])
