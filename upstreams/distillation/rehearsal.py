"""What is tried before a training begins: nothing is trained, no audio is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.interface import SlimbenchError
from upstreams.distillation import exporting, files, recipe, teachers
from upstreams.distillation.learner import Learner, make
from upstreams.distillation.recipe import Pretraining, Recipe


def rehearse(recipes: Sequence[Recipe], out: Path) -> None:
    """Put together what every stage will train, so that a mistake in the last one is told before the first begins.

    Args:
        recipes: with one list of teachers.
        out: folder of models.

    Raises:
        SlimbenchError: a term, its head, options or teacher, a schedule or a procedure is faulty; with its place. Or
            ``out`` holds a model of that name that another recipe made.
    """
    sides = {name: teacher.side for name, teacher in teachers.load(recipes[0].teachers, "cpu").items()}
    for item in recipes:
        for number in range(1 + len(item.stages)):
            try:
                learner = Learner(recipe.stage(item, number), make(item.student, item.name), sides)
            except SlimbenchError as error:
                place = f"Recipe {item.name}" + (f", stage {number + 1}" if item.stages else "")
                raise SlimbenchError(f"{place}: {str(error).removeprefix(f'Recipe {item.name}: ')}") from error
            for suffix in learner.procedure.names:
                recipe.check_product(item.name, suffix)
                keep(item, out / exporting.own_name(f"{item.name}{suffix}"))


def keep(item: Recipe | Pretraining, folder: Path) -> None:
    """Refuse to train what would replace a model of another recipe.

    Raises:
        SlimbenchError: ``folder`` holds such a model.
    """
    notes = folder / "provenance.json"
    if notes.is_file() and not recipe.made_by(files.read_json(notes, f"delete {folder}"), item):
        raise SlimbenchError(
            f"{folder} holds a model of another recipe, or of other steps; give the recipe another name, or another "
            "--out, or delete that folder."
        )
