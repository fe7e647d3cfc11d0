"""Frames without a disk for them: utterances are encoded when a batch asks for them.

Time means and numbers of frames come from the store, which one cheap pass over the audio has filled and which has
checked all of it. States are computed and rounded as stored ones are. The most recent ones stay in memory up to a
bound, so that tasks that are trained in step (:func:`harness.probes.probe.train_together`) and ask for the same
utterances at the same step share one encoding. All trials of a task share it anyway.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from harness.extraction.encoding import Encoder
from harness.extraction.extract import batch_seconds, batches, check_states
from harness.extraction.survey import Piece, threads
from harness.interface import SAMPLE_RATE, SlimbenchError, Upstream
from harness.processes import free_memory
from harness.store.features import FeatureStore

MEMORY_SHARE = 0.25
"""Part of the free memory that states may take which are kept for whoever asks next."""


class OnDemand:
    """Encodes pieces of audio when they are asked for. All tasks of a bench share one.

    Args:
        upstream: what encodes.
        store: has the means and numbers of frames; frames that it holds all the same are read, not encoded.
        pieces: the audio by content key.
        samples: its lengths by content key.
        device: torch device that encodes; states are returned on the CPU.
        bound: bytes of states that are kept. What one call returns comes on top.

    Attributes:
        encodings: how often an utterance went through the upstream, in total.
        encoded_seconds: of audio, in total.
        held: bytes that are kept now.
    """

    def __init__(
        self,
        upstream: Upstream,
        store: FeatureStore,
        pieces: Mapping[str, Piece],
        samples: Mapping[str, int],
        device: str,
        bound: int | None = None,
    ) -> None:
        self.upstream, self.store, self.pieces, self.samples = upstream, store, pieces, samples
        self.bound = memory_bound() if bound is None else bound
        self.encodings = 0
        self.encoded_seconds = 0.0
        self.held = 0
        self._encoder = Encoder(upstream, device, store.dtype, store.compute)
        self._most = batch_seconds(device)
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._decoders = ThreadPoolExecutor(threads(), "decode")

    def states(self, keys: Sequence[str]) -> list[Tensor]:
        """All states (L, T, D) of each piece, in the store's precision.

        Raises:
            SlimbenchError: audio has changed since it was checked, or its states do not fit the stored precision.
        """
        found: dict[str, Tensor] = {}
        wanted: list[Piece] = []
        for key in dict.fromkeys(keys):
            if key in self._kept:
                self._kept.move_to_end(key)
                found[key] = self._kept[key]
            elif self.store.has(key, frames=True):
                found[key] = self.store.frames(key)
            else:
                wanted.append(self.pieces[key])
        for batch in batches(wanted, self.samples, not self.upstream.batch_invariant, self._most):
            made = self._encode(batch)
            for piece, states in zip(batch, made, strict=True):
                found[piece.key] = states
                self._keep(piece.key, states)
        return [found[key] for key in keys]

    def _encode(self, batch: Sequence[Piece]) -> list[Tensor]:
        lengths = [self.samples[piece.key] for piece in batch]
        waves = torch.zeros(len(batch), max(lengths), pin_memory=self._encoder.pinned)
        table = waves.numpy()
        for row, wave in enumerate(self._decoders.map(Piece.waveform, batch)):
            if len(wave) != lengths[row]:
                raise SlimbenchError(f"{batch[row].where}: has changed since it was checked; repeat the command.")
            table[row, : len(wave)] = wave
        made: list[Tensor] = []
        for part in self._encoder(waves, lengths, [True] * len(batch), [piece.where for piece in batch]):
            part.wait()
            rest = batch[len(made) :][: len(part.counts)]
            check_states(self.upstream, self.store.dtype, rest, part, every=True)
            made += [frames[:, :count].clone() for frames, count in zip(part.frames, part.counts.tolist(), strict=True)]
        self.encodings += len(batch)
        self.encoded_seconds += sum(lengths) / SAMPLE_RATE
        return made

    def _keep(self, key: str, states: Tensor) -> None:
        """Keep the latest states as far as the bound allows, and let the oldest go."""
        self._kept[key] = states
        self.held += states.nbytes
        while self.held > self.bound:
            _, oldest = self._kept.popitem(last=False)
            self.held -= oldest.nbytes


class Streamed:
    """The states of one task's utterances, encoded on demand. A :class:`harness.interface.FeatureSource`."""

    stored = False

    def __init__(self, encoder: OnDemand, keys: Mapping[str, str]) -> None:
        store = encoder.store
        self.num_states, self.width, self.frame_ms = store.num_states, store.width, store.frame_ms
        self._encoder, self._keys = encoder, keys

    def pooled(self, ids: Sequence[str]) -> Tensor:
        """Time means (N, L, D) float32, from the store."""
        return self._encoder.store.pooled([self._keys[utterance] for utterance in ids])

    def frames(self, utterance_id: str) -> Tensor:
        """All states of one utterance (L, T, D)."""
        return self.fetch([utterance_id])[0]

    def fetch(self, ids: Sequence[str]) -> list[Tensor]:
        """All states of some utterances, (L, T, D) each."""
        return self._encoder.states([self._keys[utterance] for utterance in ids])

    @property
    def encoded_seconds(self) -> float:
        """Of audio that its encoder has encoded so far, for this task or others."""
        return self._encoder.encoded_seconds

    def num_frames(self, utterance_id: str) -> int:
        """T of one utterance, from the store."""
        return self._encoder.store.num_frames(self._keys[utterance_id])


def memory_bound() -> int:
    """Bytes of states that may be kept, by the memory that is free now."""
    return int(MEMORY_SHARE * free_memory())
