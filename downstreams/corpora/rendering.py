"""From a line of a plan to a WAV file: voice, acted style, room, noise and level, all drawn from the item's own seed.

Items know nothing of each other, so the result does not depend on their order or on the number of processes.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import wave as wavfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness import synthesis
from harness.interface import SAMPLE_RATE
from harness.synthesis import Synthesiser, Voice, Wave

CHUNK = 8
"""Items per message to a worker process."""


@dataclass(frozen=True)
class Style:
    """A way to act, as a rule of prosody: factors and offsets to a voice, and a loudness contour.

    Attributes:
        rate: factor on the speaking rate.
        pitch: offset to the base pitch, espeak units.
        pitch_range: factor on the pitch range.
        emphasis: exponent on the loudness envelope; above 1 strong syllables stand out, below 1 all are alike.
        fall: decibels by which the loudness falls from beginning to end; negative rises.
    """

    rate: float = 1.0
    pitch: float = 0.0
    pitch_range: float = 1.0
    emphasis: float = 1.0
    fall: float = 0.0


STYLES: dict[str, Style] = {
    "neutral": Style(),
    "happy": Style(rate=1.08, pitch=16, pitch_range=2.0, emphasis=1.1, fall=-6),
    "angry": Style(rate=1.25, pitch=5, pitch_range=1.2, emphasis=2.0, fall=0),
    "sad": Style(rate=0.76, pitch=-14, pitch_range=0.4, emphasis=0.7, fall=12),
}


@dataclass(frozen=True)
class Item:
    """One piece of audio to be made.

    Attributes:
        path: where it goes, relative to the folder of the suite.
        spoken: the text; empty for a clip without speech.
        voice: who speaks; ``None`` for a clip without speech.
        style: name of one of :data:`STYLES`.
        seconds: exact length, the speech at a random place in it; ``None`` for as long as the speech.
    """

    path: str
    spoken: str
    voice: Voice | None
    style: str = "neutral"
    seconds: float | None = None


def render(item: Item, seed: int, engine: Synthesiser) -> NDArray[np.int16]:
    """Make the audio of one item: (S,) int16 at 16 kHz."""
    key = int.from_bytes(hashlib.sha256(item.path.encode()).digest()[:8], "big")
    rng = np.random.default_rng([seed, key])
    if item.voice is None:
        samples = round((item.seconds or 1.0) * SAMPLE_RATE)
        heard = _noise(rng, samples)
        return _quantise(synthesis.set_level(heard, float(rng.uniform(-55.0, -28.0))))
    engine.renew(int(rng.integers(1, 2**31 - 1)))
    speech = _act(item.spoken, item.voice, STYLES[item.style], rng, engine)
    speech = _place(speech, item.seconds, rng)
    if rng.random() < 0.6:
        speech = synthesis.room(speech, rng, float(rng.uniform(0.1, 0.5)), float(rng.uniform(0.0, 12.0)))
    speech = synthesis.add_noise(speech, _noise(rng, speech.size), float(rng.uniform(8.0, 30.0)))
    return _quantise(synthesis.set_level(speech, float(rng.uniform(-32.0, -20.0))))


def render_all(
    items: Sequence[Item], folder: Path, seed: int, workers: int, progress: Callable[[int, int], None] | None
) -> dict[str, float]:
    """Make and write all items; returns seconds per path.

    Args:
        items: what to make.
        folder: root of the suite; sub-folders are made.
        seed: seed of the suite.
        workers: processes; 1 works in this one.
        progress: called as (done, total).
    """
    for parent in {(folder / item.path).parent for item in items}:
        parent.mkdir(parents=True, exist_ok=True)
    seconds = {}
    for done, (path, samples) in enumerate(_written(items, folder, seed, workers), start=1):
        seconds[path] = samples / SAMPLE_RATE
        if progress is not None:
            progress(done, len(items))
    return seconds


def _written(items: Sequence[Item], folder: Path, seed: int, workers: int) -> Iterator[tuple[str, int]]:
    if workers <= 1:
        _start()
        try:
            yield from map(partial(_write, folder=folder, seed=seed), items)
        finally:
            _engine.pop().close()
        return
    # Spawned, not forked: the caller may hold threads, and libespeak-ng is a global state of a process.
    with multiprocessing.get_context("spawn").Pool(workers, initializer=_start) as pool:
        yield from pool.imap_unordered(partial(_write, folder=folder, seed=seed), items, chunksize=CHUNK)


_engine: list[Synthesiser] = []
"""The engine of this process while it renders."""


def _start() -> None:
    _engine.append(Synthesiser())


def _write(item: Item, folder: Path, seed: int) -> tuple[str, int]:
    samples = render(item, seed, _engine[0])
    with wavfile.open(str(folder / item.path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return item.path, int(samples.size)


def _act(text: str, voice: Voice, style: Style, rng: np.random.Generator, engine: Synthesiser) -> Wave:
    """Speak as this voice in this style; no voice says anything twice in quite the same way."""
    strength = float(rng.uniform(0.7, 1.2))

    def factor(full: float) -> float:
        return float(full**strength * rng.uniform(0.95, 1.05))

    acted = replace(
        voice,
        rate=round(np.clip(voice.rate * factor(style.rate), 100, 300)),
        pitch=round(np.clip(voice.pitch + style.pitch * strength + rng.uniform(-2.5, 2.5), 0, 99)),
        pitch_range=round(np.clip(voice.pitch_range * factor(style.pitch_range), 0, 99)),
    )
    speech = engine.speak(text, acted)
    emphasis = float(style.emphasis**strength)
    if emphasis != 1.0:
        speech = speech * _envelope(speech) ** (emphasis - 1.0)
    ramp = np.linspace(0.0, 1.0, speech.size)
    return np.asarray(speech * 10.0 ** (-style.fall * strength * ramp / 20.0), dtype=np.float64)


def _envelope(speech: Wave, seconds: float = 0.08) -> Wave:
    """Loudness over time, relative to its maximum and not below 0.05."""
    width = int(seconds * SAMPLE_RATE)
    total = np.concatenate(([0.0], np.cumsum(np.pad(speech**2, (width // 2, width - width // 2 - 1)))))
    level = np.sqrt(np.maximum(total[width:] - total[:-width], 0.0))
    return np.asarray(np.maximum(level / max(1e-9, float(level.max())), 0.05), dtype=np.float64)


def _place(speech: Wave, seconds: float | None, rng: np.random.Generator) -> Wave:
    """Put speech at a random place in a clip of exact length (longer speech loses both ends), or between pauses."""
    if seconds is None:
        before, after = (int(rng.integers(0, SAMPLE_RATE // 10)) for _ in range(2))
        return np.pad(speech, (before, after))
    samples = round(seconds * SAMPLE_RATE)
    spare = samples - speech.size
    if spare < 0:
        return speech[-spare // 2 :][:samples]
    before = int(rng.integers(0, spare + 1))
    return np.pad(speech, (before, spare - before))


def _noise(rng: np.random.Generator, samples: int) -> Wave:
    """White, pink, or pink with the slow loudness of babble."""
    tilt, modulation = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.8))[int(rng.integers(3))]
    return synthesis.coloured_noise(rng, samples, tilt, modulation)


def _quantise(wave: Wave) -> NDArray[np.int16]:
    return np.clip(np.round(wave * 32768.0), -32768, 32767).astype(np.int16)
