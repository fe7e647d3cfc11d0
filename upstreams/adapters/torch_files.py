"""The containers that ``torch.save`` writes: zip archives, and the plain streams of releases before 1.6.

Nothing is believed before it is checked against the size of the file: members must be stored as they are, lie inside
the file and next to each other, and have the checksum that the archive names. Nothing is ever written to disk.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from upstreams.adapters.plain_pickle import DamagedError, ForbiddenError, Name

MAX_PICKLE = 32 << 20
"""Bytes of the largest pickle that is read; that of a checkpoint with a whole optimiser has about one million."""
MAX_MEMBERS = 50_000
MAX_DIRECTORY = 8 << 20
_LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_LEGACY_VERSION = 1001
_END, _END64, _LOCATOR64 = struct.Struct("<4s4H2IH"), struct.Struct("<4sQ2H2I4Q"), struct.Struct("<4sIQI")
_LOCAL = struct.Struct("<4s5H3I2H")

Interpreter = Callable[[BinaryIO, Callable[[Any], Any]], Any]
"""What reads one pickle from a stream; its second argument turns persistent ids into references."""

_DTYPES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexDouble": torch.complex128,
        "ComplexFloat": torch.complex64,
    }.items()
}
STORAGES = {f"{module}.{name}": dtype for module in ("torch", "torch.cuda") for name, dtype in _DTYPES.items()}
"""Classes that stand for a kind of numbers in a reference to a storage."""


@dataclass(frozen=True)
class Storage:
    """A flat run of numbers that lies outside of the pickle.

    Attributes:
        key: its name in the file.
        dtype: of its numbers.
        numel: how many there are.
    """

    key: str
    dtype: torch.dtype
    numel: int


class _Place(NamedTuple):
    start: int
    size: int
    checksum: int | None


@dataclass
class TorchFile:
    """An open torch file.

    Attributes:
        stream: the file.
        content: what the pickle says, with references to storages.
        places: bytes of the storages, by key.
    """

    stream: BinaryIO
    content: Any
    places: dict[str, _Place]

    def __post_init__(self) -> None:
        self._read: dict[str, Tensor] = {}

    def numbers(self, storage: Storage) -> Tensor:
        """The numbers of a storage, one-dimensional (numel,); the same tensor for the same storage.

        Raises:
            DamagedError: they are not in the file, or are others than when they were written.
            ForbiddenError: two tensors read them differently.
        """
        found = self._read.get(storage.key)
        if found is None:
            found = self._read[storage.key] = self._load(storage)
        if found.dtype != storage.dtype or found.numel() != storage.numel:
            raise ForbiddenError("two tensors in it read the same numbers differently")
        return found

    def _load(self, storage: Storage) -> Tensor:
        place = self.places.get(storage.key)
        if place is None:
            raise DamagedError(f"it lacks the numbers {storage.key[:40]!r} of a tensor")
        if place.size != storage.numel * storage.dtype.itemsize:
            raise DamagedError(f"it has another count of numbers than a tensor in it says ({storage.key[:40]!r})")
        data = _bytes(self.stream, place)
        return torch.frombuffer(data, dtype=storage.dtype) if data else torch.empty(0, dtype=storage.dtype)


def open_torch(stream: BinaryIO, interpret: Interpreter) -> TorchFile:
    """Open a file that ``torch.save`` wrote.

    Args:
        stream: the file, at its start; it must stay open for :meth:`TorchFile.numbers`.
        interpret: reads one pickle.

    Raises:
        DamagedError: it is cut off or changed.
        ForbiddenError: it is no such file, or one that is made to do harm.
    """
    head = stream.read(len(_LEGACY_START))
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    if head.startswith(b"PK\x03\x04"):
        return _open_zip(stream, size, interpret)
    if head == _LEGACY_START:
        return _open_legacy(stream, size, interpret)
    raise ForbiddenError("torch.save did not write it")


def _bytes(stream: BinaryIO, place: _Place) -> bytearray:
    data = bytearray(place.size)  # not more than the file has: every place was checked to lie inside of it
    stream.seek(place.start)
    got = stream.readinto(data)  # type: ignore[attr-defined]
    if got != place.size or place.checksum not in (None, zlib.crc32(data)):
        raise DamagedError("its content does not match its checksum")
    return data


def _open_zip(stream: BinaryIO, size: int, interpret: Interpreter) -> TorchFile:
    places = _zip_places(stream, size)
    roots = [name for name in places if PurePosixPath(name).name == "data.pkl" and name.count("/") == 1]
    if len(roots) != 1:
        raise ForbiddenError("it is an archive, but torch.save did not write it")
    root = roots[0].removesuffix("data.pkl")
    if places[roots[0]].size > MAX_PICKLE:
        raise ForbiddenError(f"its pickle has more than {MAX_PICKLE} bytes")
    order = places.get(f"{root}byteorder")
    if order is not None and (order.size != len(b"little") or _bytes(stream, order) != b"little"):
        raise ForbiddenError("it was written on a big-endian machine")
    content = interpret(io.BytesIO(_bytes(stream, places[roots[0]])), _reference)
    start = f"{root}data/"
    return TorchFile(stream, content, {n.removeprefix(start): p for n, p in places.items() if n.startswith(start)})


def _reference(identity: Any) -> Storage:
    """The storage that a persistent id stands for."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        raise ForbiddenError("it refers to something outside of it that is no tensor")
    _, kind, key, _, numel, *view = identity
    if not isinstance(kind, Name) or kind.text not in STORAGES or view not in ([], [None]):
        raise ForbiddenError("it has a tensor of an unusual kind")
    if not isinstance(key, str) or type(numel) is not int or numel < 0:
        raise DamagedError("it describes a tensor that cannot exist")
    return Storage(key, STORAGES[kind.text], numel)


def _zip_places(stream: BinaryIO, size: int) -> dict[str, _Place]:
    """Where the members of an archive lie, each checked."""
    _check_directory(stream, size)
    try:
        members = zipfile.ZipFile(stream).infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, struct.error, OverflowError) as error:
        raise DamagedError("its list of members is damaged") from error
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise ForbiddenError("it is a TorchScript program instead of plain tensors")
    places: dict[str, _Place] = {}
    end = 0
    for member in sorted(members, key=lambda item: item.header_offset):
        _check_member(member)
        if member.filename in places:
            raise ForbiddenError(f"it has the member {member.filename[:80]!r} twice")
        if member.header_offset < end:
            raise ForbiddenError("members of the archive overlap")
        start = _data_start(stream, member)
        end = start + member.file_size
        if end > size:
            raise DamagedError("a member is larger than the file")
        places[member.filename] = _Place(start, member.file_size, member.CRC)
    return places


def _check_directory(stream: BinaryIO, size: int) -> None:
    """Refuse an absurd list of members before it is read: each of them takes memory."""
    stream.seek(max(0, size - _END.size - _LOCATOR64.size - _END64.size))
    tail = stream.read()
    if len(tail) < _END.size or tail[-_END.size :][:4] != b"PK\x05\x06":
        raise DamagedError("its end is missing")
    *_, count, length, _, comment = _END.unpack(tail[-_END.size :])
    locator = tail[: -_END.size][-_LOCATOR64.size :]
    if locator[:4] == b"PK\x06\x07":
        end64 = tail[: _END64.size]
        if end64[:4] != b"PK\x06\x06" or len(tail) < _END.size + _LOCATOR64.size + _END64.size:
            raise DamagedError("its end is damaged")
        *_, count, length, _ = _END64.unpack(end64)
    if comment or count > MAX_MEMBERS or length > MAX_DIRECTORY:
        raise ForbiddenError(f"it is an archive of more than {MAX_MEMBERS} members, or with text at its end")


def _check_member(member: zipfile.ZipInfo) -> None:
    name = member.filename
    if member.orig_filename != name or "\\" in name or any(p in ("", ".", "..") for p in name.split("/")):
        raise ForbiddenError(f"a member of the archive has the path {name[:80]!r}")
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size or member.flag_bits & 1:
        raise ForbiddenError("its members are compressed or encrypted, which torch.save never does")


def _data_start(stream: BinaryIO, member: zipfile.ZipInfo) -> int:
    """First byte of a member's content; its own header must name it as the list of members does."""
    stream.seek(member.header_offset)
    header = stream.read(_LOCAL.size)
    if len(header) < _LOCAL.size or header[:4] != b"PK\x03\x04":
        raise DamagedError("a member lacks its header")
    *_, name_length, extra_length = _LOCAL.unpack(header)
    if stream.read(name_length) != member.filename.encode():
        raise ForbiddenError("a member has two names")
    return int(member.header_offset) + _LOCAL.size + int(name_length) + int(extra_length)


def _open_legacy(stream: BinaryIO, size: int, interpret: Interpreter) -> TorchFile:
    """Pickles lie at the start, then, in the order of the last pickle, the length and the numbers of each storage."""
    pickles = io.BytesIO(stream.read(MAX_PICKLE))
    pickles.seek(len(_LEGACY_START))
    version, system = interpret(pickles, _reference), interpret(pickles, _reference)
    if version != _LEGACY_VERSION or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ForbiddenError("it is of another version of torch's format, or from a big-endian machine")
    seen: dict[str, Storage] = {}

    def remembered(identity: Any) -> Storage:
        storage = _reference(identity)
        return seen.setdefault(storage.key, storage)

    content, keys = interpret(pickles, remembered), interpret(pickles, _reference)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != seen.keys():
        raise DamagedError("its list of storages is damaged")
    places: dict[str, _Place] = {}
    position = pickles.tell()
    for key in keys:
        stream.seek(position)
        length = int.from_bytes(stream.read(8), "little")
        start, position = position + 8, position + 8 + length * seen[key].dtype.itemsize
        if length != seen[key].numel or position > size or key in places:
            raise DamagedError("it is cut off or changed in the numbers of its tensors")
        places[key] = _Place(start, position - start, None)
    if position != size:
        raise DamagedError("there is more in it than its list of storages says")
    return TorchFile(stream, content, places)
