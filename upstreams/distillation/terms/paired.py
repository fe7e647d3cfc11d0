"""What terms over pairs of layers share: weights of the pairs, one time axis, names of figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from harness.interface import SlimbenchError
from upstreams.distillation.terms.alignment import meet
from upstreams.distillation.terms.base import Side, Term, TermSpec, View
from upstreams.distillation.terms.options import Option

OPTIONS = {"layer_weights": Option(None), "reduce": Option("mean", choices=("mean", "sum"))}
"""``layer_weights``: one number per pair, or ``{last: 1.0, others: 0.1}``; ``reduce``: the weighted mean over pairs
(divided by the sum of the weights) or the weighted sum."""


def pair_weights(spec: TermSpec, count: int) -> tuple[float, ...]:
    """Weight of each of ``count`` pairs.

    Raises:
        SlimbenchError: the option does not give a weight to each, a weight is negative, or all are 0.
    """
    given = spec.options.get("layer_weights")
    if given is None:
        return (1.0,) * count
    values = given
    if isinstance(given, dict) and set(given) == {"last", "others"}:
        values = [given["others"]] * (count - 1) + [given["last"]]
    numbers = isinstance(values, list | tuple) and all(type(v) in (int, float) and v >= 0 for v in values)
    if not numbers or len(values) != count or not sum(values):
        raise SlimbenchError(
            f"{spec.knowledge}: option 'layer_weights' is {given!r}; write a list of {count} numbers that are not "
            "negative, one per pair and not all 0, or {last: 1.0, others: 0.1}."
        )
    return tuple(float(value) for value in values)


class Paired(Term):
    """A term whose loss is a weighted mean or sum over its pairs of layers.

    Attributes:
        of_layers: whether it matches layers rather than states, so that state 0 will not do; ``depth`` begins at 1.
    """

    of_layers: ClassVar[bool] = False
    takes_options = OPTIONS

    def __init__(self, spec: TermSpec, student: Side, teacher: Side) -> None:
        super().__init__(spec, student, teacher)
        if self.of_layers:
            first = 1 if spec.teacher == "depth" else 0
            self.pairs = tuple((mine, max(theirs, first)) for mine, theirs in self.pairs)
            if any(0 in pair for pair in self.pairs):
                raise SlimbenchError(f"{spec.knowledge} is of layers, and state 0 lies before the first; leave it out.")
        self.ratio = student.frame_ms / teacher.frame_ms
        self.weights = pair_weights(spec, len(self.pairs))
        repeated = Counter(theirs for _, theirs in self.pairs)
        self.names = [f"{s}_{t}" if repeated[t] > 1 else str(t) for s, t in self.pairs]

    def total(self, losses: Tensor) -> Tensor:
        """One loss of those of the pairs, (pairs,)."""
        weighted = (losses * losses.new_tensor(self.weights)).sum()
        return weighted if self.option("reduce") == "sum" else weighted / sum(self.weights)

    def meet(self, student: View, teacher: View) -> tuple[View, View]:
        """Both views at the teacher's frame period and of one length."""
        return meet(student, teacher, self.ratio)

    def named(self, what: str, values: Sequence[float]) -> dict[str, float]:
        """Figures of the pairs: ``cosine_4`` is of teacher state 4, ``cosine_2_4`` of student state 2 with it."""
        return {f"{what}_{name}": value for name, value in zip(self.names, values, strict=True)}
