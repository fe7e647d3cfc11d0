"""Hidden states: the student's states, through heads, against the teacher's."""

from __future__ import annotations

from upstreams.distillation.terms import distances, heads, paired
from upstreams.distillation.terms.alignment import meet
from upstreams.distillation.terms.base import Result, Side, TermSpec, View


class Hidden(paired.Paired):
    """Feature distillation, from one state to many or layer to layer.

    With ``student: last``, head ``split`` and distance ``l1_cos`` it is DistilHuBERT's (arXiv 2110.01900); layer to
    layer with ``linear`` it is L2L of Deep versus Wide (arXiv 2207.06867); with ``upsample``, ``mse`` and
    ``layer_weights: {last: 1.0, others: 0.1}, reduce: sum`` FitHuBERT's (arXiv 2207.00555); with ``identity``,
    ``shared: true`` and ``l1_cos_raw`` DPHuBERT's (arXiv 2305.17651); with ``mlp`` and ``cos`` SimReg's (arXiv
    2201.05131). Head ``gelu`` is DPHuBERT's rendering of a prediction layer, an independent Linear and GELU per target;
    its predictions cannot lie below about -0.17.

    Figures: the mean cosine over valid frames per teacher state, ``cosine_4``.
    """

    takes_heads = heads.HEADS
    takes_distances = ("l1_cos", "l1", "mse", "cos", "l1_cos_raw", "huber")
    takes_options = paired.OPTIONS | heads.OPTIONS | distances.OPTIONS

    def __init__(self, spec: TermSpec, student: Side, teacher: Side) -> None:
        super().__init__(spec, student, teacher)
        self.heads = heads.Heads(self)
        self.knobs = {name: float(self.option(name)) for name in distances.OPTIONS}

    def forward(self, student: View, teacher: View) -> Result:
        """The weighted distance over pairs and valid frames; the student's predictions are resampled if need be."""
        predicted, ratio = self.heads.view(student, self.ratio)
        mine, theirs = meet(predicted, teacher, ratio)
        targets = [theirs.states[number] for _, number in self.pairs]
        losses, cosines = distances.each(self.spec.distance, list(mine.states), targets, mine.mask, self.knobs)
        return Result(self.total(losses), self.named("cosine", cosines))
