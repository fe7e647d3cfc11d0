"""The survey: every distinct piece of audio is read and checked once, before anything is encoded.

Reading and checking is done in threads: libsndfile, soxr and NumPy let other threads run while they work. What was
read is remembered by content key, so that the same audio is surveyed once per cache.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness import audio, effects, kept
from harness.interface import SAMPLE_RATE, SlimbenchError, Upstream, Utterance
from harness.progress import Progress

_KEEP_EVERY = 60.0
"""Seconds after which a long survey writes down what it has read so far."""

Known = dict[str, tuple[int, list[str], int]]
"""By content key: samples after the effects, conversions, samples before the effects."""


@dataclass(frozen=True)
class Piece:
    """One distinct piece of audio.

    Attributes:
        key: its content key.
        utterance: the first utterance that names it (path, cut, line).
        manifest: where that utterance stands.
        frames: whether frames of it are stored.
        reads: whether some task of the suite reads frames of it, stored ones or others.
        effects: what is done to its waveform first.
        others: further utterances of the same audio that state another length, and where they stand.
    """

    key: str
    utterance: Utterance
    manifest: Path
    frames: bool
    effects: tuple[str, ...] = ()
    others: list[tuple[Utterance, Path]] = field(default_factory=list)
    reads: bool = False

    @property
    def where(self) -> str:
        """File and line, for messages."""
        return f"{self.utterance.path} ({self.manifest} line {self.utterance.row})"

    def waveform(self) -> NDArray[np.float32]:
        """Its samples (S,) at 16 kHz as the upstream gets them.

        Raises:
            SlimbenchError: it cannot be read any more, or it has not the stated length.
        """
        return self.changed(audio.load(self.utterance.path, self.utterance.start, self.utterance.seconds))

    def changed(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """A waveform after the piece's effects, which may leave nothing."""
        return effects.apply(wave, effects.parse(self.effects)) if self.effects else wave


def threads(at_most: int = 16) -> int:
    """How many threads read audio: one per core that this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(at_most, usable))


def survey(wanted: Mapping[str, Piece], table: Path) -> tuple[dict[str, int], list[str]]:
    """Read all audio once and check it, before anything is encoded.

    Args:
        wanted: the distinct audio.
        table: JSON file that remembers what was read, by content key.

    Returns:
        Samples at 16 kHz per key, and what was converted on the way, one sentence per kind.

    Raises:
        SlimbenchError: a file is missing, empty, truncated, no audio, or has samples that are no numbers; or it has
            not the length that a row of a manifest states. The first one in the order of ``wanted`` is named.
    """
    known = _known(table)
    new = [piece for key, piece in wanted.items() if key not in known]
    if new:
        _read_all(new, known, table)
    for key, piece in wanted.items():
        _check_stated(piece, known[key][2] / SAMPLE_RATE)
    converted: dict[str, list[Piece]] = {}
    for key, piece in wanted.items():
        for note in known[key][1]:
            converted.setdefault(note, []).append(piece)
    said = [
        f"{note}: {len(those)} files, e.g. {those[0].utterance.path.name}" for note, those in sorted(converted.items())
    ]
    return {key: known[key][0] for key in wanted}, said


def _known(table: Path) -> Known:
    return {key: entry for key, entry in (kept.read(table) or {}).items() if len(entry) == 3}


def _read_all(new: list[Piece], known: Known, table: Path) -> None:
    """Read what is new into ``known`` and its file, also where that ends early."""
    saved = time.monotonic()
    pool = ThreadPoolExecutor(threads(), "survey")
    try:
        with Progress("check audio", len(new), "files") as progress:
            for piece, entry in zip(new, pool.map(_read, new), strict=True):
                known[piece.key] = entry
                progress.advance(1)
                if time.monotonic() - saved > _KEEP_EVERY:
                    _keep(known, table)
                    saved = time.monotonic()
    finally:
        pool.shutdown(cancel_futures=True)
        _keep(known, table)


def _keep(known: Known, table: Path) -> None:
    """Write the table, with what other processes have written into it since."""
    kept.write(table, {**_known(table), **known})


def _read(piece: Piece) -> tuple[int, list[str], int]:
    notes: set[str] = set()
    start = piece.utterance.start
    seconds = None if start is None else piece.utterance.seconds  # a whole file's length is checked for every row
    wave = audio.load(piece.utterance.path, start, seconds, notes)
    return len(piece.changed(wave)), sorted(notes), len(wave)


def _check_stated(piece: Piece, length: float) -> None:
    """Compare what the manifests state on a whole file with its ``length`` in seconds.

    A cut cannot be wrong here: what is stated is in its content key, and reading it has checked that it is there.
    """
    if piece.utterance.start is not None:
        return
    for utterance, file in ((piece.utterance, piece.manifest), *piece.others):
        if abs(length - utterance.seconds) > audio.TOLERANCE:
            raise SlimbenchError(
                f"{utterance.path} ({file} line {utterance.row}): lasts {length:.3f} s but {utterance.seconds:.3f} s "
                "were expected; the file is truncated or another one, or `seconds` in that row is wrong."
            )


def check_lengths(wanted: Mapping[str, Piece], samples: Mapping[str, int], upstream: Upstream) -> None:
    """Refuse audio from which the upstream makes no frame.

    Raises:
        SlimbenchError: an utterance is shorter than one frame of the upstream.
    """
    for key, piece in wanted.items():
        if samples[key] < upstream.min_samples:
            after = f" after '{', '.join(piece.effects)}'" if piece.effects else ""
            raise SlimbenchError(
                f"{piece.where}: {samples[key] / SAMPLE_RATE:.4f} s{after} are too short for one frame of "
                f"{upstream.name}, which needs {upstream.min_samples / SAMPLE_RATE:.4f} s; take the row out or give "
                "longer audio."
            )
