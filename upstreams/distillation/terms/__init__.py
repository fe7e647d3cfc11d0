"""Terms of distillation objectives: a knowledge, matched between student and teacher states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from harness.cards import hint
from harness.interface import SlimbenchError
from upstreams.distillation.terms.adversarial import Adversarial
from upstreams.distillation.terms.attention import Attention
from upstreams.distillation.terms.base import Result, Side, Term, TermSpec, View
from upstreams.distillation.terms.cka import Cka
from upstreams.distillation.terms.contrastive import Contrastive
from upstreams.distillation.terms.gram import GramLayers, GramTime
from upstreams.distillation.terms.hidden import Hidden
from upstreams.distillation.terms.mean_top import MeanTop
from upstreams.distillation.terms.options import check
from upstreams.distillation.terms.prototypes import Prototypes
from upstreams.distillation.terms.relational import Relational
from upstreams.distillation.terms.similarity import Similarity
from upstreams.distillation.terms.unit_logits import Units
from upstreams.distillation.terms.utterance import Utterance

__all__ = ["KNOWLEDGE", "Result", "Side", "Term", "TermSpec", "View", "build", "specify"]

KNOWLEDGE: dict[str, type[Term]] = {
    "hidden": Hidden,
    "mean_top": MeanTop,
    "units": Units,
    "gram_time": GramTime,
    "gram_layers": GramLayers,
    "cka": Cka,
    "attention": Attention,
    "contrastive": Contrastive,
    "prototypes": Prototypes,
    "relational": Relational,
    "similarity": Similarity,
    "adversarial": Adversarial,
    "utterance": Utterance,
}
"""What can be matched, by the name that recipes use."""


def known(what: str, name: Any, names: tuple[str, ...], where: str) -> None:
    """Refuse a name that is not among ``names``.

    Raises:
        SlimbenchError: with the nearest name and the list.
    """
    if name not in names:
        raise SlimbenchError(
            f"{where}: no {what} is called {name!r}{hint(str(name), names)}; known: {', '.join(names)}."
        )


def kind_of(knowledge: Any) -> type[Term]:
    """The class of a knowledge, by name.

    Raises:
        SlimbenchError: there is none of that name.
    """
    known("knowledge", knowledge, tuple(KNOWLEDGE), "A term")
    return KNOWLEDGE[knowledge]


def specify(values: Mapping[str, Any]) -> TermSpec:
    """A specification from a recipe's mapping; head and distance default to the first that the knowledge takes.

    Raises:
        SlimbenchError: a key is unknown, or ``knowledge`` is missing or unknown, or a value is of the wrong form.
    """
    names = tuple(f.name for f in fields(TermSpec))
    for key in values:
        known("key", key, names, "A term")
    kind = kind_of(values.get("knowledge"))
    found = {"head": kind.takes_heads[0], "distance": kind.takes_distances[0]} | dict(values)
    for key in ("student", "teacher"):
        if isinstance(found.get(key), list):
            found[key] = tuple(found[key])
    spec = TermSpec(**found)
    layers_fit = all(
        isinstance(side, str) or (isinstance(side, tuple) and all(type(n) is int for n in side))
        for side in (spec.student, spec.teacher)
    )
    if not layers_fit:
        raise SlimbenchError(
            f"{spec.knowledge}: student and teacher are a word or a list of whole numbers; correct them."
        )
    if isinstance(spec.weight, bool) or not isinstance(spec.weight, int | float) or not 0 <= spec.weight < math.inf:
        raise SlimbenchError(f"{spec.knowledge}: weight is {spec.weight!r}; write a number of at least 0.")
    if not isinstance(spec.options, Mapping):
        raise SlimbenchError(f"{spec.knowledge}: options is {spec.options!r}; write a mapping.")
    return spec


def build(spec: TermSpec, student: Side, teacher: Side) -> Term:
    """The term of a specification, for a student and a teacher of these sizes.

    A head or distance that was left at :class:`TermSpec`'s default becomes the knowledge's own where that does not
    know it.

    Raises:
        SlimbenchError: knowledge, head, distance or an option is unknown, or does not fit the sizes.
    """
    kind = kind_of(spec.knowledge)
    defaults = {f.name: f.default for f in fields(TermSpec)}
    if spec.head not in kind.takes_heads and spec.head == defaults["head"]:
        spec = replace(spec, head=kind.takes_heads[0])
    if spec.distance not in kind.takes_distances and spec.distance == defaults["distance"]:
        spec = replace(spec, distance=kind.takes_distances[0])
    known("head", spec.head, kind.takes_heads, spec.knowledge)
    known("distance", spec.distance, kind.takes_distances, spec.knowledge)
    check(spec.knowledge, spec.options, kind.takes_options)
    return kind(spec, student, teacher)
