"""How uncertain a sum of scores is: its variance from test speakers and from probe seeds, and Student's t on both.

The speakers are the same for all upstreams and are resampled together; the bootstrap understates the variance of a
mean over P of them by (P - 1) / P, which is put right. Probe seeds are drawn for each upstream by itself, so their
variances add up; with the few seeds that a record has, resampling them would understate it much more (of three it sees
two thirds, and knows nothing of its own uncertainty), so it is taken from the seeds' scores with one degree of freedom
less than seeds. The degrees of freedom of the sum are those of Satterthwaite, "An approximate distribution of
estimates of variance components", Biometrics Bulletin 2 (1946).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]

LEVEL = 0.05


@dataclass(frozen=True)
class Part:
    """One independent source of error: its variance in squared points, and the degrees of freedom that give it."""

    variance: float
    freedom: float

    def times(self, factor: float) -> Part:
        """The same source, of the score multiplied by a factor."""
        return Part(self.variance * factor**2, self.freedom)


def parts(
    weights: Mapping[str, float], draws: Mapping[str, Floats], seeds: Mapping[str, Sequence[float]], units: int
) -> tuple[Part, ...]:
    """The sources of error of a weighted sum of scores of one task.

    Args:
        weights: by upstream, its factor in the sum: ``{"a": 1.0, "b": -1.0}`` is a difference.
        draws: by upstream, (repeats,): its score, seeds averaged, on joint resamples of the speakers; NaN where none.
        seeds: by upstream, its score on the whole test set by seed. A lone seed tells nothing of the spread of seeds,
            which is then not in the result.
        units: number P of resampled speakers, at least 2.
    """
    total = np.sum([factor * draws[name] for name, factor in weights.items()], axis=0)
    known = total[~np.isnan(total)]
    speakers = float(known.var()) * units / (units - 1) if known.size else 0.0
    found = [Part(speakers, units - 1.0)]
    for name, factor in weights.items():
        count = len(seeds[name])
        if count > 1:
            found.append(Part(factor**2 * float(np.var(seeds[name], ddof=1)) / count, count - 1.0))
    return tuple(found)


def error(found: Iterable[Part]) -> float:
    """The standard error of a sum with these sources."""
    return math.sqrt(math.fsum(part.variance for part in found))


def freedom(found: Iterable[Part]) -> float:
    """Satterthwaite's degrees of freedom: V² / Σ (vᵢ² / fᵢ); infinite where there is no error at all."""
    listed = list(found)
    total = math.fsum(part.variance for part in listed)
    below = math.fsum(part.variance**2 / part.freedom for part in listed)
    return total**2 / below if below > 0.0 else math.inf


def critical(found: Iterable[Part], level: float = LEVEL) -> float:
    """The two-sided quantile of Student's t at ``level`` for these sources."""
    degrees = freedom(found)
    return float(stdtrit(min(degrees, 1e9), 1.0 - level / 2.0))


def interval(value: float, found: Sequence[Part], level: float = LEVEL) -> tuple[float, float]:
    """The t-interval around a measured value: value ± t · standard error."""
    half = critical(found, level) * error(found)
    return value - half, value + half


def differs(difference: float, found: Sequence[Part], level: float = LEVEL) -> bool:
    """Whether a measured difference is beyond its error at ``level``; one that never changes counts if it is not 0."""
    spread = error(found)
    if spread < 1e-9:
        return abs(difference) > 1e-9
    return abs(difference) > critical(found, level) * spread
