"""SID: speaker identification (protocol section 4.5, s3prl ``downstream/voxceleb1``)."""

from __future__ import annotations

from collections.abc import Sequence

from downstreams.common import Classifier
from harness.interface import TrainingProtocol


class SpeakerIdentification(Classifier):
    """Classes are the speakers, sorted, as SUPERB numbers them by their VoxCeleb id."""

    def order(self, values: Sequence[str]) -> tuple[str, ...]:
        """The speakers, sorted."""
        return tuple(sorted(set(values)))


SID = SpeakerIdentification(
    name="sid",
    title="Speaker identification",
    superb_labels=1251,
    protocol=TrainingProtocol(
        steps=200_000,
        batch=8,
        accumulate=4,
        optimizer="Adam",
        learning_rates=(1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        clip=1.0,
        eval_every=5_000,
        max_seconds=8.0,
        crops=4,  # as many as s3prl sees of an utterance, see harness/adapt.py
    ),
)
