"""Masked unit prediction: how the embedded teacher comes to be.

One iteration = fit codebooks on clean frames, then train an encoder to name the units of masked frames of the mixed
audio. The first iteration's units are k-means of MFCCs, the second's of a middle layer of the first model, as in
HuBERT; a second codebook of MFCCs *with* their utterance mean keeps speaker and channel in the states.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from tqdm import tqdm

from harness.identity import digest_json, digest_tensors
from upstreams.distillation import files
from upstreams.distillation.data import pool
from upstreams.distillation.data.batches import Batches, hours, span_mask
from upstreams.distillation.data.statistics import clean_level, fit_statistics
from upstreams.distillation.loop import Loop, Optimiser, rank_and_world
from upstreams.distillation.settings import said
from upstreams.distillation.units import Codebook, mfcc
from upstreams.students.mini import LogMel, MiniConfig, MiniWavLM


@dataclass(frozen=True)
class Iteration:
    """Settings of one iteration.

    Attributes:
        config: shape of the encoder.
        steps: optimiser updates.
        units: size of the phonetic codebook.
        layer: layer of the previous model that the units come from; ``None`` for MFCC units.
        predict: states that name units, each through its own prediction layers; by default the last alone.
            ``[4, 12]`` is intermediate layer supervision (ILS-SSL, arXiv 2112.08778).
        lr: peak learning rate (AdamW, linear warm-up and decay).
        grow: start from the previous model, its layers repeated (layer stacking).
        mask_start: probability that a frame starts a masked span of ``mask_span`` frames.
        visible_weight: weight of the loss at visible frames (denoising: their targets come from the clean audio).
        speaker_units: size of the codebook of MFCCs with their utterance mean; ``speaker_weight`` of its loss.
        seed: of weights, crops, masks and codebooks.
    """

    config: MiniConfig
    steps: int
    units: int
    layer: int | None = None
    predict: tuple[int, ...] = ()
    lr: float = 1.5e-3
    grow: bool = False
    mask_start: float = 0.065
    mask_span: int = 8
    visible_weight: float = 0.3
    speaker_units: int = 100
    speaker_weight: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        if not all(0 < state <= self.config.layers for state in self.predict):
            raise ValueError(f"predict {list(self.predict)} is not within 1 to {self.config.layers}")


class Pretrainer(nn.Module):
    """Encoder with one prediction layer per predicting state and codebook."""

    def __init__(self, config: MiniConfig, sizes: tuple[int, ...], predict: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.encoder = MiniWavLM(config)
        self.predict = predict or (config.layers,)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in self.predict)
        self.sizes = sizes
        self.heads = nn.ModuleList(nn.Linear(config.width, sum(sizes)) for _ in self.predict)

    def forward(self, logmel: Tensor, masked: Tensor) -> list[list[Tensor]]:
        """Logits (B, T, units) per predicting state and codebook, of mixed log-mel (B, T10, mels), masked (B, T)."""
        lengths = torch.full((logmel.shape[0],), logmel.shape[1])
        states, _ = self.encoder.encode_mel(logmel, lengths, masked)
        normed = [norm(states[state]) for norm, state in zip(self.norms, self.predict, strict=True)]
        joined = [head(x) for head, x in zip(self.heads, normed, strict=True)]
        return [list(x.split(self.sizes, -1)) for x in joined]


class Targets:
    """Units of clean crops, from MFCCs or from a layer of a previous model, with the speaker codebook beside."""

    def __init__(self, iteration: Iteration, previous: MiniWavLM | None) -> None:
        self.iteration, self.previous, self.front = iteration, previous, LogMel(iteration.config.mels)
        self.books: list[Codebook] = []

    def features(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Features under the two codebooks, (B, T, dim) each."""
        level = clean_level(clean)
        if self.iteration.layer is None:
            phonetic = mfcc(level)
        else:
            assert self.previous is not None, "layer units need the previous iteration's model"  # noqa: S101
            states, _ = self.previous.encode_mel(clean, torch.full((clean.shape[0],), clean.shape[1]))
            phonetic = functional.layer_norm(states[self.iteration.layer], states[0].shape[-1:])
        return phonetic, mfcc(level, remove_mean=False)[..., :26]

    @torch.no_grad()
    def fit(self, batches: Batches, draws: int = 120) -> None:
        """Fit both codebooks on clean crops that training will not draw."""
        seed = self.iteration.seed
        parts = [self.features(self.front(batches.draw(10_000_000 + i, seed)[0])) for i in range(draws)]
        for index, size in enumerate((self.iteration.units, self.iteration.speaker_units)):
            frames = torch.cat([p[index].flatten(0, 1) for p in parts]).numpy()
            self.books.append(Codebook.fit(frames, size, self.iteration.seed))

    @torch.no_grad()
    def __call__(self, clean: Tensor) -> list[Tensor]:
        """Units (B, T) per codebook."""
        return [book(f) for book, f in zip(self.books, self.features(clean), strict=True)]


def grow_from(encoder: MiniWavLM, previous: MiniWavLM) -> None:
    """Start from a shallower model of the same width: its front end, and its layers each repeated in place."""
    old = previous.state_dict()
    ratio = encoder.config.layers // previous.config.layers
    new = {k: v for k, v in old.items() if not k.startswith("layers.")}
    for index in range(encoder.config.layers):
        prefix = f"layers.{index // ratio}."
        new |= {f"layers.{index}." + k[len(prefix) :]: v for k, v in old.items() if k.startswith(prefix)}
    encoder.load_state_dict(new)


def masked_loss(
    model: Pretrainer, targets: Targets, batches: Batches, draw: int
) -> tuple[Tensor, dict[str, float], float]:
    """Cross-entropy at masked and visible frames, phonetic plus weighted speaker units, averaged over the predicting
    states; figures of the last of them to log; hours drawn.
    """
    it = targets.iteration
    waves, noisy = batches.draw(draw, it.seed)
    labels = targets(targets.front(waves))
    batch, frames = labels[0].shape
    masked = span_mask(np.random.default_rng((it.seed, draw, 1)), batch, frames, it.mask_start, it.mask_span)
    found = model(targets.front(noisy), masked)
    losses = []
    for logits in found:
        hidden = [functional.cross_entropy(x[masked], y[masked]) for x, y in zip(logits, labels, strict=True)]
        seen = [functional.cross_entropy(x[~masked], y[~masked]) for x, y in zip(logits, labels, strict=True)]
        phonetic, speaker = (h + it.visible_weight * s for h, s in zip(hidden, seen, strict=True))
        losses.append(phonetic + it.speaker_weight * speaker)
    right = (found[-1][0].argmax(-1) == labels[0]).float()
    figures = {
        "masked_loss": float(hidden[0].detach()),
        "masked_accuracy": float(right[masked].mean()),
        "visible_accuracy": float(right[~masked].mean()),
        "speaker_loss": float(hidden[1].detach()),
    }
    return torch.stack(losses).mean(), figures, hours(waves)


def identity(iteration: Iteration, previous: MiniWavLM | None, shards: Sequence[Path]) -> str:
    """Digest of what decides an iteration's outcome: settings, the previous model's weights and the shards."""
    before = None if previous is None else digest_tensors(previous.state_dict())
    world = rank_and_world()[1]
    several = {} if world == 1 else {"processes": world}
    return digest_json({"settings": said(iteration), "previous": before, "pool": pool.identity(shards)} | several)


def codebooks(targets: Targets, batches: Batches, file: Path, identity: str) -> None:
    """Fit the codebooks, or load them where a killed run left them; the first process fits for all.

    Raises:
        SlimbenchError: the codebooks in ``file`` are of another run.
    """
    rank, world = rank_and_world()
    if not file.is_file() and rank == 0:
        targets.fit(batches)
        files.save(file, {"books": [book.state_dict() for book in targets.books]}, identity)
    if world > 1:
        distributed.barrier()
    targets.books = []
    for state in files.load(file, identity)["books"]:
        book = Codebook(*state["centroids"].shape)
        book.load_state_dict(state)
        targets.books.append(book)


def run(
    iteration: Iteration, previous: MiniWavLM | None, batches: Batches, shards: Sequence[Path], folder: Path
) -> MiniWavLM:
    """Run one iteration, resumably; returns the trained encoder and leaves ``state.pt`` and ``curve.jsonl``.

    Raises:
        SlimbenchError: ``folder`` holds a run with other settings, data or previous model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if rank_and_world()[0] == 0:
        files.note_start(folder)
    torch.manual_seed(iteration.seed)
    model = Pretrainer(iteration.config, (iteration.units, iteration.speaker_units), iteration.predict)
    targets = Targets(iteration, previous.eval() if previous is not None else None)
    key = identity(iteration, previous, shards)
    loop = Loop(folder, model, Optimiser(lr=iteration.lr), iteration.steps, key)
    codebooks(targets, batches, folder / "codebooks.pt", key)
    if loop.rank == 0:
        files.write_text(folder / "iteration.json", json.dumps(said(iteration), indent=1) + "\n")
    if not loop.resume():
        if iteration.grow and previous is not None:
            grow_from(model.encoder, previous)
        else:
            fit_statistics(model.encoder, batches, iteration.seed)
    for _ in tqdm(range(loop.step, iteration.steps), desc=folder.name, mininterval=5, disable=bool(loop.rank)):
        loop.add(*masked_loss(model, targets, batches, loop.draw()))
        loop.update()
    return model.encoder
