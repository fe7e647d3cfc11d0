"""Utterance means: what a whole utterance is like, for speakers and emotions rather than words."""

from __future__ import annotations

import torch

from upstreams.distillation.terms import distances, heads, paired
from upstreams.distillation.terms.alignment import pooled
from upstreams.distillation.terms.base import Result, Side, TermSpec, View


class Utterance(paired.Paired):
    """A head of the student's mean state against the teacher's mean state, over the valid frames of each.

    It stands for DeiT's distillation token (arXiv 2012.12877) in models that have none: a summary of the input that is
    supervised by the teacher and dropped afterwards. Frame periods need not agree.

    Figures: ``cosine_4``, the mean over utterances per teacher state.
    """

    takes_heads = ("linear", "none", "identity", "split", "gelu", "mlp")
    takes_distances = ("l1", "l1_cos", "mse", "cos", "l1_cos_raw", "huber")
    takes_options = paired.OPTIONS | heads.OPTIONS | distances.OPTIONS

    def __init__(self, spec: TermSpec, student: Side, teacher: Side) -> None:
        super().__init__(spec, student, teacher)
        self.heads = heads.Heads(self)
        self.knobs = {name: float(self.option(name)) for name in distances.OPTIONS}

    def forward(self, student: View, teacher: View) -> Result:
        """The weighted distance over pairs, mean over utterances."""
        wanted = {number for number, _ in self.pairs}
        means = [pooled(x, student.mask)[:, None] if n in wanted else x for n, x in enumerate(student.states)]
        targets = [pooled(teacher.states[number], teacher.mask)[:, None] for _, number in self.pairs]
        some = (torch.minimum(student.frames, teacher.frames) > 0)[:, None]
        losses, cosines = distances.each(self.spec.distance, self.heads(means), targets, some, self.knobs)
        return Result(self.total(losses), self.named("cosine", cosines))
