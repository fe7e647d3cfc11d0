"""What every term of a distillation objective shares: what it sees, which layers it matches, how it is said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.interface import SlimbenchError
from upstreams.distillation.terms.options import Option

Layers = str | tuple[int, ...]
"""States by number (0 lies before the first layer, -1 is the last), or a word of :data:`STUDENT_WORDS` and so on."""
STUDENT_WORDS = ("last", "layers", "all")
TEACHER_WORDS = ("depth", "last", "layers", "all")


@dataclass(frozen=True)
class View:
    """What a model makes of a batch, as terms see it.

    Attributes:
        states: one (B, T, D) tensor per state; state 0 lies before the first layer.
        frames: (B,) valid frames.
        maps: per layer the attention after its softmax, (B, heads, T, T); empty unless a term asks for it.
    """

    states: tuple[Tensor, ...]
    frames: Tensor
    maps: tuple[Tensor, ...] = ()

    @property
    def mask(self) -> Tensor:
        """(B, T) bool, true at valid frames."""
        return torch.arange(self.states[0].shape[1], device=self.frames.device)[None, :] < self.frames[:, None]


def layer_normed(view: View) -> View:
    """Every state layer-normed without parameters."""
    return View(tuple(functional.layer_norm(s, s.shape[-1:]) for s in view.states), view.frames, view.maps)


@dataclass(frozen=True)
class Side:
    """Sizes of a model that a term matches: states, their width, time between frames, attention heads per layer."""

    states: int
    width: int
    frame_ms: float = 20.0
    heads: tuple[int, ...] = ()


@dataclass(frozen=True)
class TermSpec:
    """One addend of the loss, as a recipe says it.

    Attributes:
        knowledge: what is matched, a key of :data:`upstreams.distillation.terms.KNOWLEDGE`.
        student: the student's states: numbers, ``last``, ``layers`` (all but state 0) or ``all``.
        teacher: the teacher's: numbers, ``depth`` (the state at the same fraction of the depth), ``last``, ``layers``,
            ``all``.
        head: throw-away module between the student's state and what is compared: ``none``, ``linear``, ...
        distance: how the two are compared.
        weight: factor of the term.
        schedule: how the factor changes over training: ``constant`` or a mapping, see
            :mod:`upstreams.distillation.schedules`.
        of: which teacher, by name; empty for the first.
        options: what the knowledge takes besides, by name.
    """

    knowledge: str
    student: Layers = "last"
    teacher: Layers = "depth"
    head: str = "linear"
    distance: str = "l1_cos"
    weight: float = 1.0
    schedule: Any = "constant"
    of: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TermSpec:
        """From parsed YAML, with the knowledge's own head and distance where none is said.

        Raises:
            SlimbenchError: something of it is unknown.
        """
        from upstreams.distillation.terms import specify

        return specify(values)


@dataclass(frozen=True)
class Result:
    """A term's loss (a scalar with gradient, before the weight) and numbers to log."""

    loss: Tensor
    figures: Mapping[str, float] = field(default_factory=dict)


class Term(nn.Module):
    """A term. Its parameters and buffers (heads, memories, codebooks) train and are saved with the student's.

    Attributes:
        needs_maps: whether views must hold attention maps.
        fits: how many teacher batches :meth:`fit` wants before training; 0 for none.
        takes_heads: heads that it knows; the first is its default.
        takes_distances: distances that it knows; the first is its default.
        takes_options: options that it knows, by name.
    """

    needs_maps: ClassVar[bool] = False
    fits: int = 0
    takes_heads: ClassVar[tuple[str, ...]] = ("none",)
    takes_distances: ClassVar[tuple[str, ...]] = ("mse",)
    takes_options: ClassVar[Mapping[str, Option]] = {}

    def __init__(self, spec: TermSpec, student: Side, teacher: Side) -> None:
        super().__init__()
        self.spec, self.student, self.teacher = spec, student, teacher
        self.pairs = pairs(spec, student.states, teacher.states)

    def fit(self, views: Iterable[View]) -> None:
        """Fit codebooks and the like to the teacher's views, once, before the first step."""

    def forward(self, student: View, teacher: View) -> Result:
        """The loss of one batch; ``teacher`` carries no gradient."""
        raise NotImplementedError

    def option(self, name: str, default: Any = None) -> Any:
        """An option of the specification, else its default in ``takes_options``, else ``default``."""
        known = self.takes_options.get(name)
        return self.spec.options.get(name, default if known is None else known.default)


def numbers(layers: Layers, states: int, words: tuple[str, ...], what: str) -> list[int]:
    """State numbers of a specification.

    Raises:
        SlimbenchError: it is no known word, or names a state that the model has not.
    """
    if isinstance(layers, str):
        if layers not in words or layers == "depth":
            raise SlimbenchError(
                f"{what} {layers!r} is none of {', '.join(words)} or a list of numbers; correct the recipe."
            )
        return {"last": [states - 1], "layers": list(range(1, states)), "all": list(range(states))}[layers]
    found = [n + states if n < 0 else n for n in layers]
    if not found or not all(0 <= n < states for n in found):
        raise SlimbenchError(f"{what} {list(layers)} is not within 0 to {states - 1}; correct the recipe.")
    return found


def at_depth(number: int, student_states: int, teacher_states: int) -> int:
    """The teacher state at the same fraction of the depth as a student state, rounded half up.

    >>> [at_depth(n, 4, 13) for n in (0, 1, 2, 3)]
    [0, 4, 8, 12]
    """
    return int(number * (teacher_states - 1) / max(student_states - 1, 1) + 0.5)


def pairs(spec: TermSpec, student_states: int, teacher_states: int) -> tuple[tuple[int, int], ...]:
    """(student state, teacher state) of a specification; one student state may serve many of the teacher's.

    Raises:
        SlimbenchError: the lists are of different lengths, or name what is not there.
    """
    mine = numbers(spec.student, student_states, STUDENT_WORDS, "student")
    if spec.teacher == "depth":
        return tuple((n, at_depth(n, student_states, teacher_states)) for n in mine)
    theirs = numbers(spec.teacher, teacher_states, TEACHER_WORDS, "teacher")
    if len(mine) == 1:
        mine = mine * len(theirs)
    if len(mine) != len(theirs):
        raise SlimbenchError(
            f"{spec.knowledge}: {len(mine)} student states cannot be paired with {len(theirs)} of the teacher; "
            "write as many of each, or one student state."
        )
    return tuple(zip(mine, theirs, strict=True))
