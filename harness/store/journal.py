"""Files of lines that grow at their end, which several processes read and write at once.

What is written is whole lines in one go under a lock; who reads goes on where it stopped. A line that a kill has cut is
never completed by another one; those who read lines must bear one that makes no sense.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import atomic, claims


class Journal:
    """One such file; it need not exist yet.

    Args:
        file: in a folder that exists by the time something is written.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._inode = -1
        self._offset = 0

    def news(self) -> tuple[bool, list[bytes]]:
        """What has been written since the last call, by this process too.

        Returns:
            Whether it is another file now, so that what was read before no longer counts; and the new lines.
        """
        try:
            stream = self.file.open("rb")
        except FileNotFoundError:
            fresh, self._inode, self._offset = self._inode != -1, -1, 0
            return fresh, []
        with stream:
            state = os.fstat(stream.fileno())
            fresh = state.st_ino != self._inode or state.st_size < self._offset
            if fresh:
                self._inode, self._offset = state.st_ino, 0
            if state.st_size == self._offset:
                return fresh, []
            stream.seek(self._offset)
            content = stream.read()
        end = content.rfind(b"\n") + 1
        self._offset += end
        return fresh, content[:end].split(b"\n")[:-1]

    def append(self, lines: Iterable[bytes]) -> None:
        """Add lines at the end."""
        content = b"".join(line + b"\n" for line in lines)
        handle = claims.hold(self.file, flags=os.O_RDWR | os.O_APPEND)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                content = b"\n" + content
            while content:
                content = content[os.write(handle, content) :]
        finally:
            os.close(handle)

    def rewrite(self, change: Callable[[list[bytes]], Iterable[bytes]]) -> None:
        """Put another file in its place, made of its lines while nobody else writes."""
        handle = claims.hold(self.file)
        try:
            atomic.write(self.file, b"".join(line + b"\n" for line in change(self.file.read_bytes().split(b"\n"))))
        finally:
            os.close(handle)


@contextmanager
def if_writable() -> Iterator[None]:
    """Do without what only makes things faster or tidier, where the cache may be read but not written."""
    try:
        yield
    except OSError as error:
        if not unwritable(error):
            raise


def unwritable(error: OSError) -> bool:
    """Whether it says that we may not write there."""
    return error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
