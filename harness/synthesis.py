"""Synthetic speech: espeak-ng voices, rooms and noise, deterministic by seed.

The engine is libespeak-ng (from the ``espeakng-loader`` wheel, which carries the library and its data) called
synchronously through ctypes. It keeps global state, so one process has one :class:`Synthesiser`. All effects
run in float64: results differ between processors by some 1e-15, which rounding to 16 bits removes.
"""

from __future__ import annotations

import _ctypes
import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from harness.interface import SAMPLE_RATE, SlimbenchError

Wave = NDArray[np.float64]

TRAIN_VARIANTS: tuple[str, ...] = tuple(
    (
        "Alex Andrea Andy Annie Denis Diogo Gene Henrique Hugo Jacky Lee Marco Michael Mike adam anika antonio aunty "
        "belinda boris caleb david ed edward f1 f2 f4 grandma gustave iven iven2 john kaukovalta klatt klatt3 linda "
        "m1 m2 m4 m5 m6 m8 marcelo max miguel norbert pablo paul quincy rob sandro shelby steph travis victor"
    ).split()
)
"""Speaker variants that training data may use."""

HELD_OUT_VARIANTS: tuple[str, ...] = tuple(
    "Alicia Mario Nguyen Reed Storm benjamin edward2 f3 f5 grandpa ian klatt2 m3 m7 michel mike2 pedro zac".split()
)
"""Speaker variants kept for dev and test: no pre-training in this project hears them."""

ACCENTS: tuple[str, ...] = ("en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-029", "en-us-nyc")
"""English voices of espeak-ng; corpora use ``en-us``, whose phones the lexicons describe."""

_SYNCHRONOUS, _UTF8 = 2, 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4


@dataclass(frozen=True)
class Voice:
    """One synthetic speaker.

    Attributes:
        variant: espeak-ng variant name (formants, breath, roughness).
        pitch: base pitch, 0–99 (espeak units).
        rate: words per minute.
        pitch_range: 0–99.
        tract: vocal-tract scale; 1.1 raises formants and pitch by 10 %.
        accent: one of :data:`ACCENTS`.
    """

    variant: str
    pitch: int
    rate: int
    pitch_range: int
    tract: float = 1.0
    accent: str = "en-us"


def random_voice(
    rng: np.random.Generator, variants: tuple[str, ...] = TRAIN_VARIANTS, accents: tuple[str, ...] = ("en-us",)
) -> Voice:
    """Draw a speaker: variant × pitch × rate × range × vocal-tract scale."""
    return Voice(
        variant=str(rng.choice(variants)),
        pitch=int(rng.integers(20, 80)),
        rate=int(rng.integers(135, 215)),
        pitch_range=int(rng.integers(20, 80)),
        tract=float(np.round(rng.uniform(0.88, 1.14), 3)),
        accent=str(rng.choice(accents)),
    )


class Synthesiser:
    """libespeak-ng in this process.

    Raises:
        SlimbenchError: the library does not start or does not know a voice.
    """

    def __init__(self) -> None:
        self._lib: Any = None
        self._load()

    def renew(self, seed: int) -> None:
        """Forget everything that was spoken, so that what comes next depends on nothing but ``seed``.

        libespeak-ng keeps pitch flutter, wave phase and two random generators in static memory that its own
        restart does not reset, and seeds one of them with the clock. So the library is unloaded and loaded afresh
        (about 1 ms) and both generators are seeded. Corpora call this before every utterance.

        Raises:
            RuntimeError: another synthesiser of this process holds the library.
        """
        self.close()
        try:
            _ctypes.dlclose(_ctypes.dlopen(self._path, os.RTLD_NOW | os.RTLD_NOLOAD))
        except OSError:
            self._load()
        else:
            raise RuntimeError("libespeak-ng cannot be renewed: close the other Synthesiser of this process first.")
        self._lib.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        ctypes.CDLL(None).srand(ctypes.c_uint(seed))

    def close(self) -> None:
        """Stop and unload the library; :meth:`renew` starts it again."""
        if self._lib is not None:
            self._lib.espeak_Terminate()
            handle, self._lib = self._lib._handle, None
            _ctypes.dlclose(handle)

    def _load(self) -> None:
        import espeakng_loader

        self._path = str(espeakng_loader.get_library_path())
        self._lib = ctypes.CDLL(self._path)
        self._data = Path(espeakng_loader.get_data_path())
        self.rate = int(self._lib.espeak_Initialize(_SYNCHRONOUS, 0, str(self._data).encode(), 1))
        if self.rate <= 0:
            raise SlimbenchError("libespeak-ng did not start; reinstall the package espeakng-loader.")
        self._pieces: list[NDArray[np.int16]] = []
        callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = callback_type(self._collect)
        self._lib.espeak_SetSynthCallback(self._callback)
        self._lib.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._voice = ""

    def _collect(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0

    def _select(self, name: str) -> None:
        if name == self._voice:
            return
        variant = name.partition("+")[2]
        known = not variant or (self._data / "voices" / "!v" / variant).is_file()  # the library passes over others
        if not known or self._lib.espeak_SetVoiceByName(name.encode()) != 0:
            raise SlimbenchError(f"espeak-ng has no voice {name!r}; see its voices/!v folder for the variants.")
        self._voice = name

    def speak(self, text: str, voice: Voice) -> Wave:
        """Speak ``text``: mono float64 in [-1, 1] at 16 kHz, peak-normalised, end silences trimmed."""
        self._select(f"{voice.accent}+{voice.variant}")
        for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.pitch_range)):
            self._lib.espeak_SetParameter(parameter, value, 0)
        self._lib.espeak_SetParameter(_VOLUME, 80, 0)
        self._pieces = []
        encoded = text.encode()
        status = self._lib.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, _UTF8, None, None)
        if status != 0 or not self._pieces:
            raise SlimbenchError(f"espeak-ng made no sound of {text!r} (status {status}); use plain English words.")
        pcm = np.concatenate(self._pieces).astype(np.float64) / 32768.0
        wave: Wave = soxr.resample(pcm, self.rate * voice.tract, SAMPLE_RATE, quality="VHQ")
        return trim(wave / max(1e-9, float(np.abs(wave).max())))

    def phones(self, word: str) -> list[str]:
        """American English phones of one word, in espeak's ASCII mnemonics, without stress marks."""
        self._select("en-us")
        pointer = ctypes.c_char_p(word.encode())
        separated = self._lib.espeak_TextToPhonemes(ctypes.byref(pointer), _UTF8, ord("_") << 8)
        return [p for p in (x.strip("',%=|: ") for x in separated.decode().replace(" ", "_").split("_")) if p]


def trim(wave: Wave, threshold: float = 0.01, keep: float = 0.03) -> Wave:
    """Cut silence (below ``threshold`` of full scale) at both ends, keeping ``keep`` seconds around speech."""
    loud = np.flatnonzero(np.abs(wave) > threshold)
    if loud.size == 0:
        return wave
    margin = int(keep * SAMPLE_RATE)
    return wave[max(0, int(loud[0]) - margin) : int(loud[-1]) + 1 + margin]


def room(wave: Wave, rng: np.random.Generator, rt60: float, direct_db: float) -> Wave:
    """Reverberate with an exponentially decaying noise tail.

    Args:
        wave: (S,) dry speech.
        rng: draws the tail.
        rt60: seconds until the tail has fallen by 60 dB.
        direct_db: direct-to-reverberant energy ratio in dB.

    Returns:
        (S,) wet speech, same length.
    """
    n = max(2, int(rt60 * SAMPLE_RATE))
    tail = rng.standard_normal(n) * 10.0 ** (-3.0 * np.arange(n) / n)
    tail[: int(0.002 * SAMPLE_RATE)] = 0.0
    tail *= np.sqrt(10.0 ** (-direct_db / 10.0) / max(1e-12, float(np.sum(tail**2))))
    tail[0] = 1.0
    length = next_fast_len(wave.size + n - 1, real=True)
    wet = np.fft.irfft(np.fft.rfft(wave, length) * np.fft.rfft(tail, length), length)
    return np.asarray(wet[: wave.size], dtype=np.float64)


def coloured_noise(rng: np.random.Generator, samples: int, tilt: float, modulation: float = 0.0) -> Wave:
    """Noise of unit RMS whose power falls with frequency.

    Args:
        rng: source of randomness.
        samples: length.
        tilt: exponent: 0 white, 1 pink, 2 brown.
        modulation: 0–1, depth of a slow random amplitude modulation (about 4 Hz, like babble).
    """
    length = next_fast_len(samples, real=True)
    noise = rng.standard_normal(length)
    if tilt:
        spectrum = np.fft.rfft(noise, length)
        frequency = np.fft.rfftfreq(length, 1.0 / SAMPLE_RATE)
        spectrum *= np.maximum(frequency, 60.0) ** (-tilt / 2.0)
        noise = np.fft.irfft(spectrum, length)
    noise = noise[:samples]
    if modulation > 0:
        knots = np.abs(rng.standard_normal(samples // 4000 + 3))
        envelope = np.interp(np.arange(samples) / 4000.0, np.arange(knots.size), knots)
        noise = noise * (1.0 - modulation + modulation * envelope)
    return np.asarray(noise / max(1e-12, float(np.sqrt(np.mean(noise**2)))), dtype=np.float64)


def add_noise(wave: Wave, noise: Wave, snr_db: float) -> Wave:
    """Add ``noise`` (unit RMS, same length) at a signal-to-noise ratio in dB."""
    rms = float(np.sqrt(np.mean(wave**2)))
    gain = max(rms, 1e-4) * float(10.0 ** (-snr_db / 20.0))
    return wave + noise * gain


def set_level(wave: Wave, rms_db: float) -> Wave:
    """Scale to an RMS level in dB re full scale, lowered where the peak would clip."""
    gain = float(10.0 ** (rms_db / 20.0)) / max(1e-9, float(np.sqrt(np.mean(wave**2))))
    scaled = wave * gain
    peak = float(np.abs(scaled).max())
    return scaled * (0.99 / peak) if peak > 0.99 else scaled
