"""Batches on their way: claimed and decoded ahead of the encoder, written behind it.

Three threads and a pool work at once: one claims batches and lays out their waveforms, which the pool decodes; the
caller's encodes; one writes shards. The queues between them are short. Batches come in the order of the list but for
those that another process holds, which are looked at again in the end. The pool is one of threads: libsndfile, soxr
and NumPy let others run while they work, and only a few tenths of a millisecond per file are Python.

What is stored depends on none of this: which utterances share a batch is decided before.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from harness.extraction.spans import Spans
from harness.extraction.survey import Piece, threads
from harness.identity import digest_json
from harness.interface import SlimbenchError
from harness.progress import say
from harness.store.features import FeatureStore

AHEAD = 3
"""Batches that are claimed and decoded ahead of the one that is encoded."""

BEHIND = 2
"""Batches that wait to be written."""

POLL = 0.2
"""Seconds between two looks at batches that other processes hold."""

_SPANS = "encoding"


@dataclass(frozen=True)
class Loaded:
    """A batch that only we encode.

    Attributes:
        pieces: what the store lacks of it; empty where another process was faster.
        planned: all of it.
        waves: (N, S) float32, padded with zeros.
        lengths: valid samples of each.
        claim: closed once the batch is stored.
    """

    pieces: tuple[Piece, ...]
    planned: tuple[Piece, ...]
    waves: Tensor
    lengths: list[int]
    claim: ExitStack


class Ahead:
    """Claims and decodes batches ahead of the caller, who iterates over them.

    Args:
        batches: what is planned.
        samples: length of each piece.
        store: what it has already is not encoded again.
        guard: held while the store's books are touched.
        pinned: whether waveforms lie in pinned memory.
        workers: threads that decode; by default one per core.
    """

    def __init__(
        self,
        batches: Sequence[Sequence[Piece]],
        samples: Mapping[str, int],
        store: FeatureStore,
        guard: threading.Lock,
        pinned: bool,
        workers: int | None = None,
    ) -> None:
        self._left = deque(tuple(batch) for batch in batches)
        self._refused, self._said = 0, False
        self._samples, self._store, self._guard, self._pinned = samples, store, guard, pinned
        self._stop = threading.Event()
        self._spans = Spans(lock_file(store))
        self._decoders = ThreadPoolExecutor(workers or threads(), "decode")
        self._feeder = ThreadPoolExecutor(1, "feed")
        self._open: set[ExitStack] = set()

    def __iter__(self) -> Iterator[Loaded]:
        """The batches, those that another process has stored without waveforms.

        Raises:
            SlimbenchError: audio cannot be read, in its place in the order.
        """
        waiting: deque[Future[Loaded | None]] = deque(self._feeder.submit(self._next) for _ in range(AHEAD))
        while (loaded := waiting.popleft().result()) is not None:
            waiting.append(self._feeder.submit(self._next))
            yield loaded

    def _next(self) -> Loaded | None:
        """Claim and decode the next batch that nobody else holds; ``None`` at the end."""
        while self._left and not self._stop.is_set():
            planned = self._left.popleft()
            pieces = self._missing(planned)
            if not pieces:
                return self._load((), planned, ExitStack())
            claim = self._claim(planned)
            if claim is not None:
                self._refused = 0
                return self._load(self._missing(planned), planned, claim)
            self._left.append(planned)
            self._refused += 1
            if self._refused >= len(self._left):
                self._wait()
        return None

    def _missing(self, planned: tuple[Piece, ...]) -> tuple[Piece, ...]:
        return tuple(piece for piece in planned if not self._store.has(piece.key, piece.frames))

    def _claim(self, planned: tuple[Piece, ...]) -> ExitStack | None:
        """Claim a batch; afterwards the store knows what others have stored until then."""
        first, last = stretch(planned, self._samples)
        if not self._spans.take(first, last):
            return None
        claim = ExitStack()
        claim.callback(self._spans.give, first, last)
        with self._guard:
            mine = claim.enter_context(self._store.claim(digest_json([piece.key for piece in planned]), wait=False))
        if not mine:
            claim.close()
            return None
        self._open.add(claim)
        claim.callback(self._open.discard, claim)
        return claim

    def _wait(self) -> None:
        """All that is left is held by others: wait a little."""
        if not self._said:
            self._said = True
            say("note: another process encodes the same audio for this store; waiting for what it has begun")
        self._refused = 0
        self._stop.wait(POLL)

    def _load(self, pieces: tuple[Piece, ...], planned: tuple[Piece, ...], claim: ExitStack) -> Loaded:
        lengths = [self._samples[piece.key] for piece in pieces]
        pinned = self._pinned and bool(pieces)
        waves = torch.zeros(len(pieces), max(lengths, default=0), pin_memory=pinned)
        table = waves.numpy()  # filled by NumPy, whose copies start no threads of their own beside the encoder's
        for row, wave in enumerate(self._decoders.map(Piece.waveform, pieces)):
            if len(wave) != lengths[row]:
                raise SlimbenchError(f"{pieces[row].where}: has changed since it was checked; repeat the command.")
            table[row, : len(wave)] = wave
        if not pieces:
            claim.close()
        return Loaded(pieces, planned, waves, lengths, claim)

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and let all claims go."""
        self._stop.set()
        self._feeder.shutdown(cancel_futures=True)
        self._decoders.shutdown(cancel_futures=True)
        for claim in list(self._open):
            claim.close()
        self._spans.__exit__(kind, error, trace)


class Behind:
    """Calls in a thread of their own, in order; a caller who is too fast waits."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "write")
        self._waiting: deque[Future[None]] = deque()

    def put(self, call: Callable[[], None]) -> None:
        """Have it called soon.

        Raises:
            SlimbenchError: as an earlier call did.
        """
        while len(self._waiting) >= BEHIND or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(call))

    def finish(self) -> None:
        """Wait until everything is done.

        Raises:
            SlimbenchError: as the first call that failed did.
        """
        while self._waiting:
            self._waiting.popleft().result()

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do what was put, also after an error elsewhere: it is whole, and nobody has to do it again."""
        try:
            if kind is None:
                self.finish()
        finally:
            self._thread.shutdown()


def stretch(batch: Sequence[Piece], samples: Mapping[str, int]) -> tuple[int, int]:
    """First and last place of a batch on the line of all audio, which is ordered by length, then by key."""
    places = [(samples[piece.key] << 32) + 0xFFFFFFFF - int(piece.key[:8], 16) for piece in batch]
    return min(places), max(places)


def lock_file(store: FeatureStore) -> Path:
    """The file on which processes claim stretches of the audio that a store is to have."""
    return store.folder / ".locks" / _SPANS
