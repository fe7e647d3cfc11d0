"""Shapes of the lab's models: what each layer of a :class:`upstreams.students.mini.MiniWavLM` has and shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

from harness.cards import hint

FRONTS = ("logmel", "wav2vec2")


@dataclass(frozen=True)
class MiniConfig:
    """Shape of a :class:`upstreams.students.mini.MiniWavLM`. What is left at its default stays out of ``to_dict``.

    Attributes:
        layers: transformer layers.
        width: model dimension; a multiple of ``head_width`` where ``heads`` is not given.
        ffn: inner dimension of the feed-forward blocks.
        head_width: dimension of one attention head.
        mels: log-mel channels at 10 ms; two frames are stacked to 20 ms.
        conv_kernel: kernel of the depthwise positional convolution, frames.
        buckets: relative-position buckets (both directions together).
        max_distance: distance in frames from which all offsets share a bucket.
        front: ``logmel``, or ``wav2vec2``: seven convolutions over the waveform, layer norm (arXiv 2006.11477).
        heads: attention heads before any were cut, so that attention is ``heads * head_width`` wide inside; ``None``
            for ``width / head_width``.
        ffns: feed-forward width per layer in the place of ``ffn``; 0 leaves the block out.
        kept: per layer the dimensions of queries, keys and values that were kept, ascending, of the ``heads *
            head_width`` before the cut; dimension d is of head ``d // head_width``. Heads of which none is left are
            gone (DPHuBERT, arXiv 2305.17651), a head may also lack single ones (GRAIN, arXiv 2212.07634), and a layer
            without any has no attention. ``None`` for all.
        own_maps: per layer, whether it computes its attention map or takes that of the last layer which did
            (ARMHuBERT, arXiv 2305.11685); the first must. ``None`` for all.
        reduce: frames that a strided convolution joins before the first layer (FitHuBERT, arXiv 2207.00555).
        compress: whether integrate-and-fire joins frames to segments before the positional convolution, as many as are
            asked for when the model runs (once-for-all sequence compression, arXiv 2211.02332).

    Raises:
        ValueError: a value is impossible, or does not fit the others.
    """

    layers: int
    width: int
    ffn: int
    head_width: int = 64
    mels: int = 80
    conv_kernel: int = 31
    buckets: int = 64
    max_distance: int = 200
    front: str = "logmel"
    heads: int | None = None
    ffns: tuple[int, ...] | None = None
    kept: tuple[tuple[int, ...], ...] | None = None
    own_maps: tuple[bool, ...] | None = None
    reduce: int = 1
    compress: bool = False

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MiniConfig:
        """Build from parsed JSON or YAML; lists become tuples.

        Raises:
            TypeError: a key is missing.
            ValueError: a key is unknown, or a value impossible.
        """
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise ValueError(f"unknown key {name!r}{hint(str(name), known)}")
        return cls(**{name: _tuple(value) for name, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form. The fields from ``front`` on are in it only where they differ from their default."""
        always = {field.name for field in fields(MiniConfig)[:8]}
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name in always or getattr(self, field.name) != field.default
        }

    @property
    def all_heads(self) -> int:
        """Attention heads before any were cut."""
        return self.width // self.head_width if self.heads is None else self.heads

    @property
    def plans(self) -> tuple[LayerPlan, ...]:
        """What each layer has."""
        return _plans(self)


@dataclass(frozen=True)
class LayerPlan:
    """What one layer has.

    Attributes:
        dims: dimensions of queries, keys and values, numbered as before the cut; empty where it has no attention.
        heads: the heads they belong to.
        own: whether it computes its attention map.
        lends: whether a later layer takes its map.
        borrowed: for a layer without its own map, the places of its heads among those of the map it takes; empty where
            they are all of them.
        ffn: feed-forward width; 0 for none.
    """

    dims: tuple[int, ...]
    heads: tuple[int, ...]
    own: bool
    lends: bool
    borrowed: tuple[int, ...]
    ffn: int


def whole_heads(counts: Sequence[int], head_width: int) -> tuple[tuple[int, ...], ...]:
    """``MiniConfig.kept`` for layers that keep their first heads, as many as ``counts`` says for each.

    >>> whole_heads([1, 0, 2], 2)
    ((0, 1), (), (0, 1, 2, 3))
    """
    return tuple(tuple(range(count * head_width)) for count in counts)


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value


def _plans(config: MiniConfig) -> tuple[LayerPlan, ...]:
    """Layers from the input up; which map a layer takes is known at once, which it lends when a later one asks."""
    found: list[LayerPlan] = []
    lender: int | None = None
    for index in range(config.layers):
        dims = tuple(range(config.all_heads * config.head_width)) if config.kept is None else config.kept[index]
        heads = tuple(sorted({dim // config.head_width for dim in dims}))
        own = config.own_maps is None or config.own_maps[index]
        borrowed: tuple[int, ...] = ()
        if dims and not own:
            if lender is None or not set(heads) <= set(found[lender].heads):
                raise ValueError(f"own_maps: layer {index} has heads whose map no layer before it computes")
            if heads != found[lender].heads:
                borrowed = tuple(found[lender].heads.index(head) for head in heads)
            found[lender] = replace(found[lender], lends=True)
        ffn = config.ffn if config.ffns is None else config.ffns[index]
        found.append(LayerPlan(dims, heads, own, False, borrowed, ffn))
        if dims and own:
            lender = index
    return tuple(found)


def _check(config: MiniConfig) -> None:
    """Raises ``ValueError`` for a shape that cannot be."""
    for name in ("layers", "width", "ffn", "head_width", "mels", "conv_kernel", "buckets", "max_distance", "reduce"):
        _whole(name, getattr(config, name), 0 if name in ("layers", "ffn") else 1)
    if config.heads is not None:
        _whole("heads", config.heads, 1)
    elif config.width % config.head_width:
        raise ValueError(f"width {config.width} is not a multiple of head_width {config.head_width}")
    for wrong, what in (
        (config.conv_kernel % 2 == 0, f"conv_kernel is {config.conv_kernel}, not an odd number"),
        (config.front not in FRONTS, f"front is {config.front!r}, not one of {', '.join(FRONTS)}"),
        (type(config.compress) is not bool, f"compress is {config.compress!r}, not true or false"),
        (config.compress and config.reduce > 1, "compress and reduce both set the frame rate; leave one of them out"),
    ):
        if wrong:
            raise ValueError(what)
    _check_lists(config)
    _plans(config)


def _check_lists(config: MiniConfig) -> None:
    for name in ("ffns", "kept", "own_maps"):
        found = getattr(config, name)
        if found is not None and (not isinstance(found, tuple) or len(found) != config.layers):
            raise ValueError(f"{name} is not a list with a value for each of the {config.layers} layers")
    for width in config.ffns or ():
        _whole("ffns", width, 0)
    if any(type(own) is not bool for own in config.own_maps or ()):
        raise ValueError(f"own_maps is {config.own_maps!r}, not a list of true and false")
    inner = config.all_heads * config.head_width
    for dims in config.kept or ():
        if not isinstance(dims, tuple) or not all(type(dim) is int and 0 <= dim < inner for dim in dims):
            raise ValueError(f"kept must hold a list of dimensions from 0 to {inner - 1} for each layer")
        if any(left >= right for left, right in pairwise(dims)):
            raise ValueError("kept must name the dimensions of each layer once, in ascending order")


def _whole(name: str, value: object, least: int) -> None:
    if type(value) is not int or value < least:
        raise ValueError(f"{name} is {value!r}, not a whole number of at least {least}")
