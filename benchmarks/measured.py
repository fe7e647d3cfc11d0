"""A command in a process of its own, with the time it takes, and folders for it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

QUIET = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
"""How idle threads behave, as the command line has it."""


@dataclass(frozen=True)
class Took:
    """Wall time and processor time of all threads and children, in seconds."""

    wall: float
    cpu: float


def command(*arguments: str) -> Took:
    """Run ``python ARGUMENTS`` to its end.

    Exits with the command's own words where it fails.
    """
    before, began = _children(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env={**os.environ, **QUIET}
    )
    took = Took(time.perf_counter() - began, _children() - before)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return took


def in_turns(commands: Sequence[Sequence[str]], repeats: int) -> list[list[Took]]:
    """Each command ``repeats`` times, one after the other in every round."""
    rounds = [[command(*arguments) for arguments in commands] for _ in range(repeats)]
    return [list(column) for column in zip(*rounds, strict=True)]


@contextmanager
def fresh(data: Path) -> Iterator[Path]:
    """A folder that is deleted afterwards, with a ``cache`` that has nothing but the made data of another one."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        made = Path(name, "cache", "data")
        made.mkdir(parents=True)
        for folder in (data / "data").glob("*"):
            (made / folder.name).symlink_to(folder.resolve())
        yield Path(name)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
