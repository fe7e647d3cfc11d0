"""A bench as jobs: what can be done apart from each other, and who does them.

A job reads what it needs from the shared folders of cache and results and leaves what it made there, so that jobs hand
nothing to each other and any of them can be done again. The executor decides where they run: in this process, one after
the other, or on a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Job:
    """One piece of a bench.

    Attributes:
        stage: ``encode`` a part of the missing audio, ``train`` the probes of one fold, ``score`` a task (which trains
            what no job has trained).
        task: of ``train`` and ``score``.
        fold: of ``train``; ``None`` where the task has no folds.
        others: of ``train``: tasks trained in step with this one, all folds of all, on what is encoded on demand.
        part: of ``encode``, from 0.
        parts: in how many parts the audio is encoded.
    """

    stage: Literal["encode", "train", "score"]
    task: str = ""
    fold: int | None = None
    part: int = 0
    parts: int = 1
    others: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """For people: ``train er, fold 2``."""
        if self.stage == "encode":
            return f"encode part {self.part + 1} of {self.parts}"
        names = " and ".join((self.task, *self.others))
        return f"{self.stage} {names}" + ("" if self.fold is None else f", fold {self.fold}")


class Executor(Protocol):
    """Who does jobs."""

    @property
    def workers(self) -> int:
        """How many jobs can run at once; with one, jobs are not divided further than they must be."""
        ...

    def run(self, jobs: Sequence[Job]) -> None:
        """Do all jobs; they do not depend on each other.

        Raises:
            SlimbenchError: a job cannot be done. What others have finished by then stays.
        """
        ...


@dataclass(frozen=True)
class InProcess:
    """One after the other, here."""

    do: Callable[[Job], None]
    workers: int = 1

    def run(self, jobs: Sequence[Job]) -> None:
        """Do all jobs in their order."""
        for job in jobs:
            self.do(job)
