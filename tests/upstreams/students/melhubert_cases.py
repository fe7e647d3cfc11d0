"""MelHuBERT's checkpoint, whole and pruned in three ways, and the states that its public code makes of it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from student_cases import Case, Size, golden, random_state
from torch import Tensor, nn

from upstreams.students.melhubert import MelHuBERT, shape_of
from upstreams.students.settings import Settings

SMALL: dict[str, Any] = {
    "feat_emb_dim": 80,
    "pos_emb_type": "conv",
    "pos_conv_depth": 1,
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "encoder_layers": 2,
    "encoder_embed_dim": 8,
    "encoder_ffn_embed_dim": 20,
    "encoder_attention_heads": 4,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "attention_type": "original",
    "num_cluster": 6,
    "learnable_mask_emb": False,
    "mask_before_proj": True,
}
NARROW = SMALL | {"feat_emb_dim": 40, "encoder_embed_dim": 4, "encoder_attention_heads": 2, "encoder_layers": 1}
PRUNED_HEADS = [{0: [2], 1: [0]}, {1: [0, 1]}]
"""Two rounds; in the second, layer 1 loses two of the three heads that it has left."""


def stored(config: Mapping[str, Any], pruned: Mapping[int, int]) -> dict[str, Tensor]:
    """Random weights as the public code stores them."""
    width, units, kernel = config["encoder_embed_dim"], config["encoder_ffn_embed_dim"], config["conv_pos"]
    sizes = {"pre_extract_proj": (config["feat_emb_dim"], width), "final_proj": (width, config["num_cluster"])}
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.pos_conv.0.bias": (width,),
        "encoder.pos_conv.0.weight_g": (1, 1, kernel),
        "encoder.pos_conv.0.weight_v": (width, width // config["conv_pos_groups"], kernel),
    }
    norms = ["encoder.layer_norm"]
    for index in range(config["encoder_layers"]):
        name, heads = f"encoder.layers.{index}", config["encoder_attention_heads"]
        inner = width // heads * (heads - pruned.get(index, 0))
        sizes |= {f"{name}.self_attn.{part}_proj": (width, inner) for part in "qkv"}
        sizes |= {f"{name}.self_attn.out_proj": (inner, width)}
        sizes |= {f"{name}.fc1": (width, units), f"{name}.fc2": (units, width)}
        norms += [f"{name}.self_attn_layer_norm", f"{name}.final_layer_norm"]
    shapes |= {f"{name}.weight": (out, wide) for name, (wide, out) in sizes.items()}
    shapes |= {f"{name}.bias": (out,) for name, (_, out) in sizes.items()}
    shapes |= {f"{name}.{part}": (width,) for name in norms for part in ("weight", "bias")}
    return random_state(shapes)


def with_masks(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every weight and bias of the layers' linear maps as ``_orig`` and ``_mask``; a third of them is pruned."""
    found: dict[str, Tensor] = {}
    for index, (name, tensor) in enumerate(state.items()):
        if ".layers." in name and "norm" not in name:
            keep = (torch.arange(tensor.numel()).view_as(tensor) + index) % 3 > 0
            found |= {f"{name}_orig": tensor, f"{name}_mask": keep.float()}
        else:
            found[name] = tensor
    return found


def statistics() -> np.ndarray[Any, np.dtype[np.float64]]:
    """Means and standard deviations as of log-mel frames of 16-bit audio."""
    rng = np.random.RandomState(3)
    return np.stack([14 + rng.randn(40), 4 + 0.3 * rng.randn(40)])


def write(config: dict[str, Any], extra: dict[str, Any], folder: Path) -> Mapping[str, object]:
    """A checkpoint as the public code saves it, and the statistics beside it."""
    lost: dict[int, int] = {}
    for each in extra.get("Pruned_heads", []):
        for layer, heads in each.items():
            lost[layer] = lost.get(layer, 0) + len(heads)
    state = stored(config, lost)
    training = {"Optimizer": {"state": {}}, "Step": 9, "Args": Namespace(mode="melhubert"), "Runner": {"runner": {}}}
    model = with_masks(state) if "Pruning" in extra else state
    torch.save(training | {"model": model, "Upstream_Config": {"melhubert": config}} | extra, folder / "states.ckpt")
    np.save(folder / "mean-std.npy", statistics())
    options = {"stats": "mean-std.npy"}
    return {"adapter": "upstreams.students.melhubert:adapter", "weights": "states.ckpt", "options": options}


HOW = (
    "nervjack2/Speech-SSL-Compression, s3prl_upstream's UpstreamExpert (its model is that of nervjack2/MelHuBERT) in "
    "eval mode on the checkpoint and the statistics, hidden_states of each utterance alone"
)
SMOOTH = {"smooth_loss": 1.5, "tgt_smooth_loss": -float("inf"), "pruning_times": 2}
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "20 ms": ("melhubert_20ms", SMALL, {}),
    "10 ms": ("melhubert_10ms", NARROW, {}),
    "pruned heads": ("melhubert_heads", SMALL, {"Pruned_heads": PRUNED_HEADS}),
    "pruned weights, pre-norm": ("melhubert_weights", SMALL | {"layer_norm_first": True}, {"Pruning": SMOOTH}),
}
CASES = [
    Case("melhubert", name, partial(write, config, extra), golden(file), HOW)
    for name, (file, config, extra) in KINDS.items()
]


class WithClusters(nn.Module):
    """The model with the head that predicts clusters: the printed parameters count it, the printed MACs do not."""

    def __init__(self, model: nn.Module, width: int, clusters: int) -> None:
        super().__init__()
        self.model, self.clusters = model, nn.Linear(width, clusters)

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        states, frames = self.model(waves, lengths)
        self.clusters(states[-1])
        return states, frames


def full(features: int) -> nn.Module:
    """A full-size model with random weights."""
    config = {"feat_emb_dim": features, "encoder_layers": 12}
    return MelHuBERT(*shape_of(Settings(Path("config"), config), {}))


def with_clusters(features: int) -> nn.Module:
    """A full-size model as it was counted for the print."""
    return WithClusters(full(features), 768, 512)


SIZES = [
    Size("melhubert", "MelHuBERT 20 ms", partial(full, 80), None, 2, 1110.27, 0.1, "SUPERB"),
    Size("melhubert", "MelHuBERT 20 ms with cluster head", partial(with_clusters, 80), 90.23, 2, source="SUPERB"),
    Size("melhubert", "MelHuBERT 10 ms", partial(full, 40), None, 2, 2423.87, 0.1, "SUPERB"),
    Size("melhubert", "MelHuBERT 10 ms with cluster head", partial(with_clusters, 40), 90.20, 2, source="SUPERB"),
]
