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
from torch.nn.utils.rnn import pad_sequence
from transformers import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from harness.cards import Card
from harness.identity import digest_json, digest_weights
from harness.interface import SAMPLE_RATE, HiddenStates, SlimbenchError
from upstreams.adapters.folders import HUB_OPTIONS, check_depth, load, model_folder, read_config, read_json

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
        self.fingerprint = digest_json(
            {
                "adapter": "whisper",
                "version": VERSION,
                "weights": digest_weights(folder),
                "config": read_json(folder / "config.json", "the model's configuration"),
                "features": settings,
            }
        )

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
        if int(lengths.min()) < self.min_samples:
            raise ValueError(f"{int(lengths.min())} samples are too few for one frame")
        rows = [self._encode(wave[:length]) for wave, length in zip(waves, lengths.tolist(), strict=True)]
        states = [pad_sequence([row[layer] for row in rows], batch_first=True) for layer in range(self.num_states)]
        frames = torch.tensor([len(row[0]) for row in rows], device=self.device)
        return HiddenStates(states, frames, self.frame_ms)

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
    file = folder / "preprocessor_config.json"
    values = read_json(file, "it says how log-mel features are computed")
    settings = {key: values.get(key) for key in ("feature_size", "hop_length", "n_fft", "chunk_length")}
    for key, value in settings.items():
        if type(value) is not int or value < 1:
            raise SlimbenchError(
                f"{file} has {key} {value!r}, not a whole number; copy it again from the model's source."
            )
    if values.get("sampling_rate") != SAMPLE_RATE:
        raise SlimbenchError(
            f"{file} has sampling_rate {values.get('sampling_rate')!r}; only models for {SAMPLE_RATE} are supported."
        )
    make: Any = WhisperFeatureExtractor
    made = make(**settings)
    if (made.feature_size, made.nb_max_frames) != (config.num_mel_bins, 2 * config.max_source_positions):
        raise SlimbenchError(
            f"{file} makes {made.nb_max_frames} frames of {made.feature_size} channels, but config.json beside it "
            f"wants {2 * config.max_source_positions} of {config.num_mel_bins}; take both files from one source."
        )
    return made, {key: int(value) for key, value in settings.items() if value is not None}
