"""The seven tasks with the same data for both sides: stored states, targets, our head and s3prl's expert."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import s3prl_side
import torch
from torch import Tensor, nn

from downstreams.asr import ASR
from downstreams.asv import ASV
from downstreams.er import ER
from downstreams.ic import IC
from downstreams.ks import KS
from downstreams.pr import PR, SPECIAL
from downstreams.sid import SID
from harness.interface import Labels, Manifest, Split, Trial, Utterance

TASKS: dict[str, Any] = {"asr": ASR, "pr": PR, "ks": KS, "ic": IC, "sid": SID, "asv": ASV, "er": ER}
LAYERS, WIDTH = 4, 20
UTTERANCES = 40
SMALL = {
    **{name: {"project": 12} for name in ("ks", "ic", "sid", "er", "pr")},
    "asr": {"project": 14, "hidden": 10},
    "asv": {"project": 14, "channels": 14, "pool": 20, "embed": 14},
}
CLASSES = {"ks": 12, "ic": 24, "sid": 15, "er": 4, "pr": 20, "asr": 32, "asv": 11}
"""Small where s3prl takes the number from the data, its own where not."""


@dataclass
class Case:
    """One task on both sides, with the same weights."""

    name: str
    labels: Labels
    manifest: Manifest
    states: list[Tensor]
    targets: list[list[int]]
    head: nn.Module
    expert: nn.Module
    upstream: s3prl_side.StoredStates
    featurizer: Any
    width: int
    num_states = LAYERS
    frame_ms = 20.0

    @property
    def task(self) -> Any:
        """Our task."""
        return TASKS[self.name]

    def frames(self, utterance: str) -> Tensor:
        """The states of an utterance (L, T, D), as a feature source gives them."""
        return self.states[int(utterance[1:])]

    @property
    def stored(self) -> bool:
        """The states are there."""
        return True

    def fetch(self, ids: Sequence[str]) -> list[Tensor]:
        """The states of some utterances."""
        return [self.frames(utterance) for utterance in ids]

    def num_frames(self, utterance: str) -> int:
        """T of an utterance."""
        return self.frames(utterance).shape[1]

    def pooled(self, ids: Sequence[str]) -> Tensor:
        """Time means (N, L, D)."""
        return torch.stack([self.frames(name).mean(1) for name in ids])

    def batch(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Padded states (L, B, T, D) and lengths (B,)."""
        parts = [self.states[i].transpose(0, 1) for i in places]
        padded = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True).permute(2, 0, 1, 3)
        return padded.contiguous(), torch.tensor([len(part) for part in parts])

    def waves(self, places: Sequence[int]) -> list[Tensor]:
        """What s3prl's data loader gives for these utterances."""
        return [self.upstream.wave(i) for i in places]

    def features(self, places: Sequence[int]) -> list[Tensor]:
        """Mixed features as s3prl's runner makes them: upstream, then featurizer."""
        waves = self.waves(places)
        found: list[Tensor] = self.featurizer(waves, self.upstream(waves))
        return found


def make(name: str, folder: Path, equal: bool = False, width: int = WIDTH) -> Case:
    """A case with copied weights; ``equal`` lengths where the padding of s3prl's ASV would matter."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(18, 45, (UTTERANCES,), generator=draw).tolist()
    if equal:
        lengths = [30] * UTTERANCES
    states = [0.7 * torch.randn(LAYERS, length, width, generator=draw) + 0.3 for length in lengths]
    labels = _labels(name)
    manifest = _manifest(name, labels, draw)
    torch.manual_seed(1)
    expert = s3prl_side.expert(name, width, folder, SMALL[name], CLASSES[name])
    head = TASKS[name].head(width, labels.size, SMALL[name])
    s3prl_side.copied(name, head, expert)
    upstream = s3prl_side.StoredStates(states)
    targets = [TASKS[name].target(row, labels) for row in manifest.split("train")]
    featurizer = s3prl_side.featurizer(upstream)
    return Case(name, labels, manifest, states, targets, head, expert, upstream, featurizer, width)


def with_trials(manifest: Manifest, pairs: Sequence[tuple[bool, str, str]]) -> Manifest:
    """``manifest`` with every utterance in test, and trials of them."""
    rows = tuple(dataclasses.replace(row, split="test") for row in manifest.split("train"))
    return dataclasses.replace(manifest, utterances=rows, trials={"test": tuple(Trial(*pair) for pair in pairs)})


def _labels(name: str) -> Labels:
    if name == "asr":
        return ASR.labels(Manifest("asr", Path("manifest.csv"), ()))
    if name == "pr":
        return Labels(((*SPECIAL, *(f"P{i}" for i in range(CLASSES["pr"] - len(SPECIAL)))),))
    if name == "ic":
        return Labels(tuple(tuple(f"{slot}{i}" for i in range(size)) for slot, size in enumerate(s3prl_side.SLOTS)))
    return Labels((tuple(f"c{i:02d}" for i in range(CLASSES[name])),))


def _manifest(name: str, labels: Labels, draw: torch.Generator) -> Manifest:
    """Training rows u0, u1 …; dev and test repeat two of them, which nothing here scores."""

    def pick(values: Sequence[str], count: int) -> list[str]:
        return [values[i] for i in torch.randint(len(values), (count,), generator=draw).tolist()]

    rows = []
    for i in range(UTTERANCES):
        label, text = "|".join(pick(values, 1)[0] for values in labels.slots), ""
        size = int(torch.randint(2, 9, (1,), generator=draw))
        if name == "pr":
            label = " ".join(pick(labels.slots[0][len(SPECIAL) :], size))
        if name == "asr":
            label, text = "", " ".join("".join(pick("ABC'", 2)) for _ in range(1 + size // 3))
        rows.append(Utterance(f"u{i}", "train", Path(f"u{i}.wav"), "", text, label, None, 1.0, i + 2))
    later: tuple[Split, ...] = ("dev", "dev", "test", "test")
    for i, split in enumerate(later):
        rows.append(dataclasses.replace(rows[i], split=split))
    both = (Trial(True, "u0", "u0"), Trial(False, "u0", "u1"))
    trials: Any = {"dev": both, "test": both} if name == "asv" else {}
    return Manifest(name, Path("manifest.csv"), tuple(rows), trials, f"parity-{name}")
