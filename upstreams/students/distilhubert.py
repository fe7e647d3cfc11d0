"""DistilHuBERT (arXiv 2110.01900) and what shares its checkpoint: deep-thin and shallow-wide students, RobustDistiller.

Format: the dictionary that s3prl's pre-training writes, ``Distiller`` (weights) and ``Config`` with a part
``distiller``. A wav2vec 2.0 front end without a norm on its output, an encoder, and heads that predict layers of the
teacher from the last layer: one shared hidden layer, then a matrix per predicted layer. Students trained layer to
layer (``self-hidden``) have no heads. RobustDistiller's enhancement head is not in its checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.cards import Card
from harness.interface import SlimbenchError
from upstreams.adapters.checkpoints import read_checkpoint
from upstreams.students.encoder import Encoder, EncoderShape, uniform
from upstreams.students.frontend import WAV2VEC2, Convolution, FrontEnd, frame_ms, min_samples
from upstreams.students.settings import Settings
from upstreams.students.student import FAIRSEQ, Blueprint, Family, renamed, tensors_under

NAMES = (*FAIRSEQ, (r"output_layer\.0\.", "heads.shared."), (r"output_layer\.2\.", "heads."))
"""Stored names in ours."""


class Heads(nn.Module):
    """Prediction heads: a shared linear map and GELU, then a matrix and a bias of its own for each predicted layer."""

    def __init__(self, width: int, inner: int, count: int, out: int) -> None:
        super().__init__()
        self.count = count
        self.shared = nn.Linear(width, inner * count)
        self.weight = nn.Parameter(torch.zeros(count, inner, out))
        self.bias = nn.Parameter(torch.zeros(1, 1, count, out))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, T, width) to ``count`` predictions (B, T, out)."""
        hidden = functional.gelu(self.shared(x))
        parts = hidden.view(*hidden.shape[:2], self.count, -1)
        predicted = torch.einsum("btni,nio->btno", parts, self.weight) + self.bias
        return list(predicted.unbind(2))


class DistilHuBERT(nn.Module):
    """The student; exposed are projected features, layers and predictions, or (``last``) the last layer alone."""

    def __init__(
        self, convolutions: Sequence[Convolution], norm: str, shape: EncoderShape, heads: Heads | None, last: bool
    ) -> None:
        super().__init__()
        self.front, self.encoder, self.heads, self.last = FrontEnd(convolutions, norm), Encoder(shape), heads, last

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """Waveforms (B, S) with (B,) valid samples to states (B, T, width) and (B,) valid frames."""
        passage = self.encoder(*self.front(waves, lengths))
        if self.last:
            return [passage.layers[-1]], passage.frames
        predicted = [] if self.heads is None else self.heads(passage.final)
        return [passage.projected, *passage.layers, *predicted], passage.frames


def read(card: Card, file: Path) -> Blueprint:
    """The student in a checkpoint. Card option ``states``: ``default`` (all) or ``paper`` (the last layer alone).

    Raises:
        SlimbenchError: the file is no such checkpoint, or of a kind that is not supported.
    """
    exposed = str(card.settings({"states": "default"})["states"])
    if exposed not in ("default", "paper"):
        raise SlimbenchError(f"{card.file}: option states is {exposed!r}; write default or paper.")
    checkpoint = Settings(file, read_checkpoint(file))
    config = checkpoint.part("Config").part("distiller")
    state = renamed(tensors_under(checkpoint.part("Distiller").values), NAMES, where=file)
    shape, convolutions = shape_of(config)
    norm = {"default": "group", "layer_norm": "layer"}[
        config.one_of("extractor_mode", ("default", "layer_norm"), "default")
    ]
    head: dict[str, Any] = head_of(config, shape.width)
    if exposed == "paper":  # then the heads compute nothing, so that they are not counted either
        head, state = {}, {name: tensor for name, tensor in state.items() if not name.startswith("heads.")}
    elif head and head["out"] != shape.width:
        raise SlimbenchError(f"{file} predicts {head['out']} values from {shape.width}; set option states: paper.")
    depth = len(shape.layers)
    return Blueprint(
        make=lambda: DistilHuBERT(convolutions, norm, shape, Heads(**head) if head else None, exposed == "paper"),
        state=_single_head(state),
        settings={"distiller": dict(config.values), "states": exposed},
        depth=depth,
        width=shape.width,
        num_states=1 if exposed == "paper" else 1 + depth + head.get("count", 0),
        frame_ms=frame_ms(convolutions),
        min_samples=min_samples(convolutions),
    )


def shape_of(config: Settings) -> tuple[EncoderShape, tuple[Convolution, ...]]:
    """Encoder and front end of a configuration (the part ``distiller``)."""
    config.one_of("activation_fn", ("gelu",), "gelu")
    config.one_of("attention_type", ("original",), "original")
    convolutions = config.convolutions("extractor_conv_feature_layers", WAV2VEC2)
    width = config.integer("encoder_embed_dim", 768, least=1)
    layers = uniform(
        config.integer("encoder_layers", 1, least=1),
        width,
        config.integer("encoder_attention_heads", 12, least=1),
        config.integer("encoder_ffn_embed_dim", 3072, least=1),
    )
    shape = EncoderShape(
        features=convolutions[-1].channels,
        width=width,
        layers=layers,
        feature_norm=False,
        project=convolutions[-1].channels != width,
        position_kernel=config.integer("conv_pos", 128, least=1),
        position_groups=config.integer("conv_pos_groups", 16, least=1),
        norm_first=config.flag("layer_norm_first", False),
    )
    return shape, convolutions


def head_of(config: Settings, width: int) -> dict[str, int]:
    """The sizes of the heads, or nothing where there are none."""
    kinds = ("expand-last", "self-hidden", "none")
    kind = config.one_of("task_emb_type", kinds, "expand-last")
    layer = config.one_of("out_layer_type", kinds, "expand-last")
    if kind != layer and not (kind != "expand-last" and layer != "expand-last"):
        raise SlimbenchError(f"{config.file}: {kind} with an output layer {layer} is not supported.")
    if kind != "expand-last":
        return {}
    inner = config.integer("out_layer_inter_dim", -1)
    out = config.integer("final_dim", 768, least=1)
    return {"width": width, "inner": inner if inner > 0 else width, "count": config.integer("n_tasks", 12), "out": out}


def _single_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A student of one predicted layer stores its matrix as a linear map; in our terms it is a stack of one."""
    weight, bias = state.pop("heads.layer.weight", None), state.pop("heads.layer.bias", None)
    if weight is not None and bias is not None:
        state["heads.weight"], state["heads.bias"] = weight.T[None], bias[None, None, None]
    return state


adapter = Family("distilhubert", read)
