"""Shards: the files of a feature store, each one batch that was encoded; and the index that spares opening them all.

A shard is one safetensors file: the time means of all states (N, L, D) float32 as ``pooled``, the states (L, T, D)
under the key of their audio, and in its header who they are, how long encoding took and a CRC-32 of each tensor's
bytes, all of it sealed with a SHA-256. It appears whole or not at all and is never changed; its time of writing
(``mtime``) is that of its last use. The index is a copy of what the headers say; what it lacks is read from them.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness.identity import digest_json
from harness.interface import SlimbenchError
from harness.store.journal import Journal, if_writable

SUFFIX = ".safetensors"
INDEX = "index.jsonl"


class Entry(NamedTuple):
    """One piece of audio in a shard: its key, seconds of audio, frames T, and whether frames are stored."""

    key: str
    seconds: float
    num_frames: int
    frames: bool


class Shard(NamedTuple):
    """What the header of a shard says: the file's name and size, seconds that encoding took, and its entries."""

    name: str
    size: int
    wall_seconds: float
    entries: tuple[Entry, ...]


class OpenShard:
    """A shard that is memory-mapped; its tensors are read, and checked, when they are asked for.

    Args:
        file: the shard.

    Raises:
        SlimbenchError: it is gone or damaged.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            opened: Any = safe_open(file, framework="pt")
            header: Mapping[str, str] = opened.metadata() or {}
            self._handle, self._said = opened, header["entries"]
            self.wall_seconds = float(header["wall_seconds"])
            self._sums: dict[str, int] | None = json.loads(header["sums"]) if "sums" in header else None
        except FileNotFoundError as error:
            raise SlimbenchError(
                f"{file}: this shard of stored features is gone, another process may have made room; repeat the "
                "command, it is made again."
            ) from error
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise damaged(file, str(error)) from error
        self._checked: set[str] = set()
        if self._sums is not None and header.get("seal") != _seal(header):
            raise damaged(file, "its header does not match its seal")

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Its pieces of audio.

        Raises:
            SlimbenchError: the header is damaged.
        """
        try:
            return tuple(Entry(**entry) for entry in json.loads(self._said))
        except (ValueError, TypeError) as error:
            raise damaged(self.file, str(error)) from error

    @property
    def has_sums(self) -> bool:
        """Whether checksums are there; shards of early versions have none."""
        return self._sums is not None

    def read(self, name: str) -> Tensor:
        """One tensor; the first time its checksum is compared.

        Raises:
            SlimbenchError: the shard is damaged.
        """
        try:
            tensor: Tensor = self._handle.get_tensor(name)
        except SafetensorError as error:
            raise damaged(self.file, str(error)) from error
        if self._sums is not None and name not in self._checked:
            if checksum(tensor) != self._sums.get(name):
                raise damaged(self.file, f"the bytes of {name[:12]} do not match their checksum")
            self._checked.add(name)
        return tensor

    def verify(self) -> None:
        """Read everything.

        Raises:
            SlimbenchError: the shard is damaged.
        """
        expected = {"pooled", *(entry.key for entry in self.entries if entry.frames)}
        if expected != set(self._handle.keys()):
            raise damaged(self.file, "it does not hold what its header says")
        for name in sorted(expected):
            self.read(name)


class Index:
    """The shards of a folder, known without opening each.

    Args:
        folder: the store; it need not exist yet.

    Attributes:
        shards: by name of the file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards: dict[str, Shard] = {}
        self._journal = Journal(folder / INDEX)

    def catch_up(self) -> bool:
        """Take in what other processes have said in the index since; returns whether something changed."""
        fresh, lines = self._journal.news()
        if fresh:
            self.shards = {}
        for line in lines:
            with suppress(ValueError, TypeError):  # a line that a kill has cut: the shard itself is read instead
                name, size, seconds, entries = json.loads(line)
                if entries:
                    self.shards[name] = Shard(name, size, seconds, tuple(Entry(*entry) for entry in entries))
                else:
                    self.shards.pop(name, None)
        return fresh or bool(lines)

    def refresh(self) -> bool:
        """As :meth:`catch_up`, and look at the folder too; returns whether something changed.

        Raises:
            SlimbenchError: a shard that the index does not know is damaged.
        """
        changed = self.catch_up()
        there = sizes(self.folder)
        for name in self.shards.keys() - there.keys():
            del self.shards[name]
            changed = True
        unknown = sorted(
            name for name, size in there.items() if name not in self.shards or self.shards[name].size != size
        )
        found = []
        for name in unknown:
            opened = OpenShard(self.folder / name)
            found.append(Shard(name, there[name], opened.wall_seconds, opened.entries))
        if found:
            with if_writable():
                self._journal.append(map(_line, found))
            self.shards |= {shard.name: shard for shard in found}
        return changed or bool(found)

    def add(self, shard: Shard) -> None:
        """Say that a shard is there now."""
        self.shards[shard.name] = shard
        self._journal.append([_line(shard)])

    def drop(self, names: Iterable[str]) -> None:
        """Say that shards are gone."""
        gone = list(names)
        for name in gone:
            self.shards.pop(name, None)
        self._journal.append(_line(Shard(name, 0, 0.0, ())) for name in gone)


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of each shard of a folder, by name."""
    return {name: state.st_size for name, state in states(folder).items()}


def states(folder: Path) -> dict[str, os.stat_result]:
    """What the file system says of each shard of a folder, by name; nothing where there is no such folder."""
    found = {}
    with suppress(FileNotFoundError), os.scandir(folder) as files:
        for file in files:
            if file.name.endswith(SUFFIX) and not file.name.startswith("."):
                with suppress(FileNotFoundError):  # another process makes room
                    found[file.name] = file.stat()
    return found


def write(folder: Path, entries: Sequence[Entry], tensors: Mapping[str, Tensor], wall_seconds: float) -> Shard:
    """Write a shard, atomically, under a name that its entries make.

    Raises:
        SlimbenchError: it cannot be written.
    """
    name = digest_json([entry._asdict() for entry in entries])[:16]
    file, again = folder / f"{name}{SUFFIX}", 1
    while file.exists():  # a second encoding of the same batch must show in the ledger, so it hides no first one
        again += 1
        file = folder / f"{name}-{again}{SUFFIX}"
    whole = {key: tensor.contiguous() for key, tensor in tensors.items()}
    header = {
        "entries": json.dumps([entry._asdict() for entry in entries]),
        "wall_seconds": repr(wall_seconds),
        "sums": json.dumps({key: checksum(tensor) for key, tensor in whole.items()}),
    }
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        save_file(whole, partial, metadata={**header, "seal": _seal(header)})
        size = partial.stat().st_size
        partial.replace(file)
    except SafetensorError as error:
        raise SlimbenchError(
            f"{file}: features cannot be written ({error}); make room and repeat the command, it goes on."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return Shard(file.name, size, wall_seconds, tuple(entries))


def used(file: Path) -> None:
    """Note that a shard is used now, where the folder lets us."""
    with suppress(FileNotFoundError), if_writable():
        os.utime(file)


def checksum(tensor: Tensor) -> int:
    """CRC-32 of the bytes of a contiguous tensor."""
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data)


def damaged(file: Path, how: str) -> SlimbenchError:
    """The error that says so, with the remedy."""
    return SlimbenchError(
        f"{file}: this shard of stored features is damaged ({how}); delete it (`slimbench cache verify --repair` finds "
        "and deletes all such), it is made again."
    )


def _seal(header: Mapping[str, str]) -> str:
    return digest_json([header[field] for field in ("entries", "wall_seconds", "sums")])


def _line(shard: Shard) -> bytes:
    entries: list[Any] = [list(entry) for entry in shard.entries]
    return json.dumps([shard.name, shard.size, shard.wall_seconds, entries], separators=(",", ":")).encode()
