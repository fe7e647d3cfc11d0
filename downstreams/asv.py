"""ASV: speaker verification by an x-vector and AM-softmax (protocol section 4.7, s3prl ``downstream/sv_voxceleb1``).

SUPERB has no dev set here and reports the lowest test error of ten checkpoints; this task chooses on dev trials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from downstreams.common import build, places
from harness.interface import (
    Labels,
    Manifest,
    Need,
    PlainTask,
    Prediction,
    Row,
    SlimbenchError,
    Split,
    TrainingProtocol,
    Utterance,
)

if TYPE_CHECKING:
    from torch import Tensor

    from harness.head import Head


class SpeakerVerification(PlainTask):
    """Train speakers are classes; trials are scored by the cosine of two embeddings, reported as EER."""

    name = "asv"
    title = "Automatic speaker verification"
    metric = "eer"
    secondary: tuple[str, ...] = ()
    need: Need = "frames"
    protocol = TrainingProtocol(
        steps=200_000,
        batch=10,
        accumulate=5,
        batching="shuffled",
        optimizer="AdamW",
        learning_rates=(1e-5, 3e-5, 1e-4, 3e-4, 1e-3),
        clip=1000.0,
        eval_every=20_000,
        max_seconds=8.0,
        min_seconds=2.0,
        effects=("gain -3", "silence 1 0.1 0.1% -1 0.1 0.1%"),
        looks_on_test=True,
    )
    superb_labels = 1211

    def labels(self, manifest: Manifest) -> Labels:
        """The speakers of the train split, sorted."""
        return Labels((tuple(sorted({speaker(utterance) for utterance in manifest.split("train")})),))

    def head(self, width: int, classes: int, sizes: Mapping[str, int]) -> Head:
        """:class:`downstreams.heads.SpeakerHead`; sizes ``project``, ``channels``, ``pool`` and ``embed``."""
        return build("SpeakerHead", width, classes, sizes)

    def target(self, utterance: Utterance, labels: Labels) -> list[int]:
        """Index of the speaker; none outside of train, where speakers are new.

        Raises:
            SlimbenchError: a training utterance of an unknown speaker.
        """
        if utterance.split != "train":
            return []
        place = places(labels.slots[0]).get(speaker(utterance))
        if place is None:
            raise SlimbenchError(f"the train split has no speaker '{speaker(utterance)}'; correct the row.")
        return [place]

    def loss(self, output: Tensor, lengths: Tensor, targets: Sequence[Sequence[int]], labels: Labels) -> Tensor:
        """AM-softmax per item (N,) of scaled cosines (N, speakers): cross entropy with the own cosine lowered."""
        import torch
        import torch.nn.functional as F

        from downstreams.heads import SpeakerHead

        index = torch.as_tensor([target[0] for target in targets], device=output.device)
        own = F.one_hot(index, output.shape[-1]).to(output.dtype)
        return F.cross_entropy(output - SpeakerHead.scale * SpeakerHead.margin * own, index, reduction="none")

    def predict(self, output: Tensor, lengths: Tensor, labels: Labels) -> list[Prediction]:
        """Unit embeddings as lists of floats."""
        return list(output.tolist())

    def rows(
        self, manifest: Manifest, split: Split, predictions: Mapping[str, Prediction], labels: Labels
    ) -> list[Row]:
        """One row per trial of the split, with the cosine of its two embeddings.

        Raises:
            SlimbenchError: the split has no trials, or a trial names an utterance without an embedding.
        """
        import numpy as np

        trials = manifest.trials.get(split, ())
        if not trials:
            raise SlimbenchError(f"{manifest.file} has no {split} trials; add trials_{split}.txt beside it.")
        speakers = {utterance.id: speaker(utterance) for utterance in manifest.split(split)}
        place = {name: index for index, name in enumerate(predictions)}
        for trial in trials:
            for name in (trial.enrol, trial.test):
                if name not in place or name not in speakers:
                    raise SlimbenchError(f"A {split} trial names {name}, which {manifest.file} has not in {split}.")
        vectors = np.asarray([predictions[name] for name in place], dtype=np.float32)
        enrol = vectors[[place[trial.enrol] for trial in trials]]
        test = vectors[[place[trial.test] for trial in trials]]
        scores = (enrol * test).sum(-1)
        return [
            {
                "enrol": trial.enrol,
                "test": trial.test,
                "speakers": [speakers[trial.enrol], speakers[trial.test]],
                "same": trial.same,
                "score": float(score),
            }
            for trial, score in zip(trials, scores, strict=True)
        ]


def speaker(utterance: Utterance) -> str:
    """Who speaks: the label, or the speaker column where the label is empty."""
    return utterance.label or utterance.speaker


ASV = SpeakerVerification()
