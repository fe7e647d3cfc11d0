"""Small models of the lab's family in every shape, and a padded batch for them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from upstreams.students.mini import MiniConfig, MiniWavLM, Passage

BASE = MiniConfig(layers=3, width=16, ffn=24, head_width=4, mels=20, conv_kernel=5, buckets=16, max_distance=40)
PRUNED = replace(BASE, kept=((0, 1, 2, 3, 9, 11), (), (4, 5, 6, 7, 12, 13, 14, 15)), ffns=(10, 24, 0))
SHAPES = {
    "plain": BASE,
    "heads": replace(BASE, heads=2),
    "pruned": PRUNED,
    "reuse": replace(BASE, own_maps=(True, False, False)),
    "reuse-pruned": replace(BASE, own_maps=(True, False, True), kept=(tuple(range(16)), (4, 6, 12), (0, 1, 2, 3))),
    "reduced": replace(BASE, reduce=2),
    "compressed": replace(BASE, compress=True),
    "wav2vec2": replace(BASE, front="wav2vec2"),
    "nothing": replace(BASE, kept=((), (), ()), ffns=(0, 0, 0)),
}
LENGTHS = (8_000, 5_000, 3_001)


def model_of(config: MiniConfig, seed: int = 0) -> MiniWavLM:
    """A model with larger weights and no bias at 0, so that everything shows."""
    torch.manual_seed(seed)
    model = MiniWavLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    waves = torch.zeros(len(LENGTHS), max(LENGTHS))
    for row, length in enumerate(LENGTHS):
        waves[row, :length] = 0.1 * torch.randn(length, generator=generator)
    return waves, torch.tensor(LENGTHS)


def passage_of(model: MiniWavLM, **options) -> Passage:
    with torch.no_grad():
        return model.passage(*batch(), **options)


def close(left: Passage, right: Passage, atol: float = 1e-5) -> None:
    assert left.frames.tolist() == right.frames.tolist()
    for row, frames in enumerate(left.frames.tolist()):
        for a, b in zip(left.states, right.states, strict=True):
            torch.testing.assert_close(a[row, :frames], b[row, :frames], atol=atol, rtol=1e-4)
