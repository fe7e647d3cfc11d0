"""A student in training: the encoder, the throw-away parts of its objective, its procedure, where its weights begin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from harness.interface import SlimbenchError
from harness.progress import say
from upstreams.distillation import terms
from upstreams.distillation.data.batches import Batches
from upstreams.distillation.data.statistics import fit_statistics
from upstreams.distillation.procedures.base import Procedure, build, chance
from upstreams.distillation.recipe import Recipe, Targets
from upstreams.distillation.schedules import factor
from upstreams.distillation.teachers import MiniTeacher, Teacher, full
from upstreams.distillation.terms.base import Result, Side, TermSpec, View, layer_normed
from upstreams.students.cutting import cut
from upstreams.students.gendistiller import GenDistiller, GenShape
from upstreams.students.mini import MiniConfig, MiniWavLM

Student = MiniWavLM | GenDistiller
FRONT = ("mel_mean", "mel_std", "front.", "feature_norm.", "project.")
"""What names of weights that lie before the layers begin with."""


class Sight:
    """What the teachers make of one batch; each is asked when first needed, once for all students."""

    def __init__(
        self,
        teachers: Mapping[str, Teacher],
        waves: Tensor,
        masked: Tensor | None,
        targets: Targets,
        maps: frozenset[str] = frozenset(),
    ) -> None:
        self.teachers, self.waves, self.masked, self.targets, self.maps = teachers, waves, masked, targets, maps
        self._views: dict[str, View] = {}

    def view(self, name: str) -> View:
        """The normalised view of a teacher, the first where ``name`` is empty."""
        name = name or next(iter(self.teachers))
        if name not in self._views:
            with torch.autocast(self.waves.device.type, enabled=False):  # targets are not rounded
                self._views[name] = self._look(self.teachers[name], name in self.maps)
        return self._views[name]

    def _look(self, teacher: Teacher, maps: bool) -> View:
        view = teacher.view(self.waves, maps=maps)
        if self.targets.mode == "crossed" and self.masked is not None:
            masked = at_rate(self.masked, view.states[0].shape[1], teacher.side.frame_ms)
            view = crossed(view, teacher.view(self.waves, self.masked, maps), masked)
        return layer_normed(view) if self.targets.normalise == "layer_norm" else view


def at_rate(masked: Tensor, frames: int, frame_ms: float) -> Tensor:
    """A mask (B, T) of 20 ms frames as (B, ``frames``) of another rate, each frame as the 20 ms at its middle.

    >>> at_rate(torch.tensor([[False, True, True, False]]), 2, 40.0)
    tensor([[ True, False]])
    """
    middle = ((torch.arange(frames, device=masked.device) + 0.5) * frame_ms / 20.0).long()
    return masked[:, middle.clamp(max=masked.shape[1] - 1)]


def crossed(whole: View, hidden: View, masked: Tensor) -> View:
    """Masked frames (B, T) of the view of all audio, the others of the view with those frames hidden."""
    states = [
        torch.where(masked[:, : a.shape[1], None], a, b) for a, b in zip(whole.states, hidden.states, strict=True)
    ]
    return replace(whole, states=tuple(states))


@dataclass(frozen=True)
class Moment:
    """Where in training a loss is taken: the update, the share of all of them, and the seed of its chance."""

    step: int
    progress: float
    seed: int


class Learner(nn.Module):
    """Student, terms and procedure; ``state_dict`` holds all three.

    Args:
        recipe: of one stage.
        student: where it begins.
        sides: sizes of the teachers, by name.

    Raises:
        SlimbenchError: a term names no teacher, or asks for what student or teacher have not.
    """

    def __init__(self, recipe: Recipe, student: Student, sides: Mapping[str, Side]) -> None:
        super().__init__()
        self.student = student
        self.active = [_as_begun(spec, recipe) for spec in recipe.terms if spec.weight]
        if not self.active:
            raise SlimbenchError(f"Recipe {recipe.name}: no term has a weight; give it at least one.")
        mine = side_of(student)
        self.parts = [(spec, terms.build(spec, mine, _side(recipe, spec, sides))) for spec in self.active]
        self.terms = nn.ModuleList(term for _, term in self.parts)
        self.fitted = False
        if isinstance(student, GenDistiller) and recipe.procedure.get("kind", "plain") != "plain":
            raise SlimbenchError(f"Recipe {recipe.name}: a gendistiller knows no procedure; remove it.")
        self.procedure: Procedure = build(recipe.procedure, self.mini)
        self.needs_maps = any(term.needs_maps for _, term in self.parts)
        first = next(iter(sides))
        self.mapped = frozenset(spec.of or first for spec, term in self.parts if term.needs_maps)
        config = getattr(student, "config", None)
        kinds = [recipe.procedure, *(stage.get("procedure", {}) for stage in recipe.stages)]
        if getattr(config, "compress", False) and not any(kind.get("kind") == "sequence" for kind in kinds):
            raise SlimbenchError(f"Recipe {recipe.name}: a student that compresses needs procedure kind: sequence.")
        if self.needs_maps and isinstance(student, GenDistiller):
            raise SlimbenchError(
                f"Recipe {recipe.name}: a gendistiller has no attention maps to match; drop that term."
            )

    @property
    def mini(self) -> MiniWavLM:
        """The student as procedures know it; the plain one takes a generator too."""
        return cast(MiniWavLM, self.student)

    def takes_over(self, past: Learner) -> bool:
        """Take over the terms of the stage before, if they are the same; returns whether they were."""
        theirs = past.terms.state_dict()
        if self.active != past.active or {k: v.shape for k, v in self.terms.state_dict().items()} != {
            k: v.shape for k, v in theirs.items()
        }:
            return False
        self.terms.load_state_dict(theirs)
        self.fitted = True
        return True

    def fit(self, teachers: Mapping[str, Teacher], draws: Iterable[Tensor], targets: Targets) -> None:
        """Fit what terms and procedure fit to teachers before the first step, on clean draws (B, S)."""
        wanted = max([self.procedure.fits, *(term.fits for _, term in self.parts if not self.fitted)])
        waves = [wave for wave, _ in zip(draws, range(wanted), strict=False)]
        for spec, term in self.parts:
            if term.fits and not self.fitted:
                term.fit(_views(teachers, spec.of, waves[: term.fits], targets))
        if self.procedure.fits:
            self.procedure.fit(_views(teachers, "", waves[: self.procedure.fits], targets))

    def matched(self, student: View, sight: Sight) -> Tensor:
        """The weighted sum of the terms at the end of training; what they remember stays as it is."""
        training = self.terms.training
        self.terms.eval()
        try:
            losses = [
                spec.weight * factor(spec.schedule, 1.0) * term(student, sight.view(spec.of)).loss
                for spec, term in self.parts
            ]
        finally:
            self.terms.train(training)
        return torch.stack(losses).sum()

    def loss(self, waves: Tensor, masked: Tensor | None, sight: Sight, moment: Moment) -> Result:
        """The weighted sum of the terms and the procedure's penalty, for equal-length waveforms (B, S)."""
        if self.procedure.observes:
            self.procedure.observe(sight.view(""))
        rng = chance(moment.seed, moment.step)
        now = (moment.step, moment.progress, rng)
        view = self.procedure.view(self.mini, waves, full(waves), masked, *now, self.needs_maps)
        total, figures = waves.new_zeros(()), dict[str, float]()
        for number, (spec, term) in enumerate(self.parts):
            found: Result = term(view, sight.view(spec.of))
            total = total + spec.weight * factor(spec.schedule, moment.progress) * found.loss
            prefix = "" if len(self.active) == 1 else f"{number}_{spec.knowledge}_"
            figures |= {f"{prefix}{key}": float(value) for key, value in found.figures.items()}
        extra = self.procedure.penalty(moment.step, moment.progress)
        if extra is not None:
            total = total + extra.loss
            figures |= extra.figures
        return Result(total, figures | {"loss": float(total.detach())})


def _as_begun(spec: TermSpec, recipe: Recipe) -> TermSpec:
    """With option ``norm`` where the student begins with layers of the teacher, unless the recipe says otherwise."""
    if not recipe.init.layers or "norm" not in terms.kind_of(spec.knowledge).takes_options:
        return spec
    return replace(spec, options={"norm": True, **spec.options})


def _side(recipe: Recipe, spec: TermSpec, sides: Mapping[str, Side]) -> Side:
    name = spec.of or next(iter(sides))
    if name not in sides:
        raise SlimbenchError(
            f"Recipe {recipe.name}: term {spec.knowledge} names no teacher {name!r}; known: {', '.join(sides)}."
        )
    return sides[name]


def _views(teachers: Mapping[str, Teacher], name: str, draws: Sequence[Tensor], targets: Targets) -> list[View]:
    return [Sight(teachers, waves, None, targets).view(name) for waves in draws]


def side_of(student: Student) -> Side:
    """Sizes of a student as terms see it, on the grid on which its procedure shows it."""
    if isinstance(student, GenDistiller):
        return Side(student.shape.layers + 1, student.shape.width, student.frame_ms)
    config = student.config
    return Side(student.num_states, config.width, 20.0 * config.reduce, tuple(student.heads))


def make(values: Mapping[str, Any], where: str) -> Student:
    """A student with random weights from a recipe's ``student``.

    Raises:
        SlimbenchError: the family is unknown or the shape impossible.
    """
    shape = {key: value for key, value in values.items() if key != "family"}
    try:
        if values.get("family", "mini") == "mini":
            return MiniWavLM(MiniConfig.from_dict(shape))
        if values["family"] == "gendistiller":
            return GenDistiller(GenShape.from_dict(shape))
    except (TypeError, ValueError) as error:
        raise SlimbenchError(f"{where}: student: {error}; correct the recipe.") from error
    raise SlimbenchError(f"{where}: student family {values['family']!r} is neither mini nor gendistiller; correct it.")


def begin(student: Student, recipe: Recipe, teachers: Mapping[str, Teacher], batches: Batches) -> None:
    """Give a student the weights that it begins with.

    Raises:
        SlimbenchError: the recipe takes layers of a teacher that is not of the lab's family, or that do not fit.
    """
    first = next(iter(teachers.values()))
    source = getattr(first, "teacher", first)
    model = source.model if isinstance(source, MiniTeacher) else None
    if hasattr(student, "mel_mean"):
        same = model is not None and getattr(model.config, "front", "logmel") == "logmel"
        if recipe.init.front == "teacher" and same and model is not None:
            student.mel_mean.copy_(model.mel_mean)
            student.mel_std.copy_(model.mel_std)
        else:
            if recipe.init.front == "teacher":
                say(f"{recipe.name}: teacher {first.name} has no log-mel front end; its statistics are measured.")
            fit_statistics(student, batches, recipe.seed)
    elif recipe.init.front == "teacher" and not recipe.init.layers:
        raise SlimbenchError(
            f"Recipe {recipe.name}: convolutions are taken with layers only; write init layers, or front: data."
        )
    if not recipe.init.layers:
        return
    if model is None or not isinstance(student, MiniWavLM):
        raise SlimbenchError(
            f"Recipe {recipe.name}: only a student of family mini can take layers, from a mini teacher."
        )
    if recipe.init.width == "copy" and student.config.width != model.config.width:
        raise SlimbenchError(
            f"Recipe {recipe.name}: width {student.config.width} cannot copy layers of width {model.config.width}; "
            "write init width: slice."
        )
    taken = cut(dict(model.state_dict()), model.config, student.config, recipe.init.layers)
    if recipe.init.front == "data":
        taken = {name: weights for name, weights in taken.items() if not name.startswith(FRONT)}
    missing, unexpected = student.load_state_dict(taken, strict=False)
    fresh = [name for name in missing if not name.startswith(("mask_embedding", "reduction", "subsample", "weights"))]
    if unexpected or any(name.startswith("layers.") for name in fresh):
        raise SlimbenchError(
            f"Recipe {recipe.name}: the teacher's layers do not fit the student ({(unexpected or fresh)[0]})."
        )
