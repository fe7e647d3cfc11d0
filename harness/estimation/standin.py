"""Stand-ins for what is not there when a plan is made: features that are not yet computed, data that nobody has.

They have the shapes of the real thing, so that a head takes as long over them; what they hold is noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from harness.head import Head
from harness.interface import (
    SPLITS,
    Labels,
    Manifest,
    PlainTask,
    Prediction,
    Row,
    Split,
    Task,
    Trial,
    Upstream,
    Utterance,
)

SYMBOLS_PER_SECOND = 14.0
"""Characters per second of read English; phones are fewer, about 11."""
SAMPLE: Mapping[Split, int] = {"train": 1_000, "dev": 128, "test": 128}
"""Utterances of a stand-in manifest."""
TRIALS = 8
"""Verification trials per utterance; VoxCeleb1's test list has as many."""


class NoiseFeatures:
    """Features of given shape, a :class:`harness.interface.FeatureSource` that holds noise.

    Args:
        upstream: states, width and frame rate.
        dtype: stored precision of frames.
        frames: per utterance.
    """

    stored = True

    def __init__(self, upstream: Upstream, dtype: torch.dtype, frames: Mapping[str, int]) -> None:
        self.num_states, self.width, self.frame_ms = upstream.num_states, upstream.width, upstream.frame_ms
        self._frames = frames
        self._draw = torch.Generator().manual_seed(0)
        shape = (self.num_states, max(frames.values()), self.width)
        self._noise = torch.randn(shape, generator=self._draw).to(dtype)

    def pooled(self, ids: Sequence[str]) -> Tensor:
        """Means (N, L, D) float32."""
        return torch.randn(len(ids), self.num_states, self.width, generator=self._draw)

    def frames(self, utterance_id: str) -> Tensor:
        """States (L, T, D)."""
        return self._noise[:, : self._frames[utterance_id]]

    def fetch(self, ids: Sequence[str]) -> list[Tensor]:
        """States (L, T, D) of some utterances."""
        return [self.frames(name) for name in ids]

    def num_frames(self, utterance_id: str) -> int:
        """T of one utterance."""
        return self._frames[utterance_id]


class StandIn(PlainTask):
    """A task on a stand-in manifest: its head, loss and decoder, on targets that are written in the rows as numbers.

    Args:
        task: the real one.
        labels: of the size that the head is to have.
    """

    def __init__(self, task: Task, labels: Labels) -> None:
        self.name, self.title, self.metric, self.secondary = task.name, task.title, task.metric, task.secondary
        self.need, self.protocol, self.superb_labels = task.need, task.protocol, task.superb_labels
        self.croppable = task.croppable
        self._task, self._labels = task, labels

    def labels(self, manifest: Manifest) -> Labels:
        """Numbers."""
        return self._labels

    def head(self, width: int, classes: int, sizes: Mapping[str, int]) -> Head:
        """That of the task."""
        return self._task.head(width, classes, sizes)

    def target(self, utterance: Utterance, labels: Labels) -> list[int]:
        """The numbers in the row."""
        return [int(word) for word in utterance.text.split()]

    def loss(self, output: Tensor, lengths: Tensor, targets: Sequence[Sequence[int]], labels: Labels) -> Tensor:
        """That of the task."""
        return self._task.loss(output, lengths, targets, labels)

    def predict(self, output: Tensor, lengths: Tensor, labels: Labels) -> list[Prediction]:
        """That of the task."""
        return self._task.predict(output, lengths, labels)

    def rows(
        self, manifest: Manifest, split: Split, predictions: Mapping[str, Prediction], labels: Labels
    ) -> list[Row]:
        """Trials as the task scores them, and texts against the numbers of the row."""
        if manifest.trials:
            return self._task.rows(manifest, split, predictions, labels)
        return [
            {"id": row.id, "speaker": row.speaker, "ref": row.text, "hyp": predictions[row.id]}
            for row in manifest.split(split)
        ]


def stand_in_manifest(
    task: Task, labels: Labels, means: Mapping[Split, float], rows: Mapping[Split, int], verifies: bool
) -> Manifest:
    """A small manifest with the given mean seconds per split, lengths spread evenly from half to one and a half of it.

    Args:
        task: which it is for.
        labels: whose number bounds the targets.
        means: seconds per utterance of each split.
        rows: utterances per split; a sample has at most :data:`SAMPLE`.
        verifies: whether the task is scored on trials.
    """
    made, draw = [], torch.Generator().manual_seed(0)
    for split in SPLITS:
        count = max(2, min(SAMPLE[split], rows[split]))
        for number, place in enumerate(torch.randperm(count, generator=draw).tolist()):
            seconds = means[split] * (0.5 + (place + 0.5) / count)
            symbols = 1 if task.need == "pooled" or verifies else max(1, round(seconds * SYMBOLS_PER_SECOND))
            picked = torch.randint(min(1, labels.size - 1), labels.size, (symbols,), generator=draw).tolist()
            text = "" if verifies and split != "train" else " ".join(map(str, picked))
            name = f"{split}{number}"
            made.append(Utterance(name, split, Path(f"{name}.wav"), f"s{number % 40}", text, "", None, seconds, 0))
    trials: dict[Split, tuple[Trial, ...]] = {}
    for split in ("dev", "test") if verifies else ():
        names = [row.id for row in made if row.split == split]
        trials[split] = tuple(
            Trial((step + place) % 2 == 0, name, names[(place + 7 * step + 1) % len(names)])
            for step in range(TRIALS)
            for place, name in enumerate(names)
        )
    return Manifest(task.name, Path(f"sizes of {task.name}"), tuple(made), trials)
