"""What an upstream promises, and how far a try on made-up sound bears it out: the terms in which the points speak.

A :class:`Point` is one promise. It looks at a :class:`Subject`, an upstream with what it made of the test signals, and
gives a :class:`Result`. The points stand in :mod:`harness.conformance.points`, :mod:`harness.conformance.checking`
tries them all, :mod:`harness.extraction.extract` the few without which features must not be stored.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.cards import Card
from harness.interface import SAMPLE_RATE, HiddenStates, SlimbenchError, Upstream

INVARIANCE = 1e-3
"""How far a state may move, in units of its standard deviation, when other audio or padding shares the batch."""

LONG = 30 * SAMPLE_RATE
"""Samples of the long test signal."""

_EVEN = 1e-6
"""Standard deviation below which a state counts as constant."""


@dataclass(frozen=True)
class Result:
    """How one point went.

    Attributes:
        name: of the point.
        passed: whether the promise was kept.
        figure: what was seen, with numbers.
        meaning: what it means where the promise is not kept.
        remedy: how to mend that.
    """

    name: str
    passed: bool
    figure: str
    meaning: str
    remedy: str


class Subject:
    """An upstream under test. What the points share is computed once, when the first of them asks.

    Args:
        card: its card.
        load: loads it afresh.
        device: where it runs.
    """

    def __init__(self, card: Card, load: Callable[[], Upstream], device: str = "cpu") -> None:
        self.card, self.device = card, device
        self._load = load

    @cached_property
    def upstream(self) -> Upstream:
        """The upstream, loaded once."""
        return self._load()

    @cached_property
    def second(self) -> tuple[Upstream, bool]:
        """The upstream loaded once more, and whether that left the random numbers of the caller alone."""
        before = random_state()
        again = self._load()
        return again, random_state() == before

    @property
    def short(self) -> int:
        """Samples of a short test signal: at least 0.25 s, and room for two frames."""
        return max(2 * self.upstream.min_samples, SAMPLE_RATE // 4)

    def encode(self, waves: Sequence[Tensor], padding: int = 0, upstream: Upstream | None = None) -> HiddenStates:
        """States of some waveforms in one batch, on the CPU, in the type in which they come.

        Args:
            waves: one (S,) each.
            padding: samples of silence after the longest.
            upstream: another one than the upstream under test.
        """
        lengths = torch.tensor([len(wave) for wave in waves])
        batch = torch.zeros(len(waves), int(lengths.max()) + padding)
        for row, wave in zip(batch, waves, strict=True):
            row[: len(wave)] = wave
        with torch.inference_mode():
            hidden = (upstream or self.upstream).encode(batch.to(self.device), lengths.to(self.device))
        return HiddenStates([state.cpu() for state in hidden.states], hidden.lengths.cpu(), hidden.frame_ms)

    @cached_property
    def noise(self) -> HiddenStates:
        """States of one second of noise."""
        return self.encode([noise(SAMPLE_RATE)])

    @cached_property
    def long(self) -> HiddenStates:
        """States of 30 s of noise."""
        return self.encode([noise(LONG, 1)])

    @cached_property
    def shortest(self) -> HiddenStates:
        """States of noise of ``min_samples``."""
        return self.encode([noise(self.upstream.min_samples)])


@dataclass(frozen=True)
class Point:
    """One promise: its name, what breaking it means, how to mend that, and how to look at it.

    ``look`` returns whether the promise is kept, and what was seen. What it raises is a promise not kept as well.
    """

    name: str
    meaning: str
    remedy: str
    look: Callable[[Subject], tuple[bool, str]]

    def __call__(self, subject: Subject) -> Result:
        """Try the promise."""
        try:
            passed, figure = self.look(subject)
        except SlimbenchError as error:
            passed, figure = False, str(error)
        except Exception as error:  # the code under test may raise anything, and the other points are still of use
            reason = " ".join(str(error).split())
            passed, figure = False, f"{type(error).__name__}: {reason or 'without a word'}"
        return Result(self.name, passed, figure, self.meaning, self.remedy)


def point(name: str, meaning: str, remedy: str) -> Callable[[Callable[[Subject], tuple[bool, str]]], Point]:
    """Make a point of a function that looks at a subject."""

    def made(look: Callable[[Subject], tuple[bool, str]]) -> Point:
        return Point(name, meaning, remedy, look)

    return made


def noise(samples: int, seed: int = 0) -> Tensor:
    """White noise (samples,) of standard deviation 0.1, the same for the same seed."""
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def random_state() -> tuple[Any, ...]:
    """The states of the global random number generators on the CPU: torch's, Python's, NumPy's."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), (kind, keys.tobytes(), *rest)  # type: ignore[union-attr]


def misshapen(upstream: Upstream, hidden: HiddenStates, utterances: int) -> str:
    """What is wrong with the number and the shapes of states, or nothing; one clause, to go on after a colon."""
    shapes = {tuple(state.shape) for state in hidden.states}
    good = len(hidden.states) == upstream.num_states and len(shapes) == 1 and hidden.lengths.shape == (utterances,)
    if not good or any(len(s) != 3 or s[0] != utterances or s[2] != upstream.width for s in shapes):
        return (
            f"gave {len(hidden.states)} states of shapes {sorted(shapes)} for {utterances} utterances, where "
            f"{upstream.num_states} of width {upstream.width} were promised"
        )
    frames = hidden.lengths
    if int(frames.min()) < 1 or int(frames.max()) > hidden.states[0].shape[1]:
        return f"frame counts {frames.tolist()} do not fit its states of {hidden.states[0].shape[1]} frames"
    return ""


def moved(subject: Subject, waves: Sequence[Tensor], padding: int = 0) -> tuple[float, int]:
    """How far states move when waveforms share a batch, against each of them alone.

    Args:
        subject: the upstream.
        waves: waveforms (S,) that are encoded together.
        padding: samples of silence after the longest.

    Returns:
        As :func:`apart`, of the utterance that moves most.

    Raises:
        SlimbenchError: not even the number of frames is the same.
    """
    together = subject.encode(waves, padding)
    alone = (subject.encode([wave]) for wave in waves)
    return max(
        (apart(subject.upstream.name, one, 0, together, row) for row, one in enumerate(alone)),
        key=lambda found: math.inf if math.isnan(found[0]) else found[0],
    )


def apart(name: str, one: HiddenStates, row: int, other: HiddenStates, other_row: int) -> tuple[float, int]:
    """The largest difference of the states of one utterance in two batches, and the state that has it.

    The unit is the standard deviation of that state in the first batch. NaN counts as the largest.

    Raises:
        SlimbenchError: the number of frames differs.
    """
    frames, others = int(one.lengths[row]), int(other.lengths[other_row])
    if frames != others:
        raise SlimbenchError(
            f"upstream {name}: the number of frames depends on the batch ({frames} or {others}); mend its adapter."
        )
    worst, where = 0.0, 0
    for layer, (first, second) in enumerate(zip(one.states, other.states, strict=True)):
        own, shared = first[row, :frames].double(), second[other_row, :frames].double()
        distance = float((own - shared).abs().max() / own.std(correction=0).clamp_min(_EVEN))
        if math.isnan(distance):
            return distance, layer
        if distance > worst:
            worst, where = distance, layer
    return worst, where
