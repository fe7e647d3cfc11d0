"""DistilHuBERT's checkpoint and s3prl's own module, run live."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from s3prl.upstream.distiller.expert import UpstreamExpert
from s3prl.upstream.distiller.model import DistillerConfig, DistillerModel
from student_cases import Case, Size, random_state
from torch import Tensor, nn

from upstreams.students.distilhubert import DistilHuBERT, Heads, shape_of
from upstreams.students.settings import Settings

FRONT = "[(24,10,5)] + [(24,3,2)] * 4 + [(24,2,2)] * 2"
SMALL: dict[str, Any] = {
    "extractor_conv_feature_layers": FRONT,
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "encoder_layers": 2,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 48,
    "encoder_attention_heads": 4,
    "final_dim": 32,
    "n_tasks": 3,
    "pred_layer_id": [4, 8, 12],
}


def write(config: dict[str, Any], options: dict[str, Any], folder: Path) -> Mapping[str, object]:
    """A checkpoint as s3prl's pre-training writes it."""
    stored = DistillerModel(DistillerConfig(config)).state_dict()
    state = random_state({name: tuple(tensor.shape) for name, tensor in stored.items()})
    torch.save({"Distiller": state, "Config": {"distiller": config}, "Step": 200_000}, folder / "student.ckpt")
    return {"adapter": "upstreams.students.distilhubert:adapter", "weights": "student.ckpt", "options": options}


def reference(key: str, folder: Path, waves: list[Tensor]) -> list[list[Tensor]]:
    """States of s3prl's expert, utterance by utterance."""
    expert = UpstreamExpert(str(folder / "student.ckpt")).eval()
    with torch.no_grad():
        found = [expert([wave])[key] for wave in waves]
    return [[state[0] for state in (one if isinstance(one, list) else [one])] for one in found]


CASES = [
    Case("distilhubert", "three heads", partial(write, SMALL, {}), partial(reference, "hidden_states"), "s3prl, live"),
]


def full(heads: int = 0, **config: int) -> Callable[[], nn.Module]:
    """A full-size student with random weights."""

    def build() -> nn.Module:
        shape, convolutions = shape_of(Settings(Path("config"), config))
        head = Heads(shape.width, shape.width, heads, 768) if heads else None
        return DistilHuBERT(convolutions, "group", shape, head, not heads)

    return build


SIZES = [
    Size("distilhubert", "DistilHuBERT, with heads", full(encoder_layers=2, heads=3), 27.03, 2, 825.6, 1.0, "SUPERB"),
]
