"""LightHuBERT's subnets: how a card names one, and which weights of the supernet it takes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from harness.cards import Card
from harness.interface import SlimbenchError
from upstreams.students.encoder import EncoderShape, LayerShape

HEAD_WIDTH = 64
DROPPED = (12, 8, 4, 11, 7, 3)
"""The layers (counted from 1) that a supernet of twelve loses, in this order, as a subnet gets shallower."""
OPTIONS: Mapping[str, Any] = {"subnet": "", "heads": [], "ratios": [], "ffn": [], "windows": []}
"""Card options that choose a subnet: ``subnet`` such as ``d384-h6-r4-l12`` (width, heads, ratio of feed-forward width
to width, layers; any of them, and ``w`` for a window of attention in frames), or lists with a value per layer."""


@dataclass(frozen=True)
class Subnet:
    """A subnet: its width, and per layer heads, feed-forward width and window of attention (0 for all frames)."""

    width: int
    heads: tuple[int, ...]
    ffn: tuple[int, ...]
    windows: tuple[int, ...]

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.heads)

    def layers(self) -> list[int]:
        """Which layers of the supernet it has, counted from 0."""
        dropped = DROPPED[: 12 - self.depth]
        return [number - 1 for number in range(1, 13) if number not in dropped]

    def encoder(self, whole: EncoderShape) -> EncoderShape:
        """Its encoder, of the supernet's."""
        shapes = tuple(LayerShape(heads, HEAD_WIDTH, ffn) for heads, ffn in zip(self.heads, self.ffn, strict=True))
        return replace(whole, width=self.width, layers=shapes, project=True)


def even(width: int, heads: int, ratio: float = 4.0, depth: int = 12, window: int = 0) -> Subnet:
    """A subnet of equal layers."""
    return Subnet(width, (heads,) * depth, (int(ratio * width),) * depth, (window,) * depth)


def chosen(card: Card, default: Subnet | None, whole: EncoderShape) -> Subnet:
    """The subnet that a card's options choose; what they leave open is that of ``default``.

    Args:
        card: see :data:`OPTIONS`.
        default: the subnet that the public code exposes, ``None`` where it names none.
        whole: the supernet.

    Raises:
        SlimbenchError: an option is malformed, said twice, or chooses what the supernet does not have.
    """
    options = card.settings(OPTIONS)
    parts = _parts(card, str(options["subnet"]))
    lists = {key: options[key] for key in ("heads", "ratios", "ffn", "windows") if options[key]}
    if default is None and not {"d", "l"} <= parts.keys():
        raise SlimbenchError(f"{card.file}: the checkpoint names no subnet; set option subnet, such as d384-h6-r4-l12.")
    depth = int(parts.get("l", len(next(iter(lists.values()))) if lists else default.depth if default else 12))
    width = int(parts.get("d", default.width if default else 0))
    for letter, key in (("h", "heads"), ("r", "ratios"), ("w", "windows")):
        if letter in parts and key in lists:
            raise SlimbenchError(f"{card.file}: options subnet and {key} both choose {key}; remove one.")
    if "ffn" in lists and ("ratios" in lists or "r" in parts):
        raise SlimbenchError(f"{card.file}: option ffn and a ratio both choose the feed-forward width; remove one.")
    for key, values in lists.items():
        if len(values) != depth or not all(_number(value, whole=key != "ratios") for value in values):
            kind = "numbers" if key == "ratios" else "whole numbers"
            raise SlimbenchError(f"{card.file}: option {key} is {values!r}; write {depth} {kind}, one per layer.")
    heads = default.heads[0] if default else whole.layers[0].heads
    ratio = default.ffn[0] / default.width if default else 4.0
    ratios = lists.get("ratios", [parts.get("r", ratio)] * depth)
    subnet = Subnet(
        width,
        tuple(lists.get("heads", [int(parts.get("h", heads))] * depth)),
        tuple(lists.get("ffn", [int(ratio * width) for ratio in ratios])),
        tuple(lists.get("windows", [int(parts.get("w", 0))] * depth)),
    )
    _check(card, subnet, whole)
    return subnet


def _number(value: object, whole: bool) -> bool:
    """Whether a value of a list is a number that may be multiplied with a width."""
    return not isinstance(value, bool) and isinstance(value, int if whole else int | float) and abs(value) < 1e6


def _parts(card: Card, text: str) -> dict[str, float]:
    """``d384-h6-r3.5-l12`` as numbers by letter."""
    found: dict[str, float] = {}
    for part in text.split("-") if text else []:
        match = re.fullmatch(r"([dhlw])(\d{1,5})|(r)(\d{1,2}(?:\.\d{1,4})?)", part)
        letter, number = (match[1] or match[3], match[2] or match[4]) if match else ("", "0")
        if not match or letter in found:
            raise SlimbenchError(
                f"{card.file}: option subnet is {text!r}; write width, heads, ratio and layers as in d384-h6-r4-l12."
            )
        found[letter] = float(number)
    return found


def _check(card: Card, subnet: Subnet, whole: EncoderShape) -> None:
    """Refuse a subnet that the supernet does not have."""
    most = whole.layers[0]
    problems = [
        (not 6 <= subnet.depth <= 12, f"{subnet.depth} layers, of 6 to 12"),
        (not 0 < subnet.width <= whole.width, f"width {subnet.width}, of at most {whole.width}"),
        (subnet.width % whole.position_groups != 0, f"width {subnet.width}, no multiple of {whole.position_groups}"),
        (not all(0 < n <= most.heads for n in subnet.heads), f"heads {subnet.heads}, of at most {most.heads}"),
        (not all(0 < n <= subnet.width * (most.ffn // whole.width) for n in subnet.ffn),
         f"feed-forward widths {subnet.ffn}, of at most {most.ffn // whole.width} times the width"),
        (not all(n >= 0 and n % 2 == 0 for n in subnet.windows), f"windows {subnet.windows}, of even numbers or 0"),
    ]  # fmt: skip
    for wrong, what in problems:
        if wrong:
            raise SlimbenchError(f"{card.file} chooses a subnet with {what}; correct its options.")


def sliced(state: Mapping[str, Tensor], subnet: Subnet, whole: EncoderShape) -> dict[str, Tensor]:
    """A subnet's weights out of the supernet's (both under our names).

    A subnet takes the first rows and columns of each weight. The feed-forward part alone is cut into as many blocks as
    it is wider than the state, of which each gives its first units. The positional convolution is cut after its weight
    norm, which is then written anew for the part.
    """
    width, found = subnet.width, {}
    for name, tensor in state.items():
        if not name.startswith("encoder.layers."):
            found[name] = tensor
    for name in ("projection.weight", "projection.bias", "norm.weight", "norm.bias", "position.conv.bias"):
        found[f"encoder.{name}"] = state[f"encoder.{name}"][:width]
    gain, direction = (f"encoder.position.conv.parametrizations.weight.original{index}" for index in (0, 1))
    weight = state[direction] * (state[gain] / state[direction].norm(dim=(0, 1), keepdim=True))
    found[direction] = weight[:width, : width // whole.position_groups]
    found[gain] = found[direction].norm(dim=(0, 1), keepdim=True)
    for place, (number, heads, ffn) in enumerate(zip(subnet.layers(), subnet.heads, subnet.ffn, strict=True)):
        inner, units = slice(heads * HEAD_WIDTH), _units(ffn, width, whole)
        outer = slice(width)
        cuts: dict[str, Sequence[Any]] = {
            **dict.fromkeys(("attention.query", "attention.key", "attention.value"), (inner, outer)),
            "attention.output": (outer, inner),
            "up": (units, outer),
            "down": (outer, units),
        }
        for part, (rows, columns) in cuts.items():
            stored = f"encoder.layers.{number}.{part}"
            found[f"encoder.layers.{place}.{part}.weight"] = state[f"{stored}.weight"][rows][:, columns]
            found[f"encoder.layers.{place}.{part}.bias"] = state[f"{stored}.bias"][rows]
        for part in ("attention_norm.weight", "attention_norm.bias", "output_norm.weight", "output_norm.bias"):
            found[f"encoder.layers.{place}.{part}"] = state[f"encoder.layers.{number}.{part}"][:width]
    return {name: tensor.contiguous() for name, tensor in found.items()}


def _units(ffn: int, width: int, whole: EncoderShape) -> Tensor:
    """Which feed-forward units of the supernet a subnet's layer has (ffn,)."""
    blocks = whole.layers[0].ffn // whole.width
    place = torch.arange(ffn)
    if blocks == 1 or ffn == whole.layers[0].ffn:
        return place
    return place // width * (whole.layers[0].ffn // blocks) + place % width
