"""KS: keyword spotting (protocol section 4.3, s3prl ``downstream/speech_commands``)."""

from __future__ import annotations

from downstreams.common import Classifier
from harness.interface import TrainingProtocol

KS = Classifier(
    name="ks",
    title="Keyword spotting",
    superb_labels=12,
    protocol=TrainingProtocol(
        steps=200_000,
        batch=32,
        optimizer="Adam",
        learning_rates=(1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
        clip=1.0,
        eval_every=5_000,
        balanced=True,
        drop_last=True,
        balanced_dev=True,
        effects=("gain -3",),
        max_seconds=1.0,  # only the six noise files are longer; s3prl cuts them anew at each access
        crops=500,
        crop_splits=("train", "dev"),
    ),
)
