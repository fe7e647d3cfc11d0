"""A trial of a probe, and what becomes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class ProbeTrial:
    """One learning rate and one seed."""

    learning_rate: float
    seed: int


@dataclass
class TrialResult:
    """What became of one trial.

    Attributes:
        learning_rate: of the trial.
        seed: of the trial.
        curve: (step, dev score in percent) at each look at dev; ends where the trial diverged.
        best_step: step of the best dev score.
        dev: best dev score in percent; the metric's worst (infinite) for a diverged trial.
        layer_weights: softmax over states, at the best step.
        state: layer weights and head parameters at the best step, on the CPU.
        diverged: whether the outputs on dev stopped being finite.
        skipped: updates that were skipped since their gradient was not finite.
        notes: remarks for the record.
        fold: number of the fold that it was trained on (from 1), where there are folds.
        seconds: what the run of this and the other trials of its fold took, from its first update to its last,
            interruptions left out.
        encoded: seconds of audio that were encoded on demand for that run; what others had encoded is theirs.
    """

    learning_rate: float
    seed: int
    curve: list[tuple[int, float]]
    best_step: int
    dev: float
    layer_weights: list[float]
    state: dict[str, Tensor]
    diverged: bool = False
    skipped: int = 0
    notes: list[str] = field(default_factory=list)
    fold: int | None = None
    seconds: float = 0.0
    encoded: float = 0.0

    def as_row(self) -> dict[str, Any]:
        """JSON-able summary without weights; ``dev`` is null where the trial diverged."""
        return {
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            **({} if self.fold is None else {"fold": self.fold}),
            "dev": self.dev if math.isfinite(self.dev) else None,
            "best_step": self.best_step,
            "curve": [list(point) for point in self.curve],
            "diverged": self.diverged,
            "skipped": self.skipped,
        }
