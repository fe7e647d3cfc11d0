"""Digests of files that are remembered, so that a corpus of many gigabytes is not read whole at every call.

A file is taken for the one that was read while its path, size, inode and both of its times (of writing, and of the last
change of any kind) are the same. What was written within seconds of being read is not remembered: it could change once
more without any of these changing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.store.journal import Journal, if_writable

_SETTLED = 2_000_000_000
"""Nanoseconds since the last change after which a file counts as settled."""
_STALE = 2.0
"""The memo is written anew when it has this many times the lines that count."""

_DIGITS = 64
"""A line is digest, space, mark, tab, path; a path with a line break in it is not remembered."""


class Digests:
    """The memo.

    Args:
        file: it need not exist yet.
    """

    def __init__(self, file: Path) -> None:
        self._journal = Journal(file)
        _, lines = self._journal.news()
        self._known = _last(lines)
        self._lines = len(lines)

    def of(self, paths: Sequence[Path], read: Callable[[Path], str]) -> dict[Path, str]:
        """The digest of each file, read where it is not known.

        Args:
            paths: distinct files.
            read: makes the digest of one file.
        """
        names = {path: os.fsencode(path.absolute()) for path in paths}
        marks = {path: _mark(path) for path in paths}
        found: dict[Path, str] = {}
        for path, name in names.items():
            known = self._known.get(name, b"")
            if known[_DIGITS + 1 :] == marks[path] != b"":
                found[path] = known[:_DIGITS].decode()
        new = [path for path in paths if path not in found]
        now = time.time_ns()
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            made = dict(zip(new, pool.map(read, new), strict=True))
        settled = [path for path in new if _settled(marks[path], now) and _mark(path) == marks[path]]
        self._remember({names[path]: made[path].encode() + b" " + marks[path] for path in settled})
        return {path: found.get(path) or made[path] for path in paths}

    def changed(self, read: Callable[[Path], str]) -> list[Path]:
        """Read all remembered files again; those whose bytes are others though nothing else says so."""
        there = [
            path
            for path, known in ((Path(os.fsdecode(name)), known) for name, known in self._known.items())
            if _mark(path) == known[_DIGITS + 1 :]
        ]
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            again = list(pool.map(read, there))
        return [
            path
            for path, digest in zip(there, again, strict=True)
            if self._known[os.fsencode(path)][:_DIGITS] != digest.encode()
        ]

    def forget(self, paths: Iterable[Path]) -> None:
        """Take files out of the memo."""
        gone = {os.fsencode(path) for path in paths}
        for name in gone:
            self._known.pop(name, None)
        self._journal.rewrite(lambda lines: _lines({n: known for n, known in _last(lines).items() if n not in gone}))

    def __len__(self) -> int:
        return len(self._known)

    def _remember(self, new: dict[bytes, bytes]) -> None:
        new = {name: known for name, known in new.items() if b"\n" not in name and b"\r" not in name}
        if not new:
            return
        self._known |= new
        with if_writable():
            self._journal.file.parent.mkdir(parents=True, exist_ok=True)
            if self._lines + len(new) > _STALE * len(self._known):
                self._journal.rewrite(lambda lines: _lines(_last(lines)))
            self._journal.append(_lines(new))


def _last(lines: Sequence[bytes]) -> dict[bytes, bytes]:
    """Digest and mark by path: of several lines on one file the last. A line that a kill has cut fits no file."""
    return {name: known for known, _, name in (line.partition(b"\t") for line in lines)}


def _lines(known: Mapping[bytes, bytes]) -> list[bytes]:
    return [entry + b"\t" + name for name, entry in known.items()]


def _mark(path: Path) -> bytes:
    """What tells a file from a changed one: size, times of writing and of change, inode; empty where there is none."""
    try:
        state = path.stat()
    except OSError:
        return b""
    return b"%d %d %d %d" % (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)


def _settled(mark: bytes, now: int) -> bool:
    return bool(mark) and max(map(int, mark.split()[1:3])) + _SETTLED < now
