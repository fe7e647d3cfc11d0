"""What the two CTC tasks share: the loss, the greedy decoder and a remark on targets that do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

BLANK = 0


def loss(output: Tensor, lengths: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
    """CTC loss per item (N,), divided by the target's length as PyTorch's mean reduction does.

    A target that does not fit into its frames gives 0 and no gradient (``zero_infinity``), as in SUPERB.

    Args:
        output: logits (N, T, C).
        lengths: (N,) valid frames.
        targets: N lists of class indices without blanks.
    """
    sizes = torch.as_tensor([len(target) for target in targets], device=output.device)
    joined = torch.as_tensor([index for target in targets for index in target], device=output.device)
    log_probs = output.log_softmax(-1).transpose(0, 1)
    losses = F.ctc_loss(log_probs, joined, lengths, sizes, BLANK, reduction="none", zero_infinity=True)
    return losses / sizes.clamp(min=1)


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
