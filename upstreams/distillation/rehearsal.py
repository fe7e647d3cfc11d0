"""What is tried before a training begins: nothing is trained, no audio is read."""

from __future__ import annotations

from collections.abc import Sequence

from harness.interface import SlimbenchError
from upstreams.distillation import recipe, teachers
from upstreams.distillation.learner import Learner, make
from upstreams.distillation.recipe import Recipe


def rehearse(recipes: Sequence[Recipe]) -> None:
    """Put together what every stage will train, so that a mistake in the last one is told before the first begins.

    Raises:
        SlimbenchError: a term, its head, options or teacher, a schedule or a procedure is faulty; with its place.
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
