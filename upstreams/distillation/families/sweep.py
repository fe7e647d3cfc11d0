"""A family from recipes to records: distil all students, then bench them task by task; resumable at every point.

What is trained lies in the folder of the students, what is benched in the results, and a small mark says which model
and which settings a record was made with. So a sweep that was killed goes on where it stopped, and one whose work is
done ends at once. Students that share a budget and a seed train side by side and share the teacher's passes. Benches
go suite by suite and, within a suite, task by task over all students, cheapest first: a sweep that is cut short leaves
complete columns. A student that fails is named at the end and stops no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.interface import SlimbenchError
from harness.progress import clock, say
from upstreams.distillation.families.files import Family, Student

FAILED = "failed: "


@dataclass(frozen=True)
class Column:
    """One task of one suite, for all students."""

    suite: str
    task: str


@dataclass(frozen=True)
class Job:
    """One bench: a student on a column."""

    column: Column
    student: Student

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.column.suite} {self.column.task} {self.student.name}"


@dataclass(frozen=True)
class Failure:
    """What could not be done, and why."""

    what: str
    reason: str


class Hands(Protocol):
    """What a sweep asks others to do; everything is on disk when a call returns."""

    def trained(self, student: Student) -> bool:
        """Whether the student's model is there, made by the recipe as it is now."""
        ...

    def train(self, students: Sequence[Student]) -> None:
        """Distil students side by side.

        Raises:
            SlimbenchError: it did not work; what is finished or checkpointed stays.
        """
        ...

    def benched(self, job: Job) -> float | None:
        """Seconds that the bench took, where its record is there and of this very model; else ``None``."""
        ...

    def bench(self, job: Job) -> str:
        """Run one bench; returns its score in words.

        Raises:
            SlimbenchError: it did not work.
        """
        ...


def cohorts(students: Iterable[Student]) -> list[list[Student]]:
    """Students that train side by side, by budget and seed, in the order in which the first of each is listed."""
    found: dict[tuple[int, int], list[Student]] = {}
    for student in students:
        found.setdefault((student.budget, student.seed), []).append(student)
    return list(found.values())


def jobs(columns: Sequence[Column], students: Sequence[Student]) -> list[Job]:
    """All benches, column by column."""
    return [Job(column, student) for column in columns for student in students]


@dataclass
class Sweep:
    """One run over a family.

    Attributes:
        family: the students, cheapest first.
        columns: what they are benched on, in this order.
        hands: who does it.
        workers: how many trainings, and later benches, run at once.
    """

    family: Family
    columns: Sequence[Column]
    hands: Hands
    workers: int = 1
    failures: list[Failure] = field(default_factory=list)
    made: int = 0
    """Models and records that this run made."""

    def run(self) -> list[Failure]:
        """Do what is to be done; returns what failed."""
        self.train()
        self.bench()
        return self.failures

    def train(self) -> None:
        """Distil the students that are not trained."""
        whole = len(self.family.students)
        left = [
            student
            for student in self.family.students
            if self._asked(self.hands.trained, student, student.name) is False
        ]
        done = whole - len(left) - len(self.failures)
        self._say(f"{done} of {whole} students are trained")
        for cohort, lost in self._side_by_side(cohorts(left), _names, self._cohort):
            done += len(cohort) - len(lost)
            self.made += len(cohort) - len(lost)
            self.failures += lost
            self._say(f"{done} of {whole} students are trained" + _but(self.failures))

    def _cohort(self, students: Sequence[Student]) -> list[Failure]:
        """Train a cohort, and where that fails those that remain one by one; returns who failed, and why."""
        reason = self._train(students)
        left = {student: missing for student in students if (missing := self._missing(student))}
        if not left or len(students) == 1:
            return [Failure(student.name, reason or missing) for student, missing in left.items()]
        say(
            f"training of {len(students)} students stopped: {reason or 'no reason given'}; {len(left)} go on one by one"
        )
        alone = {student: self._train([student]) for student in left}
        return [Failure(s.name, said or missing) for s, said in alone.items() if (missing := self._missing(s))]

    def _train(self, students: Sequence[Student]) -> str:
        """Train; returns why it failed, or nothing."""
        try:
            self.hands.train(students)
        except SlimbenchError as error:
            return str(error)
        return ""

    def _missing(self, student: Student) -> str:
        """Why there is no model of a student, or nothing where there is one."""
        try:
            return "" if self.hands.trained(student) else "its training ended without a model"
        except SlimbenchError as error:
            return str(error)

    def bench(self) -> None:
        """Bench every trained student on every column; what has its record is left as it is."""
        lost = {failure.what for failure in self.failures}
        whole = jobs(self.columns, [student for student in self.family.students if student.name not in lost])
        times: dict[Column, list[float]] = {}
        left = []
        for job in whole:
            seconds = self._asked(self.hands.benched, job, job.title)
            if seconds is None:
                left.append(job)
            else:
                times.setdefault(job.column, []).append(seconds)
        damaged = {failure.what for failure in self.failures}
        left = [job for job in left if job.title not in damaged]
        done = len(whole) - len(left) - sum(job.title in damaged for job in whole)
        self._say(f"{done} of {len(whole)} benches have their record")
        waiting = dict.fromkeys(left)
        for job, (said, seconds) in self._side_by_side(left, lambda job: job.title, self._one):
            del waiting[job]
            if seconds is None:
                self.failures.append(Failure(job.title, said.removeprefix(FAILED)))
            else:
                times.setdefault(job.column, []).append(seconds)
                self.made += 1
                done += 1
            say(f"[{done}/{len(whole)}] {job.title}: {said}; {self._rest(waiting, times)}")

    def _one(self, job: Job) -> tuple[str, float | None]:
        """One bench: the score in words and its seconds, or why it failed and ``None``."""
        began = time.monotonic()
        try:
            return self.hands.bench(job), time.monotonic() - began
        except SlimbenchError as error:
            return f"{FAILED}{error}", None

    def _say(self, sentence: str) -> None:
        say(f"sweep {self.family.name}: {sentence}")

    def _rest(self, waiting: Mapping[Job, None], times: Mapping[Column, Sequence[float]]) -> str:
        """How much is left, in words."""
        seconds = remaining([job.column for job in waiting], times)
        about = "" if seconds is None or not waiting else f", about {clock(seconds / self.workers)}"
        return f"{len(waiting)} left{about}" + _but(self.failures)

    def _asked(self, question: Callable[[Any], Any], about: Any, title: str) -> Any:
        """An answer from disk; a damaged file is a failure of that one, and then there is no answer."""
        try:
            return question(about)
        except SlimbenchError as error:
            self.failures.append(Failure(title, str(error)))
            return None

    def _side_by_side(
        self, items: Sequence[Any], title: Callable[[Any], str], work: Callable[[Any], Any]
    ) -> Iterator[tuple[Any, Any]]:
        """Do ``work`` on all items in their order, ``workers`` at once; yields each with its result as it ends."""
        if self.workers == 1:
            for item in items:
                self._say(title(item))
                yield item, work(item)
            return
        pool = ThreadPoolExecutor(self.workers)
        try:
            todo, running = iter(items), dict[Future[Any], Any]()
            while True:
                for item in todo:
                    self._say(title(item))
                    running[pool.submit(work, item)] = item
                    if len(running) == self.workers:
                        break
                if not running:
                    return
                for ended in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(ended), ended.result()
        finally:
            pool.shutdown(cancel_futures=True)


def remaining(columns: Sequence[Column], times: Mapping[Column, Sequence[float]]) -> float | None:
    """Seconds that benches of these columns will take, by the mean of those of the same column, or else of all.

    ``None`` where none has been timed.
    """
    known = {column: sum(some) / len(some) for column, some in times.items() if some}
    if not known:
        return None
    overall = sum(known.values()) / len(known)
    return sum(known.get(column, overall) for column in columns)


def _names(students: Sequence[Student]) -> str:
    return "distil " + ", ".join(student.name for student in students)


def _but(failures: Sequence[Failure]) -> str:
    return f", {len(failures)} failed" if failures else ""
