"""Averaged targets: one student state against the mean of the teacher's upper layers."""

from __future__ import annotations

import torch

from harness.interface import SlimbenchError
from upstreams.distillation.terms import distances, heads
from upstreams.distillation.terms.alignment import meet
from upstreams.distillation.terms.base import Result, Side, Term, TermSpec, View
from upstreams.distillation.terms.options import Option


class MeanTop(Term):
    """One student state predicts the mean of several teacher states (LightHuBERT, arXiv 2203.15610; the target is
    data2vec's, arXiv 2202.03555).

    Option ``top`` is how many of the teacher's last layers are averaged; 0 takes two thirds of them (8 of 12, as both
    papers do). A list of teacher states, or a word other than ``depth``, says which instead.

    Figures: ``cosine_top``, the mean cosine over valid frames.
    """

    takes_heads = tuple(head for head in heads.HEADS if head != "split")
    takes_distances = ("l1", "l1_cos", "mse", "cos", "l1_cos_raw", "huber")
    takes_options = {"top": Option(0, least=0)} | heads.OPTIONS | distances.OPTIONS

    def __init__(self, spec: TermSpec, student: Side, teacher: Side) -> None:
        super().__init__(spec, student, teacher)
        if len({mine for mine, _ in self.pairs}) > 1:
            raise SlimbenchError(f"{spec.knowledge} has one target; name one student state.")
        layers = teacher.states - 1
        top = self.option("top") or max(1, -(-2 * layers // 3))
        if top > layers:
            raise SlimbenchError(f"{spec.knowledge}: option 'top' is {top}, the teacher has {layers} layers; lower it.")
        chosen = range(teacher.states - top, teacher.states)
        self.targets = tuple(chosen) if spec.teacher == "depth" else tuple(theirs for _, theirs in self.pairs)
        self.heads = heads.Heads(self, pairs=[(self.pairs[0][0], 0)])
        self.knobs = {name: float(self.option(name)) for name in distances.OPTIONS}
        self.ratio = student.frame_ms / teacher.frame_ms

    def forward(self, student: View, teacher: View) -> Result:
        """The distance to the mean state over valid frames."""
        mean = torch.stack([teacher.states[number].float() for number in self.targets]).mean(0)
        predicted, ratio = self.heads.view(student, self.ratio)
        mine, theirs = meet(predicted, View((mean,), teacher.frames), ratio)
        losses, cosines = distances.each(
            self.spec.distance, list(mine.states), list(theirs.states), mine.mask, self.knobs
        )
        return Result(losses.mean(), {"cosine_top": cosines[0]})
