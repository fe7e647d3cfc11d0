"""A small frozen upstream for tests: two linear maps of the magnitude spectrum of 20 ms frames.

``TOY_LOG`` names a file to which every encoded utterance adds a line, an account independent of the harness's own.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from harness.identity import digest_file, digest_json
from harness.interface import HiddenStates, SlimbenchError

FRAME, BINS, WIDTH, STATES = 320, 24, 12, 2


class ToyUpstream:
    """``STATES`` states of width ``WIDTH``, every 20 ms."""

    def __init__(self, weights: torch.Tensor, fingerprint: str, device: str = "cpu", name: str = "toy") -> None:
        self.name, self.fingerprint, self.num_states, self.width = name, fingerprint, STATES, WIDTH
        self.frame_ms, self.min_samples, self.batch_invariant, self.variable_rate = 20.0, FRAME, True, False
        with torch.device("meta"):
            self._layers = nn.ModuleList(nn.Linear(BINS, WIDTH, bias=False) for _ in range(STATES))
        self._layers.load_state_dict({f"{n}.weight": values.clone() for n, values in enumerate(weights)}, assign=True)
        self._layers.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def encode(self, waves: torch.Tensor, lengths: torch.Tensor) -> HiddenStates:
        log = os.environ.get("TOY_LOG")
        if log:
            with Path(log).open("a") as file:
                file.writelines(f"{int(n)}\n" for n in lengths)
        frames = waves[:, : waves.shape[1] // FRAME * FRAME].unflatten(1, (-1, FRAME))
        spectrum = torch.log1p(torch.fft.rfft(frames).abs()[..., 1 : BINS + 1])
        return HiddenStates([layer(spectrum) for layer in self._layers], lengths // FRAME, self.frame_ms)

    def module(self) -> nn.Module:
        return self._layers


def weights(seed: int) -> torch.Tensor:
    return 0.3 * torch.randn(STATES, WIDTH, BINS, generator=torch.Generator().manual_seed(seed))


def toy(seed: int = 0) -> ToyUpstream:
    return ToyUpstream(weights(seed), f"toy-{seed}")


def load(card, device) -> ToyUpstream:
    """The adapter that a card names."""
    content = load_file(card.weights)["weights"]
    if content.shape != (STATES, WIDTH, BINS):
        raise SlimbenchError(f"{card.weights}: the weights do not fit; name another file in {card.file}.")
    return ToyUpstream(content, digest_json(["toy", digest_file(card.weights)]), device, card.name)


def write_card(folder: Path, seed: int = 0) -> Path:
    """A card ``toy`` with its weights in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"weights": weights(seed)}, folder / "toy.safetensors")
    card = folder / "toy.yaml"
    card.write_text(
        "name: toy\ntitle: Toy\nadapter: toy_upstream:load\nweights: toy.safetensors\nlicence: MIT\n"
        "source: made by the test\nexposes: two linear maps of the spectrum\n"
    )
    return card
