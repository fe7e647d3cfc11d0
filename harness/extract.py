"""Extraction: every distinct piece of audio goes through the frozen upstream once.

All audio is checked before anything is encoded, then the room on the disk. Batches are made by length over the whole
list, so a killed run that goes on encodes the same batches as an undisturbed one, and ends with the same features.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from harness import audio, effects, kept
from harness.conformance import INVARIANCE, apart, misshapen, noise
from harness.features import Entry, FeatureStore, sweep
from harness.identity import digest_bytes
from harness.interface import SAMPLE_RATE, HiddenStates, Manifest, Need, SlimbenchError, Upstream, Utterance
from harness.progress import Progress

BATCH_SECONDS = 48.0
"""Padded seconds of audio per batch; one longer utterance makes a batch of its own."""

_RESERVE = 64e6
"""Bytes that stay free on the disk beyond the estimate."""


@dataclass(frozen=True)
class Piece:
    """One distinct piece of audio.

    Attributes:
        key: its content key.
        utterance: the first utterance that names it (path, cut, line).
        manifest: where that utterance stands.
        frames: whether some task of the suite reads frames of it.
        effects: what is done to its waveform first.
        others: further utterances of the same audio that state another length, and where they stand.
    """

    key: str
    utterance: Utterance
    manifest: Path
    frames: bool
    effects: tuple[str, ...] = ()
    others: list[tuple[Utterance, Path]] = field(default_factory=list)

    @property
    def where(self) -> str:
        """File and line, for messages."""
        return f"{self.utterance.path} ({self.manifest} line {self.utterance.row})"


def key_of(utterance: Utterance, digests: Mapping[Path, str], changes: Sequence[str] = ()) -> str:
    """Content key of an utterance, from the digests of the files and what is done to the waveform."""
    key = audio.audio_key(digests[utterance.path], utterance.start, utterance.seconds)
    return digest_bytes(f"{key}:{';'.join(changes)}".encode()) if changes else key


def pieces(
    manifests: Mapping[str, Manifest],
    needs: Mapping[str, Need],
    keys: Mapping[str, Mapping[str, str]],
    run: Iterable[str],
    changes: Mapping[str, tuple[str, ...]] | None = None,
) -> dict[str, Piece]:
    """The distinct audio of the tasks ``run``; what is kept of it is the union of the needs of all tasks.

    Args:
        manifests: per task of the suite.
        needs: per task of the suite.
        keys: per task: utterance id → content key.
        run: the tasks whose audio is wanted now.
        changes: per task the effects on its waveforms.
    """
    frames = {key for task, need in needs.items() if need == "frames" for key in keys[task].values()}
    found: dict[str, Piece] = {}
    for task in run:
        for utterance in manifests[task].utterances:
            key = keys[task][utterance.id]
            done = (changes or {}).get(task, ())
            piece = found.setdefault(key, Piece(key, utterance, manifests[task].file, key in frames, done))
            if utterance.seconds != piece.utterance.seconds:
                piece.others.append((utterance, manifests[task].file))
    return found


def survey(wanted: Mapping[str, Piece], table: Path) -> tuple[dict[str, int], list[str]]:
    """Read all audio once and check it, before anything is encoded.

    Args:
        wanted: the distinct audio.
        table: JSON file that remembers what was read, by content key.

    Returns:
        Samples at 16 kHz per key, and what was converted on the way, one sentence per kind.

    Raises:
        SlimbenchError: a file is missing, empty, truncated, no audio, or has samples that are no numbers; or it has
            not the length that a row of a manifest states.
    """
    seen = (kept.read(table) or {}).items()
    known: dict[str, tuple[int, list[str], int]] = {key: entry for key, entry in seen if len(entry) == 3}
    new = [piece for key, piece in wanted.items() if key not in known]
    if new:
        with Progress("check audio", len(new), "files") as progress:
            for piece in new:
                notes: set[str] = set()
                start = piece.utterance.start
                seconds = None if start is None else piece.utterance.seconds  # a whole file's length is checked below
                wave = audio.load(piece.utterance.path, start, seconds, notes)
                known[piece.key] = (len(_changed(wave, piece)), sorted(notes), len(wave))
                progress.advance(1)
        kept.write(table, known)
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


def _changed(wave: NDArray[np.float32], piece: Piece) -> NDArray[np.float32]:
    """The waveform after the piece's effects, which may leave nothing."""
    return effects.apply(wave, effects.parse(piece.effects)) if piece.effects else wave


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


def missing(store: FeatureStore, wanted: Iterable[Piece]) -> list[Piece]:
    """What has still to be encoded."""
    return [piece for piece in wanted if not store.has(piece.key, piece.frames)]


def bytes_needed(store: FeatureStore, wanted: Iterable[Piece]) -> float:
    """Estimated bytes that the features of what is missing will take."""
    return sum(store.bytes_needed(piece.utterance.seconds, piece.frames) for piece in missing(store, wanted))


def check_space(store: FeatureStore, wanted: Iterable[Piece]) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        SlimbenchError: the features of what is missing need more than is free.
    """
    needed = bytes_needed(store, wanted)
    if not needed:
        return
    store.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(store.folder).free
    if needed + _RESERVE > free:
        raise SlimbenchError(
            f"{store.folder}: the features need about {needed / 1e6:.0f} MB but only {free / 1e6:.0f} MB are free on "
            "that disk; make room there, or name a folder on another disk (make: CACHE=..., slimbench: --cache)."
        )


def batches(
    wanted: Iterable[Piece], samples: Mapping[str, int], equal_lengths: bool, seconds: float
) -> list[list[Piece]]:
    """Longest first, at most ``seconds`` of padded audio each; of one length only where ``equal_lengths``."""
    done: list[list[Piece]] = []
    for piece in sorted(wanted, key=lambda p: (-samples[p.key], p.key)):
        longest = samples[done[-1][0].key] if done else 0
        room = done and (len(done[-1]) + 1) * longest <= seconds * SAMPLE_RATE
        if room and (samples[piece.key] == longest or not equal_lengths):
            done[-1].append(piece)
        else:
            done.append([piece])
    return done


def extract(
    upstream: Upstream,
    store: FeatureStore,
    wanted: Mapping[str, Piece],
    samples: Mapping[str, int],
    device: str,
    part: int = 0,
    parts: int = 1,
) -> None:
    """Encode what the store lacks of ``wanted``, batch by batch; every batch is kept as soon as it is done.

    Args:
        upstream: what encodes.
        store: where states go.
        wanted: the distinct audio.
        samples: its lengths.
        device: torch device.
        part: of all batches, every ``parts``-th from this one on is encoded here.
        parts: how many processes share the work.

    Raises:
        SlimbenchError: the upstream breaks its promises, or the states do not fit the stored precision.
    """
    todo = {piece.key for piece in missing(store, wanted.values())}
    if not todo:
        return
    sweep(store.folder)
    check_upstream(upstream, device)
    total = sum(samples[key] for key in todo) / SAMPLE_RATE
    with Progress(f"encode with {upstream.name}", total, "s audio") as progress:
        for planned in batches(wanted.values(), samples, not upstream.batch_invariant, BATCH_SECONDS)[part::parts]:
            batch = [piece for piece in planned if piece.key in todo]
            if batch:
                _encode(upstream, store, batch, samples, device)
                progress.advance(sum(samples[piece.key] for piece in batch) / SAMPLE_RATE)


def check_upstream(upstream: Upstream, device: str) -> None:
    """Try the upstream on noise: shapes, and states that do not depend on what shares the batch.

    Raises:
        SlimbenchError: with what is wrong and what its author can do.
    """
    short = max(2 * upstream.min_samples, SAMPLE_RATE // 4)
    waves = [noise(2 * short if upstream.batch_invariant else short), noise(short, 1)]
    together, alone = _tried(upstream, waves, device), _tried(upstream, waves[1:], device)
    distance, layer = apart(upstream.name, alone, 0, together, 1)
    if not distance <= INVARIANCE:
        raise SlimbenchError(
            f"upstream {upstream.name}: state {layer} depends on what else is in the batch (by {distance:.2g} of its "
            "standard deviation); "
            + (
                "set batch_invariant to false in its adapter, or use the padding mask."
                if upstream.batch_invariant
                else "also where all lengths are equal; mend its adapter."
            )
        )


def _tried(upstream: Upstream, waves: list[Tensor], device: str) -> HiddenStates:
    return _run(upstream, pad_sequence(waves, batch_first=True), torch.tensor([len(wave) for wave in waves]), device)


def _run(upstream: Upstream, waves: Tensor, lengths: Tensor, device: str) -> HiddenStates:
    """Encode and check shapes; the result is on the CPU in float32."""
    with torch.inference_mode():
        hidden = upstream.encode(waves.to(device), lengths.to(device))
    if fault := misshapen(upstream, hidden, len(waves)):
        raise SlimbenchError(f"upstream {upstream.name}: {fault}; mend its adapter.")
    return HiddenStates([state.float().cpu() for state in hidden.states], hidden.lengths.cpu(), hidden.frame_ms)


def _encode(
    upstream: Upstream, store: FeatureStore, batch: Sequence[Piece], samples: Mapping[str, int], device: str
) -> None:
    began = time.perf_counter()
    lengths = torch.tensor([samples[piece.key] for piece in batch])
    waves = torch.zeros(len(batch), int(lengths.max()))
    for row, piece in enumerate(batch):
        wave = _changed(audio.load(piece.utterance.path, piece.utterance.start, piece.utterance.seconds), piece)
        waves[row, : len(wave)] = torch.from_numpy(wave)
    hidden = _run(upstream, waves, lengths, device)
    entries, means, frames = [], [], {}
    for row, piece in enumerate(batch):
        count = int(hidden.lengths[row])
        states = torch.stack([state[row, :count] for state in hidden.states])
        if not torch.isfinite(states).all():
            raise SlimbenchError(
                f"{piece.where}: {upstream.name} makes states of it that are no numbers; look at both."
            )
        means.append(states.mean(dim=1))
        if piece.frames:
            frames[piece.key] = _fits(states, store.dtype, piece, upstream)
        entries.append(Entry(piece.key, samples[piece.key] / SAMPLE_RATE, count, piece.frames))
    store.save(entries, torch.stack(means), frames, time.perf_counter() - began)


def _fits(states: Tensor, dtype: torch.dtype, piece: Piece, upstream: Upstream) -> Tensor:
    stored = states.to(dtype)
    if not torch.isfinite(stored).all():
        raise SlimbenchError(
            f"{piece.where}: states of {upstream.name} reach {float(states.abs().max()):.3g}, beyond float16; "
            "write `dtype: float32` into the suite file."
        )
    return stored
