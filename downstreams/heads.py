"""SUPERB's heads. ``forward(x, lengths)`` takes one trial, ``stacked`` all trials of a probe at once.

Parameter counts equal SUPERB's at its sizes (protocol section 4.0); ``sizes`` shrinks them for small suites.
A stacked forward gets the parameters with a leading trial axis R and x (R, B, T, D), and computes for each trial
what ``forward`` does; the linear heads and the x-vector leave that to :func:`torch.func.vmap` in the harness.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.head import Head
from harness.randomness import Noise


def frame_mask(lengths: Tensor, frames: int) -> Tensor:
    """Boolean (B, T): true where a frame is valid."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def product(first: nn.Linear, second: nn.Linear, x: Tensor) -> Tensor:
    """``second(first(x))`` by the product of both maps: cheaper where x has more rows than ``second`` has outputs."""
    weight = second.weight @ first.weight
    return F.linear(x, weight, F.linear(first.bias, second.weight, second.bias))


class FrameHead(Head):
    """Linear → Linear on every frame (PR; s3prl ``downstream/model.py`` FrameLevel after a projector).

    There is no activation between the two, so their product is applied (:func:`product`).
    """

    def __init__(self, width: int, classes: int, project: int = 256) -> None:
        super().__init__()
        self.projector = nn.Linear(width, project)
        self.linear = nn.Linear(project, classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, T, C) of x (B, T, D)."""
        return product(self.projector, self.linear, x)


class UtteranceHead(Head):
    """Linear → mean over valid frames → Linear (KS, IC, SID, ER; s3prl ``downstream/model.py`` UtteranceLevel).

    Accepts time means (B, D) as well as frames (B, T, D): the mean commutes with the first Linear. Means of at least
    as many utterances as there are classes go through :func:`product`.
    """

    def __init__(self, width: int, classes: int, project: int = 256) -> None:
        super().__init__()
        self.projector = nn.Linear(width, project)
        self.linear = nn.Linear(project, classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, C) of x (B, T, D) or (B, D)."""
        if x.dim() == 2 and len(x) >= self.linear.out_features:
            return product(self.projector, self.linear, x)
        hidden = self.projector(x)
        if hidden.dim() == 3:
            mask = frame_mask(lengths, hidden.shape[1])
            hidden = hidden.masked_fill(~mask[..., None], 0.0).sum(1) / lengths[:, None]
        logits: Tensor = self.linear(hidden)
        return logits


class RecurrentHead(Head):
    """Linear → two bidirectional LSTM layers, each with dropout → Linear (ASR; s3prl ``downstream/asr/model.py``).

    The two directions run as plain LSTMs over padded batches; the backward one reads each utterance reversed
    within its own length, which equals a packed sequence and is several times faster on a CPU.
    """

    dropout = 0.2
    one_by_one = True

    def __init__(self, width: int, classes: int, project: int = 1024, hidden: int = 1024, layers: int = 2) -> None:
        super().__init__()
        self.projector = nn.Linear(width, project)
        self.rnns = tuple(f"rnn{number}" for number in range(1, layers + 1))
        for number, name in enumerate(self.rnns):
            inputs = project if number == 0 else 2 * hidden
            self.add_module(name, nn.LSTM(inputs, hidden, batch_first=True, bidirectional=True))
        self.linear = nn.Linear(2 * hidden, classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, T, C) of x (B, T, D)."""
        return self._trial(dict(self.named_parameters()), x, reversal(lengths, x.shape[1]), None)

    def stacked(self, params: Mapping[str, Tensor], x: Tensor, lengths: Tensor, noise: Noise | None) -> Tensor:
        """Logits (R, B, T, C) of x (R, B, T, D); in training ``noise`` draws uniform numbers for the dropout."""
        own = zip(*(value.unbind(0) for value in params.values()), strict=True)
        trials = [dict(zip(params, values, strict=True)) for values in own]
        masks: list[tuple[Tensor, ...]] | list[None] = [None] * len(trials)
        if self.training and noise is not None:
            shape = (*x.shape[1:3], self.linear.in_features)
            masks = list(zip(*(noise(shape) for _ in self.rnns), strict=True))
        flip = reversal(lengths, x.shape[2])
        inputs = x.unbind(0)
        return torch.stack([self._trial(trials[r], inputs[r], flip, masks[r]) for r in range(len(trials))])

    def _trial(
        self, params: Mapping[str, Tensor], x: Tensor, flip: Tensor, uniform: tuple[Tensor, ...] | None
    ) -> Tensor:
        x = F.linear(x, params["projector.weight"], params["projector.bias"])
        for index, layer in enumerate(self.rnns):
            x = _bidirectional(params, layer, x, flip)
            if uniform is None:
                x = F.dropout(x, self.dropout, self.training)
            else:
                x = x * (uniform[index] >= self.dropout) / (1.0 - self.dropout)
        return F.linear(x, params["linear.weight"], params["linear.bias"])


def reversal(lengths: Tensor, frames: int) -> Tensor:
    """Places (B · T,) that reverse each utterance within its length and leave padding where it is."""
    position = torch.arange(frames, device=lengths.device)
    mirrored = lengths[:, None] - 1 - position
    place = torch.where(mirrored >= 0, mirrored, position)
    return (place + frames * torch.arange(len(lengths), device=lengths.device)[:, None]).flatten()


class _Reverse(torch.autograd.Function):
    """Frames of x (B, T, I) at the places ``flip``, which undoes itself: forward and gradient are the same copy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, flip: Tensor) -> Tensor:
        ctx.save_for_backward(flip)
        return x.flatten(0, 1).index_select(0, flip).view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (flip,) = ctx.saved_tensors
        return grad.flatten(0, 1).index_select(0, flip).view_as(grad), None


def _reverse(x: Tensor, flip: Tensor) -> Tensor:
    return cast(Tensor, _Reverse.apply(x, flip))  # type: ignore[no-untyped-call]


def _bidirectional(params: Mapping[str, Tensor], layer: str, x: Tensor, flip: Tensor) -> Tensor:
    """(B, T, 2H) of x (B, T, I), as ``nn.LSTM`` on a packed batch gives at valid frames."""
    backward = _lstm(params, layer, "_reverse", _reverse(x, flip))
    return torch.cat([_lstm(params, layer, "", x), _reverse(backward, flip)], dim=-1)


def _lstm(params: Mapping[str, Tensor], layer: str, suffix: str, x: Tensor) -> Tensor:
    """One direction of one LSTM layer over x (B, T, I)."""
    weights = [params[f"{layer}.{kind}_l0{suffix}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    state = x.new_zeros(1, x.shape[0], weights[1].shape[1])
    return torch.lstm(x, (state, state), weights, True, 1, 0.0, True, False, True)[0]


class SpeakerHead(Head):
    """Linear → x-vector TDNN → statistics pooling → two Linear + ReLU, and AM-softmax (ASV).

    Source: s3prl ``downstream/sv_voxceleb1/model.py``. In training mode the output is s · cos against each training
    speaker; in eval mode it is the embedding after the first Linear + ReLU, of unit length. s3prl pools one padded
    frame of the shorter utterances of a batch; here exactly the valid frames are pooled.
    """

    scale = 30.0
    margin = 0.4
    layers = ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1))
    """(frames, dilation) of the TDNN layers."""
    context = 14
    """Frames that the TDNN layers consume."""
    min_frames = context + 2
    """Fewest frames of an utterance: the standard deviation needs two outputs of the TDNN."""

    def __init__(
        self, width: int, classes: int, project: int = 512, channels: int = 512, pool: int = 1500, embed: int = 512
    ) -> None:
        super().__init__()
        self.projector = nn.Linear(width, project)
        sizes = (project, channels, channels, channels, channels, pool)
        self.tdnn = nn.ModuleList(nn.Linear(sizes[i] * taps, sizes[i + 1]) for i, (taps, _) in enumerate(self.layers))
        self.embed1 = nn.Linear(2 * pool, embed)
        self.embed2 = nn.Linear(embed, embed)
        self.speakers = nn.Parameter(torch.empty(embed, classes))
        nn.init.xavier_normal_(self.speakers)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(B, speakers) scaled cosines in training, (B, embed) unit embeddings otherwise, of x (B, T, D)."""
        x = self.projector(x)
        for (taps, dilation), linear in zip(self.layers, self.tdnn, strict=True):
            x = F.relu(linear(spliced(x, taps, dilation)))
        embedding = F.relu(self.embed1(statistics(x, lengths - self.context)))
        if not self.training:
            return F.normalize(embedding, dim=-1)
        embedding = F.relu(self.embed2(embedding))
        return self.scale * (F.normalize(embedding, dim=-1) @ F.normalize(self.speakers, dim=0))


def spliced(x: Tensor, taps: int, dilation: int) -> Tensor:
    """Each frame beside its right neighbours: (B, T − (taps − 1) · dilation, taps · D) of x (B, T, D)."""
    if taps == 1:
        return x
    frames = x.shape[1] - (taps - 1) * dilation
    return torch.cat([x[:, k * dilation : k * dilation + frames] for k in range(taps)], dim=-1)


def statistics(x: Tensor, lengths: Tensor) -> Tensor:
    """Mean and unbiased standard deviation over valid frames, (B, 2 · D) of x (B, T, D)."""
    mask = frame_mask(lengths, x.shape[1])[..., None]
    mean = x.masked_fill(~mask, 0.0).sum(1) / lengths[:, None]
    variance = (x - mean[:, None]).masked_fill(~mask, 0.0).square().sum(1) / (lengths[:, None] - 1)
    varies = variance > 0
    std = torch.where(varies, variance, 1.0).sqrt()  # the gradient of torch.std is 0 where nothing varies
    return torch.cat([mean, torch.where(varies, std, 0.0)], dim=-1)
