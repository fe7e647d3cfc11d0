"""The encoder of Whisper models in Hugging Face's form as an upstream.

Whisper reads windows of 30 s and knows no mask: shorter input is filled up with silence, which every state can see. So
its states depend on that padding, always the same one, and never on what else is in the batch. Exposed are the
frames of the utterance only, one per 320 samples (20 ms), S // 320 of S samples. Longer input is encoded in consecutive
windows of 30 s that know nothing of each other, and their frames are put in a row. Every window costs as
much as a full one.

Log-mel features are computed by Transformers' own ``WhisperFeatureExtractor``. States are the input of the first layer
(convolutions plus positions), then the output of every layer, the last one after the final layer norm. The decoder of a
checkpoint is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from harness.cards import Card
from harness.interface import SAMPLE_RATE, HiddenStates, SlimbenchError
from upstreams.adapters.batching import alone, check_length, together
from upstreams.adapters.folders import (
    HUB_OPTIONS,
    PREPROCESSOR,
    fingerprint,
    front_end_sizes,
    load,
    model_folder,
    read_config,
)
from upstreams.adapters.weights import check_depth

VERSION = 1
LEFT_OVER = ("decoder.", "proj_out.")
"""Weights of a whole Whisper model that no state of the encoder depends on."""


class Whisper:
    """A frozen Whisper encoder.

    Card options: ``hub`` and ``revision`` in place of ``weights``.

    Raises:
        SlimbenchError: a file is missing or broken, the folder holds another model, or the weights do not fit.
    """

    variable_rate = False
    batch_invariant = True

    def __init__(self, card: Card, device: str = "cpu") -> None:
        folder = model_folder(card, card.settings(HUB_OPTIONS))
        config = read_config(card, folder, {"whisper": WhisperEncoder}, {})
        check_depth(card, folder, config.encoder_layers)
        self.name = card.name
        self.device = torch.device(device)
        self.extractor, settings = _extractor(folder, config)
        self.hop = 2 * int(self.extractor.hop_length)  # the second convolution halves the rate
        self.window = int(self.extractor.n_samples)
        self.model = load(folder, WhisperEncoder, config, _rename).to(self.device)
        self.num_states, self.width = config.encoder_layers + 1, config.d_model
        self.frame_ms, self.min_samples = 1000.0 * self.hop / SAMPLE_RATE, self.hop
        self.fingerprint = fingerprint("whisper", VERSION, folder, features=settings)

    def module(self) -> nn.Module:
        """The encoder."""
        encoder: nn.Module = self.model
        return encoder

    @torch.no_grad()
    def encode(self, waves: Tensor, lengths: Tensor) -> HiddenStates:
        """States of ``waves`` (B, S) with ``lengths`` (B,) valid samples: layers + 1 tensors (B, T, width).

        Raises:
            ValueError: an utterance is shorter than one frame.
        """
        check_length(lengths, self.min_samples)
        return together([self._encode(wave) for wave in alone(waves, lengths)], self.frame_ms, self.device)

    def _encode(self, wave: Tensor) -> list[Tensor]:
        """(S,) samples to states (T, width), window by window."""
        windows = [part for part in torch.split(wave, self.window) if len(part) >= self.hop]
        found = []
        for part in windows:
            mels = self.extractor(part.cpu().numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
            output = self.model(mels.to(self.device), output_hidden_states=True)
            found.append([state[0, : len(part) // self.hop] for state in output.hidden_states])
        return [torch.cat(parts) for parts in zip(*found, strict=True)]


def _rename(name: str) -> str | None:
    name = name.removeprefix("model.")
    return None if name.startswith(LEFT_OVER) else name.removeprefix("encoder.")


def _extractor(folder: Path, config: Any) -> tuple[Any, dict[str, int]]:
    """Transformers' own log-mel front end with the settings of the folder, and these settings."""
    names = ("feature_size", "hop_length", "n_fft", "chunk_length")
    settings = front_end_sizes(folder, "it says how log-mel features are computed", names)
    make: Any = WhisperFeatureExtractor
    made = make(**settings)
    if (made.feature_size, made.nb_max_frames) != (config.num_mel_bins, 2 * config.max_source_positions):
        raise SlimbenchError(
            f"{folder / PREPROCESSOR} makes {made.nb_max_frames} frames of {made.feature_size} channels, but "
            f"config.json beside it wants {2 * config.max_source_positions} of {config.num_mel_bins}; take both files "
            "from one source."
        )
    return made, settings
