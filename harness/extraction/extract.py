"""Extraction: every distinct piece of audio goes through the frozen upstream once.

All audio is checked before anything is encoded (:mod:`harness.extraction.survey`), then the room on the disk. Batches
are made by length over the whole list, so a killed run that goes on encodes the same batches as an undisturbed one, and
ends with the same features. Decoding runs ahead of the encoder, writing behind it (:mod:`harness.extraction.pipeline`).
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from harness import audio
from harness.extraction.encoding import Encoded, Encoder, check_upstream, compute_type
from harness.extraction.pipeline import Ahead, Behind, Loaded
from harness.extraction.survey import Piece, check_lengths, survey
from harness.identity import digest_bytes
from harness.interface import SAMPLE_RATE, Manifest, Need, SlimbenchError, Upstream, Utterance
from harness.progress import Progress
from harness.store.features import Entry, FeatureStore, sweep

__all__ = [
    "BATCH_SECONDS", "PADDING", "Piece", "batch_seconds", "batches", "bytes_needed", "check_lengths", "check_space",
    "check_upstream", "compute_type", "extract", "free_bytes", "key_of", "missing", "pieces", "survey",
]  # fmt: skip

BATCH_SECONDS = 48.0
"""Padded seconds of audio per batch; one longer utterance makes a batch of its own."""

DEVICE_SECONDS = 240.0
"""The same on a GPU, which shorter batches leave idle; what does not fit its memory is divided."""

PADDING = 1.05
"""Padded per real seconds that no batch exceeds."""

_RESERVE = 64e6
"""Bytes that stay free on the disk beyond the estimate."""


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
    streamed: Collection[str] = (),
) -> dict[str, Piece]:
    """The distinct audio of the tasks ``run``; what is kept of it is the union of the needs of all tasks.

    Args:
        manifests: per task of the suite.
        needs: per task of the suite.
        keys: per task: utterance id → content key.
        run: the tasks whose audio is wanted now.
        changes: per task the effects on its waveforms.
        streamed: tasks that read frames which are not stored.
    """
    reads = {key for task, need in needs.items() if need == "frames" for key in keys[task].values()}
    frames = reads - {key for task in streamed for key in keys[task].values()}
    found: dict[str, Piece] = {}
    for task in run:
        for utterance in manifests[task].utterances:
            key = keys[task][utterance.id]
            done = (changes or {}).get(task, ())
            made = Piece(key, utterance, manifests[task].file, key in frames, done, reads=key in reads)
            piece = found.setdefault(key, made)
            if utterance.seconds != piece.utterance.seconds:
                piece.others.append((utterance, manifests[task].file))
    return found


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
    free = free_bytes(store.folder)
    if needed > free:
        raise SlimbenchError(
            f"{store.folder}: the features need about {needed / 1e6:.0f} MB but only {free / 1e6:.0f} MB are free on "
            "that disk; make room there, name a folder on another disk (make: CACHE=..., slimbench: --cache), or have "
            "frames encoded on demand (make: FRAMES=stream, slimbench: --frames stream)."
        )


def free_bytes(folder: Path) -> float:
    """Bytes that features may take on a folder's disk; the folder need not be there yet."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    return shutil.disk_usage(there).free - _RESERVE


def batches(
    wanted: Iterable[Piece], samples: Mapping[str, int], equal_lengths: bool, seconds: float
) -> list[list[Piece]]:
    """Longest first, at most ``seconds`` of padded audio each and at most :data:`PADDING` times the real seconds.

    Args:
        wanted: the audio; its order does not matter.
        samples: lengths.
        equal_lengths: whether all of a batch must be of one length.
        seconds: bound, which one longer piece may exceed.
    """
    done: list[list[Piece]] = []
    longest = real = 0
    for piece in sorted(wanted, key=lambda p: (-samples[p.key], p.key)):
        length = samples[piece.key]
        padded = (len(done[-1]) + 1) * longest if done else 0
        fits = padded <= seconds * SAMPLE_RATE and padded <= PADDING * (real + length)
        if done and fits and (length == longest or not equal_lengths):
            done[-1].append(piece)
            real += length
        else:
            done.append([piece])
            longest = real = length
    return done


def batch_seconds(device: str) -> float:
    """Padded seconds of audio per batch on a device."""
    return BATCH_SECONDS if torch.device(device).type == "cpu" else DEVICE_SECONDS


def extract(
    upstream: Upstream,
    store: FeatureStore,
    wanted: Mapping[str, Piece],
    samples: Mapping[str, int],
    device: str,
    part: int = 0,
    parts: int = 1,
    workers: int | None = None,
) -> None:
    """Encode what the store lacks of ``wanted``, batch by batch; every batch is kept as soon as it is done.

    Several processes may do this at once on one store: what one of them encodes the others leave to it, and wait for.

    Args:
        upstream: what encodes.
        store: where states go.
        wanted: the distinct audio.
        samples: its lengths.
        device: torch device.
        part: of all batches, every ``parts``-th from this one on is encoded here.
        parts: how many processes share the work.
        workers: threads that decode; by default one per core.

    Raises:
        SlimbenchError: the upstream breaks its promises, the states do not fit the stored precision, or one utterance
            alone does not fit the memory.
    """
    todo = {piece.key for piece in missing(store, wanted.values())}
    if not todo:
        return
    sweep(store.folder)
    check_upstream(upstream, device, store.compute)
    planned = batches(wanted.values(), samples, not upstream.batch_invariant, batch_seconds(device))[part::parts]
    due = [batch for batch in planned if any(piece.key in todo for piece in batch)]
    total = sum(samples[piece.key] for batch in due for piece in batch if piece.key in todo) / SAMPLE_RATE
    encoder, guard = Encoder(upstream, device, store.dtype, store.compute), threading.Lock()
    with (
        Progress(f"encode with {upstream.name}", total, "s audio") as progress,
        Ahead(due, samples, store, guard, encoder.pinned, workers) as ahead,
        Behind() as behind,
    ):
        began = time.perf_counter()
        for loaded in ahead:
            if loaded.pieces:
                encoded = _encode(encoder, loaded)
                took, began = time.perf_counter() - began, time.perf_counter()
                behind.put(_Keep(upstream, store, loaded, encoded, samples, took, guard))
            progress.advance(sum(samples[p.key] for p in loaded.planned if p.key in todo) / SAMPLE_RATE)


def _encode(encoder: Encoder, loaded: Loaded) -> list[Encoded]:
    pieces = loaded.pieces
    keep = [piece.frames for piece in pieces]
    return encoder(loaded.waves, loaded.lengths, keep, [piece.where for piece in pieces])


class _Keep:
    """Storing one encoded batch, for the thread that writes."""

    def __init__(
        self,
        upstream: Upstream,
        store: FeatureStore,
        loaded: Loaded,
        encoded: Sequence[Encoded],
        samples: Mapping[str, int],
        took: float,
        guard: threading.Lock,
    ) -> None:
        self._upstream, self._store, self._loaded, self._encoded = upstream, store, loaded, encoded
        self._samples, self._took, self._guard = samples, took, guard

    def __call__(self) -> None:
        """Check numbers and store; then others may have the claim.

        Raises:
            SlimbenchError: states are no numbers or do not fit the stored precision, or frame counts are wrong.
        """
        with self._loaded.claim:
            entries: list[Entry] = []
            frames: dict[str, Tensor] = {}
            left = list(self._loaded.pieces)
            for encoded in self._encoded:
                encoded.wait()
                batch, left = left[: len(encoded.counts)], left[len(encoded.counts) :]
                check_states(self._upstream, self._store.dtype, batch, encoded)
                counts = dict(zip((piece.key for piece in batch), encoded.counts.tolist(), strict=True))
                kept = [piece.key for piece in batch if piece.frames]
                frames |= {key: encoded.frames[row, :, : counts[key]] for row, key in enumerate(kept)}
                entries += [Entry(p.key, self._samples[p.key] / SAMPLE_RATE, counts[p.key], p.frames) for p in batch]
            with self._guard:
                self._store.save(entries, torch.cat([encoded.means for encoded in self._encoded]), frames, self._took)


def check_states(
    upstream: Upstream, dtype: torch.dtype, batch: Sequence[Piece], encoded: Encoded, every: bool = False
) -> None:
    """See that the states of a batch are numbers, fit the precision of stored frames, and have a length.

    Args:
        upstream: that made them.
        dtype: of stored frames.
        batch: the audio.
        encoded: its states.
        every: whether frames of all of it are used, whatever its tasks.

    Raises:
        SlimbenchError: they do not.
    """
    name, counts = upstream.name, encoded.counts
    if int(counts.min()) < 1 or int(counts.max()) > encoded.longest:
        raise SlimbenchError(
            f"upstream {name}: frame counts {counts.tolist()} do not fit its states of {encoded.longest} frames; "
            "mend its adapter."
        )
    stored = encoded.peaks.to(dtype)
    for piece, peak, kept in zip(batch, encoded.peaks.tolist(), stored.isfinite().tolist(), strict=True):
        if not peak < float("inf"):
            raise SlimbenchError(f"{piece.where}: {name} makes states of it that are no numbers; look at both.")
        if (every or piece.frames or piece.reads) and not kept:
            said = str(dtype).removeprefix("torch.")
            raise SlimbenchError(
                f"{piece.where}: states of {name} reach {peak:.3g}, beyond {said}; write `dtype: float32` into the "
                "suite file."
            )
