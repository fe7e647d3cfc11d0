"""Contrastive distillation: each student frame must pick its own teacher frame among many."""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.nn import functional

from upstreams.distillation.loop import rank_and_world
from upstreams.distillation.terms import heads, paired
from upstreams.distillation.terms.alignment import full_precision, meet
from upstreams.distillation.terms.base import Result, Side, TermSpec, View
from upstreams.distillation.terms.options import Option


class Contrastive(paired.Paired):
    """InfoNCE (arXiv 1807.03748) between heads of student frames and teacher frames, cosines over a temperature.

    Candidates are the chosen teacher frames of all utterances of the batch, and a memory of those of earlier batches
    (contrastive pairs of layers as in CoLLD, arXiv 2309.07707; a memory as in CRD, arXiv 1910.10699). Frames within
    ``near`` of the wanted one in its utterance are nearly the same sound and do not count as wrong. Of more than
    ``anchors`` valid frames in a batch, evenly spaced ones are chosen. Further options: ``memory`` (frames kept per
    pair, 0 for none), ``temperature``.

    Figures: ``accuracy_4``, the share of chosen frames whose best candidate is the wanted one.
    """

    takes_heads = ("linear", "none", "identity", "mlp", "upsample")
    takes_distances = ("infonce",)
    takes_options = (
        paired.OPTIONS
        | heads.OPTIONS
        | {
            "temperature": Option(0.1, least=1e-4),
            "near": Option(3, least=0),
            "anchors": Option(512, least=2),
            "memory": Option(1024, least=0),
        }
    )
    memory: Tensor
    place: Tensor
    filled: Tensor

    def __init__(self, spec: TermSpec, student: Side, teacher: Side) -> None:
        super().__init__(spec, student, teacher)
        self.heads = heads.Heads(self)
        self.register_buffer("memory", torch.zeros(len(self.pairs), self.option("memory"), teacher.width))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))

    def choose(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Utterance and time of the frames used, of a mask (B, T): all valid ones, or ``anchors`` evenly spaced."""
        utterance, time = mask.nonzero(as_tuple=True)
        count, most = len(utterance), int(self.option("anchors"))
        if count > most:
            kept = torch.arange(most, device=mask.device) * count // most
            utterance, time = utterance[kept], time[kept]
        return utterance, time

    def forward(self, student: View, teacher: View) -> Result:
        """Mean negative log probability of the wanted frame; in training mode the memory takes in the new frames."""
        predicted, ratio = self.heads.view(student, self.ratio)
        mine, theirs = meet(predicted, teacher, ratio)
        utterance, time = self.choose(mine.mask)
        gap = (time[:, None] - time[None, :]).abs()
        twins = (utterance[:, None] == utterance[None, :]) & (gap > 0) & (gap <= self.option("near"))
        empty = torch.arange(self.memory.shape[1], device=self.memory.device) >= self.filled
        ignored = torch.cat([twins, empty.expand(len(time), -1)], 1)
        wanted = torch.arange(len(time), device=time.device)
        losses, right, keys = [], [], []
        for place, (state, (_, number)) in enumerate(zip(mine.states, self.pairs, strict=True)):
            with full_precision(state):
                query = functional.normalize(state[utterance, time].float(), dim=-1)
                key = functional.normalize(theirs.states[number][utterance, time].detach().float(), dim=-1)
                candidates = torch.cat([key, self.memory[place].clone()])
                scores = (query @ candidates.T / self.option("temperature")).masked_fill(ignored, -torch.inf)
                losses.append(functional.cross_entropy(scores, wanted))
            right.append((scores.argmax(-1) == wanted).float().mean())
            keys.append(key)
        if self.training:
            self.remember(torch.stack(keys))
        return Result(self.total(torch.stack(losses)), self.named("accuracy", torch.stack(right).tolist()))

    @torch.no_grad()
    def remember(self, keys: Tensor) -> None:
        """Put unit vectors (pairs, N, D), those of all processes, into the memory in place of the oldest."""
        size = self.memory.shape[1]
        if not size:
            return
        keys = of_all_processes(keys)[:, :size]
        count = keys.shape[1]
        self.memory[:, (self.place + torch.arange(count, device=keys.device)) % size] = keys.to(self.memory.dtype)
        self.place.copy_((self.place + count) % size)
        self.filled.copy_((self.filled + count).clamp(max=size))


def of_all_processes(keys: Tensor) -> Tensor:
    """Vectors (pairs, N, D) of all processes, one process after another; N may differ between them."""
    if rank_and_world()[1] == 1:
        return keys
    counts = [torch.zeros((), dtype=torch.long, device=keys.device) for _ in range(rank_and_world()[1])]
    distributed.all_gather(counts, torch.tensor(keys.shape[1], device=keys.device))
    padded = functional.pad(keys, (0, 0, 0, max(map(int, counts)) - keys.shape[1])).contiguous()
    found = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(found, padded)
    return torch.cat([part[:, : int(count)] for part, count in zip(found, counts, strict=True)], 1)
