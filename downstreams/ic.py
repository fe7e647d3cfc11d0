"""IC: intent classification in three slots (protocol section 4.4, s3prl ``downstream/fluent_commands``)."""

from __future__ import annotations

from downstreams.common import Classifier
from harness.interface import TrainingProtocol


class IntentClassification(Classifier):
    """Labels are ``action|object|location``; an utterance is right if and only if all three are."""

    slots = 3


IC = IntentClassification(
    name="ic",
    title="Intent classification",
    superb_labels=24,
    protocol=TrainingProtocol(
        steps=200_000,
        batch=32,
        optimizer="Adam",
        learning_rates=(1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
        clip=1.0,
        eval_every=5_000,
    ),
)
