"""Checkpoints of ARMHuBERT, MaskHuBERT and STaRHuBERT, and what their public code (sungnyun/ARMHuBERT) made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fithubert_cases import HOW, OTHER, SMALL, AsPrinted, Shapes, body_shapes, layer_shapes, linear, save
from student_cases import Case, Size, golden
from torch import nn

from upstreams.students.armhubert import own_maps_of, plan_of
from upstreams.students.layerwise import LayerwiseStudent
from upstreams.students.settings import Settings

TINY: dict[str, Any] = {
    **SMALL,
    "conv_feature_layers": "[(8, 10, 5)] + [(12, 1, 1)] + [(12, 3, 2)] * 4 + [(12, 1, 1)] + [(12, 2, 2)] * 2",
    "enable_tr_layer": False,
    "encoder_layers": 2,
}
STAR_LACKS = ("layerwise_proj", "pred_layer_id", "pred_head_final_dim", *(key for key in SMALL if "tr_" in key))


def shapes_of(config: Mapping[str, Any]) -> Shapes:
    """Names and shapes of a student of this family."""
    depth, width = config["encoder_layers"], config["encoder_embed_dim"]
    own = own_maps_of(Settings(Path("config"), config)) or [True] * depth
    shapes = body_shapes(config)
    for index in range(depth):
        shapes |= layer_shapes(f"encoder.layers.{index}", config, own[index])
        if config.get("layerwise_proj") and width != config["pred_head_final_dim"]:
            shapes |= linear(f"proj_head.{index}.lin_proj", width, config["pred_head_final_dim"])
    if config.get("layerwise_proj"):
        return shapes | {"mask_emb": (width,)}
    return shapes | linear("final_proj", width, 5)


def write(changes: dict[str, Any], states: str, folder: Path, lacks: tuple[str, ...] = ()) -> Mapping[str, object]:
    """A checkpoint of this family."""
    config = {key: value for key, value in {**TINY, **changes}.items() if key not in lacks}
    return save("armhubert", config, shapes_of(config), states, folder)


def case(name: str, changes: dict[str, Any], states: str, how: str, lacks: tuple[str, ...] = ()) -> Case:
    """A case with its golden file."""
    file = golden(f"armhubert_{name.replace(' ', '_')}")
    return Case("armhubert", name, partial(write, changes, states, lacks=lacks), file, HOW + how)


CASES = [
    case(
        "armhubert heads",
        {"reuse_pattern": "[True, False, False] + [True]", "encoder_layers": 4},
        "heads",
        "hidden_states of its s3prl expert; one map serves three layers.",
    ),
    case("armhubert layers", {"reuse_pattern": "[True, False] * 1"}, "layers", "its layer_results."),
    case("maskhubert last", {}, "last", "last_hidden_state of its s3prl expert."),
    case("starhubert layers", {}, "layers", "hidden_states of its s3prl expert; no heads.", STAR_LACKS),
    case(
        "armhubert other settings",
        {
            **OTHER,
            "conv_feature_layers": SMALL["conv_feature_layers"],
            "reuse_pattern": "[True, False] * 1",
            "pred_head_final_dim": 6,
            "required_seq_len_multiple": 4,
        },
        "heads",
        "hidden_states of its s3prl expert; frames padded to a multiple of 4, pre-norm, biases.",
    ),
]


def full(width: int, inner: int, reuse: bool = True) -> LayerwiseStudent:
    """A published student with random weights, and no weights besides those that its heads need."""
    front = f"[(128, 10, 5)] + [(256, 1, 1)] + [(256, 3, 2)] * 4 + [({width}, 1, 1)] + [({width}, 2, 2)] * 2"
    config = {
        **TINY,
        "conv_feature_layers": front,
        "conv_pos": 128,
        "conv_pos_groups": 16,
        "encoder_layers": 12,
        "encoder_embed_dim": width,
        "encoder_ffn_embed_dim": inner,
        "encoder_attention_heads": 12,
        "pred_head_final_dim": 768,
        "reuse_pattern": str([True, not reuse] * 6),
    }
    return LayerwiseStudent(plan_of(Settings(Path("config"), config)), "heads")


def printed(width: int, inner: int, reuse: bool = True) -> Callable[[], nn.Module]:
    """A published student, with the mask embedding that only training uses."""
    return lambda: AsPrinted(full(width, inner, reuse), (width,))


TABLE = "table in its repository; all heads, and the mask embedding"
SIZES = [
    Size("armhubert", "MaskHuBERT", printed(480, 640, reuse=False), 26.636, 3, source=TABLE),
    Size("armhubert", "ARMHuBERT", printed(480, 864), 26.448, 3, source=TABLE),
    Size("armhubert", "ARMHuBERT-S, ARMWavLM-S", printed(432, 816), 22.394, 3, 449.4, source=TABLE),
]
