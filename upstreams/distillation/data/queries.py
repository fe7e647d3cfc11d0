"""Which clips to ask a victim about, under a budget of seconds: the choice that model extraction rests on.

After "model extraction" of self-supervised speech models (arXiv 2211.16044): a small part of a corpus is sent to the
model under attack, and its representations are learnt. The paper's ways of choosing could not be read; those here are
our own. They see the clips alone and never the victim: what a clip sounds like is the mean and standard deviation of
its log-mel over time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from harness.interface import SAMPLE_RATE, SlimbenchError
from upstreams.students.mini import WINDOW, LogMel

Array = NDArray[np.float64]
CLIENTS = 1000
"""Clips at most that a choice is to represent (facility location); of more, as many are drawn."""


@dataclass(frozen=True)
class Clips:
    """What is known of N clips without the victim.

    Attributes:
        features: (N, F) mean and standard deviation of log-mel, each dimension standardised over the clips.
        seconds: (N,) lengths.
        loudness: (N,) mean mel power over time in dB, good for comparing clips only.
        spread: (N,) how much the spectrum moves: mean over channels of the standard deviation over time.
    """

    features: Array
    seconds: Array
    loudness: Array
    spread: Array

    def __len__(self) -> int:
        return len(self.seconds)


def describe(waves: Iterable[NDArray[np.float32]], mels: int = 40) -> Clips:
    """Describe clips, mono at 16 kHz in [-1, 1].

    Raises:
        SlimbenchError: there is none, or one is shorter than a frame of 25 ms.
    """
    front, rows, seconds, loudness = LogMel(mels), [], [], []
    for number, wave in enumerate(waves):
        if wave.size < WINDOW:
            raise SlimbenchError(f"clip {number} has {wave.size} samples; leave out clips of less than {WINDOW}.")
        with torch.no_grad():
            logmel = front(torch.from_numpy(np.ascontiguousarray(wave, np.float32))[None])[0].double().numpy()
        rows.append(np.concatenate([logmel.mean(0), logmel.std(0)]))
        seconds.append(wave.size / SAMPLE_RATE)
        loudness.append(10 * np.log10(float(np.exp(logmel).mean())))
    if not rows:
        raise SlimbenchError("no clips to choose from; give a pool with some.")
    table = np.stack(rows)
    scaled = (table - table.mean(0)) / (table.std(0) + 1e-9)
    return Clips(scaled, np.array(seconds), np.array(loudness), table[:, mels:].mean(1))


def distances(features: Array, to: Array) -> Array:
    """Euclidean distances (N, M) of rows (N, F) and (M, F)."""
    squares = (features**2).sum(1)[:, None] + (to**2).sum(1)[None] - 2 * features @ to.T
    root: Array = np.sqrt(squares.clip(0))
    return root


def filled(order: Iterable[int], seconds: Array, budget: float) -> list[int]:
    """Clips in an order, each taken if it still fits the budget."""
    chosen, left = [], budget
    for clip in order:
        if seconds[clip] <= left:
            chosen.append(int(clip))
            left -= float(seconds[clip])
    return chosen


def at_random(clips: Clips, budget: float, allowed: NDArray[np.int64], rng: np.random.Generator) -> list[int]:
    """Clips in random order."""
    return filled(rng.permutation(allowed), clips.seconds, budget)


def k_center(clips: Clips, budget: float, allowed: NDArray[np.int64], rng: np.random.Generator) -> list[int]:
    """Greedy k-center: from a random first clip, always the one that lies farthest from all chosen (Gonzalez 1985).

    With clips of equal length the farthest clip left out lies at most twice as far as with the best choice there is.
    """
    fits = allowed[clips.seconds[allowed] <= budget]
    chosen: list[int] = [int(rng.choice(fits))] if len(fits) else []
    left = budget - float(clips.seconds[chosen].sum())
    nearest = np.full(len(clips), np.inf)
    while chosen:
        nearest = np.minimum(nearest, distances(clips.features, clips.features[chosen[-1:]])[:, 0])
        nearest[chosen] = -1.0
        fits = allowed[(clips.seconds[allowed] <= left) & (nearest[allowed] >= 0)]
        if not len(fits):
            break
        chosen.append(int(fits[nearest[fits].argmax()]))
        left -= float(clips.seconds[chosen[-1]])
    return chosen


def similarity(clips: Clips, clients: NDArray[np.int64]) -> Array:
    """(N, M) similarity in (0, 1] of clips to clients: exp(-distance / mean distance)."""
    far = distances(clips.features, clips.features[clients])
    alike: Array = np.exp(-far / max(float(far.mean()), 1e-12))
    return alike


def facility(clips: Clips, budget: float, allowed: NDArray[np.int64], rng: np.random.Generator) -> list[int]:
    """Greedy facility location: the clip that adds most, per second, to the similarity of all clips to a chosen one.

    With clips of equal length the sum is at least 1 - 1/e of that of the best choice (Nemhauser, Wolsey, Fisher 1978).
    """
    clients = allowed if len(allowed) <= CLIENTS else np.sort(rng.choice(allowed, CLIENTS, replace=False))
    alike = similarity(clips, clients)[allowed]
    covered, left = np.zeros(len(clients)), budget
    chosen: list[int] = []
    bound = np.full(len(allowed), np.inf)
    while True:
        bound[clips.seconds[allowed] > left] = -1.0
        fresh = np.zeros(len(allowed), bool)
        while (best := int(bound.argmax())) >= 0 and bound[best] >= 0 and not fresh[best]:
            gain = float(np.maximum(alike[best] - covered, 0).sum())  # gains only shrink, so an old one is a bound
            bound[best], fresh[best] = gain / clips.seconds[allowed[best]], True
        if bound[best] < 0:
            return chosen
        chosen.append(int(allowed[best]))
        left -= float(clips.seconds[allowed[best]])
        covered, bound[best] = np.maximum(covered, alike[best]), -1.0


def lively(clips: Clips, budget: float, allowed: NDArray[np.int64], rng: np.random.Generator) -> list[int]:
    """Clips whose spectrum moves most over time first."""
    return filled(allowed[np.argsort(-clips.spread[allowed], kind="stable")], clips.seconds, budget)


Chooser = Callable[[Clips, float, NDArray[np.int64], np.random.Generator], list[int]]
CHOICES: dict[str, Chooser] = {"random": at_random, "k_center": k_center, "informed": facility, "lively": lively}
"""Ways to choose; ``informed`` is facility location."""


def choose(kind: str, clips: Clips, budget: float, seed: int, quiet: float = 0.0) -> list[int]:
    """Numbers of the clips to ask about, in the order of their choice.

    Args:
        kind: a key of :data:`CHOICES`.
        clips: the pool.
        budget: seconds that may be asked about, all together.
        seed: of all chance; the same seed gives the same clips.
        quiet: share of the clips, the least loud, that are never asked about; not for ``random``.

    Raises:
        SlimbenchError: the kind is unknown, or no clip fits the budget.
    """
    if kind not in CHOICES:
        raise SlimbenchError(f"choice of clips {kind!r} is none of {', '.join(CHOICES)}; correct the recipe.")
    if not 0 <= quiet < 1:
        raise SlimbenchError(f"share of quiet clips {quiet} is not within 0 and 1; correct the recipe.")
    order = np.argsort(clips.loudness, kind="stable")
    skipped = 0 if kind == "random" else int(quiet * len(clips))
    chosen = CHOICES[kind](clips, budget, np.sort(order[skipped:]), np.random.default_rng((seed, 11)))
    if not chosen:
        raise SlimbenchError(f"no clip fits a budget of {budget} s; the shortest has {clips.seconds.min():.2f} s.")
    return chosen
