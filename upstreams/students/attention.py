"""Self-attention with what compressed models do to it: pruned heads, heads of any width, kept maps, position biases."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class RelativePosition(nn.Module):
    """Bucketed relative-position bias, one value per bucket and head, shared by all layers (T5, WavLM).

    Half of the buckets are for keys that lie ahead. In each half the near distances have a bucket each, the far ones
    share buckets whose size grows with the logarithm up to ``max_distance``.
    """

    def __init__(self, buckets: int, max_distance: int, heads: int) -> None:
        super().__init__()
        self.buckets, self.max_distance = buckets, max_distance
        self.weight = nn.Parameter(torch.zeros(buckets, heads))

    def bucket(self, offset: Tensor) -> Tensor:
        """Bucket of each signed offset, key minus query (any shape, int64)."""
        half = self.buckets // 2
        exact = half // 2
        distance = offset.abs()
        far = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact) * (half - exact)
        rough = (exact + far.long()).clamp(max=half - 1)
        return (offset > 0).long() * half + torch.where(distance < exact, distance, rough)

    def forward(self, frames: int) -> Tensor:
        """The bias (heads, frames, frames): first index after heads is the query."""
        place = torch.arange(frames, device=self.weight.device)
        return functional.embedding(self.bucket(place[None, :] - place[:, None]), self.weight).permute(2, 0, 1)


def heads_first(x: Tensor, heads: int) -> Tensor:
    """(B, T, heads * head width) to (B, heads, T, head width)."""
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


class PositionGate(nn.Module):
    """WavLM's gate on the position bias: from each head's part of the layer input, one factor per query.

    Source: WavLM, equations 1 to 4 (arXiv 2110.13900).
    """

    def __init__(self, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.linear = nn.Linear(head_width, 8)
        self.scale = nn.Parameter(torch.ones(1, heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, heads * head_width) to factors (B, heads, T, 1)."""
        parts = heads_first(x, self.heads)
        gates = self.linear(parts)  # (B, heads, T, 8): four addends of each of the two gates
        update, reset = torch.sigmoid(gates.view(*gates.shape[:-1], 2, 4).sum(-1, keepdim=True)).unbind(-2)
        factor: Tensor = update * (reset * self.scale - 1.0) + 2.0
        return factor


class Attention(nn.Module):
    """Multi-head self-attention of x (B, T, width) with ``heads`` heads of ``head_width``.

    Args:
        width: of input and output.
        heads: number of heads; their joint width may differ from ``width``.
        head_width: size of one head.
        own_map: whether it computes its attention map; without, it has neither queries nor keys and takes the map of
            an earlier layer (ARMHuBERT).
        gate: number of heads of the model before pruning where a gate scales the position bias (WavLM), else 0.
        kept: which of the model's heads these are, for the position bias; ``None`` means the first ``heads``.
        keep_map: whether a later layer takes this one's map.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int,
        *,
        own_map: bool = True,
        gate: int = 0,
        kept: Sequence[int] | None = None,
        keep_map: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.head_width, self.keep_map = heads, head_width, keep_map
        self.kept = None if kept is None else list(kept)
        inner = heads * head_width
        self.query = nn.Linear(width, inner) if own_map else None
        self.key = nn.Linear(width, inner) if own_map else None
        self.value, self.output = nn.Linear(width, inner), nn.Linear(inner, width)
        self.gate = PositionGate(gate, width // gate) if gate else None

    def bias(self, x: Tensor, padding: Tensor | None, position: Tensor | None) -> Tensor | None:
        """What is added to scores, broadcastable to (B, heads, T, T): position bias, padding; or nothing."""
        bias = None
        if position is not None:
            bias = position[None]
            if self.gate is not None:
                bias = self.gate(x) * bias
            bias = bias[:, self.kept] if self.kept is not None else bias[:, : self.heads]
        if padding is not None:
            bias = padding if bias is None else bias + padding
        return bias

    def forward(
        self, x: Tensor, padding: Tensor | None, position: Tensor | None, kept_map: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            x: (B, T, width).
            padding: (B, 1, 1, T), 0 for valid keys and -inf for others, or ``None``.
            position: (model heads, T, T) relative-position bias, or ``None``.
            kept_map: (B, heads, T, T) map of an earlier layer after its softmax, for a layer without its own. It serves
                that layer as scores: the weights are its softmax.

        Returns:
            (B, T, width) and the map to hand on, ``None`` where no layer keeps one.
        """
        value = heads_first(self.value(x), self.heads)
        if self.query is None or self.key is None:
            if kept_map is None:
                raise ValueError("the first layer has no attention map of its own")
            scores = kept_map if padding is None else kept_map + padding
            mixed = torch.softmax(scores, -1) @ value  # ARMHuBERT normalises the map, which is normalised, once more
        else:
            query, key = heads_first(self.query(x), self.heads), heads_first(self.key(x), self.heads)
            bias = self.bias(x, padding, position)
            if self.keep_map:
                scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_width)
                kept_map = torch.softmax(scores if bias is None else scores + bias, -1)
                mixed = kept_map @ value
            else:
                mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        joined: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return joined, kept_map
