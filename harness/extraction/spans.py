"""Claims on stretches of a line between processes that share a folder: who holds a stretch is alone on it.

Audio that is to be encoded lies on a line by length and key; a batch is a stretch of it. So two processes whose lists
of audio differ, and whose batches therefore do, still see where they meet. The claims are byte ranges locked in one
file (POSIX), far beyond its end, so that nothing has to be written or swept: they die with the process that holds
them. Threads of one process do not exclude each other.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.interface import SlimbenchError


class Spans:
    """The line of a lock file.

    Args:
        file: made where it is missing; it stays empty.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file
        self._handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def take(self, first: int, last: int) -> bool:
        """Claim the places from ``first`` to ``last``, both included; whether nobody else had one of them.

        Raises:
            SlimbenchError: the file system has no such locks.
        """
        try:
            fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, last - first + 1, first)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            raise SlimbenchError(
                f"{self._file}: cannot be locked ({error.strerror}), so processes could encode the same audio twice; "
                "put the cache on a file system with POSIX locks (make: CACHE=..., slimbench: --cache)."
            ) from error
        return True

    def give(self, first: int, last: int) -> None:
        """Let a stretch go that was taken."""
        fcntl.lockf(self._handle, fcntl.LOCK_UN, last - first + 1, first)

    def __enter__(self) -> Self:
        """Use the line."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let everything go."""
        os.close(self._handle)
