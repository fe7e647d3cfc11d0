"""The sox effects that SUPERB applies to audio, without sox: ``gain`` and ``silence``.

SUPERB's keyword spotting, speaker verification and query-by-example read audio through torchaudio's sox effects (s3prl
``downstream/{speech_commands,sv_voxceleb1,quesst14_dtw}/dataset.py``), which torchaudio has dropped. This module was
written from sox's manual and from how the program answers to probes. It returns the float32 samples that torchaudio
2.0.2 returned, bit for bit: sox computes on 32-bit integers, and torchaudio rounded its results to 24 bits (at most
2**-25 from the integer over 2**31). The sox program differs in one point: where ``silence`` has no ``gain`` before it,
it looks at only as many bits of the level as the file has per sample; torchaudio, and this module, at all 32.

SUPERB's other two effects belong to reading (``harness.audio``). ``channels 1`` averages. ``rate 16000`` leaves audio
at 16 kHz as it is, and so are VoxCeleb and Speech Commands. At other rates soxr HQ stands in, of the same author and
design as sox's ``rate``. Measured on 60 files of real speech brought to 8, 22.05, 44.1 and 48 kHz: as many samples; at
most 5e-4 of full scale apart, and the RMS of the difference at least 69 dB below that of the speech (median 87 to
94 dB). After ``gain -3`` and SUPERB's ``silence``, 238 of the 240 results had the same length, two differed by 1 or 2
samples.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.interface import SAMPLE_RATE, SlimbenchError

__all__ = ["Effect", "Gain", "Silence", "apply", "parse"]

_Samples = npt.NDArray[np.float64]
"""sox's samples: integers of 32 bits, held in floats of 64."""

_LOWEST, _HIGHEST = -(2**31), 2**31 - 1
_STEP = 128
"""Of 32-bit samples: the rounding to 24 bits that torchaudio's float32 output implies."""
_WINDOW = SAMPLE_RATE // 50
"""Samples that ``silence`` measures the level over: 20 ms."""
_BLOCK = 8192
"""Samples whose level is computed at a time."""


@dataclass(frozen=True)
class Gain:
    """Amplify.

    Attributes:
        decibels: the gain. Samples beyond full scale are clipped, as in sox.
    """

    decibels: float


@dataclass(frozen=True)
class Silence:
    """Cut silence away at the start and, where ``pause`` is given, every pause.

    Sound is what lies above a threshold for some time; what comes before is dropped. From then on everything is
    kept until a pause, the same the other way round, which is dropped; then sound is looked for anew.

    Attributes:
        sound: samples in a row that must be above the threshold.
        sound_percent: that threshold, in percent of full scale, of the RMS over 20 ms.
        pause: samples in a row that must not be above the threshold; ``None`` keeps all after the first sound.
        pause_percent: that threshold.
    """

    sound: int
    sound_percent: float
    pause: int | None = None
    pause_percent: float = 0.0


Effect = Gain | Silence

_NUMBER = r"\d{1,9}(?:\.\d{1,12})?"
_GAIN = re.compile(rf"gain\s+([+-]?{_NUMBER})")
_SILENCE = re.compile(rf"silence\s+1\s+({_NUMBER})\s+({_NUMBER})%(?:\s+-1\s+({_NUMBER})\s+({_NUMBER})%)?")


def parse(words: Sequence[str]) -> tuple[Effect, ...]:
    """Read effects as sox writes them.

    Args:
        words: one string per effect: ``gain DB``, ``silence 1 DURATION PERCENT%`` or ``silence 1 DURATION PERCENT% -1
            DURATION PERCENT%``. As in sox, a duration with a decimal point is in seconds and one without in samples.

    Raises:
        SlimbenchError: a string is none of these, or has a gain beyond 200 dB, a threshold beyond 100 % or a duration
            below one sample.
    """
    return tuple(_effect(text) for text in words)


def _effect(text: str) -> Effect:
    if match := _GAIN.fullmatch(text.strip()):
        return Gain(_at_most(text, match[1], 200))
    match = _SILENCE.fullmatch(text.strip())
    if match is None:
        raise SlimbenchError(
            f"effect {text!r}: is not known; write `gain DB` or `silence 1 DURATION PERCENT% [-1 DURATION PERCENT%]`, "
            "e.g. `gain -3` or `silence 1 0.1 0.1% -1 0.1 0.1%`."
        )
    sound, pause = _duration(text, match[1]), None if match[3] is None else _duration(text, match[3])
    return Silence(sound, _at_most(text, match[2], 100), pause, _at_most(text, match[4] or "0", 100))


def _at_most(text: str, number: str, bound: int) -> float:
    """The number, between -bound and bound."""
    if abs(float(number)) > bound:
        raise SlimbenchError(f"effect {text!r}: {number} is beyond {bound}; give a number within it.")
    return float(number)


def _duration(text: str, number: str) -> int:
    """Samples of a duration."""
    samples = math.floor(float(number) * SAMPLE_RATE + 0.5) if "." in number else int(number)
    if samples < 1:
        raise SlimbenchError(f"effect {text!r}: the duration {number} is below one sample; give a longer one.")
    return samples


def apply(wave: npt.NDArray[np.float32], effects: Sequence[Effect]) -> npt.NDArray[np.float32]:
    """Apply effects, one after the other.

    Args:
        wave: (S,) float32, mono at 16 kHz, in [-1, 1]; beyond that it is clipped.
        effects: from :func:`parse`.

    Returns:
        (S',) float32, as torchaudio's ``apply_effects_file`` returned it: sox's 32-bit samples rounded to 24 bits,
        over 2**31. (0,) where ``silence`` leaves nothing.
    """
    samples = _clip_round(wave.astype(np.float64) * 2.0**31)
    for effect in effects:
        if isinstance(effect, Silence):
            samples = _without_silence(samples, effect)
        elif effect.decibels != 0:
            samples = _clip_round(samples * 10.0 ** (effect.decibels / 20))
    return (np.floor((samples + _STEP / 2) / _STEP) * (_STEP / 2.0**31)).astype(np.float32)


def _clip_round(samples: _Samples) -> _Samples:
    """Nearest 32-bit integers, halves away from zero."""
    rounded: _Samples = np.trunc(samples + np.copysign(0.5, samples))
    return np.clip(rounded, _LOWEST, _HIGHEST, out=rounded)


def _without_silence(samples: _Samples, effect: Silence) -> _Samples:
    """What ``silence`` keeps of ``samples`` (S,).

    A pause that the end cuts short is kept; sound that the end cuts short is not.
    """
    level = _Level(samples)
    sound_limit = _limit(effect.sound_percent)
    pause_limit = _limit(effect.pause_percent)
    kept: list[_Samples] = []
    start: int | None = 0
    while start is not None:
        level.restart(start)
        heard = level.first_run(start, effect.sound, sound_limit, above=True)
        if heard is None:
            break
        paused = None
        if effect.pause is not None:
            paused = level.first_run(heard + effect.sound, effect.pause, pause_limit, above=False)
        kept.append(samples[heard:paused])
        start = None if paused is None or effect.pause is None else paused + effect.pause
    return np.concatenate(kept) if kept else samples[:0]


def _limit(percent: float) -> int:
    """Lowest level (a whole number) that lies above ``percent`` of full scale."""
    limit = int(percent / 100 * _HIGHEST)
    while limit / _HIGHEST * 100 <= percent:
        limit += 1
    return limit


class _Level:
    """RMS over the last 20 ms, for each sample, computed block by block as far as it is asked for.

    sox keeps a running sum of squares in 64-bit floats: each sample takes the oldest square away and adds its own.
    The same operations in the same order, so that even their rounding errors are the same.
    """

    def __init__(self, samples: _Samples) -> None:
        self._squares = samples * samples
        self._level: _Samples = np.empty_like(samples)
        self.restart(0)

    def restart(self, start: int) -> None:
        """Forget what was heard before ``start``: the window is full of zeros."""
        self._start = self._known = start
        self._sum = 0.0

    def first_run(self, begin: int, count: int, limit: int, above: bool) -> int | None:
        """Where the first ``count`` samples in a row begin, from ``begin`` on, whose level reaches ``limit`` or not.

        Args:
            begin: first sample that counts.
            count: length of the run.
            limit: the level.
            above: look for samples whose level is at least ``limit``; otherwise for those below.
        """
        while True:
            matches = (self._level[begin : self._known] >= limit) == above
            edges = np.flatnonzero(np.diff(matches, prepend=False, append=False))
            begins, ends = edges[::2], edges[1::2]
            long = np.flatnonzero(ends - begins >= count)
            if long.size:
                return begin + int(begins[long[0]])
            if self._known == self._level.size:
                return None
            # The last run may go on in the next block.
            begin = begin + int(begins[-1]) if matches.size and matches[-1] else max(begin, self._known)
            self._extend()

    def _extend(self) -> None:
        """Compute the next block."""
        low, high = self._known, min(self._known + _BLOCK, self._level.size)
        terms = np.zeros(1 + 2 * (high - low))
        terms[0] = self._sum
        oldest = max(low - _WINDOW, self._start)
        leaving = self._squares[oldest : max(high - _WINDOW, oldest)]
        terms[1::2][high - low - leaving.size :] = -leaving
        terms[2::2] = self._squares[low:high]
        sums = np.cumsum(terms)[2::2]
        self._sum, self._known = float(sums[-1]), high
        # Rounding can leave a sum just below zero in digital silence; sox counts that as silence too.
        np.sqrt(np.maximum(sums, 0) / _WINDOW, out=self._level[low:high])
