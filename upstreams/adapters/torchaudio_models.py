"""Models of torchaudio (``torchaudio.pipelines`` and ``torchaudio.models``) as upstreams.

The card's weights are the state-dict file that a pipeline downloads, for example ``hubert_fairseq_base_ls960.pth`` of
``HUBERT_BASE``; the configuration is the installed torchaudio's. Nothing is downloaded, and the file is read without
unpickling code.

torchaudio's ``extract_features`` gives the output of every layer. Exposed here, as s3prl does: the input of the first
layer, then the output of every layer, the last one after the final layer norm where there is one. So all but the
first state, and the last of models with that norm, are those of ``extract_features``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torchaudio
from torch import Tensor, nn
from torchaudio.models.wav2vec2.wavlm_attention import WavLMSelfAttention

from harness.cards import Card, hint
from harness.identity import digest_json, digest_weights
from harness.interface import HiddenStates, SlimbenchError
from upstreams.adapters.batching import batch
from upstreams.adapters.padding import Frames, end_at_the_end, valid_samples
from upstreams.adapters.weights import check_depth, read_tensors, settle
from upstreams.students.frontend import standardise, valid

VERSION = 1
EPSILON = 1e-5
"""Added to the variance of a waveform by torchaudio's layer norm over the waveform."""
FACTORIES = {"Wav2Vec2": torchaudio.models.wav2vec2_model, "WavLM": torchaudio.models.wavlm_model}
HEAD = "aux."
"""The weights of the linear layer of fine-tuned models, which no exposed state depends on."""


class Torchaudio:
    """A frozen ``torchaudio.models.Wav2Vec2Model``; its states do not depend on what else is in the batch.

    Card options: ``bundle``, the name of a pipeline in ``torchaudio.pipelines``. Or, for other models: ``model``
    (``Wav2Vec2`` or ``WavLM``), ``params`` (arguments of ``torchaudio.models.wav2vec2_model`` or ``wavlm_model``) and
    ``normalize`` (default false; whether each waveform is brought to mean 0 and variance 1).

    Raises:
        SlimbenchError: the bundle is not known, the file is missing or broken, or the weights do not fit.
    """

    variable_rate = False
    batch_invariant = True

    def __init__(self, card: Card, device: str = "cpu") -> None:
        if card.weights is None:
            raise SlimbenchError(f"{card.file}: field 'weights' is missing; name the file with the model's state dict.")
        kind, params, self.normalize = _description(card)
        self.name = card.name
        self.device = torch.device(device)
        state = {name: value for name, value in read_tensors(card.weights).items() if not name.startswith(HEAD)}
        self.model = settle(_build(card, kind, params), state, card.weights, "the card").to(self.device)
        convolutions = self.model.feature_extractor.conv_layers
        self.frames = Frames.of([layer.kernel_size for layer in convolutions], [layer.stride for layer in convolutions])
        end_at_the_end(self.model.feature_extractor, self.model.encoder, self.frames)
        transformer = self.model.encoder.transformer
        self.num_states, self.width = len(transformer.layers) + 1, int(transformer.pos_conv_embed.embed_dim)
        check_depth(card, card.weights, len(transformer.layers))
        self.frame_ms, self.min_samples = self.frames.frame_ms, self.frames.min_samples
        self.fingerprint = digest_json(
            {
                "adapter": "torchaudio",
                "version": VERSION,
                "weights": digest_weights(card.weights),
                "model": kind,
                "params": params,
                "normalize": self.normalize,
            }
        )

    def module(self) -> nn.Module:
        """The encoder without the linear layer of fine-tuning."""
        encoder: nn.Module = self.model
        return encoder

    @torch.no_grad()
    def encode(self, waves: Tensor, lengths: Tensor) -> HiddenStates:
        """States of ``waves`` (B, S) with ``lengths`` (B,) valid samples: layers + 1 tensors (B, T, width).

        Raises:
            ValueError: an utterance is too short for one frame.
        """
        waves, lengths, ends = batch(waves, lengths, self.min_samples, self.device)
        if self.normalize:
            waves = standardise(waves, lengths, EPSILON)
        with valid_samples(ends):
            features, _ = self.model.feature_extractor(waves, None)
            states = self._transform(self.model.encoder.feature_projection(features), ends)
        return HiddenStates(states, self.frames(lengths), self.frame_ms)

    def _transform(self, x: Tensor, lengths: Tensor | None) -> list[Tensor]:
        """States of projected features (B, T, width)."""
        transformer = self.model.encoder.transformer
        inside = None if lengths is None else valid(self.frames(lengths), x.shape[1])
        x = x + transformer.pos_conv_embed(x)
        if transformer.layer_norm_first:  # torchaudio's word for a norm before the first layer and none after the last
            x = transformer.layer_norm(x)
        states, bias = [x], None
        for layer in transformer.layers:
            x, bias = layer(x, position_bias=bias, **_masks(layer.attention, inside))
            states.append(x)
        if not transformer.layer_norm_first:
            states[-1] = transformer.layer_norm(x)
        return states


def _masks(attention: nn.Module, inside: Tensor | None) -> dict[str, Tensor]:
    """Arguments that keep attention off the padding, in the form that each kind of attention wants."""
    if inside is None:
        return {}
    if isinstance(attention, WavLMSelfAttention):
        return {"key_padding_mask": torch.zeros(inside.shape, device=inside.device).masked_fill(~inside, -torch.inf)}
    return {"attention_mask": inside[:, None, None, :].expand(-1, 1, inside.shape[1], -1)}


def _description(card: Card) -> tuple[str, dict[str, Any], bool]:
    """Kind of model, arguments of its factory, and whether waveforms are normalised."""
    options = card.settings({"bundle": "", "model": "", "params": {}, "normalize": False})
    name, kind = str(options["bundle"]), str(options["model"])
    if bool(name) == bool(kind):
        raise SlimbenchError(f"{card.file}: set option bundle, a name in torchaudio.pipelines, or model and params.")
    if not name:
        if kind not in FACTORIES:
            raise SlimbenchError(f"{card.file}: option model is {kind!r}; write one of {', '.join(FACTORIES)}.")
        return kind, dict(options["params"]), bool(options["normalize"])
    if options["params"] or "normalize" in card.options:
        raise SlimbenchError(f"{card.file}: option bundle says params and normalize already; remove these.")
    known = _bundles()
    if name not in known:
        raise SlimbenchError(
            f"{card.file}: torchaudio has no pipeline {name!r}{hint(name, known)}; correct option bundle."
        )
    bundle = known[name]
    return bundle._model_type, dict(bundle._params), bool(bundle._normalize_waveform)


def _bundles() -> Mapping[str, Any]:
    """All pipelines of wav2vec 2.0, HuBERT and WavLM models by name."""
    kind = torchaudio.pipelines.Wav2Vec2Bundle
    return {name: item for name, item in vars(torchaudio.pipelines).items() if isinstance(item, kind)}


def _build(card: Card, kind: str, params: dict[str, Any]) -> Any:
    """The model with random weights and without the linear layer of fine-tuning."""
    try:
        with torch.random.fork_rng(devices=[]):  # the random start is overwritten; leave the caller's generator alone
            return FACTORIES[kind](**{**params, "aux_num_out": None})
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise SlimbenchError(f"{card.file}: torchaudio builds no {kind} model of option params ({reason}).") from error
