"""The layers of the lab's models: gated relative positions (WavLM, arXiv 2110.13900), and what compression leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from upstreams.students.mini_config import LayerPlan, MiniConfig


@dataclass(frozen=True)
class Gates:
    """Factors on the parts of a layer, for pruning; ``None`` for none.

    With factors of 0 and 1 the layer equals the one that :func:`upstreams.students.cutting.cut` leaves.

    Attributes:
        heads: (H,), on what each of the layer's heads gives.
        dims: (K,), on each dimension of queries, keys and values alike; K is ``heads * head_width`` in an uncut layer.
        units: (F,), on the units of the feed-forward block, after their activation.
    """

    heads: Tensor | None = None
    dims: Tensor | None = None
    units: Tensor | None = None


class Offset(nn.Module):
    """What is left of a linear map whose inputs are all cut: its bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))


class PositionBias(nn.Module):
    """Bucketed relative-position bias (H, T, T), T5-style buckets as in WavLM, shared by all layers."""

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        self.buckets, self.max_distance = config.buckets, config.max_distance
        self.embedding = nn.Embedding(config.buckets, config.all_heads)

    def bucket(self, offset: Tensor) -> Tensor:
        """Bucket of each signed offset (key - query): exact when near, logarithmic when far."""
        half = self.buckets // 2
        exact = half // 2
        distance = offset.abs()
        scale = math.log(self.max_distance / exact)
        far = exact + (torch.log(distance.clamp(min=1) / exact) / scale * (half - exact)).long()
        return (offset > 0).long() * half + torch.where(distance < exact, distance, far.clamp(max=half - 1))

    def forward(self, frames: int) -> Tensor:
        """Bias (H, T, T)."""
        place = torch.arange(frames, device=self.embedding.weight.device)
        bias: Tensor = self.embedding(self.bucket(place[None, :] - place[:, None]))
        return bias.permute(2, 0, 1)


class Layer(nn.Module):
    """Pre-norm transformer layer whose attention adds a gated relative position bias (WavLM, section 3.1).

    Where a plan leaves attention or the feed-forward block out, the bias of its last linear map stays.

    Attributes:
        gates: factors for pruning, set from outside; ``None`` for none. They are no part of the layer's own weights.
    """

    spread: Tensor | None
    gathered: Tensor | None
    picked: Tensor | None
    borrowed: Tensor | None

    def __init__(self, config: MiniConfig, plan: LayerPlan) -> None:
        super().__init__()
        self.plan, self.head_width, self.heads = plan, config.head_width, len(plan.heads)
        self.gates: Gates | None = None
        d, inner = config.width, len(plan.dims)
        self.norm_attention = nn.LayerNorm(d) if plan.dims else None
        self.norm_ffn = nn.LayerNorm(d) if plan.ffn else None
        if plan.dims:
            if plan.own:
                self.qkv = nn.Linear(d, 3 * inner)
            else:
                self.value = nn.Linear(d, inner)
        self.out = nn.Linear(inner, d) if plan.dims else Offset(d)
        if plan.dims and plan.own:
            self.gate = nn.Linear(config.head_width, 2)
            self.gate_scale = nn.Parameter(torch.ones(self.heads))
        self.up = nn.Linear(d, plan.ffn) if plan.ffn else None
        self.down = nn.Linear(plan.ffn, d) if plan.ffn else Offset(d)
        self._places(config)

    def _places(self, config: MiniConfig) -> None:
        """Index tensors for layers that are not whole; ``None`` where nothing has to be moved."""
        plan, hw = self.plan, self.head_width
        place = {head * hw: index * hw for index, head in enumerate(plan.heads)}  # first dimension of each head
        gathered = [place[dim - dim % hw] + dim % hw for dim in plan.dims]  # of each kept one, among whole heads
        partial = len(gathered) < self.heads * hw
        number = {dim: index for index, dim in enumerate(gathered)}
        spread = [number.get(dim, len(gathered)) for dim in range(self.heads * hw)]
        self._index("gathered", gathered if partial else None)
        self._index("spread", spread if partial else None)
        self._index("picked", list(plan.heads) if plan.own and 0 < self.heads < config.all_heads else None)
        self._index("borrowed", list(plan.borrowed) or None)

    def _index(self, name: str, values: list[int] | None) -> None:
        with torch.device("cpu"):  # constants, real even in a model that is built on the meta device
            self.register_buffer(name, None if values is None else torch.tensor(values), persistent=False)

    def _in_heads(self, x: Tensor) -> Tensor:
        """(B, T, parts * K) of the kept dimensions to (parts, B, H, T, head_width), with zeros for those cut."""
        b, t, _ = x.shape
        dims = None if self.gates is None else self.gates.dims
        if dims is None and self.spread is None:
            return x.view(b, t, -1, self.heads, self.head_width).permute(2, 0, 3, 1, 4)
        x = x.view(b, t, -1, len(self.plan.dims))
        if dims is not None:
            x = x * dims
        if self.spread is not None:
            x = functional.pad(x, (0, 1)).index_select(-1, self.spread)
        return x.view(b, t, -1, self.heads, self.head_width).permute(2, 0, 3, 1, 4)

    def attend(
        self, x: Tensor, bias: Tensor | None, padding: Tensor | None, lent: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Self-attention of x (B, T, D).

        Args:
            x: input, after its norm.
            bias: position bias (all heads, T, T); not used by a layer without its own map.
            padding: (B, 1, 1, T) of -inf or 0, or ``None``.
            lent: map (B, heads, T, T) of an earlier layer, for one without its own.

        Returns:
            (B, T, D), and the map (B, H, T, T) after its softmax.
        """
        if self.plan.own:
            q, k, v = self._in_heads(self.qkv(x))
            update, reset = torch.sigmoid(self.gate(q)).unbind(-1)
            gate = 1.0 + update * (reset * self.gate_scale[:, None] - 1.0) + 1.0
            if bias is None:
                raise ValueError("a layer with its own attention map needs the position bias")
            position = bias if self.picked is None else bias.index_select(0, self.picked)
            scores = q @ k.transpose(-1, -2) / math.sqrt(self.head_width) + gate[..., None] * position
            weights = torch.softmax(scores if padding is None else scores + padding, -1)
        else:
            if lent is None:
                raise ValueError("a layer without its own attention map needs that of an earlier one")
            v = self._in_heads(self.value(x))[0]
            weights = lent if self.borrowed is None else lent.index_select(1, self.borrowed)
        given = weights @ v
        if self.gates is not None and self.gates.heads is not None:
            given = given * self.gates.heads[:, None, None]
        joined = given.transpose(1, 2).reshape(*x.shape[:2], self.heads * self.head_width)
        if self.gathered is not None:
            joined = joined.index_select(-1, self.gathered)
        mixed: Tensor = self.out(joined)
        return mixed, weights

    def feed_forward(self, x: Tensor) -> Tensor:
        """Feed-forward block on x (B, T, D), after its norm."""
        units = functional.gelu(self.up(x))  # type: ignore[misc]
        if self.gates is not None and self.gates.units is not None:
            units = units * self.gates.units
        y: Tensor = self.down(units)
        return y

    def forward(
        self, x: Tensor, bias: Tensor | None, padding: Tensor | None, lent: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(B, T, D) to (B, T, D) and the attention map (B, H, T, T), ``None`` for a layer without attention."""
        weights = None
        if self.norm_attention is None:
            x = x + self.out.bias
        else:
            mixed, weights = self.attend(self.norm_attention(x), bias, padding, lent)
            x = x + mixed
        if self.norm_ffn is None:
            return x + self.down.bias, weights
        hidden: Tensor = x + self.feed_forward(self.norm_ffn(x))
        return hidden, weights
