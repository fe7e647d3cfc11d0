"""ER: emotion recognition (protocol section 4.6, s3prl ``downstream/emotion``). One fold is one manifest."""

from __future__ import annotations

from downstreams.common import Classifier
from harness.interface import TrainingProtocol

ER = Classifier(
    name="er",
    title="Emotion recognition",
    superb_labels=4,
    protocol=TrainingProtocol(
        steps=30_000,
        batch=4,
        accumulate=8,
        optimizer="Adam",
        learning_rates=(1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
        clip=1.0,
        eval_every=1_000,
    ),
)
