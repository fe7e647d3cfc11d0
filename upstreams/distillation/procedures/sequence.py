"""Once-for-all sequence compression (arXiv 2211.02332): one student for all frame periods from 20 to 90 ms.

Each step draws a frame period, equally distributed (``uniform-fr`` of the paper's code), and the compression that aims
at it; terms see the segments' states repeated on the grid of 20 ms. The weights of integrate-and-fire are guided by
segments: those of the paper come from wav2vec-U, ours from changes of the log-mel spectrum or of teacher units, see
:mod:`upstreams.distillation.procedures.segments`. Guidance is of the weights before they are mixed for a compression.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from harness.interface import SlimbenchError
from upstreams.distillation.procedures import segments
from upstreams.distillation.procedures.base import Procedure, between, typed
from upstreams.distillation.terms.base import Result, View
from upstreams.distillation.units import Codebook
from upstreams.students import cif
from upstreams.students.mini import LogMel, MiniWavLM

GUIDES = ("novelty", "units", "none")
FIT_BATCHES, FIT_FRAMES = 8, 20_000
MELS = 40


@dataclass(frozen=True)
class SequenceSettings:
    """Settings of :class:`Sequence`.

    Attributes:
        shortest: least frame period that is drawn, milliseconds.
        longest: greatest one.
        guidance: ``novelty``: segments between the strongest changes of the log-mel spectrum; ``units``: runs of equal
            k-means units of a teacher state; ``none``.
        frame_weight: weight of the distance of weights to those of segments, frame by frame.
        segment_weight: weight of the distance of their running sum to the number of segments.
        period: mean length of ``novelty`` segments, milliseconds; 90 is what unmixed weights aim at.
        units: number of units.
        layer: teacher state that they are found in, -1 for the last.
    """

    shortest: float = 20.0
    longest: float = 90.0
    guidance: str = "novelty"
    frame_weight: float = 0.5
    segment_weight: float = 0.05
    period: float = 90.0
    units: int = 50
    layer: int = -1

    def __post_init__(self) -> None:
        between("shortest", self.shortest, 20.0, 90.0)
        between("longest", self.longest, self.shortest, 90.0)
        between("period", self.period, 40.0, 1000.0)
        between("units", self.units, 2, 10_000)
        for name in ("frame_weight", "segment_weight"):
            between(name, getattr(self, name), 0.0, 1e6)
        if self.guidance not in GUIDES:
            raise ValueError(f"guidance {self.guidance!r} is none of {', '.join(GUIDES)}")


class Sequence(Procedure):
    """Draws a frame period per step and guides where segments end.

    Args:
        values: see :class:`SequenceSettings`.
        model: the student, which compresses (``compress: true`` in its shape).

    Raises:
        SlimbenchError: a setting is faulty, or the student does not compress.
    """

    codebook: Codebook | None

    def __init__(self, values: Mapping[str, Any], model: MiniWavLM) -> None:
        super().__init__()
        self.settings = typed("sequence", SequenceSettings, values)
        if not model.config.compress:
            raise SlimbenchError(
                "procedure sequence: the student does not compress; write compress: true in its shape."
            )
        self.front = LogMel(MELS)
        self.codebook = None
        self.observes = self.settings.guidance == "units"
        self.fits = FIT_BATCHES if self.observes else 0
        self._teacher: View | None = None
        self._penalty: Result | None = None

    def fit(self, views: Iterable[View]) -> None:
        """Fit the units to a teacher's states."""
        states = [(view.states[self.settings.layer], view.mask) for view in views]
        frames = torch.cat([state[mask] for state, mask in states]).float()
        every = max(1, len(frames) // FIT_FRAMES)
        book = Codebook.fit(frames[::every].cpu().numpy(), self.settings.units, seed=0)
        self.codebook = book.to(frames.device)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        """Make room for the codebook of a checkpoint, whose width only the teacher knew."""
        centroids = state_dict.get(f"{prefix}codebook.centroids")
        if centroids is not None and self.codebook is None:
            self.codebook = Codebook(*centroids.shape).to(self.front.window.device)
        super()._load_from_state_dict(state_dict, prefix, *others)

    def observe(self, teacher: View) -> None:
        """Keep the teacher's view of the batch for its units."""
        self._teacher = teacher

    def view(
        self,
        student: MiniWavLM,
        waves: Tensor,
        lengths: Tensor,
        masked: Tensor | None,
        step: int,
        progress: float,
        rng: np.random.Generator,
        maps: bool = False,
    ) -> View:
        """The student at this step's frame period, its states repeated over the frames that they stand for.

        Raises:
            SlimbenchError: a term asks for attention maps, which are between segments.
        """
        if maps:
            raise SlimbenchError(
                "procedure sequence: attention maps are between segments, so that no term can compare them with a "
                "teacher's; leave such terms out."
            )
        period = rng.uniform(self.settings.shortest, self.settings.longest)
        passage = student.passage(waves, lengths, masked=masked, lam=cif.lambda_of(period))
        states, frames = passage.repeated()
        assert passage.weights is not None  # noqa: S101
        reached = 20.0 * float(frames.sum()) / float(passage.frames.sum())
        self._penalty = self._guide(waves, passage.weights, frames, {"period_asked": period, "period": reached})
        self._teacher = None
        return View(tuple(states), frames)

    def _guide(self, waves: Tensor, weights: Tensor, frames: Tensor, figures: dict[str, float]) -> Result:
        """The weighted distances of integrate-and-fire weights (B, T) from the batch's segments."""
        if self.settings.guidance == "none":
            return Result(weights.new_zeros(()), figures)
        boundaries = self.boundaries(waves, frames, weights.shape[1])
        by_frame, by_segment = segments.guidance(weights, boundaries, frames)
        figures |= {"guide_frames": float(by_frame.detach()), "guide_segments": float(by_segment.detach())}
        return Result(self.settings.frame_weight * by_frame + self.settings.segment_weight * by_segment, figures)

    @torch.no_grad()
    def boundaries(self, waves: Tensor, frames: Tensor, total: int) -> Tensor:
        """Where segments begin, (B, total) bool, of waveforms (B, S) with (B,) valid frames of 20 ms."""
        if self.settings.guidance == "novelty":
            strength = fitted(segments.novelty(self.front(waves)), total)
            return segments.peaks(strength, frames, self.settings.period / 20.0)
        if self.codebook is None or self._teacher is None:
            raise SlimbenchError(
                "procedure sequence: guidance by units needs a fitted codebook and the teacher's view; "
                "call fit and observe first."
            )
        units = self.codebook(self._teacher.states[self.settings.layer].float())
        return segments.changes(fitted(units, total), frames)

    def penalty(self, step: int, progress: float) -> Result | None:
        """The guidance of the view made last."""
        found, self._penalty = self._penalty, None
        return found


def fitted(x: Tensor, frames: int) -> Tensor:
    """Values (B, T) of frames, cut to ``frames`` of them or with the last one repeated."""
    if x.shape[1] >= frames:
        return x[:, :frames]
    padded = functional.pad(x[:, None].double(), (0, frames - x.shape[1]), mode="replicate")
    return padded[:, 0].to(x.dtype)
