"""In which order utterances are trained on: the batches of every epoch, alike for all trials of a task.

All draws come from generators seeded by the epoch, never from a running state, so that a run that goes on after a
kill sees the batches that it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from harness.interface import Need, SlimbenchError, TrainingProtocol
from harness.randomness import generator

JITTER = 0.1
"""Relative noise on lengths before sorting, so that batches of similar length differ between epochs."""
LONG = 18.75
"""Seconds of the first utterance of a window beyond which the window is halved (s3prl ``downstream/ctc/data.py``)."""


class Order:
    """Training batches as lists of places among the training utterances.

    Args:
        protocol: batch size, kind of batching and the rest.
        need: utterances whose means are read have no length, so they are never sorted.
        lengths: frames per utterance, for ``by_length``.
        seconds: audio per utterance, for ``halved_buckets`` and ``windows``.
        targets: number of target symbols per utterance, for ``windows``.
        classes: a class number per utterance where every class is to be drawn equally often.
        groups: what stands for one utterance, as lists of places; an epoch takes one of each, at random. By default
            each place is an utterance of its own.
    """

    def __init__(
        self,
        protocol: TrainingProtocol,
        need: Need,
        lengths: Sequence[int],
        seconds: Sequence[float] = (),
        targets: Sequence[int] = (),
        classes: Sequence[int] | None = None,
        groups: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.protocol = protocol
        self.by_length = protocol.batching == "by_length" and need == "frames"
        self.groups = groups if groups is not None else [[place] for place in range(len(lengths))]
        self.alone = all(len(group) == 1 for group in self.groups)
        self.first = torch.as_tensor([group[0] for group in self.groups])
        self.lengths = torch.as_tensor(lengths, dtype=torch.float64)[self.first]
        self.weights: Tensor | None = None
        if classes is not None:
            self.weights = balance(torch.as_tensor(classes)[self.first])
        self.fixed: list[Tensor] | None = None
        if protocol.batching == "halved_buckets":
            self.fixed = halved_buckets([seconds[i] for i in self.first.tolist()], protocol.batch)
        elif protocol.batching == "windows":
            first = self.first.tolist()
            self.fixed = windows([targets[i] for i in first], [seconds[i] for i in first], protocol.batch)
        self.per_epoch = len(self._make(0))
        if not self.per_epoch:
            raise SlimbenchError(f"{len(self.groups)} training utterances make no batch; give more.")
        self._epoch = lru_cache(maxsize=1)(self._make)

    def at(self, number: int) -> Tensor:
        """Places of the utterances of batch ``number`` of the run (from 0)."""
        epoch, place = divmod(number, self.per_epoch)
        chosen = self._epoch(epoch)[place]
        if self.alone:
            return self.first[chosen]
        draw = torch.rand(len(chosen), generator=generator("variant", number)).tolist()
        picked = (self.groups[i] for i in chosen.tolist())
        return torch.as_tensor([group[int(u * len(group))] for group, u in zip(picked, draw, strict=True)])

    def update(self, step: int) -> tuple[Tensor, Tensor]:
        """Places (N,) and weights (N,) of update ``step``: the mean over its batches of each batch's mean."""
        count = self.protocol.accumulate
        batches = [self.at(step * count + i) for i in range(count)]
        weights = [torch.full((len(batch),), 1.0 / (count * len(batch))) for batch in batches]
        return torch.cat(batches), torch.cat(weights)

    def _make(self, epoch: int) -> tuple[Tensor, ...]:
        draw = generator("order", epoch)
        if self.fixed is not None:
            return tuple(self.fixed[i] for i in torch.randperm(len(self.fixed), generator=draw).tolist())
        count = len(self.groups)
        if self.weights is None:
            chosen = torch.randperm(count, generator=draw)
        else:
            chosen = torch.multinomial(self.weights, count, replacement=True, generator=draw)
        if self.by_length:
            noise = 1.0 + JITTER * torch.rand(count, generator=draw, dtype=torch.float64)
            chosen = chosen[(self.lengths[chosen] * noise).argsort(stable=True)]
        batches = list(torch.split(chosen, self.protocol.batch))
        if self.protocol.drop_last and len(batches) > 1 and len(batches[-1]) < self.protocol.batch:
            batches.pop()
        if self.by_length:
            batches = [batches[i] for i in torch.randperm(len(batches), generator=draw).tolist()]
        return tuple(batches)


def balance(classes: Tensor) -> Tensor:
    """Weights (N,) by which a draw with replacement takes every class equally often, of class numbers (N,)."""
    return 1.0 / classes.bincount()[classes].to(torch.float64)


def balanced_draw(classes: Sequence[int], count: int) -> list[int]:
    """One fixed draw of ``count`` places with replacement, every class equally often: SUPERB's dev set of KS."""
    weights = balance(torch.as_tensor(classes))
    return [int(i) for i in torch.multinomial(weights, count, replacement=True, generator=generator("dev"))]


def halved_buckets(seconds: Sequence[float], batch: int) -> list[Tensor]:
    """SUPERB's ASR batches: twice ``batch`` utterances in falling length, halved; what is left stays one batch.

    Source: protocol section 4.1; s3prl's nominal 32 are 16, since its bound is compared with samples. A single
    utterance that is left over is dropped there and here.
    """
    order = torch.as_tensor(seconds, dtype=torch.float64).argsort(descending=True, stable=True)
    buckets = list(torch.split(order, 2 * batch))
    rest = [] if len(buckets[-1]) == 2 * batch else [buckets.pop()]
    return [half for bucket in buckets for half in torch.split(bucket, batch)] + [
        last for last in rest if len(last) > 1
    ]


def windows(targets: Sequence[int], seconds: Sequence[float], batch: int) -> list[Tensor]:
    """SUPERB's PR batches: for every utterance the ``batch`` from it on in falling target length.

    Source: protocol section 4.2. Windows at the end are moved back, so the last is taken several times. A window whose
    first utterance lasts over :data:`LONG` seconds keeps its first half.
    """
    order = torch.as_tensor(targets).argsort(descending=True, stable=True)
    made = []
    for place in range(len(order)):
        begin = max(0, min(len(order) - batch, place))
        window = order[begin : begin + batch]
        long = seconds[int(window[0])] > LONG and len(window) > 1
        made.append(window[: len(window) // 2] if long else window)
    return made
