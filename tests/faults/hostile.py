"""Writers of torch files that no honest program would write."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

FLOATS = struct.pack("<4f", 1, 2, 3, 4)


@dataclass
class Member:
    """A member of an archive, and what its headers claim where that is not the truth."""

    name: str
    data: bytes
    method: int = 0
    flags: int = 0x800
    claimed: int | None = None  # size
    offset: int | None = None  # of the local header, in the list of members
    local_name: str | None = None
    checksum: int | None = None


def archive(*members: Member) -> bytes:
    """A zip archive."""
    body, directory = b"", b""
    for member in members:
        stored = member.data
        if member.method == 8:
            packer = zlib.compressobj(1, wbits=-15)
            stored = packer.compress(member.data) + packer.flush()
        name, local = member.name.encode(), (member.local_name or member.name).encode()
        checksum = zlib.crc32(member.data) if member.checksum is None else member.checksum
        size = len(member.data) if member.claimed is None else member.claimed
        packed = size if member.method == 0 else len(stored)
        common = struct.pack("<5H3I", 20, member.flags, member.method, 0, 0, checksum, packed, size)
        offset = len(body) if member.offset is None else member.offset
        body += b"PK\3\4" + common + struct.pack("<2H", len(local), 0) + local + stored
        rest = struct.pack("<5H2I", len(name), 0, 0, 0, 0, 0, offset)
        directory += b"PK\1\2" + struct.pack("<H", 20) + common + rest + name
    end = struct.pack("<4H2IH", 0, 0, len(members) % 65536, len(members) % 65536, len(directory), len(body), 0)
    return body + directory + b"PK\5\6" + end


def zipped(content: bytes, *more: Member, storage: bytes = FLOATS) -> bytes:
    """A torch file in the zip format around a pickle; its one storage is called 0."""
    return archive(Member("a/data.pkl", content), Member("a/data/0", storage), Member("a/version", b"3\n"), *more)


def legacy(content: bytes, keys: list[str] | None = None, storages: bytes | None = None) -> bytes:
    """A torch file in the format before 1.6 around a pickle; its one storage is called 0."""
    start = [torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {"little_endian": True}]
    head = b"".join(pickle.dumps(part, 2) for part in start)
    behind = struct.pack("<q", 4) + FLOATS if storages is None else storages
    return head + content + pickle.dumps(["0"] if keys is None else keys, 2) + behind


class Call:
    """Pickles as a call of ``function`` with ``arguments``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __call__(self) -> None:
        """Callable, so that what it makes can be called in turn."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.identity if isinstance(obj, Reference) else None


@dataclass
class Reference:
    """Pickles as a persistent id."""

    identity: Any


STORAGE = Reference(("storage", torch.FloatStorage, "0", "cpu", 4))
LEGACY_STORAGE = Reference((*STORAGE.identity, None))


def dumps(value: Any, protocol: int = 2) -> bytes:
    """A pickle with references to storages."""
    stream = io.BytesIO()
    _Pickler(stream, protocol).dump(value)
    return stream.getvalue()


def tensor(offset: Any = 0, size: Any = (4,), stride: Any = (1,), storage: Any = STORAGE) -> Call:
    """What torch stores for a tensor."""
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, {})


def write(folder: Path, data: bytes, name: str = "model.pt") -> Path:
    """A file with these bytes."""
    file = folder / name
    file.write_bytes(data)
    return file
