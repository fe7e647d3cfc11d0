"""A feature source with known content and manifests to go with it, for tests of the probe."""

from pathlib import Path

import torch

from harness.interface import Manifest, Trial, Utterance


class ToyFeatures:
    """Features in memory; state ``telling`` holds the label's direction, the other states are noise."""

    stored = True

    def __init__(self, manifest, num_states=3, width=10, frames=(20, 40), telling=1, noise=1.0):
        self.num_states, self.width, self.frame_ms = num_states, width, 20.0
        draw = torch.Generator().manual_seed(0)
        directions = {}
        self.store = {}
        for utterance in manifest.utterances:
            length = int(torch.randint(*frames, (1,), generator=draw))
            x = noise * torch.randn(num_states, length, width, generator=draw)
            symbols = utterance.label.split() or [utterance.label]
            for i, symbol in enumerate(symbols):
                if symbol not in directions:
                    directions[symbol] = 3.0 * torch.randn(width, generator=draw)
                part = slice(i * length // len(symbols), (i + 1) * length // len(symbols))
                x[telling, part] += directions[symbol]
            self.store[utterance.id] = x.half()

    def pooled(self, ids):
        return torch.stack([self.store[name].float().mean(1) for name in ids])

    def frames(self, utterance_id):
        return self.store[utterance_id]

    def fetch(self, ids):
        return [self.frames(name) for name in ids]

    def num_frames(self, utterance_id):
        return self.store[utterance_id].shape[1]


def toy_manifest(task, labels, counts=(40, 12, 12)):
    """``labels(i)`` is the label of the i-th utterance of each split; the ASV trials pair neighbours."""
    made = []
    for split, count in zip(("train", "dev", "test"), counts, strict=True):
        for i in range(count):
            name = f"{split}{i}"
            row = len(made) + 2
            made.append(Utterance(name, split, Path(f"{name}.wav"), f"s{i}", "A B", labels(i), None, 0.6, row))
    trials = {
        split: tuple(
            Trial(labels(i) == labels(j), f"{split}{i}", f"{split}{j}") for i in range(count) for j in range(i)
        )
        for split, count in (("dev", counts[1]), ("test", counts[2]))
    }
    return Manifest(task, Path("manifest.csv"), tuple(made), trials if task == "asv" else {}, f"digest-{task}")
