"""LightHuBERT's checkpoint, subnets of it, and s3prl's own module, run live."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from s3prl.upstream.lighthubert.expert import UpstreamExpert
from s3prl.upstream.lighthubert.lighthubert import LightHuBERT as PublicLightHuBERT
from s3prl.upstream.lighthubert.lighthubert import LightHuBERTConfig
from student_cases import Case, Size, random_state
from torch import Tensor, nn

from upstreams.students.lighthubert import DEFAULTS, LightHuBERT, supernet_of
from upstreams.students.settings import Settings
from upstreams.students.subnet import Subnet, even

SMALL: dict[str, Any] = {
    "_name": "hubert_pruner",
    "pruner_supernet": "configs/small.yaml",
    "extractor_mode": "default",
    "conv_feature_layers": "[(24,10,5)] + [(24,3,2)] * 4 + [(24,2,2)] * 2",
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "encoder_layers": 12,
    "encoder_embed_dim": 128,
    "encoder_ffn_embed_dim": 512,
    "encoder_attention_heads": 2,
    "teacher_embed_dim": 32,
}


def write(folder: Path, config: Mapping[str, Any] = SMALL, **options: Any) -> Mapping[str, object]:
    """A checkpoint as its authors publish it."""
    public = PublicLightHuBERT(LightHuBERTConfig(dict(config)))
    shapes = {name: tuple(tensor.shape) for name, tensor in public.state_dict().items()}
    unused = {"label_embs_concat": (7, 16), "final_proj.weight": (16, 128), "final_proj.bias": (16,)}
    content = {"cfg": {"model": dict(config)}, "model": random_state({**shapes, **unused})}
    torch.save(content, folder / "lighthubert.pt")
    return {"adapter": "upstreams.students.lighthubert:adapter", "weights": "lighthubert.pt", "options": options}


def public_subnet(subnet: Subnet) -> dict[str, object]:
    """A subnet in the words of the public code."""
    return {
        "atten_dim": [64 * heads for heads in subnet.heads],
        "embed_dim": subnet.width,
        "ffn_embed": list(subnet.ffn),
        "heads_num": list(subnet.heads),
        "layer_num": subnet.depth,
        "slide_wsz": [window or "global" for window in subnet.windows],
    }


def reference(folder: Path, waves: list[Tensor], subnet: Subnet) -> list[list[Tensor]]:
    """States of s3prl's expert, utterance by utterance.

    Windows by masks: its other way, by strides, is the same but for lengths that are a multiple of the window, where it
    reads the queries in the wrong order.
    """
    expert = UpstreamExpert(str(folder / "lighthubert.pt")).eval()
    expert.model._switch_slide_attention("mask")
    expert.model.set_sample_config(public_subnet(subnet))
    with torch.no_grad():
        return [[state[0] for state in expert([wave])["hidden_states"]] for wave in waves]


def case(name: str, net: Subnet, changes: Mapping[str, Any] | None = None, /, **options: Any) -> Case:
    """A case of the small supernet."""
    config = {**SMALL, **(changes or {})}
    return Case(
        "lighthubert", name, partial(write, config=config, **options), partial(reference, subnet=net), "s3prl, live"
    )


HEADS, RATIOS = [1, 2] * 5, [3.0, 3.5, 4.0, 3.5, 3.0] * 2
FFN, WINDOWS = [100, 384, 200, 96, 30, 380, 288, 192], [0, 8, 16, 0, 64, 8, 4, 2]
CASES = [
    case("whole", even(128, 2), {"_name": "student_hubert"}),
    case("a subnet", even(96, 1, 3.5), subnet="d96-h1-r3.5-l12"),
    case(
        "other layers", Subnet(64, tuple(HEADS), tuple(int(64 * r) for r in RATIOS), (0,) * 10),
        subnet="d64-l10", heads=HEADS, ratios=RATIOS,
    ),
    case(
        "windows", Subnet(96, (2,) * 8, tuple(FFN), tuple(WINDOWS)),{},
        subnet="d96-h2", ffn=FFN, windows=WINDOWS,
    ),
    case("pre-norm", even(96, 2, 3.0, 11), {"layer_norm_first": True}, subnet="d96-h2-r3-l11"),
    case("layer norms in the front end", even(64, 1), {"extractor_mode": "layer_norm"}, subnet="d64-h1-r4-l12"),
]  # fmt: skip


def full(subnet: Subnet) -> Callable[[], nn.Module]:
    """A subnet of the published supernets with random weights."""
    return lambda: LightHuBERT(supernet_of(Settings(Path("config"), {"extractor_mode": "default"})), subnet)


NOTEBOOK, BOARD = "the public notebook", "SUPERB, by the public code"
SIZES = [
    Size("lighthubert", "LightHuBERT small", full(DEFAULTS["small"]), 26.87, 2, 860.7, 1.0, BOARD),
    Size("lighthubert", "LightHuBERT base", full(DEFAULTS["base"]), 66.9, 1, source="its shape"),
    Size("lighthubert", "LightHuBERT stage 1, largest of base", full(even(768, 12)), 94, 0, source=NOTEBOOK),
    Size("lighthubert", "LightHuBERT smallest of base", full(even(512, 8, 3.5)), 41, 0, source=NOTEBOOK),
    Size("lighthubert", "LightHuBERT largest of small", full(even(512, 8)), 44, 0, source=NOTEBOOK),
    Size("lighthubert", "LightHuBERT smallest of small", full(even(256, 4, 3.0, 10)), 11, 0, source=NOTEBOOK),
]
