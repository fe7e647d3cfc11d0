"""Audio in, checked: any file that libsndfile reads becomes float32, mono, 16 kHz, or one clear error.

What is changed on the way (channels averaged, rate converted) is said through ``notes``; nothing is repaired in
silence. A cut of a file is found by seeking: exact for WAV and FLAC; for Ogg the decoder starts afresh near the
cut, so samples may differ by about 1e-3 from those of a decode of the whole file, but always in the same way.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from harness.identity import digest_bytes, digest_file
from harness.interface import SAMPLE_RATE, SlimbenchError
from harness.store.digests import Digests

__all__ = ["MEMO", "SAMPLE_RATE", "audio_key", "file_digests", "load"]

MEMO = "audio-digests.txt"
"""File of the cache that remembers the digests of audio files."""

TOLERANCE = 0.05
"""Seconds by which a file or a cut may differ from the length that the manifest gives."""

_UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)
"""Sizes that a WAV header carries where the writer did not know the length (a stream)."""


def load(
    path: Path, start: float | None = None, seconds: float | None = None, notes: set[str] | None = None
) -> npt.NDArray[np.float32]:
    """Read an utterance.

    Args:
        path: the audio file.
        start: where the utterance begins, in seconds; ``None`` takes the whole file.
        seconds: length of the utterance. With ``start=None`` it only checks that the whole file has that length.
        notes: filled with one sentence per kind of conversion that was done.

    Returns:
        (S,) float32 mono at 16 kHz.

    Raises:
        SlimbenchError: the file is missing, empty, no audio, truncated or has samples that are no numbers, or the
            cut lies beyond its end.
    """
    _check_present(path)
    try:
        with soundfile.SoundFile(path) as file:
            _check_complete(path, file.format)
            rate, total = int(file.samplerate), int(file.frames)
            first, count = _cut(path, start, seconds, rate, total)
            file.seek(first)
            data: npt.NDArray[np.float32] = file.read(count, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise SlimbenchError(
            f"{path}: cannot be read as audio ({error.error_string.strip(' .')}); give a WAV, FLAC, Ogg or MP3 file."
        ) from error
    if len(data) != count:
        raise SlimbenchError(
            f"{path}: is truncated: {len(data)} of {count} samples from {first / rate:.3f} s on can be read; "
            "copy the file again."
        )
    if not np.isfinite(data).all():
        where = int(np.flatnonzero(~np.isfinite(data).all(axis=1))[0])
        raise SlimbenchError(
            f"{path}: sample {first + where} is NaN or infinite; write the file again from its source."
        )
    return _to_mono_16k(data, rate, notes)


def audio_key(path_digest: str, start: float | None, seconds: float) -> str:
    """Content key of an utterance: the file's digest, and where it is cut the first sample and the length.

    Args:
        path_digest: SHA-256 of the file's bytes, in hex.
        start: where the cut begins, in seconds; ``None`` for the whole file, whose key is then its digest.
        seconds: length of the cut.
    """
    if start is None:
        return path_digest
    cut = f"{path_digest}:{round(start * SAMPLE_RATE)}:{round(seconds * SAMPLE_RATE)}"
    return digest_bytes(cut.encode())


def file_digests(paths: Iterable[Path], memo: Path | None = None) -> dict[Path, str]:
    """SHA-256 (hex) of each distinct file.

    Args:
        paths: the files.
        memo: file that remembers digests, so that a file is read again only where it has changed
            (:mod:`harness.store.digests`); without it all files are read.

    Raises:
        SlimbenchError: a file is missing.
    """
    distinct = list(dict.fromkeys(paths))
    if memo is not None:
        return Digests(memo).of(distinct, _digest)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return dict(zip(distinct, pool.map(_digest, distinct), strict=True))


def _digest(path: Path) -> str:
    _check_present(path)
    return digest_file(path)


def _check_present(path: Path) -> None:
    if not path.is_file():
        raise SlimbenchError(f"{path}: no such audio file; put it there or correct its path in the manifest.")
    if path.stat().st_size == 0:
        raise SlimbenchError(f"{path}: the file is empty (0 bytes); copy it again.")


def _cut(path: Path, start: float | None, seconds: float | None, rate: int, total: int) -> tuple[int, int]:
    """First sample and number of samples to read, at the file's own rate."""
    length = total / rate
    if total <= 0:
        raise SlimbenchError(f"{path}: holds no samples; record it again or take its row out of the manifest.")
    if start is None:
        if seconds is not None and abs(length - seconds) > TOLERANCE:
            raise SlimbenchError(
                f"{path}: lasts {length:.3f} s but {seconds:.3f} s were expected; the file is truncated or another "
                "one, or `seconds` in the manifest is wrong."
            )
        return 0, total
    end = length if seconds is None else start + seconds
    if start < 0 or start >= length or end > length + TOLERANCE:
        raise SlimbenchError(
            f"{path}: the cut {start:.3f} s to {end:.3f} s lies beyond the file's {length:.3f} s; correct `start` and "
            "`seconds` in the manifest."
        )
    first = round(start * rate)
    count = min(round(end * rate), total) - first
    if count <= 0:
        raise SlimbenchError(f"{path}: the cut at {start:.3f} s holds no samples; correct `seconds` in the manifest.")
    return first, count


def _to_mono_16k(data: npt.NDArray[np.float32], rate: int, notes: set[str] | None) -> npt.NDArray[np.float32]:
    """Average the channels of (S, C) and convert to 16 kHz; say both."""
    said: set[str] = set() if notes is None else notes
    channels = data.shape[1]
    mono = data[:, 0]
    if channels > 1:
        mono = data.mean(axis=1, dtype=np.float64).astype(np.float32)
        said.add(f"audio with {channels} channels was averaged to mono")
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ")
        said.add(f"audio at {rate} Hz was converted to {SAMPLE_RATE} Hz")
    return np.ascontiguousarray(mono, dtype=np.float32)


def _check_complete(path: Path, container: str) -> None:
    """Find cut-off files that libsndfile reads as merely shorter ones."""
    with path.open("rb") as file:
        if container in ("WAV", "WAVEX"):
            missing = _riff_missing(file, path.stat().st_size)
            if missing:
                raise SlimbenchError(
                    f"{path}: is truncated: {missing} bytes of the audio that its header announces are not there; "
                    "copy the file again."
                )
        elif container == "OGG" and not _ogg_ends(file, path.stat().st_size):
            raise SlimbenchError(f"{path}: is truncated: its last Ogg page is missing; copy the file again.")


def _riff_missing(file: IO[bytes], size: int) -> int:
    """Bytes that the data chunk of a WAV file announces and the file lacks."""
    file.seek(12)
    while len(header := file.read(8)) == 8:
        announced = int.from_bytes(header[4:], "little")
        if header[:4] == b"data":
            return 0 if announced in _UNKNOWN_SIZES else max(0, file.tell() + announced - size)
        file.seek(announced + announced % 2, os.SEEK_CUR)
    return 0


def _ogg_ends(file: IO[bytes], size: int) -> bool:
    """Whether the last page of an Ogg file carries the end-of-stream flag (RFC 3533) and is all there."""
    file.seek(max(0, size - 65_536))
    tail = file.read()
    page = tail.rfind(b"OggS")
    if page < 0 or len(tail) < page + 27:
        return False
    segments = tail[page + 26]
    table = tail[page + 27 : page + 27 + segments]
    whole = len(table) == segments and len(tail) >= page + 27 + segments + sum(table)
    return whole and bool(tail[page + 5] & 0x04)
