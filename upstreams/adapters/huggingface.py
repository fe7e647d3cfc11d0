"""Hugging Face models that begin with convolutions over the waveform, as upstreams.

Families, as ``config.json`` says (``model_type``): :data:`MODELS`. The folder comes from the card's ``weights`` or from
the local Hugging Face cache (options ``hub`` and ``revision``); nothing is downloaded and no code of the folder is run.
Every weight of the encoder must be there and fit; only heads of pre-training or fine-tuning (:data:`HEADS`) may be
left over. States are the input of the first layer, then the output of every layer, the last one after the final layer
norm where there is one (as s3prl exposes them; Transformers 5 leaves that norm out of ``hidden_states``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    Data2VecAudioModel,
    HubertModel,
    UniSpeechModel,
    UniSpeechSatModel,
    Wav2Vec2ConformerModel,
    Wav2Vec2Model,
    WavLMModel,
)

from harness.cards import Card
from harness.interface import HiddenStates, SlimbenchError
from upstreams.adapters.batching import batch
from upstreams.adapters.folders import (
    HUB_OPTIONS,
    PREPROCESSOR,
    fingerprint,
    load,
    model_folder,
    read_config,
    read_json,
)
from upstreams.adapters.padding import Frames, end_at_the_end, valid_samples
from upstreams.adapters.weights import check_depth
from upstreams.students.frontend import standardise, valid

VERSION = 1
EPSILON = 1e-7
"""Added to the variance of a waveform by Transformers' feature extractor."""
MODELS: dict[str, Any] = {
    "wav2vec2": Wav2Vec2Model,
    "hubert": HubertModel,
    "wavlm": WavLMModel,
    "data2vec-audio": Data2VecAudioModel,
    "unispeech": UniSpeechModel,
    "unispeech-sat": UniSpeechSatModel,
    "wav2vec2-conformer": Wav2Vec2ConformerModel,
}
ELSEWHERE = {
    "whisper": "upstreams.adapters.whisper:Whisper",
    "wav2vec2-bert": "upstreams.adapters.wav2vec2_bert:Wav2Vec2Bert",
}
HEADS = (
    *("masked_spec_embed", "quantizer.", "project_q.", "project_hid.", "lm_head.", "ctc_proj.", "speaker_proj."),
    *("label_embeddings_concat", "layer_norm_for_extract."),
)
"""Weights that pre-training or CTC fine-tuning leaves in a checkpoint and that no hidden state depends on."""


class HuggingFace:
    """A frozen Transformers encoder; its states do not depend on what else is in the batch.

    Card options: ``do_normalize``, whether each waveform is brought to mean 0 and variance 1; the default is
    what ``preprocessor_config.json`` says. ``hub`` and ``revision`` in place of ``weights``.

    Raises:
        SlimbenchError: a file is missing or broken, the family is another than the card's or is not known, or the
            weights do not fit.
    """

    variable_rate = False
    batch_invariant = True

    def __init__(self, card: Card, device: str = "cpu") -> None:
        options = card.settings({"do_normalize": None, **HUB_OPTIONS})
        folder = model_folder(card, options)
        config = read_config(card, folder, MODELS, ELSEWHERE)
        self.name = card.name
        self.device = torch.device(device)
        self.do_normalize = _do_normalize(card, folder, options["do_normalize"])
        self.model = _load(card, folder, config).to(self.device)
        self.frames = Frames.of(config.conv_kernel, config.conv_stride)
        end_at_the_end(self.model.feature_extractor, self.model.encoder, self.frames)
        self.num_states, self.width = config.num_hidden_layers + 1, config.hidden_size
        self.frame_ms, self.min_samples = self.frames.frame_ms, self.frames.min_samples
        last = {"last": "after the final layer norm"} if _norms_last(config) else {}
        self.fingerprint = fingerprint("huggingface", VERSION, folder, do_normalize=self.do_normalize, **last)

    def module(self) -> nn.Module:
        """The encoder without pre-training heads."""
        encoder: nn.Module = self.model
        return encoder

    @torch.no_grad()
    def encode(self, waves: Tensor, lengths: Tensor) -> HiddenStates:
        """States of ``waves`` (B, S) with ``lengths`` (B,) valid samples: layers + 1 tensors (B, T, width).

        Raises:
            ValueError: an utterance is too short for one frame.
        """
        waves, lengths, ends = batch(waves, lengths, self.min_samples, self.device)
        if self.do_normalize:
            waves = standardise(waves, lengths, EPSILON)
        mask = None if ends is None else valid(ends, waves.shape[1]).long()
        with valid_samples(ends):
            output = self.model(waves, attention_mask=mask, output_hidden_states=True)
        states = [*output.hidden_states[:-1], output.last_hidden_state]
        return HiddenStates(states, self.frames(lengths), self.frame_ms)


def _do_normalize(card: Card, folder: Path, option: object) -> bool:
    if isinstance(option, bool):
        return option
    if option is not None:
        raise SlimbenchError(f"{card.file}: option do_normalize is {option!r}; write true or false, without quotes.")
    file = folder / PREPROCESSOR
    values = read_json(file, "it says whether waveforms are normalised; or set option do_normalize on the card")
    if not isinstance(values.get("do_normalize"), bool):
        raise SlimbenchError(f"{file} lacks do_normalize; add it, or set option do_normalize on the card.")
    return bool(values["do_normalize"])


def _norms_last(config: Any) -> bool:
    """Whether a layer norm follows the last layer."""
    pre_norm = config.model_type != "data2vec-audio" and config.to_dict().get("do_stable_layer_norm", False)
    return config.model_type == "wav2vec2-conformer" or bool(pre_norm)


def _load(card: Card, folder: Path, config: Any) -> Any:
    """The encoder of a folder, with its stored weights."""
    if config.to_dict().get("add_adapter"):
        raise SlimbenchError(
            f"{folder} adds adapter layers after the encoder, which are not supported; use another model."
        )
    check_depth(card, folder, config.num_hidden_layers)
    config.mask_time_prob = config.mask_feature_prob = 0.0
    kind = MODELS[config.model_type]

    def build(values: Any) -> Any:
        made = kind(values)
        made._parameters.pop("masked_spec_embed", None)  # some families make it even where nothing is masked
        return made

    def rename(name: str) -> str | None:
        name = name.removeprefix(f"{kind.base_model_prefix}.")
        if name.startswith(HEADS):
            return None
        name = name.replace(".conv.weight_g", ".conv.parametrizations.weight.original0")
        return name.replace(".conv.weight_v", ".conv.parametrizations.weight.original1")

    model = load(folder, build, config, rename)
    if config.model_type == "wav2vec2-conformer":  # it is stored, but no pass uses it
        del model.encoder.pos_conv_embed
    return model
