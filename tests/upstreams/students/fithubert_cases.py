"""FitHuBERT's checkpoint, and what its public code (glory20h/FitHuBERT) made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from student_cases import Case, Size, golden, random_state
from torch import Tensor, nn

from upstreams.students.fithubert import plan_of
from upstreams.students.frontend import parse_convolutions
from upstreams.students.layerwise import LayerwiseStudent
from upstreams.students.settings import Settings

Shapes = dict[str, tuple[int, ...]]

SMALL: dict[str, Any] = {
    "extractor_mode": "default",
    "conv_feature_layers": "[(8, 10, 5)] + [(12, 1, 1)] + [(12, 3, 2)] * 4 + [(20, 1, 1)] + [(20, 2, 2)] * 2",
    "conv_bias": False,
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "pos_conv_depth": 1,
    "layer_type": "transformer",
    "encoder_layers": 3,
    "encoder_embed_dim": 12,
    "encoder_ffn_embed_dim": 20,
    "encoder_attention_heads": 4,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "pred_head_final_dim": 6,
    "layerwise_proj": True,
    "pred_layer_id": "[2]",
    "enable_tr_layer": True,
    "tr_conv1d_kernel": 2,
    "tr_layer_index": 0,
    "tr_reduce_factor": 2,
    "tr_layer_type": "conv1d",
    "required_seq_len_multiple": 1,
    "crop_seq_to_multiple": 1,
}


def linear(name: str, size_in: int, size_out: int) -> Shapes:
    """Weight and bias of a linear map."""
    return {f"{name}.weight": (size_out, size_in), f"{name}.bias": (size_out,)}


def norm(name: str, size: int) -> Shapes:
    """Weight and bias of a norm."""
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def body_shapes(config: Mapping[str, Any]) -> Shapes:
    """Names and shapes of front end and embedding, as fairseq's wav2vec 2.0 has them."""
    shapes: Shapes = {}
    before = 1
    for index, (channels, kernel, _) in enumerate(parse_convolutions(config["conv_feature_layers"])):
        name = f"feature_extractor.conv_layers.{index}"
        shapes[f"{name}.0.weight"] = (channels, before, kernel)
        if config["conv_bias"]:
            shapes[f"{name}.0.bias"] = (channels,)
        if config["extractor_mode"] == "layer_norm":
            shapes |= norm(f"{name}.2.1", channels)
        elif index == 0:
            shapes |= norm(f"{name}.2", channels)
        before = channels
    width, kernel = config["encoder_embed_dim"], config["conv_pos"]
    if before != width:
        shapes |= linear("post_extract_proj", before, width)
    shapes |= {"encoder.pos_conv.0.weight_g": (1, 1, kernel), "encoder.pos_conv.0.bias": (width,)}
    shapes["encoder.pos_conv.0.weight_v"] = (width, width // config["conv_pos_groups"], kernel)
    return shapes | norm("encoder.layer_norm", width) | norm("layer_norm", before)


def layer_shapes(name: str, config: Mapping[str, Any], own_map: bool = True) -> Shapes:
    """Names and shapes of a transformer layer."""
    width, inner = config["encoder_embed_dim"], config["encoder_ffn_embed_dim"]
    shapes: Shapes = {}
    for part in ("k_proj", "v_proj", "q_proj", "out_proj") if own_map else ("v_proj", "out_proj"):
        shapes |= linear(f"{name}.self_attn.{part}", width, width)
    shapes |= norm(f"{name}.self_attn_layer_norm", width) | norm(f"{name}.final_layer_norm", width)
    return shapes | linear(f"{name}.fc1", width, inner) | linear(f"{name}.fc2", inner, width)


def shapes_of(config: Mapping[str, Any]) -> Shapes:
    """Names and shapes of a FitHuBERT."""
    width, predicted, factor = config["encoder_embed_dim"], config["pred_head_final_dim"], config["tr_reduce_factor"]
    shapes = body_shapes(config)
    shapes |= {"encoder.layers.0.weight": (width, width, factor), "encoder.layers.0.bias": (width,)}
    for index in range(config["encoder_layers"]):
        shapes |= layer_shapes(f"encoder.layers.{index + 1}", config)
        name = f"proj_head.{index}.upsampler"
        shapes |= {f"{name}.weight": (width, width, factor), f"{name}.bias": (width,)}
        if width != predicted:
            shapes |= linear(f"proj_head.{index}.lin_proj", width, predicted)
    return shapes | {"upsampler.weight": (width, width, factor), "upsampler.bias": (width,)}


def save(family: str, config: Mapping[str, Any], shapes: Shapes, states: str, folder: Path) -> Mapping[str, object]:
    """A checkpoint as Lightning writes it, and the YAML file that training writes beside it."""
    state = {f"student_model.{name}": tensor for name, tensor in random_state(shapes).items()}
    state["teacher_model.model.encoder.layer_norm.weight"] = torch.ones(4)
    whole = {"train": {"use_fp16": True}, "distiller": dict(config)}
    checkpoint = {"state_dict": state, "epoch": 3, "hyper_parameters": {"cfg": whole}}
    torch.save(checkpoint, folder / "student.ckpt")
    (folder / "student.yaml").write_text(yaml.safe_dump(whole))
    adapter = f"upstreams.students.{family}:adapter"
    return {"adapter": adapter, "weights": "student.ckpt", "options": {"config": "student.yaml", "states": states}}


def write(changes: dict[str, Any], states: str, folder: Path) -> Mapping[str, object]:
    """A FitHuBERT checkpoint."""
    config = {**SMALL, **changes}
    return save("fithubert", config, shapes_of(config), states, folder)


OTHER = {
    "extractor_mode": "layer_norm",
    "conv_bias": True,
    "layer_norm_first": True,
    "pred_head_final_dim": 12,
    "encoder_layers": 2,
    "required_seq_len_multiple": 2,
}
HOW = (
    "The public model class with the weights of the same file, with s3prl's copies of the fairseq modules "
    "that it imports, one utterance at a time; "
)


def case(name: str, changes: dict[str, Any], states: str, how: str) -> Case:
    """A case with its golden file."""
    file = f"fithubert_{name.replace(' ', '_')}"
    return Case("fithubert", name, partial(write, changes, states), golden(file), HOW + how)


CASES = [
    case("heads", {}, "heads", "its projections."),
    case("last", {}, "last", "last_hidden_state of its s3prl expert."),
    case("layers", {}, "layers", "its layer_results."),
    case("other settings", OTHER, "heads", "its projections; frames padded to an even number, pre-norm, biases."),
    case("by three", {"tr_reduce_factor": 3, "encoder_layers": 2}, "heads", "its projections; three frames into one."),
]

PUBLISHED = {
    **SMALL,
    "conv_feature_layers": "[(128, 10, 5)] + [(256, 1, 1)] + [(256, 3, 2)] * 4 + [(512, 1, 1)] + [(512, 2, 2)] * 2",
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "encoder_layers": 12,
    "encoder_embed_dim": 480,
    "encoder_ffn_embed_dim": 480,
    "encoder_attention_heads": 12,
    "pred_head_final_dim": 768,
}


class AsPrinted(nn.Module):
    """A student beside weights that its public module holds for training alone: printed sizes are those of the module.

    The weights are read, since the counter of MACs wants to see every weight, but multiply nothing.
    """

    def __init__(self, student: nn.Module, *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.student = student
        self.unused = nn.ParameterList(nn.Parameter(torch.zeros(shape)) for shape in shapes)

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """The student's states and frames."""
        for weight in self.unused:
            weight.sum()
        states, frames = self.student(waves, lengths)
        return states, frames


def full(states: str) -> LayerwiseStudent:
    """The published student with random weights, and no weights besides those that ``states`` needs."""
    return LayerwiseStudent(plan_of(Settings(Path("config"), PUBLISHED)), states)


def printed(states: str) -> Callable[[], nn.Module]:
    """The published student, with the second upsampling convolution that the public module never calls."""
    return lambda: AsPrinted(full(states), (480, 480, 2), (480,))


SIZES = [
    Size(
        "fithubert", "FitHuBERT", printed("last"), 22.492, 3,
        source="table in DPHuBERT's repository; the last head, and 0.461 M that nothing calls",
    ),
    Size(
        "fithubert", "FitW2V2-960h", printed("heads"), 31.630, 3,
        source="table in DPHuBERT's repository; all heads, and 0.461 M that nothing calls",
    ),
]  # fmt: skip
