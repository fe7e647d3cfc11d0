"""DistilHuBERT's checkpoint in all its kinds, and s3prl's own module, run live."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import s3prl.optimizers
import torch
from s3prl.upstream.distiller.expert import UpstreamExpert
from s3prl.upstream.distiller.model import DistillerConfig, DistillerModel
from student_cases import Case, Size, random_state
from torch import Tensor, nn

from upstreams.students.distilhubert import DistilHuBERT, Heads, distiller_layout
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
SELF_HIDDEN = {"task_emb_type": "self-hidden", "out_layer_type": "self-hidden", "pred_layer_id": [0, 6, 12]}
ROBUST = {"teacher": {"model": "wavlm", "n_layers": 12}, "enhancement_head": {"use_enhancement": True, "lambda": 2}}


@contextmanager
def old_optimiser() -> Iterator[dict[str, Any]]:
    """The state of an optimiser whose learning-rate schedule is an object of a module ``optimizers``, to be pickled."""
    kind = s3prl.optimizers.WarmupLinearSchedule
    sys.modules["optimizers"], kind.__module__ = s3prl.optimizers, "optimizers"
    try:
        schedule = kind(warmup=0.07, t_total=200_000)
        yield {"state": {}, "param_groups": [{"lr": 2e-4, "schedule": schedule, "params": [0]}]}
    finally:
        del sys.modules["optimizers"]
        kind.__module__ = "s3prl.optimizers"


def write(
    folder: Path,
    config: Mapping[str, Any] = SMALL,
    states: str = "default",
    beside: Mapping[str, Any] | None = None,
    old: bool = False,
) -> Mapping[str, object]:
    """A checkpoint as s3prl's pre-training writes it; ``beside`` are settings of its other parts."""
    stored = DistillerModel(DistillerConfig(dict(config))).state_dict()
    state = random_state({name: tuple(tensor.shape) for name, tensor in stored.items()})
    content = {"Distiller": state, "Config": {"distiller": dict(config), **(beside or {})}, "Step": 200_000}
    with old_optimiser() as optimiser:
        torch.save({**content, "Optimizer": optimiser} if old else content, folder / "student.ckpt")
    options = {"states": states}
    return {"adapter": "upstreams.students.distilhubert:adapter", "weights": "student.ckpt", "options": options}


def reference(folder: Path, waves: list[Tensor], key: str = "hidden_states", first: int | None = None) -> Any:
    """States of s3prl's expert, utterance by utterance; ``first`` of them where it lists them twice."""
    expert = UpstreamExpert(str(folder / "student.ckpt")).eval()
    with torch.no_grad():
        found = [expert([wave])[key] for wave in waves]
    return [[state[0] for state in (one if isinstance(one, list) else [one])][:first] for one in found]


def without_heads(folder: Path, waves: list[Tensor]) -> list[list[Tensor]]:
    """States of s3prl's expert where it is told to predict nothing."""
    expert = UpstreamExpert(str(folder / "student.ckpt")).eval()
    with torch.no_grad():
        return [[state[0] for state in expert([wave], no_pred=True)["hidden_states"]] for wave in waves]


def case(name: str, reference: Callable[[Path, list[Tensor]], Any] = reference, **changes: Any) -> Case:
    """A case of the small student with changes to its configuration, and to how it is written and read."""
    how = {key: changes.pop(key) for key in ("states", "beside", "old") if key in changes}
    return Case("distilhubert", name, partial(write, config={**SMALL, **changes}, **how), reference, "s3prl, live")


CASES = [
    case("three heads"),
    case("paper", partial(reference, key="paper"), states="paper"),
    case("layers", without_heads, states="layers", final_dim=40, out_layer_inter_dim=20),
    case("layer to layer", partial(reference, first=3), **SELF_HIDDEN),
    case("no heads", without_heads, task_emb_type="none", out_layer_type="none"),
    case("one head", n_tasks=1, pred_layer_id=[12], out_layer_inter_dim=20),
    case("pre-norm", layer_norm_first=True),
    case("layer norms in the front end", extractor_mode="layer_norm"),
    case("no projection", encoder_embed_dim=24, final_dim=24),
    case("old optimiser", old=True),
    case("RobustDistiller", beside=ROBUST),
]


def full(heads: int = 0, **config: int) -> Callable[[], nn.Module]:
    """A full-size student with random weights."""

    def build() -> nn.Module:
        layout = distiller_layout(Settings(Path("config"), config))
        head = Heads(layout.encoder.width, layout.encoder.width, heads, 768) if heads else None
        return DistilHuBERT(layout, head, not heads)

    return build


def thin(layers: int, width: int) -> Callable[[], nn.Module]:
    """A student of another depth and width, without heads."""
    return full(
        encoder_layers=layers,
        encoder_embed_dim=width,
        encoder_ffn_embed_dim=4 * width,
        encoder_attention_heads=width // 64,
    )


GRID = {  # parameters in millions by layers and width, of students without heads
    (1, 768): 16.40,
    (4, 768): 37.67,
    (3, 384): 10.90,
    (6, 384): 16.23,
    (9, 384): 21.55,
    (12, 192): 9.93,
}
SIZES = [
    Size("distilhubert", "DistilHuBERT", full(encoder_layers=2), 23.49, 2, 785, 1.0, "arXiv 2110.01900, SUPERB"),
    Size("distilhubert", "DistilHuBERT, with heads", full(encoder_layers=2, heads=3), 27.03, 2, 825.6, 1.0, "SUPERB"),
    Size("distilhubert", "12-L HALF", thin(12, 384), 26.872, 3, source="arXiv 2207.06867"),
    Size("distilhubert", "3-L ONE", thin(3, 768), 30.579, 3, source="arXiv 2207.06867"),
    *(Size("distilhubert", f"{d}-L {w}", thin(d, w), size, 2, source="its shape") for (d, w), size in GRID.items()),
]
