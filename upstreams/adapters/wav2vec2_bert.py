"""Wav2Vec2-BERT models in Hugging Face's form: a Conformer over log-mel filter banks, as upstreams.

The input is what Transformers' own ``SeamlessM4TFeatureExtractor`` computes, utterance by utterance: 80 Kaldi log-mel
channels (25 ms windows every 10 ms), each brought to mean 0 and variance 1 over the utterance, two frames side by side.
An odd last frame takes part in that normalisation and in nothing else, as there. States are the input of the first
layer, then the output of every layer, every 20 ms. The filter banks are computed on the CPU; their work is not
among the counted MACs (about 3 M per second of audio).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertModel

from harness.cards import Card
from harness.interface import SAMPLE_RATE, HiddenStates, SlimbenchError
from upstreams.adapters.batching import alone, check_length
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
from upstreams.students.frontend import valid

VERSION = 1
MODELS: dict[str, Any] = {"wav2vec2-bert": Wav2Vec2BertModel}
WINDOW, SHIFT = 400, 160
"""Samples of a filter-bank frame, and between two."""
LEFT_OVER = ("masked_spec_embed", "lm_head.")


class Wav2Vec2Bert:
    """A frozen Wav2Vec2-BERT encoder; its states do not depend on what else is in the batch.

    Card options: ``hub`` and ``revision`` in place of ``weights``.

    Raises:
        SlimbenchError: a file is missing or broken, the folder holds another model, or the weights do not fit.
    """

    variable_rate = False
    batch_invariant = True

    def __init__(self, card: Card, device: str = "cpu") -> None:
        folder = model_folder(card, card.settings(HUB_OPTIONS))
        config = read_config(card, folder, MODELS, {})
        self.name = card.name
        self.device = torch.device(device)
        self.extractor = _extractor(folder, config)
        self.stride = int(self.extractor.stride)
        self.model = _load(card, folder, config).to(self.device)
        self.num_states, self.width = config.num_hidden_layers + 1, config.hidden_size
        self.frame_ms = 1000.0 * SHIFT * self.stride / SAMPLE_RATE
        self.min_samples = WINDOW + SHIFT * (max(self.stride, 2) - 1)  # one frame has no variance
        mels = self.extractor.num_mel_bins
        self.fingerprint = fingerprint("wav2vec2_bert", VERSION, folder, mels=mels, stride=self.stride)

    def module(self) -> nn.Module:
        """The encoder."""
        encoder: nn.Module = self.model
        return encoder

    @torch.no_grad()
    def encode(self, waves: Tensor, lengths: Tensor) -> HiddenStates:
        """States of ``waves`` (B, S) with ``lengths`` (B,) valid samples: layers + 1 tensors (B, T, width).

        Raises:
            ValueError: an utterance is too short for one frame.
        """
        check_length(lengths, self.min_samples)
        features = [self._features(wave) for wave in alone(waves, lengths)]
        frames = torch.tensor([len(item) for item in features], device=self.device)
        padded = pad_sequence(features, batch_first=True).to(self.device)
        mask = valid(frames, padded.shape[1])
        whole = bool(mask.all())
        output = self.model(padded, attention_mask=None if whole else mask.long(), output_hidden_states=True)
        return HiddenStates(list(output.hidden_states), frames, self.frame_ms)

    def _features(self, wave: Tensor) -> Tensor:
        """(S,) samples to (T, mels · stride)."""
        found = self.extractor(wave.cpu().numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt")
        count = int(found["attention_mask"].sum())
        features: Tensor = found["input_features"][0, :count]
        return features


def _extractor(folder: Path, config: Any) -> Any:
    """Transformers' own front end with the settings of the folder."""
    sizes = front_end_sizes(folder, "it says how filter banks are computed", ("num_mel_bins", "stride"))
    mels, stride = sizes["num_mel_bins"], sizes["stride"]
    if mels * stride != config.feature_projection_input_dim:
        raise SlimbenchError(
            f"{folder / PREPROCESSOR} makes features {mels * stride} wide, but config.json beside it wants "
            f"{config.feature_projection_input_dim}; take both files from one source."
        )
    make: Any = SeamlessM4TFeatureExtractor
    return make(feature_size=mels, num_mel_bins=mels, stride=stride)


def _load(card: Card, folder: Path, config: Any) -> Any:
    """The encoder of a folder, with its stored weights."""
    if config.add_adapter or config.use_intermediate_ffn_before_adapter:
        raise SlimbenchError(f"{folder} adds layers after the encoder, which are not supported; use another model.")
    check_depth(card, folder, config.num_hidden_layers)
    config.mask_time_prob = config.mask_feature_prob = 0.0

    def rename(name: str) -> str | None:
        name = name.removeprefix("wav2vec2_bert.")
        return None if name.startswith(LEFT_OVER) else name

    return load(folder, Wav2Vec2BertModel, config, rename)
