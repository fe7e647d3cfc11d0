"""The models of this project (:mod:`upstreams.students.mini`), whole and compressed, as upstreams."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.cards import Card
from harness.identity import digest_json, digest_tensors, digest_weights
from harness.interface import HiddenStates, SlimbenchError
from upstreams.adapters.weights import check_depth, check_fit, read_tensors
from upstreams.students import cif
from upstreams.students.mini import MiniConfig, MiniWavLM
from upstreams.students.ofa import compression

VERSION = 1
OPTIONS: dict[str, Any] = {"random": False, "seed": 0, "config": None, "lam": None, "period_ms": None, "repeat": False}


class Mini:
    """A :class:`MiniWavLM` with weights from a ``safetensors`` file and ``config.json`` beside it, or random ones.

    Card options: ``random`` (default false; weights drawn from ``seed``, default 0) with ``config``, the path of a
    ``config.json`` relative to the card. Of a model that compresses: ``lam`` (0 to 2) or ``period_ms`` (20 to 90), see
    :func:`upstreams.students.ofa.compression`. Of one that joins frames at a fixed or a chosen rate: ``repeat``
    (default false), whether states are given at 20 ms, each joined frame repeated over those that it stands for.

    Raises:
        SlimbenchError: the configuration or the weights cannot be read, or they do not fit each other or the card.
    """

    batch_invariant = True

    def __init__(self, card: Card, device: str = "cpu") -> None:
        options = card.settings(OPTIONS)
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
        self.fingerprint = digest_json({"adapter": "mini", "version": VERSION, **key, **self._set_rate(card)})
        del self.model.mask_embedding  # serves pre-training only, so that it is no part of what is exposed
        self.model.float().eval().requires_grad_(False).to(self.device)
        self.num_states, self.width, self.min_samples = self.model.num_states, config.width, self.model.min_samples

    def _set_rate(self, card: Card) -> dict[str, Any]:
        """Set the model and this upstream to the frame rate that the card chooses; what of that changes states."""
        model, options = self.model, card.settings(OPTIONS)
        model.repeat = bool(options["repeat"])
        self.frame_ms, self.variable_rate = model.frame_ms, False
        if model.config.compress:
            names = ("lam", "period_ms", "repeat")
            model.lam, _ = compression(replace(card, options={n: card.options[n] for n in names if n in card.options}))
            self.frame_ms, self.variable_rate = cif.period_of(min(model.lam, 1.0)), not model.repeat
        else:
            for name in ("lam", "period_ms"):
                if options[name] is not None:
                    raise SlimbenchError(f"{card.file}: option {name} is for a model that compresses; remove it.")
            if model.repeat and model.config.reduce == 1:
                raise SlimbenchError(f"{card.file}: option repeat is for a model that joins frames; remove it.")
        if model.repeat:
            self.frame_ms = MiniWavLM.frame_ms
        return ({"lam": model.lam} if model.config.compress else {}) | ({"repeat": True} if model.repeat else {})

    def module(self) -> MiniWavLM:
        """The model without what serves pre-training only."""
        return self.model

    @torch.no_grad()
    def encode(self, waves: Tensor, lengths: Tensor) -> HiddenStates:
        """States of ``waves`` (B, S) with ``lengths`` (B,) valid samples: layers + 1 tensors (B, T, width).

        Frames lie 20 ms apart, or as far as joining them makes it.
        """
        states, frames = self.model(waves.to(self.device), lengths.to(self.device))
        return HiddenStates(states, frames, self.frame_ms)


def card_fields(config: MiniConfig) -> dict[str, Any]:
    """What a card says of a model of this shape: adapter, family, depth, width, what is exposed, options it needs."""
    rate = "one frame per segment" if config.compress else f"{MiniWavLM.frame_ms * config.reduce:g} ms"
    before = "input of the first layer" if config.reduce > 1 else "positional-convolution output"
    return {
        "adapter": "upstreams.adapters.mini:Mini",
        "family": "mini",
        "depth": config.layers,
        "width": config.width,
        "exposes": f"{before} and the output of every layer, each layer-normed without parameters, {rate}",
    } | ({"options": {"period_ms": 45}} if config.compress else {})


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
    except (ValueError, TypeError, AttributeError) as error:
        raise SlimbenchError(f"{file} does not describe a mini model: {error}; restore it.") from error
    check_depth(card, file, config.layers)
    return model
