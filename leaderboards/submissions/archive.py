"""The one file of a submission: a plain zip, written byte for byte alike, and read without trusting it.

Nothing is ever unpacked to disk. A file is refused unless it is laid out as :func:`pack` does it: regular files with
plain names, one after the other without gaps, so that nothing can hide between them, overlap, or expand without bound.
"""

from __future__ import annotations

import io
import re
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from leaderboards.submissions.findings import RefusedError
from leaderboards.submissions.strict import MAX_BYTES

MAX_FILE = 64 * 2**20
"""Largest archive that is opened, in bytes."""
MAX_TOTAL = 256 * 2**20
"""Most bytes that all members together may have when unpacked."""
MAX_MEMBERS = 400
_DATE = (1980, 1, 1, 0, 0, 0)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,120}(/[A-Za-z0-9][A-Za-z0-9_.@+-]{0,120}){0,4}")
_LOCAL, _CENTRAL, _END = 30, 46, 22
"""Sizes of zip's fixed headers."""


def pack(files: Mapping[str, bytes]) -> bytes:
    """A zip of ``files`` in the order of their names. The same files give the same bytes, whenever they are packed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            bundle.writestr(entry, files[name], compresslevel=9)
    return buffer.getvalue()


def unpack(path: Path) -> dict[str, bytes]:
    """The members of an archive by name.

    Raises:
        RefusedError: it is no archive that :func:`pack` could have written.
    """
    where = str(path)
    if path.is_symlink() or not path.is_file():
        raise RefusedError(where, "", "it is not a regular file")
    if path.stat().st_size > MAX_FILE:
        raise RefusedError(where, "", f"it has {path.stat().st_size:,} bytes and at most {MAX_FILE:,} are read")
    try:
        with zipfile.ZipFile(path) as bundle:
            _check_layout(bundle, path.stat().st_size, where)
            return {entry.filename: _member(bundle, entry, where) for entry in bundle.infolist()}
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError, ValueError, RuntimeError) as error:
        raise RefusedError(where, "", f"it is not a whole zip archive ({error})") from error


def _check_layout(bundle: zipfile.ZipFile, size: int, where: str) -> None:
    entries = bundle.infolist()
    if len(entries) > MAX_MEMBERS:
        raise RefusedError(where, "", f"it has {len(entries):,} members and at most {MAX_MEMBERS} are read")
    seen: set[str] = set()
    for entry in entries:
        member = f"{where}: {entry.filename!r}"
        if not _NAME.fullmatch(entry.filename) or entry.filename != entry.orig_filename:
            raise RefusedError(
                member, "", "the name is not a plain relative path of letters, digits, '_', '-', '.', '@', '+'"
            )
        if entry.filename.casefold() in seen:
            raise RefusedError(member, "", "the name stands there twice")
        seen.add(entry.filename.casefold())
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG) or entry.is_dir():
            raise RefusedError(member, "", "it is not a regular file")
        if entry.flag_bits & 0x1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise RefusedError(member, "", "it is encrypted or compressed in another way than zip's deflate")
        if entry.file_size > MAX_BYTES:
            raise RefusedError(
                member, "", f"it unpacks to {entry.file_size:,} bytes and at most {MAX_BYTES:,} are read"
            )
    if (total := sum(entry.file_size for entry in entries)) > MAX_TOTAL:
        raise RefusedError(where, "", f"it unpacks to {total:,} bytes and at most {MAX_TOTAL:,} are read")
    _check_gaps(bundle, size, where)


def _check_gaps(bundle: zipfile.ZipFile, size: int, where: str) -> None:
    """Members must lie end to end and the directory right behind them, without comments or further fields."""
    place = 0
    for entry in bundle.infolist():
        if entry.extra or entry.comment or entry.flag_bits & 0x8 or entry.header_offset != place:
            raise RefusedError(f"{where}: {entry.filename!r}", "", "it overlaps another member or carries hidden bytes")
        place += _LOCAL + len(entry.filename.encode()) + entry.compress_size
    place += sum(_CENTRAL + len(entry.filename.encode()) for entry in bundle.infolist()) + _END
    if bundle.comment or place != size:
        raise RefusedError(where, "", "it holds bytes that belong to no member; pack it with 'slimbench submit'")


def _member(bundle: zipfile.ZipFile, entry: zipfile.ZipInfo, where: str) -> bytes:
    with bundle.open(entry) as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) != entry.file_size:
        raise RefusedError(f"{where}: {entry.filename!r}", "", "its size is not the one that the archive states")
    return data
