"""Once-for-all compression: the public integrate-and-fire inside s3prl's wav2vec 2.0, stored states."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from student_cases import Case, golden, random_state

FRONT = "[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] + [(512,2,2)]"
CONFIG: dict[str, Any] = {
    "_name": "wav2vec2",
    "conv_feature_layers": FRONT,
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "encoder_layers": 2,
    "encoder_embed_dim": 24,
    "encoder_ffn_embed_dim": 32,
    "encoder_attention_heads": 4,
    "subsample": "cif",
    "mixup": True,
    "mixup_distro": "uniform",
    "upper_lambd": 1.0,
    "final_dim": 16,
}
"""The compression of the public code works on 512 channels, so that the last convolution has as many."""


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes as the public checkpoint has them, with weights of the pre-training that must be left out."""
    sizes = [1, *[16] * 6, 512]
    kernels = (10, 3, 3, 3, 3, 2, 2)
    found: dict[str, tuple[int, ...]] = {"mask_emb": (24,), "project_q.weight": (16, 24), "final_proj.weight": (16, 24)}
    for i, kernel in enumerate(kernels):
        found[f"feature_extractor.conv_layers.{i}.0.weight"] = (sizes[i + 1], sizes[i], kernel)
    for kind in ("weight", "bias"):
        found[f"feature_extractor.conv_layers.0.2.{kind}"] = (16,)
        found |= {f"layer_norm.{kind}": (512,), f"encoder.layer_norm.{kind}": (24,)}
        found |= {f"cif_subsampler.alpha_fn.layer.0.{kind}": (512,)}
    found |= {"post_extract_proj.weight": (24, 512), "post_extract_proj.bias": (24,)}
    found |= {"encoder.pos_conv.0.weight_g": (1, 1, 16), "encoder.pos_conv.0.weight_v": (24, 6, 16)}
    found |= {"encoder.pos_conv.0.bias": (24,)}
    found |= {"cif_subsampler.alpha_fn.cnn.weight": (512, 512, 5), "cif_subsampler.alpha_fn.cnn.bias": (512,)}
    found |= {"cif_subsampler.alpha_fn.layer.2.weight": (1, 512), "cif_subsampler.alpha_fn.layer.2.bias": (1,)}
    for i in range(2):
        layer = f"encoder.layers.{i}"
        for part in ("q", "k", "v", "out"):
            found |= {f"{layer}.self_attn.{part}_proj.weight": (24, 24), f"{layer}.self_attn.{part}_proj.bias": (24,)}
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            found |= {f"{layer}.{norm}.weight": (24,), f"{layer}.{norm}.bias": (24,)}
        found |= {f"{layer}.fc1.weight": (32, 24), f"{layer}.fc1.bias": (32,)}
        found |= {f"{layer}.fc2.weight": (24, 32), f"{layer}.fc2.bias": (24,)}
    return found


def write(options: dict[str, Any], folder: Path) -> Mapping[str, object]:
    """A fairseq checkpoint."""
    cfg = {"model": CONFIG, "task": {"_name": "audio_pretraining", "normalize": False}}
    torch.save({"cfg": cfg, "args": None, "model": random_state(shapes())}, folder / "ofa.pt")
    return {"adapter": "upstreams.students.ofa:adapter", "weights": "ofa.pt", "options": options}


HOW = (
    "the public CIF module between layer norm and projection of s3prl's wav2vec 2.0, with the same weights; states by "
    "hooks on the inputs of the layers and the output of the encoder"
)
CASES = [
    Case("ofa", f"lambda {lam}", partial(write, {"lam": lam}), golden(f"ofa_{lam}"), HOW) for lam in (0.5, 1.0, 1.5)
]
