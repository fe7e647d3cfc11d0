"""Smaller models out of the weights of larger ones: width slices, layers, heads, dimensions, units.

Only indexing is done, so gradients of the part reach the whole. That serves three ends: a student's start (layer
dropping as in arXiv 2004.03844, width slices), subnets of a supernet in training (LightHuBERT, arXiv 2203.15610), and
what is left of a model after pruning (DPHuBERT, arXiv 2305.17651; GRAIN, arXiv 2212.07634).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from harness.interface import SlimbenchError
from upstreams.students.mini import MiniWavLM, Passage
from upstreams.students.mini_config import LayerPlan, MiniConfig

SAME = ("head_width", "front", "mels", "conv_kernel", "buckets", "max_distance")
"""Settings that a part shares with the whole."""
Units = Sequence[Sequence[int] | None]


def cut(
    state: Mapping[str, Tensor],
    source: MiniConfig,
    target: MiniConfig,
    layers: Sequence[int] | None = None,
    units: Units | None = None,
) -> dict[str, Tensor]:
    """Weights of ``target`` out of those of ``source``.

    Width: the first dimensions of the residual stream; front ends and log-mel statistics are not cut. Attention: the
    dimensions that ``target.kept`` names, by their numbers before any cut, else those of the first ``target.all_heads``
    heads. Where ``target.heads`` is left out, a smaller width has ``width / head_width`` heads, so that it loses heads
    with its width; to keep them all, say ``heads``. Feed-forward: the first units, or those that ``units`` names.

    The part computes what the whole does with the missing heads, dimensions and units at 0, exactly. A smaller width
    or fewer layers cannot be exact: norms take their statistics over fewer dimensions, and the bias of a missing layer
    is missing as well.

    Args:
        state: the whole's weights under the names of :class:`MiniWavLM`.
        source: its shape.
        target: the part's shape. A layer without its own map takes the values alone of one that has it.
        layers: for each of the part's layers the whole's, from 0; ``None`` for the first ones.
        units: for each of the part's layers its feed-forward units, numbered as stored; ``None`` for the first ones.

    Returns:
        Views and copies with gradient. What the whole lacks as a module (a mask embedding, the reducing convolution,
        the weights of integrate-and-fire) is left out, for the part to start from its own.

    Raises:
        SlimbenchError: the part has something that the whole has in another form or size, or not at all.
    """
    chosen = tuple(range(target.layers)) if layers is None else tuple(layers)
    _check(source, target, chosen, units)
    found = _outside(state, source, target)
    wholes, parts = source.plans, target.plans
    for index, number in enumerate(chosen):
        prefix = f"layers.{number}."
        inner = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        where = f"layer {index} from layer {number}"
        part = _attention(inner, wholes[number], parts[index], target, where)
        part |= _feed_forward(inner, parts[index].ffn, None if units is None else units[index], target.width, where)
        found |= {f"layers.{index}.{name}": tensor for name, tensor in part.items()}
    return found


def passage_with(
    model: MiniWavLM, state: Mapping[str, Tensor], waves: Tensor, lengths: Tensor, **options: Any
) -> Passage:
    """:meth:`MiniWavLM.passage` of a model with other weights, such as a part of a supernet's.

    Args:
        model: gives the shape; see :func:`upstreams.students.mini.skeleton`.
        state: weights by name, with gradient where the passage shall have one.
        waves: (B, S).
        lengths: (B,).
        options: those of :meth:`MiniWavLM.passage`.
    """
    named = {f"model.{name}": tensor for name, tensor in state.items()}
    passage: Passage = functional_call(_Passing(model), named, (waves, lengths), options)
    return passage


class _Passing(nn.Module):
    """A model whose call is its passage."""

    def __init__(self, model: MiniWavLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, waves: Tensor, lengths: Tensor, **options: Any) -> Passage:
        return self.model.passage(waves, lengths, **options)


def _check(source: MiniConfig, target: MiniConfig, layers: tuple[int, ...], units: Units | None) -> None:
    for name in SAME:
        mine, theirs = getattr(target, name), getattr(source, name)
        if mine != theirs:
            raise SlimbenchError(
                f"A model with {name} {mine} cannot be cut from one with {theirs}; make them the same."
            )
    for name in ("width", "all_heads"):
        mine, theirs = getattr(target, name), getattr(source, name)
        if mine > theirs:
            word = name.removeprefix("all_")
            raise SlimbenchError(f"A model with {word} {mine} cannot be cut from one with {theirs}; choose fewer.")
    if source.reduce > 1 and target.reduce not in (1, source.reduce):
        raise SlimbenchError(
            f"A model that joins {target.reduce} frames cannot be cut from one that joins {source.reduce}; "
            "give them the same reduce."
        )
    if strange := [number for number in layers if not 0 <= number < source.layers]:
        raise SlimbenchError(f"Layer {strange[0]} is none of the {source.layers} of the whole; they count from 0.")
    if len(layers) != target.layers:
        raise SlimbenchError(f"{len(layers)} layers are named for a part that has {target.layers}; name as many.")
    if units is not None and len(units) != target.layers:
        raise SlimbenchError(f"Units are named for {len(units)} layers of {target.layers}; name them for each.")


def take(x: Tensor, places: Sequence[int], dim: int = 0) -> Tensor:
    """The entries of ``x`` at ``places`` along a dimension: a view where they lie side by side, else a copy.

    >>> take(torch.arange(5), [1, 2]), take(torch.arange(5), [4, 0])
    (tensor([1, 2]), tensor([4, 0]))
    """
    first = places[0] if len(places) else 0
    if list(places) == list(range(first, first + len(places))):
        return x.narrow(dim, first, len(places))
    return x.index_select(dim, torch.tensor(places, device=x.device))


def _outside(state: Mapping[str, Tensor], source: MiniConfig, target: MiniConfig) -> dict[str, Tensor]:
    """Everything but the layers."""
    width, heads = slice(target.width), slice(target.all_heads)
    cuts: dict[str, tuple[slice, ...]] = {
        **dict.fromkeys(("project.weight", "project.bias", "positional.weight", "positional.bias"), (width,)),
        "mask_embedding": (width,),
        "bias.embedding.weight": (slice(None), heads),
    }
    if target.reduce > 1:
        cuts |= {"reduction.weight": (width, width), "reduction.bias": (width,)}
    if target.compress:
        cuts |= {"weights.conv.weight": (width, width), "weights.linear.weight": (slice(None), width)}
        cuts |= dict.fromkeys(("weights.conv.bias", "weights.norm.weight", "weights.norm.bias"), (width,))
        cuts["weights.linear.bias"] = ()
    if not any(plan.own and plan.dims for plan in target.plans):
        del cuts["bias.embedding.weight"]
    whole = ("mel_mean", "mel_std", "front.", "feature_norm.")
    found = {name: tensor for name, tensor in state.items() if name.startswith(whole)}
    return found | {name: state[name][place] for name, place in cuts.items() if name in state}


def _attention(
    inner: Mapping[str, Tensor], whole: LayerPlan, part: LayerPlan, target: MiniConfig, where: str
) -> dict[str, Tensor]:
    """The attention of one layer, or the bias that is left of it."""
    width = slice(target.width)
    found = {"out.bias": inner["out.bias"][width]}
    if not part.dims:
        return found
    number = {dim: place for place, dim in enumerate(whole.dims)}
    if not all(dim in number for dim in part.dims) or (part.own and not whole.own):
        raise SlimbenchError(f"Cannot cut {where}: it keeps attention that the other has not; choose another layer.")
    places, kept = [number[dim] for dim in part.dims], len(whole.dims)
    for name in ("norm_attention.weight", "norm_attention.bias"):
        found[name] = inner[name][width]
    found["out.weight"] = take(inner["out.weight"][width], places, 1)
    if part.own:
        rows = [block * kept + place for block in range(3) for place in places]
        heads = [whole.heads.index(head) for head in part.heads]
        found |= {"gate.weight": inner["gate.weight"], "gate.bias": inner["gate.bias"]}
        found["gate_scale"] = take(inner["gate_scale"], heads)
        found["qkv.weight"] = take(inner["qkv.weight"], rows)[:, width]
        found["qkv.bias"] = take(inner["qkv.bias"], rows)
        return found
    stored, shift = ("qkv", 2 * kept) if whole.own else ("value", 0)
    rows = [shift + place for place in places]
    found["value.weight"] = take(inner[f"{stored}.weight"], rows)[:, width]
    found["value.bias"] = take(inner[f"{stored}.bias"], rows)
    return found


def _feed_forward(
    inner: Mapping[str, Tensor], ffn: int, units: Sequence[int] | None, size: int, where: str
) -> dict[str, Tensor]:
    """The feed-forward block of one layer, or the bias that is left of it."""
    width, there = slice(size), len(inner["up.bias"]) if "up.bias" in inner else 0
    places = list(range(ffn)) if units is None else [int(unit) for unit in units]
    if len(places) != ffn or len(set(places)) != ffn or not all(0 <= place < there for place in places):
        raise SlimbenchError(
            f"Cannot cut {where}: {ffn} units are wanted, {len(set(places))} named, {there} there; name each once."
        )
    found = {"down.bias": inner["down.bias"][width]}
    if ffn:
        found |= {name: inner[name][width] for name in ("norm_ffn.weight", "norm_ffn.bias")}
        found["up.weight"], found["up.bias"] = (
            take(inner["up.weight"][:, width], places),
            take(inner["up.bias"], places),
        )
        found["down.weight"] = take(inner["down.weight"][width], places, 1)
    return found
