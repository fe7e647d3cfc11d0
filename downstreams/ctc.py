"""What the two CTC tasks share: the loss, the greedy decoder and a remark on targets that do not fit.

The loss is ours and not :func:`torch.nn.functional.ctc_loss` because that one is several times slower on a CPU
where hundreds of short sequences run side by side, and its CUDA gradient is not deterministic, so that an
interrupted run could not end bit-identical. A test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLANK = 0
NEVER = float("-inf")


class _CTC(torch.autograd.Function):
    """Negative log likelihood (N,) of log probabilities (N, T, C); infinite ones give 0 and no gradient."""

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, lengths: Tensor, states: Tensor, sizes: Tensor) -> Tensor:
        frames, width = log_probs.shape[1], states.shape[1]
        flip_t, flip_s = _reversal(lengths, frames), _reversal(sizes, width)
        emission = log_probs.gather(2, states[:, None].expand(-1, frames, -1))
        mirrored = emission.gather(1, flip_t[..., None].expand_as(emission))
        mirrored = mirrored.gather(2, flip_s[:, None].expand_as(emission))
        both = _recursion(torch.cat([emission, mirrored]), torch.cat([states, states.gather(1, flip_s)]))
        alpha, beta = both.chunk(2)
        beta = beta.gather(1, flip_t[..., None].expand_as(beta)).gather(2, flip_s[:, None].expand_as(beta))
        item = torch.arange(len(states), device=states.device)
        last = alpha[item, lengths - 1]
        before = torch.where(sizes > 1, last[item, (sizes - 2).clamp(min=0)], NEVER)
        likelihood = torch.logaddexp(last[item, sizes - 1], before)
        finite = torch.isfinite(likelihood)
        ctx.save_for_backward(alpha, beta, emission, likelihood, finite, lengths, states, sizes)
        ctx.classes = log_probs.shape[2]
        return torch.where(finite, -likelihood, torch.where(torch.isnan(likelihood), likelihood, 0.0))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        alpha, beta, emission, likelihood, finite, lengths, states, sizes = ctx.saved_tensors
        frame = torch.arange(alpha.shape[1], device=alpha.device) < lengths[:, None]
        state = torch.arange(alpha.shape[2], device=alpha.device) < sizes[:, None]
        valid = frame[:, :, None] & state[:, None] & (emission > NEVER) & finite[:, None, None]
        share = torch.exp(alpha + beta - emission - likelihood[:, None, None])
        share = torch.where(valid, share, 0.0) * -grad[:, None, None]
        onto = torch.nn.functional.one_hot(states, ctx.classes).to(share.dtype)
        result = torch.where(torch.isnan(likelihood)[:, None, None], likelihood[:, None, None], torch.bmm(share, onto))
        return result, None, None, None


def _recursion(emission: Tensor, states: Tensor) -> Tensor:
    """Forward variables (N, T, S), including each frame's own emission, of emission (N, T, S)."""
    items, frames, width = emission.shape
    skip = torch.full((items, width), NEVER, device=emission.device, dtype=emission.dtype)
    skip[:, 2:] = torch.where((states[:, 2:] != BLANK) & (states[:, 2:] != states[:, :-2]), 0.0, NEVER)
    steps = emission.transpose(0, 1).contiguous()
    alpha = emission.new_full((frames, items, width + 2), NEVER)  # two columns on the left that no path reaches
    alpha[0, :, 2:4] = steps[0, :, :2]
    for t in range(1, frames):
        before = alpha[t - 1]
        near = torch.logaddexp(before[:, 2:], before[:, 1:-1])
        torch.add(torch.logaddexp(near, before[:, :-2] + skip), steps[t], out=alpha[t, :, 2:])
    return alpha[:, :, 2:].transpose(0, 1)


def _reversal(lengths: Tensor, size: int) -> Tensor:
    """Indices (N, size) that reverse the first ``lengths`` entries of each row."""
    position = torch.arange(size, device=lengths.device)
    mirrored = lengths[:, None] - 1 - position
    return torch.where(mirrored >= 0, mirrored, position)


def loss(output: Tensor, lengths: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
    """CTC loss per item (N,), divided by the target's length as PyTorch's mean reduction does.

    Args:
        output: logits (N, T, C).
        lengths: (N,) valid frames.
        targets: N lists of class indices without blanks.
    """
    longest = max(len(target) for target in targets)
    states = torch.full((len(targets), 2 * longest + 1), BLANK)
    for row, target in zip(states, targets, strict=True):
        row[1 : 2 * len(target) : 2] = torch.as_tensor(target)
    sizes = torch.as_tensor([2 * len(target) + 1 for target in targets])
    result: Tensor = _CTC.apply(  # type: ignore[no-untyped-call]
        output.log_softmax(-1), lengths, states.to(output.device), sizes.to(output.device)
    )
    return result / ((sizes - 1) // 2).clamp(min=1).to(result)


def greedy(output: Tensor, lengths: Tensor) -> list[list[int]]:
    """Best class per frame of logits (N, T, C): runs merged first, then blanks dropped, so that "N N" survives.

    The order matters: s3prl before May 2022 dropped blanks first (protocol section 1.3).
    """
    best = output.argmax(-1)
    starts = torch.ones_like(best, dtype=torch.bool)
    starts[:, 1:] = best[:, 1:] != best[:, :-1]
    valid = torch.arange(best.shape[1], device=best.device) < lengths[:, None]
    keep = (starts & valid & (best != BLANK)).cpu().numpy()
    symbols = best.cpu().numpy()
    return [row[mask].tolist() for row, mask in zip(symbols, keep, strict=True)]


def remarks(targets: Sequence[Sequence[int]], frames: Sequence[int]) -> list[str]:
    """A note on the training utterances that CTC cannot align: their loss is set to zero, as in SUPERB."""
    needed = (len(target) + sum(a == b for a, b in pairwise(target)) for target in targets)
    count = sum(need > have for need, have in zip(needed, frames, strict=True))
    if not count:
        return []
    return [f"{count} of {len(targets)} training utterances have fewer frames than CTC needs and add nothing."]
