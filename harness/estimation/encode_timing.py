"""Timing the upstream: a few of the batches that it will be given, through the code that will do it."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import soundfile
import torch

from harness.estimation.loads import Load
from harness.extraction import extract
from harness.identity import digest_bytes
from harness.interface import SAMPLE_RATE, Upstream, Utterance
from harness.store.features import FeatureStore

SECONDS = 3.0
"""How long encoding is timed."""
MOST = 12
"""Batches that are timed at most."""


@dataclass(frozen=True)
class Encoding:
    """What going over audio takes.

    Attributes:
        start: seconds that extraction takes before its first batch.
        second: seconds of work per second of audio: reading, encoding, storing.
        check: seconds per second of audio of the check before it.
    """

    start: float
    second: float
    check: float


def time_encoding(
    upstream: Upstream,
    wanted: Mapping[str, extract.Piece],
    device: str,
    dtype: str,
    folder: Path,
    compute: str = "float32",
) -> Encoding:
    """Encode evenly spaced batches of ``wanted`` into stores that are thrown away.

    Args:
        upstream: what encodes.
        wanted: the audio that the bench will encode.
        device: torch device.
        dtype: stored precision of frames.
        folder: for those stores.
        compute: precision of the upstream's products.
    """
    with redirect_stderr(io.StringIO()):  # progress lines of work that nobody asked for
        return _timed(_Coder(upstream, device, dtype, compute), wanted, folder)


def _timed(coder: _Coder, wanted: Mapping[str, extract.Piece], folder: Path) -> Encoding:
    upstream, device = coder.upstream, coder.device
    stated = {key: round(piece.utterance.seconds * SAMPLE_RATE) for key, piece in wanted.items()}
    batches = extract.batches(wanted.values(), stated, not upstream.batch_invariant, extract.batch_seconds(device))
    middle = [batches[len(batches) // 2]]
    began = time.perf_counter()
    samples = _survey(middle, folder / "first.json")
    check = (time.perf_counter() - began) / _audio(middle)
    cold = coder.encode(middle, samples, folder / "cold")
    warm = coder.encode(middle, samples, folder / "warm")
    count = min(MOST, len(batches), max(2, int(SECONDS / warm)))
    if count < 2:
        return Encoding(max(0.0, cold - warm), warm / _audio(middle), check)
    chosen = [batches[round((number + 0.5) * len(batches) / count - 0.5)] for number in range(count)]
    began = time.perf_counter()
    samples |= _survey(chosen, folder / "all.json")
    check = (time.perf_counter() - began) / _audio(chosen)
    took = coder.encode(chosen, samples, folder / "all")
    more = _audio(chosen) - _audio(middle)
    second = (took - warm) / more if took > warm and more > 0 else took / _audio(chosen)
    return Encoding(max(0.0, cold - second * _audio(middle)), second, check)


def _survey(batches: Sequence[Sequence[extract.Piece]], table: Path) -> dict[str, int]:
    return extract.survey({piece.key: piece for batch in batches for piece in batch}, table)[0]


@dataclass(frozen=True)
class _Coder:
    """An upstream with the settings of extraction."""

    upstream: Upstream
    device: str
    dtype: str
    compute: str

    def encode(self, batches: Sequence[Sequence[extract.Piece]], samples: Mapping[str, int], folder: Path) -> float:
        """Seconds that batches take into a store in ``folder``."""
        wanted = {piece.key: piece for batch in batches for piece in batch}
        store = FeatureStore(folder, self.upstream, self.dtype, self.compute)
        began = time.perf_counter()
        extract.extract(self.upstream, store, wanted, {key: samples[key] for key in wanted}, self.device)
        return time.perf_counter() - began


def _audio(batches: Sequence[Sequence[extract.Piece]]) -> float:
    return sum(piece.utterance.seconds for batch in batches for piece in batch)


def noise_pieces(loads: Sequence[Load], folder: Path) -> dict[str, extract.Piece]:
    """Files of noise as long as the utterances of loads without data: some batches' worth.

    Args:
        loads: their manifests say how long.
        folder: where the files go.
    """
    made: dict[str, extract.Piece] = {}
    draw = torch.Generator().manual_seed(0)
    for load in loads:
        total, room = 0.0, MOST / 2 * extract.BATCH_SECONDS / len(loads)
        for row in load.manifest.split("train"):
            file = folder / f"{load.name}-{row.id}.wav"
            wave = 0.1 * torch.randn(round(row.seconds * SAMPLE_RATE), generator=draw)
            soundfile.write(file, wave.numpy(), SAMPLE_RATE)
            key = digest_bytes(file.name.encode())
            whole = Utterance(file.stem, "train", file, "", "", "", None, len(wave) / SAMPLE_RATE, 0)
            frames = load.task.need == "frames"
            made[key] = extract.Piece(key, whole, load.manifest.file, frames, load.protocol.effects)
            total += row.seconds
            if total > room:
                break
    return made
