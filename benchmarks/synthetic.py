"""Made-up features, manifests and audio of any size, for benchmarks that need no corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from harness.interface import Manifest, Utterance

LABELS: dict[str, Callable[[int], str]] = {
    "ks": lambda i: f"word{i % 12}",
    "ic": lambda i: f"{'abcdef'[i % 6]}|{'abcdefghijklmn'[i % 14]}|{'abcd'[i % 4]}",
    "pr": lambda i: " ".join(("P", "T", "K", "AA", "IY", "S")[(i + k) % 6] for k in range(24)),
    "asv": lambda i: f"speaker{i % 20}",
    "sid": lambda i: f"speaker{i % 1251}",
    "er": lambda i: ("neu", "hap", "ang", "sad")[i % 4],
}
"""A label for the i-th utterance."""


class MadeFeatures:
    """Random features in memory. A :class:`harness.interface.FeatureSource`."""

    stored = True
    frame_ms = 20.0

    def __init__(self, num_states: int, width: int, frames: int) -> None:
        self.num_states, self.width = num_states, width
        self._states = torch.randn(num_states, frames, width, dtype=torch.float16)

    def pooled(self, ids: Sequence[str]) -> Tensor:
        """(N, L, D) float32."""
        return torch.randn(len(ids), self.num_states, self.width)

    def frames(self, utterance_id: str) -> Tensor:
        """(L, T, D) float16, the same for all."""
        return self._states

    def fetch(self, ids: Sequence[str]) -> list[Tensor]:
        """(L, T, D) each."""
        return [self._states] * len(ids)

    def num_frames(self, utterance_id: str) -> int:
        """T."""
        return self._states.shape[1]


def manifest(task: str, counts: tuple[int, int, int], seconds: float, folder: Path | None = None) -> Manifest:
    """Utterances of equal length, ``counts`` of them in train, dev and test; audio files lie in ``folder``."""
    label = LABELS.get(task, lambda i: "")
    rows: list[Utterance] = []
    for split, count in zip(("train", "dev", "test"), counts, strict=True):
        for i in range(count):
            file = (folder or Path()) / f"{split}{i}.wav"
            text = "the quick brown fox"
            rows.append(Utterance(file.stem, split, file, f"s{i}", text, label(i), None, seconds, len(rows) + 2))
    return Manifest(task, (folder or Path()) / "manifest.csv", tuple(rows), {}, f"made {task} {counts} {seconds}")
