"""DistilHuBERT (arXiv 2110.01900) and what shares its checkpoint: deep-thin and shallow-wide students, RobustDistiller.

Format: the dictionary that s3prl's pre-training writes, ``Distiller`` (weights) and ``Config`` with a part
``distiller``. A wav2vec 2.0 front end without a norm on its output, an encoder, and heads that predict layers of the
teacher from the last layer: one shared hidden layer, then a matrix per predicted layer. Students trained layer to
layer (``self-hidden``) have no heads: s3prl lists their layers twice, here they are listed once. RobustDistiller writes
the same format with more settings beside ``distiller``; its enhancement head is not in its checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.cards import Card
from harness.interface import SlimbenchError
from upstreams.adapters.checkpoints import read_checkpoint
from upstreams.students.encoder import Encoder
from upstreams.students.layout import Layout, layout_of
from upstreams.students.settings import Settings
from upstreams.students.student import FAIRSEQ, Blueprint, Family, renamed, tensors_under

NAMES = (*FAIRSEQ, (r"output_layer\.0\.", "heads.shared."), (r"output_layer\.2\.", "heads."))
"""Stored names in ours."""
EXPOSURES = {
    "default": "projected features before the positional convolution, every layer's output, predictions, 20 ms",
    "layers": "projected features before the positional convolution and every layer's output, 20 ms",
    "paper": "output of the last layer, 20 ms",
}
"""What card option ``states`` may say, and which states that are."""
MOST_HEADS = 1000


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

    def __init__(self, layout: Layout, heads: Heads | None, last: bool) -> None:
        super().__init__()
        self.front, self.encoder, self.heads, self.last = layout.front(), Encoder(layout.encoder), heads, last

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """Waveforms (B, S) with (B,) valid samples to states (B, T, width) and (B,) valid frames."""
        passage = self.encoder(*self.front(waves, lengths))
        if self.last:
            return [passage.layers[-1]], passage.frames
        predicted = [] if self.heads is None else self.heads(passage.final)
        return [passage.projected, *passage.layers, *predicted], passage.frames


def read(card: Card, file: Path) -> Blueprint:
    """The student in a checkpoint. Card option ``states``, one of :data:`EXPOSURES`; ``default`` gives all of them.

    Raises:
        SlimbenchError: the file is no such checkpoint, or of a kind that is not supported.
    """
    exposed = str(card.settings({"states": "default"})["states"])
    if exposed not in EXPOSURES:
        raise SlimbenchError(f"{card.file}: option states is {exposed!r}; write one of {', '.join(EXPOSURES)}.")
    checkpoint = Settings(file, read_checkpoint(file))
    config = checkpoint.part("Config").part("distiller")
    state = renamed(tensors_under(checkpoint.part("Distiller").values), NAMES, where=file)
    layout = distiller_layout(config)
    width, depth = layout.encoder.width, len(layout.encoder.layers)
    head = head_of(config, width)
    if exposed != "default":  # then the heads compute nothing, so that they are not counted either
        head, state = {}, {name: tensor for name, tensor in state.items() if not name.startswith("heads.")}
    elif head and head["out"] != width:
        raise SlimbenchError(
            f"{file} predicts {head['out']} values, but its layers have {width}; set option states to layers or paper "
            f"in {card.file}."
        )
    return Blueprint(
        make=lambda: DistilHuBERT(layout, Heads(**head) if head else None, exposed == "paper"),
        state=_single_head(state),
        settings={"layout": layout.facts(), "head": head, "states": exposed},
        depth=depth,
        width=width,
        num_states=1 if exposed == "paper" else 1 + depth + head.get("count", 0),
        frame_ms=layout.frame_ms,
        min_samples=layout.min_samples,
    )


def recognise(path: Path, checkpoint: Mapping[str, object]) -> dict[str, object] | None:
    """The fields of a card for a checkpoint of this family, ``None`` for any other.

    Raises:
        SlimbenchError: it is of this family, but of a kind that is not supported.
    """
    config = checkpoint.get("Config")
    if "Distiller" not in checkpoint or not isinstance(config, Mapping) or "distiller" not in config:
        return None
    settings = Settings(path, config, "Config").part("distiller")
    layout = distiller_layout(settings)
    head = head_of(settings, layout.encoder.width)
    states = "default" if not head or head["out"] == layout.encoder.width else "layers"
    return {
        "adapter": "upstreams.students.distilhubert:adapter",
        "family": adapter.name,
        "depth": len(layout.encoder.layers),
        "width": layout.encoder.width,
        "exposes": EXPOSURES["layers" if not head else states],
        "options": {"states": states},
    }


def distiller_layout(config: Settings) -> Layout:
    """Front end and encoder of a configuration (the part ``distiller``)."""
    config.one_of("attention_type", ("original",), "original")
    return layout_of(config, "extractor_conv_feature_layers", feature_norm=False, depth=1)


def head_of(config: Settings, width: int) -> dict[str, int]:
    """The sizes of the heads (arguments of :class:`Heads`), or nothing where there are none."""
    kinds = ("expand-last", "self-hidden", "none")
    kind = config.one_of("task_emb_type", kinds, "expand-last")
    layer = config.one_of("out_layer_type", kinds, "expand-last")
    if (kind == "expand-last") != (layer == "expand-last"):
        raise SlimbenchError(f"{config.file}: task_emb_type {kind} with out_layer_type {layer} is not supported.")
    if kind != "expand-last":
        return {}
    inner, count = config.integer("out_layer_inter_dim", -1), config.integer("n_tasks", 12, least=1)
    out = config.integer("final_dim", 768, least=1)
    if count > MOST_HEADS:
        raise SlimbenchError(f"{config.file}: n_tasks is {count}, at most {MOST_HEADS} is supported; copy it again.")
    return {"width": width, "inner": inner if inner > 0 else width, "count": count, "out": out}


def _single_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A student of one predicted layer stores its matrix as a linear map; in our terms it is a stack of one."""
    weight, bias = state.pop("heads.layer.weight", None), state.pop("heads.layer.bias", None)
    if weight is not None and bias is not None:
        state["heads.weight"], state["heads.bias"] = weight.T[None], bias[None, None, None]
    return state


adapter = Family("distilhubert", read)
