"""Local Hugging Face folders of the wav2vec 2.0, HuBERT, WavLM and data2vec-audio families as upstreams.

``config.json`` decides the family. Weights come from ``*.safetensors`` or ``pytorch_model*.bin``, read without
unpickling code; nothing is downloaded and no code of the folder is run. Every weight of the encoder must be there and
fit. Only pre-training heads (:data:`HEADS`) may be left over. States are those of Transformers: the input of the
first layer, then the output of every layer (the last one after the final layer norm, where there is one).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Data2VecAudioModel, HubertModel, Wav2Vec2Model, WavLMModel

from harness.cards import Card
from harness.identity import digest_json, digest_weights, weight_files
from harness.interface import SAMPLE_RATE, HiddenStates, SlimbenchError
from upstreams.adapters.weights import check_fit, read_tensors

VERSION = 1
MODELS: dict[str, Any] = {
    "wav2vec2": Wav2Vec2Model,
    "hubert": HubertModel,
    "wavlm": WavLMModel,
    "data2vec-audio": Data2VecAudioModel,
}
HEADS = ("masked_spec_embed", "quantizer.", "project_q.", "project_hid.", "lm_head.")
"""Weights that pre-training or CTC fine-tuning leaves in a checkpoint and that no hidden state depends on."""


class HuggingFace:
    """A frozen Transformers encoder.

    Models whose states depend on the padding (group norm over time in the first convolution, several positional
    convolutions in data2vec, batch norm before the positional convolution) say ``batch_invariant = False`` and
    take batches of equal length only.

    Card options: ``do_normalize``, whether each waveform is brought to mean 0 and variance 1; the default is
    what ``preprocessor_config.json`` says.

    Raises:
        SlimbenchError: a file is missing or broken, the family is another than the card's or is not known, or the
            weights do not fit.
    """

    variable_rate = False

    def __init__(self, card: Card, device: str = "cpu") -> None:
        options = card.settings({"do_normalize": None})
        if card.weights is None:
            raise SlimbenchError(f"{card.file}: field 'weights' is missing; name the folder of the model.")
        folder = card.weights
        values = _read_json(folder / "config.json", "the model's configuration")
        self.name = card.name
        self.device = torch.device(device)
        self.do_normalize = _do_normalize(card, folder, options["do_normalize"])
        self.model = _load(card, folder, values).float().eval().requires_grad_(False).to(self.device)
        config = self.model.config
        self.num_states, self.width = config.num_hidden_layers + 1, config.hidden_size
        self.frame_ms = 1000.0 * config.inputs_to_logits_ratio / SAMPLE_RATE
        self.min_samples = _min_samples(config.conv_kernel, config.conv_stride)
        self.batch_invariant = (
            getattr(config, "feat_extract_norm", "layer") == "layer"
            and config.model_type != "data2vec-audio"
            and not getattr(config, "conv_pos_batch_norm", False)
        )
        self.fingerprint = digest_json(
            {
                "adapter": "huggingface",
                "version": VERSION,
                "weights": digest_weights(folder),
                "config": values,
                "do_normalize": self.do_normalize,
            }
        )

    def module(self) -> nn.Module:
        """The encoder without pre-training heads."""
        encoder: nn.Module = self.model
        return encoder

    @torch.no_grad()
    def encode(self, waves: Tensor, lengths: Tensor) -> HiddenStates:
        """States of ``waves`` (B, S) with ``lengths`` (B,) valid samples: layers + 1 tensors (B, T, width).

        Raises:
            ValueError: the lengths differ, and the model is not batch-invariant.
        """
        longest = int(lengths.max())
        padded = bool((lengths != longest).any())
        if padded and not self.batch_invariant:
            raise ValueError(f"{self.name} depends on padding: encode it in batches of equal length")
        lengths = lengths.to(self.device)
        waves = waves[:, :longest].to(self.device)
        mask = torch.arange(longest, device=self.device)[None, :] < lengths[:, None]
        if self.do_normalize:
            waves = _standardise(waves, mask, lengths)
        output = self.model(waves, attention_mask=mask.long() if padded else None, output_hidden_states=True)
        frames: Tensor = self.model._get_feat_extract_output_lengths(lengths)
        return HiddenStates(list(output.hidden_states), frames, self.frame_ms)


def _read_json(file: Path, what: str) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SlimbenchError(f"{file} ({what}) cannot be read; copy it from the model's source.") from error
    except ValueError as error:
        raise SlimbenchError(f"{file} ({what}) is not valid JSON: {error}; copy it again.") from error
    if not isinstance(values, dict):
        raise SlimbenchError(f"{file} ({what}) is not a JSON object; copy it again.")
    return values


def _do_normalize(card: Card, folder: Path, option: object) -> bool:
    if isinstance(option, bool):
        return option
    if option is not None:
        raise SlimbenchError(f"{card.file}: option do_normalize is {option!r}; write true or false, without quotes.")
    file = folder / "preprocessor_config.json"
    values = _read_json(file, "it says whether waveforms are normalised; or set option do_normalize on the card")
    if not isinstance(values.get("do_normalize"), bool):
        raise SlimbenchError(f"{file} lacks do_normalize; add it, or set option do_normalize on the card.")
    return bool(values["do_normalize"])


def _load(card: Card, folder: Path, values: dict[str, Any]) -> Any:
    """The encoder of a folder, with its stored weights."""
    family = values.get("model_type")
    if family not in MODELS:
        raise SlimbenchError(f"{folder / 'config.json'} has model_type {family!r}; known are {', '.join(MODELS)}.")
    if card.family is not None and card.family != family:
        raise SlimbenchError(
            f"{card.file} says family {card.family}, but {folder} holds a {family} model; correct the card."
        )
    config = _accepted(folder, MODELS[family].config_class.from_dict, values)
    if getattr(config, "add_adapter", False):
        raise SlimbenchError(
            f"{folder} adds adapter layers after the encoder, which are not supported; use another model."
        )
    if card.depth is not None and card.depth != config.num_hidden_layers:
        raise SlimbenchError(
            f"{card.file} says depth {card.depth}, but {folder} has {config.num_hidden_layers}; correct the card."
        )
    config.mask_time_prob = config.mask_feature_prob = 0.0
    with torch.random.fork_rng(devices=[]):  # the random start is overwritten; leave the caller's generator alone
        model = _accepted(folder, MODELS[family], config)
    state = _read_state(folder, model)
    check_fit(folder, state, model.state_dict())
    model.load_state_dict(state)
    return model


def _accepted(folder: Path, build: Callable[[Any], Any], values: Any) -> Any:
    """What Transformers builds of ``config.json``; its refusals have no class in common."""
    try:
        return build(values)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(".")
        raise SlimbenchError(
            f"{folder / 'config.json'} does not describe a model that Transformers can build ({reason}); copy it again "
            "from the model's source."
        ) from error


def _read_state(folder: Path, model: Any) -> dict[str, Tensor]:
    """Stored weights under the names of the bare encoder; heads of pre-training are left out.

    Raises:
        SlimbenchError: a file cannot be read, or two weights have one name.
    """
    state: dict[str, Tensor] = {}
    origin: dict[str, Path] = {}
    for file in weight_files(folder):
        for name, tensor in read_tensors(file).items():
            name = name.removeprefix(f"{model.base_model_prefix}.")
            if name.startswith(HEADS):
                continue
            name = name.replace(".conv.weight_g", ".conv.parametrizations.weight.original0")
            name = name.replace(".conv.weight_v", ".conv.parametrizations.weight.original1")
            if name in state:
                raise SlimbenchError(
                    f"{origin[name]} and {file} both hold the weight {name}; keep the files of one model in the folder."
                )
            state[name], origin[name] = tensor, file
    return state


def _min_samples(kernels: list[int], strides: list[int]) -> int:
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def _standardise(waves: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the valid samples, zero elsewhere, as Transformers' feature extractor does."""
    count = lengths[:, None]
    centred = (waves - (waves * mask).sum(1, keepdim=True) / count) * mask
    return centred / (centred.square().sum(1, keepdim=True) / count + 1e-7).sqrt()
