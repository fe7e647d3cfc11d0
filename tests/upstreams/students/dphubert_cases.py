"""DPHuBERT's checkpoint with made-up ragged shapes, and the states that its public code makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from student_cases import Case, Size, golden, random_state
from torch import Tensor, nn
from torchaudio.models import wav2vec2_model

from upstreams.students.dphubert import build
from upstreams.students.encoder import EncoderShape, uniform
from upstreams.students.frontend import WAV2VEC2

FRONT = [(12, 10, 5), (10, 3, 2), (9, 3, 2), (11, 3, 2), (10, 3, 2), (7, 2, 2), (10, 4, 4)]
"""Ragged channels; 40 ms per frame, so that the stored states are small."""
DROPOUTS = ("encoder_projection_dropout", "encoder_attention_dropout", "encoder_ff_interm_dropout", "encoder_dropout")
COMMON: dict[str, Any] = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": FRONT,
    "extractor_conv_bias": False,
    "encoder_embed_dim": 8,
    "encoder_pos_conv_kernel": 16,
    "encoder_pos_conv_groups": 4,
    "encoder_layer_norm_first": False,
    "encoder_layer_drop": 0.05,
    "aux_num_out": None,
    **dict.fromkeys(DROPOUTS, 0.1),
}
HUBERT: dict[str, Any] = COMMON | {
    "normalize_waveform": False,
    "encoder_num_layers": 4,
    "encoder_use_attention": [True, False, True, False],
    "encoder_use_feed_forward": [True, True, False, False],
    "encoder_num_heads": [3, 0, 1, 0],
    "encoder_head_dim": 2,
    "encoder_ff_interm_features": [20, 7, 0, 0],
}
"""A layer that has both parts, one of each without the other, and one with neither."""
LARGE: dict[str, Any] = HUBERT | {
    "extractor_mode": "layer_norm",
    "extractor_conv_bias": True,
    "encoder_layer_norm_first": True,
    "normalize_waveform": True,
    "encoder_use_attention": [False, True, True, False],
    "encoder_num_heads": [0, 2, 4, 0],
    "encoder_ff_interm_features": [9, 20, 0, 0],
}
WAVLM: dict[str, Any] = COMMON | {
    "normalize_waveform": False,
    "encoder_num_layers": 3,
    "encoder_use_attention": [True, True, True],
    "encoder_use_feed_forward": [True, False, True],
    "encoder_total_num_heads": [4, 4, 4],
    "encoder_remaining_heads": [[1, 3], [0], [0, 2, 3]],
    "encoder_num_buckets": 24,
    "encoder_max_distance": 40,
    "encoder_ff_interm_features": [20, 0, 5],
}
UNBIASED: dict[str, Any] = WAVLM | {
    "encoder_use_attention": [False, True, True],
    "encoder_remaining_heads": [[], [0, 2], [3]],
}
"""The position bias is in the first layer's attention and is gone with it."""
PLAIN: dict[str, Any] = COMMON | {
    "encoder_num_layers": 2,
    "encoder_num_heads": 4,
    "encoder_ff_interm_features": 20,
}
"""The arguments of torchaudio's own builder: one number for all layers, and nothing about the waveform."""


def linear(name: str, wide: int, out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, wide), f"{name}.bias": (out,)}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def front_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the stored front end."""
    shapes: dict[str, tuple[int, ...]] = {"feature_extractor.dummy_weight": (FRONT[-1][0],)}
    channels = 1
    for index, (out, kernel, _) in enumerate(FRONT):
        name = f"feature_extractor.conv_layers.{index}"
        shapes[f"{name}.conv.weight"] = (out, channels, kernel)
        if config["extractor_conv_bias"]:
            shapes[f"{name}.conv.bias"] = (out,)
        if index == 0 or config["extractor_mode"] == "layer_norm":
            shapes |= norm(f"{name}.layer_norm", out)
        channels = out
    return shapes


def layer_shapes(config: Mapping[str, Any], index: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a stored layer."""
    name, width = f"encoder.transformer.layers.{index}", config["encoder_embed_dim"]
    shapes = norm(f"{name}.layer_norm", width) | norm(f"{name}.final_layer_norm", width)
    if config["encoder_use_attention"][index]:
        kept: Sequence[int] | None = config.get("encoder_remaining_heads", [None] * 9)[index]
        if kept is None:
            inner = config["encoder_num_heads"][index] * config["encoder_head_dim"]
        else:
            total = config["encoder_total_num_heads"][index]
            inner = len(kept) * (width // total)
            shapes |= linear(f"{name}.attention.gru_rel_pos_linear", width // total, 8)
            shapes[f"{name}.attention.gru_rel_pos_const"] = (1, total, 1, 1)
            if index == 0:
                shapes[f"{name}.attention.rel_attn_embed.weight"] = (config["encoder_num_buckets"], total)
        for part in ("q_proj", "k_proj", "v_proj"):
            shapes |= linear(f"{name}.attention.{part}", width, inner)
        shapes |= linear(f"{name}.attention.out_proj", inner, width)
    if config["encoder_use_feed_forward"][index]:
        units = config["encoder_ff_interm_features"][index]
        shapes |= linear(f"{name}.feed_forward.intermediate_dense", width, units)
        shapes |= linear(f"{name}.feed_forward.output_dense", units, width)
    return shapes


def stored(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Random weights as a pruned checkpoint stores them."""
    width, name = config["encoder_embed_dim"], "encoder.transformer"
    kernel, groups = config["encoder_pos_conv_kernel"], config["encoder_pos_conv_groups"]
    shapes = front_shapes(config)
    shapes |= norm("encoder.feature_projection.layer_norm", FRONT[-1][0])
    shapes |= linear("encoder.feature_projection.projection", FRONT[-1][0], width)
    shapes |= norm(f"{name}.layer_norm", width)
    shapes[f"{name}.pos_conv_embed.conv.bias"] = (width,)
    shapes[f"{name}.pos_conv_embed.conv.weight_g"] = (1, 1, kernel)
    shapes[f"{name}.pos_conv_embed.conv.weight_v"] = (width, width // groups, kernel)
    for index in range(config["encoder_num_layers"]):
        shapes |= layer_shapes(config, index)
    return random_state(shapes)


def write(config: dict[str, Any], folder: Path) -> Mapping[str, object]:
    """A checkpoint as the public code saves it after its second distillation."""
    width = config["encoder_embed_dim"]
    maps = random_state(linear("0", width, width) | linear("1", width, width))
    torch.save(
        {"state_dict": stored(config), "config": config, "distill_linear_projs": maps},
        folder / "pruned_hubert_base.pth",
    )
    return {"adapter": "upstreams.students.dphubert:adapter", "weights": "pruned_hubert_base.pth"}


def write_plain(folder: Path) -> Mapping[str, object]:
    """A checkpoint of torchaudio's own model."""
    model = wav2vec2_model(**PLAIN)
    state = random_state({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
    torch.save({"state_dict": state, "config": PLAIN}, folder / "plain.pth")
    options = {"normalise": False}
    return {"adapter": "upstreams.students.dphubert:adapter", "weights": "plain.pth", "options": options}


def torchaudio_states(folder: Path, waves: list[Tensor]) -> list[list[Tensor]]:
    """States of torchaudio's model, utterance by utterance; it gives layers, so the projection is asked for."""
    checkpoint = torch.load(folder / "plain.pth", weights_only=True)
    model = wav2vec2_model(**checkpoint["config"]).eval()
    model.load_state_dict(checkpoint["state_dict"])
    found = []
    with torch.no_grad():
        for wave in waves:
            projected = model.encoder.feature_projection(model.feature_extractor(wave[None], None)[0])
            found.append([projected[0], *(layer[0] for layer in model.extract_features(wave[None])[0])])
    return found


HOW = (
    "pyf98/DPHuBERT, wav2vec2_model(**config) with the checkpoint's weights (strict) in eval mode, extract_features of "
    "each utterance alone"
)
CASES = [
    Case("dphubert", "pruned HuBERT", partial(write, HUBERT), golden("dphubert"), HOW),
    Case("dphubert", "pruned large pre-norm", partial(write, LARGE), golden("dphubert_large"), HOW),
    Case("dphubert", "pruned WavLM", partial(write, WAVLM), golden("dpwavlm"), HOW),
    Case("dphubert", "pruned WavLM without bias", partial(write, UNBIASED), golden("dpwavlm_unbiased"), HOW),
    Case("dphubert", "torchaudio wav2vec 2.0", write_plain, torchaudio_states, "torchaudio, live"),
]


def unpruned() -> nn.Module:
    """HuBERT Base as the public code converts it, before any pruning."""
    shape = EncoderShape(512, 768, uniform(12, 768, 12, 3072))
    return build(shape, WAV2VEC2, "group", False, False)


SIZES = [Size("dphubert", "HuBERT Base, before pruning", unpruned, None, 2, 1669.0, 0.5, "SUPERB")]
