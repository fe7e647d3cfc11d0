"""Mean and deviation of log-mel over the training data, which every student of the lab divides by."""

from __future__ import annotations

import torch
from torch import Tensor

from upstreams.distillation.data.batches import Batches
from upstreams.students.gendistiller import GenDistiller
from upstreams.students.mini import MiniWavLM, remove_level, valid_mask


def clean_level(logmel: Tensor) -> Tensor:
    """Level-normalised log-mel of equal-length crops (B, T10, mels)."""
    lengths = torch.full((logmel.shape[0],), logmel.shape[1], device=logmel.device)
    return remove_level(logmel, valid_mask(lengths, logmel.shape[1]))


@torch.no_grad()
def fit_statistics(model: MiniWavLM | GenDistiller, batches: Batches, seed: int, draws: int = 40) -> None:
    """Set a model's mel mean and deviation from clean crops that training does not draw."""
    device = model.mel_mean.device
    waves = (batches.draw(20_000_000 + i, seed)[0].to(device) for i in range(draws))
    seen = [clean_level(model.front(wave)).flatten(0, 1) for wave in waves]
    level = torch.cat(seen)
    model.mel_mean.copy_(level.mean(0))
    model.mel_std.copy_(level.std(0))
