"""The feature store: what an upstream makes of each piece of audio, kept once under a key of contents.

One folder per upstream content and setting. It holds shards (:mod:`harness.store.shards`), each one batch that was
encoded, each a file that appears whole or not at all. For every piece of audio a shard holds the time means of all
states (L, D) float32, and, where a task of the suite reads frames, the states (L, T, D). Keys are contents; names never
are. Several processes may read and write one store.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from math import fsum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import claims, kept
from harness.identity import digest_bytes, digest_json
from harness.interface import Upstream
from harness.processes import alive
from harness.store import shards
from harness.store.journal import unwritable
from harness.store.shards import Entry, OpenShard, Shard

__all__ = ["EXTRACTION_VERSION", "Entry", "FeatureStore", "Ledger", "TaskFeatures", "settings", "sweep"]

EXTRACTION_VERSION = 1
"""Raised when extraction changes what is stored for the same upstream and audio."""

ABOUT = "about.json"
"""File of a store that says for people what it is of; nothing is looked up by it."""

LOCKS = ".locks"
IN_USE = "in-use"

_OPEN_SHARDS = 256
_ENTRY_BYTES = 640.0
"""What headers and index say of one piece of audio."""


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


def settings(dtype: str, compute: str = "float32") -> dict[str, Any]:
    """The settings of extraction that are part of every key.

    Args:
        dtype: in which frames are stored.
        compute: precision of products (:func:`harness.extraction.encoding.compute_type`); float32 is not mentioned.
    """
    return {"extraction": EXTRACTION_VERSION, "dtype": dtype, **({} if compute == "float32" else {"compute": compute})}


class FeatureStore:
    """The shards of one upstream under one set of settings.

    As long as it exists, no other process makes room by deleting from this store.

    Args:
        cache: the cache folder; the store is ``<cache>/features/<16 hex digits>``.
        upstream: its fingerprint, not its name, makes the key.
        dtype: stored precision of frames, ``float16``, ``bfloat16`` or ``float32``.
        compute: precision of the upstream's products, ``float32`` or ``bfloat16``.

    Raises:
        SlimbenchError: a shard is damaged.
    """

    def __init__(self, cache: Path, upstream: Upstream, dtype: str = "float16", compute: str = "float32") -> None:
        self.num_states, self.width, self.frame_ms = upstream.num_states, upstream.width, upstream.frame_ms
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.compute = compute
        identity = {"upstream": upstream.fingerprint, **settings(dtype, compute)}
        self.folder = cache / "features" / digest_json(identity)[:16]
        self._about = {**identity, "frame_ms": self.frame_ms, "name": upstream.name}
        self._opened = lru_cache(maxsize=_OPEN_SHARDS)(_open)
        self._index = shards.Index(self.folder)
        self._places: dict[str, tuple[str, int, Entry]] = {}  # by key: shard, row of its mean, entry
        self._taken: set[str] = set()
        self._held: int | None = None
        self._guard = threading.RLock()  # threads that load, encode and write share the store
        self.refresh()

    def refresh(self) -> None:
        """Take in the shards that other processes have written since, and forget those that are gone.

        Raises:
            SlimbenchError: a new shard is damaged.
        """
        with self._guard:
            self._hold()
            if self._index.refresh():
                self._take()

    @contextmanager
    def claim(self, name: str, wait: bool) -> Iterator[bool]:
        """Claim a piece of work on this store, so that of several processes one does it.

        Once the claim is held, the store knows what others have stored until then: look at :meth:`has` first.

        Args:
            name: of the work, e.g. the digest of a batch's keys; any text.
            wait: until whoever holds the claim is done; otherwise do not wait.

        Yields:
            Whether this process may do it now; always true after waiting.
        """
        file = self.folder / LOCKS / f"{digest_bytes(name.encode())[:32]}{claims.SUFFIX}"
        with claims.claim(file, wait) as mine:
            if mine:
                with self._guard:
                    if self._index.catch_up():
                        self._take()
            yield mine

    def has(self, key: str, frames: bool) -> bool:
        """Whether what a task reads of this audio is stored."""
        place = self._places.get(key)
        return place is not None and (place[2].frames or not frames)

    def ledger(self, keys: set[str]) -> Ledger:
        """What was spent so far on the stored part of ``keys``, in this run and in earlier ones."""
        encoded, wall = [], []
        with self._guard:
            known = list(self._index.shards.values())
        for shard in known:
            mine = [entry.seconds for entry in shard.entries if entry.key in keys]
            encoded += mine
            wall.append(shard.wall_seconds * fsum(mine) / max(fsum(entry.seconds for entry in shard.entries), 1e-9))
        distinct = (self._places[key][2].seconds for key in keys if key in self._places)
        return Ledger(fsum(encoded), fsum(distinct), fsum(wall))  # exact sums: the order of shards does not matter

    def bytes_needed(self, seconds: float, frames: bool) -> float:
        """Estimated bytes on disk of one piece of audio."""
        pooled = self.num_states * self.width * 4
        stored = self.num_states * self.width * self.dtype.itemsize * seconds * 1000 / self.frame_ms
        return _ENTRY_BYTES + pooled + (stored if frames else 0.0)

    def save(self, entries: Sequence[Entry], pooled: Tensor, frames: Mapping[str, Tensor], wall_seconds: float) -> None:
        """Store one encoded batch, atomically.

        Args:
            entries: one per piece of audio.
            pooled: (N, L, D) float32 time means in the order of ``entries``.
            frames: (L, T, D) per key, of those whose entry says so.
            wall_seconds: time the encoding took.
        """
        with self._guard:
            self._hold(make=True)
        tensors = {"pooled": pooled, **{key: x.to(self.dtype) for key, x in frames.items()}}
        shard = shards.write(self.folder, entries, tensors, wall_seconds)
        with self._guard:
            self._index.add(shard)
            self._enter(shard)

    def pooled(self, keys: Sequence[str]) -> Tensor:
        """Time means (N, L, D) float32.

        Raises:
            SlimbenchError: a shard is damaged or gone.
        """
        table = torch.empty(len(keys), self.num_states, self.width)
        wanted: dict[str, list[tuple[int, int]]] = {}
        for row, key in enumerate(keys):
            shard, place, _ = self._places[key]
            wanted.setdefault(shard, []).append((row, place))
        for shard, rows in wanted.items():
            stored = self._opened(self.folder / shard).read("pooled")
            table[[row for row, _ in rows]] = stored[[place for _, place in rows]]
        return table

    def frames(self, key: str) -> Tensor:
        """All states (L, T, D) in the stored precision, memory-mapped.

        Raises:
            SlimbenchError: the shard is damaged or gone.
        """
        return self._opened(self.folder / self._places[key][0]).read(key)

    def num_frames(self, key: str) -> int:
        """T of one piece of audio."""
        return self._places[key][2].num_frames

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Keep others out, if nobody else uses this store now.

        Yields:
            Whether nobody does, so that shards that this process does not need may be deleted.
        """
        if self._held is None or not claims.alone(self._held):
            yield False
            return
        try:
            yield True
        finally:
            claims.share(self._held)

    def shards_of(self, keys: set[str]) -> set[str]:
        """The shards that hold the features of ``keys``, by name."""
        return {self._places[key][0] for key in keys if key in self._places}

    def drop(self, names: Sequence[str]) -> None:
        """Delete shards."""
        for name in names:
            (self.folder / name).unlink(missing_ok=True)
        with self._guard:
            self._index.drop(names)
            self._take()

    def _take(self) -> None:
        """Know the audio of all shards."""
        if self._taken - self._index.shards.keys():
            self._places, self._taken = {}, set()
            self._opened.cache_clear()
        for name in self._index.shards.keys() - self._taken:
            self._enter(self._index.shards[name])

    def _enter(self, shard: Shard) -> None:
        """Of two shards with the same audio the one with frames is read, then the one that is first by name."""
        self._taken.add(shard.name)
        for row, entry in enumerate(shard.entries):
            known = self._places.get(entry.key)
            if known is None or (not entry.frames, shard.name) < (not known[2].frames, known[0]):
                self._places[entry.key] = shard.name, row, entry

    def _hold(self, make: bool = False) -> None:
        """Where there is a store: say to other processes that it is in use, and to people what it is of."""
        while self._held is None:
            if make:
                self.folder.mkdir(parents=True, exist_ok=True)
            elif not self.folder.is_dir():
                return
            try:
                (self.folder / LOCKS).mkdir(exist_ok=True)
                self._held = claims.hold(self.folder / LOCKS / IN_USE, shared=True)
                weakref.finalize(self, os.close, self._held)
                introduce(self.folder, self._about)
            except FileNotFoundError:  # another process has just deleted the last shard of an unused store
                continue
            except OSError as error:
                if not unwritable(error):
                    raise
                return


class TaskFeatures:
    """The store seen by one task: utterance ids instead of keys. A :class:`harness.interface.FeatureSource`."""

    stored = True

    def __init__(self, store: FeatureStore, keys: Mapping[str, str]) -> None:
        self.num_states, self.width, self.frame_ms = store.num_states, store.width, store.frame_ms
        self._store, self._keys = store, keys

    def pooled(self, ids: Sequence[str]) -> Tensor:
        """Time means (N, L, D) float32."""
        return self._store.pooled([self._keys[utterance] for utterance in ids])

    def frames(self, utterance_id: str) -> Tensor:
        """All states of one utterance (L, T, D)."""
        return self._store.frames(self._keys[utterance_id])

    def fetch(self, ids: Sequence[str]) -> list[Tensor]:
        """All states of some utterances, (L, T, D) each."""
        return [self.frames(utterance) for utterance in ids]

    def num_frames(self, utterance_id: str) -> int:
        """T of one utterance."""
        return self._store.num_frames(self._keys[utterance_id])


def introduce(folder: Path, about: Mapping[str, Any]) -> None:
    """Write down what a store is of; its upstream may have several names, which are all kept."""
    known = kept.read(folder / ABOUT) or {"names": []}
    if about["name"] not in known["names"]:
        rest = {field: value for field, value in about.items() if field != "name"}
        kept.write(folder / ABOUT, {**rest, "names": [*known["names"], about["name"]]})


def sweep(folder: Path) -> None:
    """Remove what killed runs left half-written in a store."""
    for partial in folder.glob(".*.safetensors.*"):
        if not alive(int(partial.suffix[1:])):
            partial.unlink(missing_ok=True)
    claims.sweep(folder / LOCKS)


def _open(file: Path) -> OpenShard:
    opened = OpenShard(file)
    shards.used(file)
    return opened
