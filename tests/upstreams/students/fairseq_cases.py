"""wav2vec 2.0, HuBERT, WavLM, UniSpeech-SAT and ILS-SSL: their checkpoints, and their public code, live or stored."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from s3prl.upstream.hubert.expert import UpstreamExpert as Hubert
from s3prl.upstream.hubert.hubert_model import HubertConfig, HubertModel, HubertPretrainingConfig
from s3prl.upstream.unispeech_sat.expert import UpstreamExpert as UniSpeechSat
from s3prl.upstream.utils import merge_with_parent
from s3prl.upstream.wav2vec2.expert import UpstreamExpert as Wav2vec2
from s3prl.upstream.wav2vec2.wav2vec2_model import Wav2Vec2Config, Wav2Vec2Model
from s3prl.upstream.wavlm.expert import UpstreamExpert as WavLMExpert
from s3prl.upstream.wavlm.WavLM import WavLM, WavLMConfig
from student_cases import Case, Size, golden, random_state
from torch import Tensor, nn

from upstreams.students.fairseq_models import KINDS, build, layout
from upstreams.students.settings import Settings

SMALL: dict[str, Any] = {
    "conv_feature_layers": "[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] * 2",
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "encoder_layers": 2,
    "encoder_embed_dim": 24,
    "encoder_ffn_embed_dim": 32,
    "encoder_attention_heads": 4,
    "final_dim": 8,
}
LARGE: dict[str, Any] = {"extractor_mode": "layer_norm", "layer_norm_first": True, "conv_bias": True}
GATED: dict[str, Any] = {
    **{"relative_position_embedding": True, "gru_rel_pos": True, "num_buckets": 16, "max_distance": 30},
    "normalize": False,
}
ILS: dict[str, Any] = {
    **{"_name": "ils_hubert", "relative_position_embedding": True, "num_buckets": 16, "max_distance": 30},
    **{"predict_layers": "[1,2]", "separate_label_embeds": True, "weighted_sum": True},
}
TASK = {"normalize": False, "sample_rate": 16_000}
EXPERTS = {"hubert": Hubert, "wav2vec2": Wav2vec2, "wavlm": WavLMExpert, "unispeech-sat": UniSpeechSat}


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's weights."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def public(family: str, config: dict[str, Any]) -> nn.Module:
    """s3prl's model of a configuration."""
    model: nn.Module
    if family == "wav2vec2":
        model = Wav2Vec2Model(merge_with_parent(Wav2Vec2Config, config))
    elif family == "hubert":
        task = merge_with_parent(HubertPretrainingConfig, TASK)
        model = HubertModel(merge_with_parent(HubertConfig, {"label_rate": 50.0, **config}), task, ["abc"])
    else:
        model = WavLM(WavLMConfig(config))
    return model


def write(folder: Path, family: str, config: dict[str, Any], task: dict[str, Any], form: str) -> Mapping[str, object]:
    """A checkpoint in one of the forms: ``converted`` by s3prl, ``fairseq``, older fairseq (``args``), ``flat``."""
    weights = random_state(shapes(public(family, config)))
    converted = {"model_cfg": {"label_rate": 50.0, **config}, "task_cfg": task, "model_weight": weights}
    forms: dict[str, dict[str, Any]] = {
        "converted": {**converted, "dictionaries_symbols": ["abc"]},
        "fairseq": {"args": None, "cfg": {"model": config, "task": task}, "model": weights},
        "args": {"args": Namespace(arch=family, **{**config, **task}), "model": weights},
        "flat": {"cfg": config, "model": weights},
    }
    torch.save(forms[form], folder / "model.pt")
    torch.save(forms["flat" if form == "flat" else "converted"], folder / "public.pt")
    return {"adapter": f"upstreams.students.fairseq_models:{KINDS[family].attribute}", "weights": "model.pt"}


def reference(folder: Path, waves: list[Tensor], family: str) -> list[list[Tensor]]:
    """States of s3prl's expert, utterance by utterance."""
    expert = EXPERTS[family](str(folder / "public.pt")).eval()
    with torch.no_grad():
        return [[state[0] for state in expert([wave])["hidden_states"]] for wave in waves]


def case(family: str, name: str, form: str, changes: Mapping[str, Any], **task: object) -> Case:
    """A case of a small model."""
    config = {**SMALL, **changes}
    if form not in ("args", "flat"):
        config["_name"] = family
    writer = partial(write, family=family, config=config, task={**TASK, **task}, form=form)
    return Case(family, name, writer, partial(reference, family=family), "s3prl, live")


def ils_weights(config: dict[str, Any]) -> dict[str, Tensor]:
    """Weights of ILS-SSL: an encoder with relative positions, and heads that must be left out."""
    width = config["encoder_embed_dim"]
    heads = {"label_embs_concat": (2, 7, 8), "weights": (2,)}
    for i in range(2):
        heads |= {f"final_proj.{i}.weight": (8, width), f"final_proj.{i}.bias": (8,)}
        if config.get("layer_norm_first"):
            heads |= {f"post_layer_norm.{i}.weight": (width,), f"post_layer_norm.{i}.bias": (width,)}
    return random_state({**shapes(WavLM(WavLMConfig(config))), **heads})


def write_ils(folder: Path, config: dict[str, Any], normalize: bool, old: bool) -> Mapping[str, object]:
    """A checkpoint of ILS-SSL as fairseq writes it, or as it wrote it before (``old``)."""
    settings: dict[str, Any] = {"cfg": {"model": config, "task": {"normalize": normalize}}}
    if old:
        settings = {"args": Namespace(arch="ils_hubert", normalize=normalize, **{**config, "_name": None})}
    torch.save({**settings, "model": ils_weights(config)}, folder / "ils.pt")
    return {"adapter": "upstreams.students.fairseq_models:ils", "weights": "ils.pt"}


def by_wavlm(folder: Path, waves: list[Tensor], config: dict[str, Any]) -> list[list[Tensor]]:
    """States of ILS-SSL's weights in s3prl's WavLM, which can leave out the gate."""
    torch.save({"cfg": {**config, "normalize": False}, "model": _encoder(config)}, folder / "public.pt")
    return reference(folder, waves, "wavlm")


def _encoder(config: dict[str, Any]) -> dict[str, Tensor]:
    heads = ("label_embs_concat", "weights", "final_proj.", "post_layer_norm.")
    return {name: tensor for name, tensor in ils_weights(config).items() if not name.startswith(heads)}


ILS_BASE = {**SMALL, **ILS, "encoder_embed_dim": 16}
ILS_LARGE = {**ILS_BASE, **LARGE, "conv_bias": False}
HOW = "the public code with stand-ins for the parts of fairseq around it; states by hooks as SUPERB takes HuBERT's"
CASES = [
    case("hubert", "converted by s3prl", "converted", {}),
    case("hubert", "large, from fairseq", "fairseq", LARGE, normalize=True),
    case("hubert", "older fairseq", "args", {"encoder_embed_dim": 16}),
    case("wav2vec2", "converted by s3prl", "converted", {"quantize_targets": True}),
    case("wav2vec2", "large, from fairseq", "fairseq", LARGE, normalize=True),
    case("wavlm", "base", "flat", GATED),
    case("wavlm", "large", "flat", {**GATED, **LARGE, "conv_bias": False, "normalize": True}),
    case("unispeech-sat", "base", "flat", {"normalize": False}),
    Case("ils", "base", partial(write_ils, config=ILS_BASE, normalize=False, old=False), golden("ils_base"), HOW),
    Case("ils", "large", partial(write_ils, config=ILS_LARGE, normalize=True, old=True), golden("ils_large"), HOW),
    Case(
        "ils", "older fairseq", partial(write_ils, config=ILS_BASE, normalize=False, old=True),
        partial(by_wavlm, config=ILS_BASE), "s3prl's WavLM without its gate, live",
    ),
]  # fmt: skip


def full(**config: object) -> Callable[[], nn.Module]:
    """A full-size model with random weights."""
    return lambda: build(layout(Settings(Path("config"), config)))


SIZES = [
    Size("hubert", "HuBERT Base of fairseq", full(), None, 2, 1669, 0.5, "SUPERB"),
]
