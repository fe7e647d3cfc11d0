"""The embedded models of this project (:mod:`upstreams.students.mini`) as upstreams."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from harness.cards import Card
from harness.identity import digest_json, digest_tensors, digest_weights
from harness.interface import HiddenStates, SlimbenchError
from upstreams.adapters.weights import check_depth, check_fit, read_tensors
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
    variable_rate = False

    def __init__(self, card: Card, device: str = "cpu") -> None:
        options = card.settings({"random": False, "seed": 0, "config": None})
        self.name = card.name
        self.device = torch.device(device)
        if options["random"]:
            if not options["config"]:
                raise SlimbenchError(f"{card.file}: random: true needs option 'config', the path of a config.json.")
            self.model = build(card, (card.file.parent / str(options["config"])).resolve(), int(options["seed"]))
            weights = digest_tensors(self.model.state_dict())
        elif card.weights is None:
            raise SlimbenchError(
                f"{card.file}: field 'weights' is missing; name a safetensors file or set random: true."
            )
        else:
            self.model = build(card, card.weights.with_name("config.json"))
            state = read_tensors(card.weights)
            check_fit(card.weights, state, self.model.state_dict())
            self.model.load_state_dict(state)
            weights = digest_weights(card.weights)
        config = self.model.config
        key = {"config": config.to_dict(), "weights": weights, "random": options["random"], "seed": options["seed"]}
        self.fingerprint = digest_json({"adapter": "mini", "version": VERSION, **key})
        del self.model.mask_embedding  # serves pre-training only, so that it is no part of what is exposed
        self.model.float().eval().requires_grad_(False).to(self.device)
        self.num_states, self.width = self.model.num_states, config.width
        self.frame_ms, self.min_samples = self.model.frame_ms, self.model.min_samples

    def module(self) -> MiniWavLM:
        """The model without what serves pre-training only."""
        return self.model

    @torch.no_grad()
    def encode(self, waves: Tensor, lengths: Tensor) -> HiddenStates:
        """States of ``waves`` (B, S) with ``lengths`` (B,) valid samples: layers + 1 tensors (B, T, width) at 50 Hz."""
        states, frames = self.model(waves.to(self.device), lengths.to(self.device))
        return HiddenStates(states, frames, self.frame_ms)


def build(card: Card, file: Path, seed: int = 0) -> MiniWavLM:
    """The model that a JSON file describes, with random weights; its depth must be what the card says."""
    try:
        config = MiniConfig.from_dict(json.loads(file.read_text(encoding="utf-8")))
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
            torch.manual_seed(seed)
            model = MiniWavLM(config)
    except OSError as error:
        raise SlimbenchError(
            f"{card.name} needs {file}, which cannot be read ({error.strerror}); restore it."
        ) from error
    except (ValueError, TypeError) as error:
        raise SlimbenchError(f"{file} does not describe a mini model: {error}; restore it.") from error
    check_depth(card, file, config.layers)
    return model
