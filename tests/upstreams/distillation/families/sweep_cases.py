"""A family on paper, and hands that leave an empty file instead of a model or a record."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from harness.interface import SlimbenchError
from upstreams.distillation.families.files import Family, Student
from upstreams.distillation.families.sweep import Column

COLUMNS = [Column("embedded", "ks"), Column("embedded", "pr"), Column("real-mini", "ks")]


def family(folder, budgets=(1_000_000, 2_500_000), depths=(1, 3), seeds=2):
    """Students, cheapest first."""
    students = [
        Student(
            f"f_{budget}_d{depth}_{method}_s{seed}", "x.yaml", budget, depth, 64, 256, 16, budget, 1e6 * depth,
            method, seed, 5,
        )
        for budget in budgets
        for seed in range(seeds)
        for depth in depths
        for method in ("pred", "l2l")
    ]  # fmt: skip
    return Family("f", "wavlm_mini", tuple(students), folder)


class Stubs:
    """Notes what it is asked in ``log``, which later processes read as well.

    ``faulty`` students cannot be trained; ``refused`` titles cannot be benched; the process kills itself in the middle
    of work number ``dies``.
    """

    def __init__(self, folder, faulty=(), refused=(), dies=None):
        self.folder, self.faulty, self.refused, self.dies = Path(folder), faulty, refused, dies
        self.works = 0

    @property
    def log(self):
        file = self.folder / "log.txt"
        return file.read_text().splitlines() if file.is_file() else []

    def note(self, line):
        self.works += 1
        with (self.folder / "log.txt").open("a") as file:
            file.write(line + "\n")
        return self.dies is not None and self.works == self.dies

    def trained(self, student):
        return (self.folder / f"{student.name}.model").is_file()

    def train(self, students):
        dying = self.note("train " + " ".join(student.name for student in students))
        for number, student in enumerate(students):
            if student.name in self.faulty:
                raise SlimbenchError(f"{student.name} diverged.")
            if dying and number == len(students) // 2:
                os.kill(os.getpid(), signal.SIGKILL)
            (self.folder / f"{student.name}.model").touch()

    def _record(self, job):
        return self.folder / f"{job.title.replace(' ', '+')}.record"

    def benched(self, job):
        assert self.trained(job.student)
        return 2.0 if self._record(job).is_file() else None

    def bench(self, job):
        if self.note(f"bench {job.title}"):
            os.kill(os.getpid(), signal.SIGKILL)
        if job.title in self.refused:
            raise SlimbenchError("no such corpus.")
        self._record(job).touch()
        return "accuracy 50.0"
