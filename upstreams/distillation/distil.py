"""Distillation of a smaller :class:`MiniWavLM` from a trained one: layer to layer, L1 plus cosine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.identity import digest_json, digest_tensors
from upstreams.distillation import files, pool
from upstreams.distillation.batches import Batches, Mixing, hours
from upstreams.distillation.loop import Loop, rank_and_world
from upstreams.students.mini import MiniConfig, MiniWavLM


@dataclass(frozen=True)
class Distillation:
    """Settings of one student.

    Attributes:
        config: shape of the student.
        steps: optimiser updates.
        pairs: (student state, teacher state) pairs; state 0 is before the first layer.
        copy_layers: teacher layers whose weights the student's layers start from; empty for random. Needs equal width.
        cosine: weight of -log sigmoid(cosine) beside the L1 term (DistilHuBERT's loss).
        lr: peak learning rate.
        seconds: audio per update.
        real: share of real speech among the crops.
    """

    config: MiniConfig
    steps: int
    pairs: tuple[tuple[int, int], ...]
    copy_layers: tuple[int, ...] = ()
    cosine: float = 1.0
    lr: float = 1e-3
    seconds: float = 24.0
    real: float = 0.4
    seed: int = 0
    mixing: Mixing = field(default_factory=Mixing)


class Student(nn.Module):
    """The student encoder with one throw-away linear head per matched state."""

    def __init__(self, settings: Distillation, teacher_width: int) -> None:
        super().__init__()
        self.encoder = MiniWavLM(settings.config)
        self.heads = nn.ModuleList(nn.Linear(settings.config.width, teacher_width) for _ in settings.pairs)


def copy_weights(student: MiniWavLM, teacher: MiniWavLM, layers: tuple[int, ...]) -> None:
    """Start the student from the teacher's front end and chosen layers (DistilHuBERT copies the first ones)."""
    student.mel_mean.copy_(teacher.mel_mean)
    student.mel_std.copy_(teacher.mel_std)
    if not layers:
        return
    old = teacher.state_dict()
    new = {k: v for k, v in old.items() if not k.startswith("layers.")}
    for index, source in enumerate(layers):
        prefix = f"layers.{source}."
        new |= {f"layers.{index}." + k[len(prefix) :]: v for k, v in old.items() if k.startswith(prefix)}
    student.load_state_dict(new)


def pair_loss(predicted: Tensor, target: Tensor, cosine: float) -> tuple[Tensor, Tensor]:
    """L1 distance and cosine term between (B, T, D) tensors; returns the loss and the mean cosine."""
    similarity = functional.cosine_similarity(predicted, target, dim=-1)
    loss = functional.l1_loss(predicted, target) - cosine * functional.logsigmoid(similarity).mean()
    return loss, similarity.mean()


def identity(settings: Distillation, teacher: MiniWavLM, shards: Sequence[Path]) -> str:
    """Digest of what decides a run's outcome: settings, the teacher's weights and the shards."""
    teaches = digest_tensors(teacher.state_dict())
    return digest_json({"settings": asdict(settings), "teacher": teaches, "pool": pool.identity(shards)})


def run(settings: Distillation, teacher: MiniWavLM, shards: Sequence[Path], folder: Path) -> MiniWavLM:
    """Distil, resumably; returns the trained student and leaves ``state.pt`` and ``curve.jsonl``.

    Raises:
        SlimbenchError: ``folder`` holds a run with other settings, data or teacher.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if rank_and_world()[0] == 0:
        files.note_start(folder)
    torch.manual_seed(settings.seed)
    teacher = teacher.eval().requires_grad_(False)
    batches = Batches(pool.read(shards), settings.seconds, settings.real, settings.mixing)
    model = Student(settings, teacher.config.width)
    loop = Loop(folder, model, settings.lr, settings.steps, identity(settings, teacher, shards))
    if not loop.resume():
        copy_weights(model.encoder, teacher, settings.copy_layers)
    started = time.time()
    while loop.step < settings.steps:
        _, mixed = batches.draw(loop.draw_index, settings.seed)
        lengths = torch.full((mixed.shape[0],), mixed.shape[1])
        with torch.no_grad():
            targets, _ = teacher.encode_mel(mixed, lengths)
        states, _ = model.encoder.encode_mel(mixed, lengths)
        width = (teacher.config.width,)
        terms = [
            pair_loss(head(states[s]), functional.layer_norm(targets[t], width), settings.cosine)
            for head, (s, t) in zip(model.heads, settings.pairs, strict=True)
        ]
        loss = torch.stack([term for term, _ in terms]).mean()
        figures = {f"cosine_{t}": float(c.detach()) for (_, t), (_, c) in zip(settings.pairs, terms, strict=True)}
        loop.update(loss, figures | {"loss": float(loss.detach())}, hours(mixed), started)
    return model.encoder
