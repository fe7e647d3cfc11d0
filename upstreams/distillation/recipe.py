"""The schema of recipes: YAML in, typed settings out, every mistake named with the file and the key."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import plain_yaml
from harness.cards import hint
from harness.interface import SlimbenchError
from upstreams.distillation import schedules
from upstreams.distillation.data.batches import Mixing
from upstreams.distillation.data.queries import CHOICES
from upstreams.distillation.loop import Optimiser
from upstreams.distillation.pretrain import Iteration
from upstreams.distillation.settings import at_least, one_of, said, typed, value_of, within
from upstreams.distillation.terms.base import TermSpec

RECIPES = Path(__file__).parent / "recipes"
TOLD = ("name", "kind", "title", "after", "method", "stages")
"""Keys of a recipe that change nothing about the training of a stage."""
MODES = ("clean", "masked", "crossed")
HEARS = ("same", "clean")
NORMS = ("layer_norm", "none", "corpus")


@dataclass(frozen=True)
class TeacherSpec:
    """A frozen teacher.

    Attributes:
        name: a registered upstream or the path of a card; of a mixture, what terms call it.
        mixture: upstreams of equal shape and their weights, whose states are averaged; empty for ``name`` itself.
    """

    name: str
    mixture: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part, weight in self.mixture.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or weight < 0:
                raise ValueError(f"mixture {part} is {weight!r}; write a number of at least 0")


@dataclass(frozen=True)
class Init:
    """Where the student's weights begin.

    Attributes:
        front: ``teacher`` copies the front end's statistics (with ``layers`` its weights too); ``data`` measures.
        layers: teacher layers (from 0) that the student's layers start from; empty for random ones.
        width: ``copy`` for equal widths, ``slice`` for the teacher's leading dimensions.
    """

    front: str = "teacher"
    layers: tuple[int, ...] = ()
    width: str = "copy"

    def __post_init__(self) -> None:
        one_of("front", self.front, ("teacher", "data"))
        one_of("width", self.width, ("copy", "slice"))
        if self.width == "slice" and not self.layers:
            raise ValueError("init width: slice cuts layers, and none is named; write layers, or leave width out")


@dataclass(frozen=True)
class Targets:
    """What the teacher sees and how its states become targets.

    Attributes:
        mode: ``clean``, nothing is masked; ``masked``, the student's input is, the teacher's is not; ``crossed``,
            masked frames are compared with the teacher that sees all, the others with one that is masked alike
            (ARMHuBERT, arXiv 2305.11685).
        hears: ``same``, the mixed audio that the student hears; ``clean``, the audio before mixing.
        normalise: of every teacher state: ``layer_norm`` without parameters, ``none``, or ``corpus``, mean and
            deviation of each dimension over a sample of the data.
        mask_start: probability that a frame begins a masked span.
        mask_span: frames of a span.
    """

    mode: str = "clean"
    hears: str = "same"
    normalise: str = "layer_norm"
    mask_start: float = 0.065
    mask_span: int = 10

    def __post_init__(self) -> None:
        one_of("mode", self.mode, MODES)
        one_of("hears", self.hears, HEARS)
        one_of("normalise", self.normalise, NORMS)
        within("mask_start", self.mask_start, 0, 1)
        at_least("mask_span", self.mask_span, 1)


@dataclass(frozen=True)
class Queries:
    """A budget of clips that the teacher may be asked about (model extraction).

    Attributes:
        minutes: of audio.
        choose: how, see :data:`upstreams.distillation.data.queries.CHOICES`.
    """

    minutes: float
    choose: str = "random"

    def __post_init__(self) -> None:
        one_of("choose", self.choose, tuple(CHOICES))
        at_least("minutes", self.minutes, 1e-3)


@dataclass(frozen=True)
class Data:
    """What is trained on.

    Attributes:
        hours: of synthetic speech in the pool.
        seed: of that speech.
        real: share of crops of real speech, where ``--data`` gives some.
        seconds: of audio per batch.
        mixing: noise and second speakers.
        queries: restricts the clips.
    """

    hours: float
    seed: int
    real: float = 0.4
    seconds: float = 24.0
    mixing: Mixing = field(default_factory=Mixing)
    queries: Queries | None = None

    def __post_init__(self) -> None:
        at_least("hours", self.hours, 1e-3)
        at_least("seed", self.seed, 0)
        at_least("seconds", self.seconds, 1.0)
        within("real", self.real, 0, 1)


@dataclass(frozen=True)
class Recipe:
    """One distillation.

    Attributes:
        name: of the upstream that comes out.
        student: ``family`` and the keys of its shape.
        terms: addends of the loss.
        steps: updates.
        data: what is trained on.
        teachers: the first is meant where a term names none.
        title: for tables.
        after: the work that it follows.
        method: a short word for tables that compare methods, such as ``pred`` or ``l2l``.
        init: where the weights begin.
        targets: what the teacher sees.
        optimiser: AdamW's settings.
        seed: of weights and of the order of batches.
        procedure: what happens besides (pruning, subnets, compression), by ``kind``.
        stages: settings in which further stages differ; each begins with the model that the one before left.
    """

    name: str
    student: Mapping[str, Any]
    terms: tuple[TermSpec, ...]
    steps: int
    data: Data
    teachers: tuple[TeacherSpec, ...] = (TeacherSpec("wavlm_mini"),)
    kind: str = "distil"
    title: str = ""
    after: str = ""
    method: str = ""
    init: Init = field(default_factory=Init)
    targets: Targets = field(default_factory=Targets)
    optimiser: Optimiser = field(default_factory=Optimiser)
    seed: int = 0
    procedure: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name)
        at_least("steps", self.steps, 1)
        at_least("seed", self.seed, 0)
        if not self.teachers:
            raise ValueError("teachers is empty; name one")
        for term in self.terms:
            schedules.parse(term.schedule)
        if self.data.queries is not None and self.targets.hears != "clean":
            raise ValueError(
                "a budget of queries needs targets hears: clean, or noise would make every crop a new query"
            )


@dataclass(frozen=True)
class Pretraining:
    """Masked unit prediction from scratch, iteration after iteration."""

    name: str
    data: Data
    iterations: tuple[Iteration, ...]
    kind: str = "pretrain"
    title: str = ""
    after: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.iterations:
            raise ValueError("iterations is empty; write one")


def check_name(name: str) -> None:
    """Refuse a recipe's name that cannot be an upstream's, or that is a folder of the lab's own.

    Raises:
        ValueError: it is one of these.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) or name in ("pool", "sweeps"):
        raise ValueError(f"name {name!r} is no name of an upstream; write letters, digits, '_', '-' and '.'")


def check_product(name: str, suffix: str) -> None:
    """Refuse a product whose name cannot be an upstream's.

    Raises:
        SlimbenchError: it cannot.
    """
    try:
        check_name(f"{name}{suffix}")
    except ValueError as error:
        raise SlimbenchError(f"Recipe {name}, product {suffix!r}: {error}.") from error


def load(name: str | Path) -> Recipe | Pretraining:
    """Read a built-in recipe by name (``dphubert`` finds ``dphubert_like``), or any recipe by path.

    Raises:
        SlimbenchError: there is none, it is no plain YAML, or a key is unknown, missing or of the wrong kind.
    """
    file = Path(name) if str(name).endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not file.is_file() and (RECIPES / f"{name}_like.yaml").is_file():
        file = RECIPES / f"{name}_like.yaml"
    if not file.is_file():
        known = sorted(f.stem for f in RECIPES.glob("*.yaml"))
        raise SlimbenchError(
            f"{file} is missing{hint(str(name), known)}; give a recipe file or one of: {', '.join(known)}."
        )
    values = plain_yaml.load(file, "the recipe")
    kinds = {"pretrain": Pretraining, "distil": Recipe}
    if not isinstance(values, dict) or values.get("kind") not in kinds:
        raise SlimbenchError(f"{file}: a recipe is a mapping with kind: pretrain or kind: distil.")
    found: Recipe | Pretraining = typed(kinds[values["kind"]], values, str(file))
    if isinstance(found, Recipe):
        for index in range(len(found.stages)):
            stage(found, index + 1, str(file))
    return found


def limited(found: Recipe, steps: int | None) -> Recipe:
    """The recipe with other steps in all its stages, or itself where ``steps`` is ``None``."""
    if steps is None:
        return found
    return replace(found, steps=steps, stages=tuple({**one, "steps": steps} for one in found.stages))


def deciding(found: Recipe | Pretraining) -> Any:
    """What a recipe says, as plain values without defaults and without what changes nothing about the model."""
    told = {key: value for key, value in said(found).items() if key == "stages" or key not in TOLD}
    return json.loads(json.dumps(told))


def made_by(notes: Mapping[str, Any], found: Recipe | Pretraining) -> bool:
    """Whether the recipe in a provenance, whatever its age, would make what ``found`` makes."""
    try:
        made = typed(type(found), notes.get("recipe"), "provenance.json")
    except SlimbenchError:
        return False
    return bool(deciding(made) == deciding(found))


def stage(recipe: Recipe, number: int, where: str = "") -> Recipe:
    """The settings of stage ``number``; stage 0 is the recipe itself.

    Raises:
        SlimbenchError: a key of the stage is unknown or of the wrong kind.
    """
    if number == 0:
        return replace(recipe, stages=())
    changes = dict(recipe.stages[number - 1])
    hints = typing.get_type_hints(Recipe)
    place = f"{where or recipe.name}, stage {number + 1}"
    if wrong := sorted(set(changes) - {"terms", "steps", "targets", "optimiser", "procedure"}):
        raise SlimbenchError(f"{place}: a stage cannot set {wrong[0]!r}; remove it.")
    values = {key: value_of(hints[key], value, f"{place}: {key}") for key, value in changes.items()}
    try:
        return replace(recipe, stages=(), **values)
    except (TypeError, ValueError) as error:
        raise SlimbenchError(f"{place}: {error}; correct the recipe.") from error
