"""A family on disk: one recipe per student, and ``family.yaml`` that lists them in the order of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from harness import atomic, plain_yaml
from harness.cards import hint
from harness.interface import SlimbenchError
from upstreams.distillation import recipe, settings
from upstreams.distillation.families.solver import Shape

LIST = "family.yaml"


@dataclass(frozen=True)
class Method:
    """A way to distil that students of all shapes share.

    Attributes:
        words: for titles.
        after: the work that it follows.
        term: the one term of the loss, from the teacher's number of layers.
    """

    words: str
    after: str
    term: Callable[[int], dict[str, Any]]


def _prediction(layers: int) -> dict[str, Any]:
    """Heads on the last state predict the teacher's states at thirds of its depth."""
    thirds = list(dict.fromkeys(max(1, int(third * layers / 3 + 0.5)) for third in (1, 2, 3)))
    return {"knowledge": "hidden", "student": "last", "teacher": thirds, "head": "split", "distance": "l1_cos"}


def _layer_to_layer(_: int) -> dict[str, Any]:
    """Every layer meets the teacher's at the same fraction of the depth."""
    return {"knowledge": "hidden", "student": "layers", "teacher": "depth", "head": "linear", "distance": "l1_cos"}


_SHAPES = "Deep versus Wide (arXiv 2207.06867)"
METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "pred": Method("prediction", f"DistilHuBERT (arXiv 2110.01900), {_SHAPES}", _prediction),
        "l2l": Method("layer to layer", _SHAPES, _layer_to_layer),
    }
)  # fmt: skip


@dataclass(frozen=True)
class Training:
    """What all students of a family share.

    Attributes:
        teacher: name of the upstream.
        layers: of the teacher.
        steps: updates.
        hours: of synthetic speech in the pool.
        seconds: of audio per update.
    """

    teacher: str
    layers: int
    steps: int
    hours: float
    seconds: float = 24.0


@dataclass(frozen=True)
class Student:
    """One line of ``family.yaml``.

    Attributes:
        name: of the upstream that comes out.
        recipe: file name, beside the list.
        budget: parameters that were asked for.
        depth: layers; ``width``, ``ffn`` and ``head_width`` are the rest of the shape.
        parameters: of the exposed model.
        macs_per_second: of audio, untrained.
        method: a key of :data:`METHODS`.
        seed: of the distillation.
        steps: updates.
    """

    name: str
    recipe: str
    budget: int
    depth: int
    width: int
    ffn: int
    head_width: int
    parameters: int
    macs_per_second: float
    method: str
    seed: int
    steps: int


@dataclass(frozen=True)
class Family:
    """Students of one teacher, cheapest first, and the folder of their recipes."""

    name: str
    teacher: str
    students: tuple[Student, ...]
    folder: Path

    def recipe(self, student: Student) -> Path:
        """The recipe of a student."""
        return self.folder / student.recipe


def size(budget: int) -> str:
    """A budget as names have it: ``1.0m``, ``2.5m``, ``1.25m``.

    >>> [size(n) for n in (1_000_000, 2_500_000, 12_250_000, 800_000)]
    ['1.0m', '2.5m', '12.25m', '0.8m']
    """
    text = f"{budget / 1e6:.6f}".rstrip("0")
    return f"{text}0m" if text.endswith(".") else f"{text}m"


def students(
    name: str, shapes: Sequence[tuple[Shape, float]], methods: Sequence[str], seeds: Mapping[int, int], steps: int
) -> list[Student]:
    """All students, cheapest first: by budget, seed, MACs and method.

    Args:
        name: of the family.
        shapes: each with its MACs per second.
        methods: keys of :data:`METHODS`.
        seeds: how many seeds a budget has, from 0.
        steps: updates of every student.

    Raises:
        SlimbenchError: a method is unknown.
    """
    for method in methods:
        if method not in METHODS:
            raise SlimbenchError(f"No method {method!r}{hint(method, METHODS)}; known are {', '.join(METHODS)}.")
    found = []
    for shape, macs in shapes:
        config = shape.config
        shared = (shape.budget, config.layers, config.width, config.ffn, config.head_width, shape.parameters, macs)
        for seed in range(seeds[shape.budget]):
            for method in methods:
                own = f"{name}_{size(shape.budget)}_d{config.layers}_{method}_s{seed}"
                found.append(Student(own, f"{own}.yaml", *shared, method, seed, steps))
    return sorted(found, key=lambda one: (one.budget, one.seed, one.macs_per_second, methods.index(one.method)))


def recipe_of(student: Student, training: Training) -> dict[str, Any]:
    """The recipe of a student; all of a family differ in shape, method and seed only."""
    method = METHODS[student.method]
    layers = f"{student.depth} layer{'s' * (student.depth > 1)} of {student.width}"
    return {
        "name": student.name,
        "title": f"{layers}, {method.words}" + f", seed {student.seed}" * (student.seed > 0),
        "after": method.after,
        "kind": "distil",
        "method": student.method,
        "teachers": [{"name": training.teacher}],
        "student": {"family": "mini", "layers": student.depth, "width": student.width, "ffn": student.ffn,
                    "head_width": student.head_width},
        "init": {"front": "teacher"},
        "terms": [method.term(training.layers)],
        "data": {"hours": training.hours, "seed": 1, "seconds": training.seconds},
        "steps": student.steps,
        "seed": student.seed,
    }  # fmt: skip


def write(name: str, folder: Path, listed: Sequence[Student], training: Training) -> Path:
    """Write the recipes, then the list; a recipe that is there already must say the same.

    Raises:
        SlimbenchError: a recipe of that name says something else.
    """
    made = {student.recipe: _text(recipe_of(student, training)) for student in listed}
    for file, text in made.items():
        there = folder / file
        if there.is_file() and there.read_text(encoding="utf-8") != text:
            raise SlimbenchError(
                f"{there} is another recipe than this command would write; give another --name or --out, or delete it."
            )
    for file, text in made.items():
        if not (folder / file).is_file():
            atomic.write(folder / file, text.encode())
        recipe.load(folder / file)
    lines = {"name": name, "teacher": training.teacher, "students": [asdict(student) for student in listed]}
    atomic.write(folder / LIST, _text(lines).encode())
    return folder / LIST


def _text(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=110)


def read(folder: Path) -> Family:
    """A family that :func:`write` left.

    Raises:
        SlimbenchError: there is none, or the list or a recipe is damaged.
    """
    file = folder / LIST
    if not file.is_file():
        raise SlimbenchError(f"{file} is missing; write the family with 'slimbench family --name {folder.name}'.")
    values = plain_yaml.load(file, "the family")
    if not isinstance(values, dict) or set(values) != {"name", "teacher", "students"}:
        raise SlimbenchError(f"{file}: a family has name, teacher and students; write it anew with 'slimbench family'.")
    listed = settings.typed(_Listed, {"students": values["students"]}, str(file)).students
    if not listed or len({student.name for student in listed}) < len(listed):
        raise SlimbenchError(f"{file}: it lists no student, or one twice; write it anew with 'slimbench family'.")
    for student in listed:
        _check(folder / student.recipe, student)
    return Family(str(values["name"]), str(values["teacher"]), listed, folder)


@dataclass(frozen=True)
class _Listed:
    students: tuple[Student, ...]


def _check(file: Path, student: Student) -> None:
    """The recipe beside the list is the one that the list means."""
    found = recipe.load(file)
    shape = (student.depth, student.width, student.ffn, student.head_width)
    if (
        not isinstance(found, recipe.Recipe)
        or found.name != student.name
        or found.seed != student.seed
        or shape != tuple(found.student.get(key) for key in ("layers", "width", "ffn", "head_width"))
    ):
        raise SlimbenchError(f"{file} does not describe {student.name} as {LIST} lists it; write both anew.")
