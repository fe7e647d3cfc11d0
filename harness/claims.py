"""Lock files between processes that may also go away: what is to be done once, and what is in use.

A lock dies with the process that holds it. A file that its holder deletes takes nobody's lock away: whoever waited on
it notices that the path names another file now, or none, and tries again. The locks are ``flock``'s, so that a network
file system must pass them on (NFS 4 does, Lustre where it is mounted with ``flock``).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUFFIX = ".lock"


@contextmanager
def claim(file: Path, wait: bool) -> Iterator[bool]:
    """Hold the claim that ``file`` stands for.

    Args:
        file: the lock file; it and its folder are made where they are missing, and the file is deleted at the end.
        wait: until whoever holds the claim is done; otherwise do not wait.

    Yields:
        Whether the claim is held now, always true after waiting.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = hold(file, wait)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        file.unlink(missing_ok=True)
        os.close(handle)


def sweep(folder: Path) -> None:
    """Delete the lock files in ``folder`` that killed processes left behind: those that nobody holds."""
    for file in folder.glob(f"*{SUFFIX}"):
        with claim(file, wait=False):
            pass


def hold(file: Path, wait: bool = True, shared: bool = False, flags: int = os.O_RDWR) -> int:
    """A locked handle of the file that stands at ``file``, which is made where it is missing; closing it lets go.

    Args:
        file: in a folder that exists.
        wait: until nobody holds what stands against it.
        shared: many may hold it at once, against one who wants it alone.
        flags: how the file is opened.

    Raises:
        BlockingIOError: another holds the lock and we do not wait.
    """
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    while True:
        handle = os.open(file, flags | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, how)
            if _is_at(handle, file):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder has deleted or replaced it meanwhile


def alone(handle: int) -> bool:
    """Turn a shared lock into one that is held alone, if nobody else shares it; :func:`share` turns it back."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        share(handle)  # the attempt may have cost the shared lock
        return False
    return True


def share(handle: int) -> None:
    """Turn the lock into a shared one."""
    fcntl.flock(handle, fcntl.LOCK_SH)


def _is_at(handle: int, file: Path) -> bool:
    """Whether the open file is the one that the path names."""
    mine = os.fstat(handle)
    try:
        there = file.stat()
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)
