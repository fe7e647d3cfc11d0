"""The feature store: what an upstream makes of each piece of audio, kept once under a key of contents.

One folder per upstream content and setting. It holds shards, each one batch that was encoded, each one safetensors
file that appears whole or not at all. For every piece of audio a shard holds the time means of all states (L, D)
float32, and, where a task of the suite reads frames, the states (L, T, D). Keys are contents; names never are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness.identity import digest_json
from harness.interface import SlimbenchError, Upstream
from harness.processes import alive

EXTRACTION_VERSION = 1
"""Raised when extraction changes what is stored for the same upstream and audio."""

_OPEN_SHARDS = 256


@dataclass(frozen=True)
class Entry:
    """One piece of audio in a shard: its key, seconds of audio, frames T, and whether frames are stored."""

    key: str
    seconds: float
    num_frames: int
    frames: bool


@dataclass(frozen=True)
class Ledger:
    """What was spent on a set of audio: every encoding counts, repeated ones too.

    Attributes:
        encoded_seconds: seconds of audio that went through the upstream.
        distinct_seconds: seconds of distinct audio among them.
        wall_seconds: time it took.
    """

    encoded_seconds: float
    distinct_seconds: float
    wall_seconds: float

    @property
    def ratio(self) -> float:
        """Encoded per distinct second; 1 where nothing was encoded twice."""
        return self.encoded_seconds / self.distinct_seconds if self.distinct_seconds else 1.0


def settings(dtype: str) -> dict[str, Any]:
    """The settings of extraction that are part of every key."""
    return {"extraction": EXTRACTION_VERSION, "dtype": dtype}


class FeatureStore:
    """The shards of one upstream under one set of settings.

    Args:
        cache: the cache folder; the store is ``<cache>/features/<16 hex digits>``.
        upstream: its fingerprint, not its name, makes the key.
        dtype: stored precision of frames, ``float16`` or ``float32``.

    Raises:
        SlimbenchError: a shard is damaged.
    """

    def __init__(self, cache: Path, upstream: Upstream, dtype: str = "float16") -> None:
        self.num_states, self.width, self.frame_ms = upstream.num_states, upstream.width, upstream.frame_ms
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.folder = cache / "features" / digest_json({"upstream": upstream.fingerprint, **settings(dtype)})[:16]
        self._open = lru_cache(maxsize=_OPEN_SHARDS)(_open)
        self._places: dict[str, tuple[Path, Entry]] = {}
        self._rows: dict[str, int] = {}
        self._encodings: list[tuple[float, tuple[Entry, ...]]] = []
        self._shards: set[Path] = set()
        self.refresh()

    def refresh(self) -> None:
        """Take in the shards that other processes have written since."""
        for shard in sorted(self.folder.glob("*.safetensors")):
            if shard not in self._shards:
                self._index(shard)

    def has(self, key: str, frames: bool) -> bool:
        """Whether what a task reads of this audio is stored."""
        return key in self._places and (self._places[key][1].frames or not frames)

    def ledger(self, keys: set[str]) -> Ledger:
        """What was spent so far on the stored part of ``keys``, in this run and in earlier ones."""
        encoded = wall = 0.0
        for seconds, entries in self._encodings:
            mine = sum(entry.seconds for entry in entries if entry.key in keys)
            encoded += mine
            wall += seconds * mine / max(sum(entry.seconds for entry in entries), 1e-9)
        distinct = sum(entry.seconds for key, (_, entry) in self._places.items() if key in keys)
        return Ledger(encoded, distinct, wall)

    def bytes_needed(self, seconds: float, frames: bool) -> float:
        """Estimated bytes on disk of one piece of audio."""
        pooled = self.num_states * self.width * 4
        stored = self.num_states * self.width * self.dtype.itemsize * seconds * 1000 / self.frame_ms
        return 512 + pooled + (stored if frames else 0.0)

    def save(self, entries: Sequence[Entry], pooled: Tensor, frames: Mapping[str, Tensor], wall_seconds: float) -> None:
        """Store one encoded batch, atomically.

        Args:
            entries: one per piece of audio.
            pooled: (N, L, D) float32 time means in the order of ``entries``.
            frames: (L, T, D) per key, of those whose entry says so.
            wall_seconds: time the encoding took.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        name = digest_json([asdict(entry) for entry in entries])[:16]
        shard, again = self.folder / f"{name}.safetensors", 1
        while shard.exists():  # a second encoding of the same batch must show in the ledger, so it hides no first one
            again += 1
            shard = self.folder / f"{name}-{again}.safetensors"
        tensors = {"pooled": pooled.contiguous(), **{key: x.to(self.dtype).contiguous() for key, x in frames.items()}}
        metadata = {"entries": json.dumps([asdict(entry) for entry in entries]), "wall_seconds": repr(wall_seconds)}
        partial = shard.with_name(f".{shard.name}.{os.getpid()}")
        try:
            save_file(tensors, partial, metadata=metadata)
            partial.replace(shard)
        except SafetensorError as error:
            raise SlimbenchError(
                f"{shard}: features cannot be written ({error}); make room and repeat the command, it goes on."
            ) from error
        finally:
            partial.unlink(missing_ok=True)
        self._index(shard)

    def pooled(self, keys: Sequence[str]) -> Tensor:
        """Time means (N, L, D) float32."""
        table = torch.empty(len(keys), self.num_states, self.width)
        wanted: dict[Path, list[tuple[int, str]]] = {}
        for row, key in enumerate(keys):
            wanted.setdefault(self._places[key][0], []).append((row, key))
        for shard, rows in wanted.items():
            stored = self._open(shard).get_tensor("pooled")
            table[[row for row, _ in rows]] = stored[[self._rows[key] for _, key in rows]]
        return table

    def frames(self, key: str) -> Tensor:
        """All states (L, T, D) in the stored precision."""
        tensor: Tensor = self._open(self._places[key][0]).get_tensor(key)
        return tensor

    def num_frames(self, key: str) -> int:
        """T of one piece of audio."""
        return self._places[key][1].num_frames

    def _index(self, shard: Path) -> None:
        metadata = self._open(shard).metadata()
        self._shards.add(shard)
        entries = tuple(Entry(**entry) for entry in json.loads(metadata["entries"]))
        self._encodings.append((float(metadata["wall_seconds"]), entries))
        for row, entry in enumerate(entries):
            if entry.frames or entry.key not in self._places:
                self._places[entry.key], self._rows[entry.key] = (shard, entry), row


class TaskFeatures:
    """The store seen by one task: utterance ids instead of keys. A :class:`harness.interface.FeatureSource`."""

    def __init__(self, store: FeatureStore, keys: Mapping[str, str]) -> None:
        self.num_states, self.width, self.frame_ms = store.num_states, store.width, store.frame_ms
        self._store, self._keys = store, keys

    def pooled(self, ids: Sequence[str]) -> Tensor:
        """Time means (N, L, D) float32."""
        return self._store.pooled([self._keys[utterance] for utterance in ids])

    def frames(self, utterance_id: str) -> Tensor:
        """All states of one utterance (L, T, D)."""
        return self._store.frames(self._keys[utterance_id])

    def num_frames(self, utterance_id: str) -> int:
        """T of one utterance."""
        return self._store.num_frames(self._keys[utterance_id])


def sweep(folder: Path) -> None:
    """Remove what killed runs left half-written in a store."""
    for partial in folder.glob(".*.safetensors.*"):
        if not alive(int(partial.suffix[1:])):
            partial.unlink(missing_ok=True)


def _open(shard: Path) -> Any:
    try:
        return safe_open(shard, framework="pt")
    except (SafetensorError, OSError) as error:
        raise SlimbenchError(
            f"{shard}: this shard of stored features is damaged ({error}); delete it, it is made again."
        ) from error
