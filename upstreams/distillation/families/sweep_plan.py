"""The plan of a sweep as text: what is trained and benched, and the hours of training by timed steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from harness import listing
from harness.interface import SAMPLE_RATE
from harness.preparing import resolve_device
from harness.progress import clock, say
from upstreams.distillation import recipe, teachers
from upstreams.distillation.data.batches import Batches
from upstreams.distillation.data.pool import Shard
from upstreams.distillation.families.files import Family, Student
from upstreams.distillation.families.sweep import Column, Hands, cohorts, jobs, remaining
from upstreams.distillation.learner import Learner, Moment, Sight, make
from upstreams.distillation.recipe import Recipe

REPEATS = 3
"""Timed steps, after one that is not counted."""


def describe(
    family: Family,
    columns: Sequence[Column],
    hands: Hands,
    workers: int,
    timed: Callable[[Student], tuple[float, float]],
) -> str:
    """The whole plan.

    Args:
        family: the students.
        columns: of benches.
        hands: what is done already.
        workers: trainings and benches at once.
        timed: seconds of a student's step, and of its teacher's pass and the batch.
    """
    done = {student.name: hands.trained(student) for student in family.students}
    trained = _training(family, done, workers, timed)
    return "\n".join([*trained, "", *_benches(family, columns, hands, done, workers)])


def _training(
    family: Family, done: Mapping[str, bool], workers: int, timed: Callable[[Student], tuple[float, float]]
) -> list[str]:
    """What is to be trained: a line per student, then one per cohort with its hours."""
    rows, lines, whole = [], [], 0.0
    for number, cohort in enumerate(cohorts(family.students), 1):
        own = {s: (0.0, 0.0) if done[s.name] else timed(s) for s in cohort}
        left = [student for student in cohort if not done[student.name]]
        rows += [_row(student, number, done[student.name], own[student][0]) for student in cohort]
        if left:
            shared, students = max(own[s][1] for s in left), sum(own[s][0] for s in left)
            seconds = shared * max(s.steps for s in left) + sum(own[s][0] * s.steps for s in left)
            whole += seconds
            lines.append(
                f"cohort {number}: {len(left)} students side by side, a step takes {shared:.2f} s for batch and "
                f"teacher and {students:.2f} s for the students, together {clock(seconds)}"
            )
    lines.append(
        f"training: {clock(whole / workers)} in all, as timed here, without making the pool" if whole else
        "training: all students are trained"
    )  # fmt: skip
    return [listing.text(rows), "", *lines]


def _row(student: Student, cohort: int, done: bool, seconds: float) -> dict[str, object]:
    return {
        "cohort": cohort,
        "student": student.name,
        "depth": student.depth,
        "width": student.width,
        "parameters": f"{student.parameters:,}",
        "MACs/s": f"{student.macs_per_second / 1e6:.1f} M",
        "steps": student.steps,
        "trained": done,
        "s/step": None if done else f"{seconds:.3f}",
    }


def _benches(
    family: Family, columns: Sequence[Column], hands: Hands, done: Mapping[str, bool], workers: int
) -> list[str]:
    """What is to be benched, a line per column in the order of the sweep."""
    times: dict[Column, list[float]] = {}
    left: list[Column] = []
    rows = []
    for column in columns:
        seconds = [hands.benched(job) if done[job.student.name] else None for job in jobs([column], family.students)]
        times[column] = [one for one in seconds if one is not None]
        missing = len(seconds) - len(times[column])
        left += [column] * missing
        rows.append({"suite": column.suite, "task": column.task, "recorded": len(times[column]), "to do": missing})
    about = remaining(left, times)
    said = f"benches: {len(left)} of {len(columns) * len(family.students)} to do"
    if left:
        said += ", no time known before the first" if about is None else f", about {clock(about / workers)}"
    return [listing.text(rows), "", said]


def device(asked: str) -> str:
    """The torch device that ``asked`` means.

    Raises:
        SlimbenchError: it is not on this machine.
    """
    return resolve_device(asked)


class Timer:
    """Times a few updates of each shape and method on this machine, on noise: no pool is needed.

    Args:
        family: the students.
        device: torch device.
    """

    def __init__(self, family: Family, device: str) -> None:
        self.family, self.device = family, device
        self._known: dict[tuple[object, ...], tuple[float, float]] = {}
        self._teachers: dict[str, teachers.Teacher] = {}

    def __call__(self, student: Student) -> tuple[float, float]:
        """Seconds of an update of the student alone, and of batch and teacher, which its cohort shares."""
        key = (student.method, student.depth, student.width, student.ffn, student.head_width)
        if key not in self._known:
            found = recipe.load(self.family.recipe(student))
            assert isinstance(found, Recipe)  # noqa: S101
            say(f"time updates of {student.name} on {self.device}")
            self._teachers = self._teachers or teachers.load(found.teachers, self.device)
            self._known[key] = self._time(found)
        return self._known[key]

    def _time(self, found: Recipe) -> tuple[float, float]:
        batches = _noise(found)
        sides = {name: teacher.side for name, teacher in self._teachers.items()}
        learner = Learner(found, make(found.student, found.name), sides).to(self.device)
        optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-6)
        own, shared = [], []
        for step in range(1 + REPEATS):
            began = self._now()
            _, waves = (wave.to(self.device) for wave in batches.draw(step, 0))
            sight = Sight(self._teachers, waves, None, found.targets, learner.mapped)
            sight.view("")
            middle = self._now()
            optimizer.zero_grad(set_to_none=True)
            learner.loss(waves, None, sight, Moment(step, 0.5, 0)).loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            own.append(self._now() - middle)
            shared.append(middle - began)
        times = found.optimiser.accumulate / REPEATS
        return sum(own[1:]) * times, sum(shared[1:]) * times

    def _now(self) -> float:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()


def _noise(found: Recipe) -> Batches:
    """Batches as the recipe wants them, of noise."""
    wave = np.random.default_rng(0).normal(0.0, 2000.0, 4 * SAMPLE_RATE * 8).astype(np.int16)
    offsets = np.arange(9, dtype=np.int64) * 4 * SAMPLE_RATE
    return Batches([Shard(wave, offsets, "synthetic")], found.data.seconds, 0.0, found.data.mixing)
