"""The embedded models of this project (:mod:`upstreams.students.mini`) as upstreams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.cards import Card
from harness.identity import digest_json, digest_tensors, digest_weights
from harness.interface import HiddenStates, SlimbenchError
from upstreams.adapters.weights import check_fit, read_tensors
from upstreams.students.mini import MiniConfig, MiniWavLM

VERSION = 1


class Mini:
    """A :class:`MiniWavLM` with weights from a ``safetensors`` file and ``config.json`` beside it, or random ones.

    Card options: ``random`` (default false; weights drawn from ``seed``, default 0) with ``config``, the path of a
    ``config.json`` relative to the card.

    Raises:
        SlimbenchError: the configuration or the weights cannot be read, or they do not fit each other or the card.
    """

    batch_invariant = True

    def __init__(self, card: Card, device: str = "cpu") -> None:
        options = card.settings({"random": False, "seed": 0, "config": None})
        self.name = card.name
        self.device = torch.device(device)
        if options["random"]:
            config = read_config(card, card.file.parent / str(options["config"]))
            model = _random(config, int(options["seed"]))
            key: dict[str, Any] = {"seed": int(options["seed"]), "weights": digest_tensors(model.state_dict())}
        elif card.weights is None:
            raise SlimbenchError(
                f"{card.file}: field 'weights' is missing; name a safetensors file or set random: true."
            )
        else:
            config = read_config(card, card.weights.with_name("config.json"))
            model = _trained(config, card.weights)
            key = {"weights": digest_weights(card.weights)}
        self.fingerprint = digest_json({"adapter": "mini", "version": VERSION, "config": config.to_dict(), **key})
        self.model = model.float().eval().requires_grad_(False).to(self.device)
        self.num_states, self.width = self.model.num_states, config.width
        self.frame_ms, self.min_samples = self.model.frame_ms, self.model.min_samples

    def module(self) -> MiniWavLM:
        """The whole model."""
        return self.model

    @torch.no_grad()
    def encode(self, waves: Tensor, lengths: Tensor) -> HiddenStates:
        """States of ``waves`` (B, S) with ``lengths`` (B,) valid samples: layers + 1 tensors (B, T, width) at 50 Hz."""
        states, frames = self.model(waves.to(self.device), lengths.to(self.device))
        return HiddenStates(states, frames, self.frame_ms)


def read_config(card: Card, file: Path) -> MiniConfig:
    """The model's shape from a JSON file; it must have the depth and width that the card says."""
    try:
        config = MiniConfig.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise SlimbenchError(
            f"{card.name} needs {file}, which cannot be read ({error.strerror}); restore it."
        ) from error
    except (ValueError, TypeError) as error:
        raise SlimbenchError(f"{file} does not describe a mini model: {error}; restore it.") from error
    if card.depth is not None and card.depth != config.layers:
        raise SlimbenchError(f"{card.file} says depth {card.depth}, but {file} has {config.layers}; correct the card.")
    return config


def _random(config: MiniConfig, seed: int) -> MiniWavLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MiniWavLM(config)


def _trained(config: MiniConfig, file: Path) -> MiniWavLM:
    model, state = _random(config, 0), read_tensors(file)
    check_fit(file, state, model.state_dict())
    model.load_state_dict(state)
    return model
