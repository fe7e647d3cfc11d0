"""The hands of a sweep: training and benches in processes of their own, and what on disk says that they are done."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from harness import kept, suite
from harness.identity import digest_file, digest_json
from harness.interface import SlimbenchError
from harness.plan import PROTOCOL_VERSION, choose_tasks
from harness.preparing import resolve_device
from harness.registry import task as task_called
from harness.store.features import EXTRACTION_VERSION
from upstreams.distillation import recipe, teachers
from upstreams.distillation.data import pool
from upstreams.distillation.families import sweep_child
from upstreams.distillation.families.files import Family, Student
from upstreams.distillation.families.sweep import Column, Job
from upstreams.distillation.files import read_json


@dataclass(frozen=True)
class Place:
    """Where a sweep works, and how its benches are run.

    Attributes:
        work: folder of pool, checkpoints and marks.
        out: where models and their cards go.
        results: where records go.
        cache: data and features.
        data: folder that holds ``real/`` and ``pretrain/``; ``None`` trains on synthetic speech only.
        bench_data: folder of data for suites that do not make their own; by default ``real`` in ``data``.
        device: torch device.
        threads: of a bench.
        seeds: per learning rate of a bench.
        frames: from the disk or encoded on demand.
        cache_limit: most GB of features.
    """

    work: Path
    out: Path
    results: Path
    cache: Path
    data: Path | None = None
    bench_data: Path | None = None
    device: str = "auto"
    threads: int | None = None
    seeds: int | None = None
    frames: str = "auto"
    cache_limit: float | None = None


@dataclass
class Workshop:
    """Implements :class:`upstreams.distillation.families.sweep.Hands`.

    Attributes:
        family: the students.
        place: where.
    """

    family: Family
    place: Place
    _pools: set[tuple[float, int]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _known: dict[Any, Any] = field(default_factory=dict)
    """Digests of what does not change while a sweep goes on."""

    def card(self, student: Student) -> Path:
        """The card of a student that is trained."""
        return self.place.out / f"{student.name}.yaml"

    def trained(self, student: Student) -> bool:
        """Whether model, configuration, provenance and card are there.

        Raises:
            SlimbenchError: they are, but the model was made by another recipe, from another teacher or on other speech.
        """
        folder = self.place.out / student.name
        files = [folder / name for name in ("model.safetensors", "config.json", "provenance.json")]
        if not all(file.is_file() for file in (*files, self.card(student))):
            return False
        remedy = f"give another --out, or delete {folder} and {self.place.work / student.name} to train it anew"
        notes = read_json(files[-1], remedy)
        if notes.get("sha256") != digest_file(files[0]):
            return False  # a kill came between the two; the training ends with writing both again
        if reason := self._differs(notes, self.family.recipe(student)):
            raise SlimbenchError(f"{folder} was made {reason}; {remedy}.")
        return True

    def _differs(self, notes: Mapping[str, Any], file: Path) -> str:
        """In what the provenance of a model differs from what its recipe would make now; empty where in nothing."""
        now = recipe.load(file)
        assert isinstance(now, recipe.Recipe)  # noqa: S101
        if not recipe.made_by(notes, now):
            return f"by another recipe than {file}"
        made_from = {name: str(mark).removeprefix("corpus:") for name, mark in notes.get("teachers", {}).items()}
        if made_from != self._fingerprints(now):
            return f"from another teacher than {', '.join(spec.name for spec in now.teachers)} is now"
        shards = pool.shard_files(self.place.work, now.data.hours, now.data.seed, self.place.data is not None)
        if notes.get("shards") != [shard.stem for shard in shards]:
            return "on other speech than this sweep would take (is --data the same?)"
        return ""

    def _fingerprints(self, found: recipe.Recipe) -> dict[str, str]:
        """Of the teachers of a recipe, which many recipes share."""

        def look() -> dict[str, str]:
            return {name: teacher.fingerprint for name, teacher in teachers.load(found.teachers, "cpu").items()}

        known: dict[str, str] = self._once(("teachers", repr(found.teachers)), look)
        return known

    def train(self, students: Sequence[Student]) -> None:
        """Distil students side by side in a process of their own; see :class:`.sweep.Hands`."""
        place = self.place
        recipes = [self.family.recipe(student) for student in students]
        request = {
            "recipes": [str(file) for file in recipes],
            "work": str(place.work),
            "out": str(place.out),
            "data": None if place.data is None else str(place.data),
            "device": place.device,
        }
        with self._lock:
            pools = {(found.data.hours, found.data.seed) for found in map(recipe.load, recipes)}
            if pools - self._pools:
                sweep_child.ask("pool", request)
                self._pools |= pools
        sweep_child.ask("train", request)

    def benched(self, job: Job) -> float | None:
        """Seconds of a bench whose mark is of this very model and whose record is there."""
        mark: Mapping[str, Any] | None = kept.read(self._mark(job))
        if mark is None or mark["identity"] != self._identity(job):
            return None
        return float(mark["seconds"]) if (self.place.results / mark["record"]).is_file() else None

    def bench(self, job: Job) -> str:
        """Run a bench in a process of its own and leave its mark."""
        place, began = self.place, time.monotonic()
        options = {
            "upstream": str(self.card(job.student)),
            "suite": job.column.suite,
            "tasks": [job.column.task],
            "results": str(place.results),
            "cache": str(place.cache),
            "data": _text(self.data_of(job.column.suite)),
            **{name: getattr(place, name) for name in ("seeds", "device", "threads", "frames", "cache_limit")},
        }
        done = sweep_child.ask("bench", {"options": options})
        seconds = round(time.monotonic() - began, 1)
        mark = {"identity": self._identity(job), "record": done["record"], "seconds": seconds}
        kept.write(self._mark(job), mark | {"said": done["said"]})
        return str(done["said"])

    def data_of(self, name: str) -> Path | None:
        """The folder of data that a suite needs, ``None`` for one that makes its own.

        Raises:
            SlimbenchError: it needs one and none is there.
        """
        chosen = suite.load(name)
        if chosen.builder is not None:
            return None
        place = self.place
        found = place.bench_data or (place.data / "real" if place.data is not None else None)
        if found is None or not found.is_dir():
            raise SlimbenchError(
                f"Suite {name} runs on data that you bring{'' if found is None else f' and {found} is no folder'}; "
                "give --bench-data, or --data with a folder that holds real/."
            )
        return found

    def _mark(self, job: Job) -> Path:
        column = job.column
        folder = self.place.work / "sweeps" / self.family.name / Path(column.suite).stem
        return folder / f"{column.task}-{job.student.name}.json"

    def _identity(self, job: Job) -> str:
        """Digest of what a bench depends on that can change between two sweeps."""
        column, data = job.column, self.data_of(job.column.suite)
        folder = self.place.out / job.student.name
        files = (folder / "model.safetensors", folder / "config.json", self.card(job.student))
        return digest_json(
            {
                "student": [self._once(("file", file), partial(digest_file, file)) for file in files],
                "suite": digest_file(suite.load(column.suite).file),
                "task": column.task,
                "seeds": self.place.seeds,
                "data": None if data is None else [str(data), self._once(("data", data), partial(_traces, data))],
                "device": self._once("device", partial(resolve_device, self.place.device)),
                "versions": [PROTOCOL_VERSION, EXTRACTION_VERSION],
            }
        )

    def _once(self, key: Any, look: Callable[[], Any]) -> Any:
        """What ``look`` finds, which does not change while a sweep goes on."""
        if key not in self._known:
            self._known[key] = look()
        return self._known[key]


def columns(suites: Sequence[str], tasks: Sequence[str]) -> list[Column]:
    """What to bench, suite by suite: the tasks in the order given, or else the cheapest first.

    Cheap are tasks that read a mean per utterance, and among alike those with fewer training examples.

    Raises:
        SlimbenchError: a suite is unknown, or has not all of the tasks.
    """
    found = []
    for name in suites:
        chosen = suite.load(name)
        there = choose_tasks(chosen, tasks)
        found += [Column(name, task) for task in tasks or sorted(there, key=lambda task: _price(chosen, task))]
    return found


def _price(chosen: suite.Suite, name: str) -> tuple[bool, int]:
    task = task_called(name)
    protocol = suite.protocol(chosen, task)
    return task.need != "pooled", protocol.steps * protocol.batch


def _traces(folder: Path) -> str:
    """Digest of names, sizes and times of all files below a folder: changes where anything there does."""
    rows = []
    for place, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            state = Path(place, name).stat()
            rows.append([os.path.relpath(Path(place, name), folder), state.st_size, state.st_mtime_ns])
    return digest_json(rows)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
