"""Locks between processes on files of a shared folder; a lock dies with the process that holds it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def lock(file: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of ``file``, which is made where it is missing and stays.

    Args:
        file: the lock file; its folder is made too.
        wait: until whoever holds it is done; otherwise do not wait.

    Yields:
        Whether the lock is held now, always true after waiting.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)
