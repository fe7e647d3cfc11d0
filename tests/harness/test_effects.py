"""sox effects without sox: against the sox program, torchaudio 2.0.2's results, and the rules sample by sample.

In an environment with torchaudio 2.0.2 and this repository on PYTHONPATH, this file as a program prints the golden
numbers anew.
"""

import csv
import hashlib
import itertools
import json
import math
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import audio, effects
from harness.interface import SlimbenchError

RATE = 16_000
GOLDEN = Path(__file__).parent / "golden" / "effects.json"
GAIN = ("gain -3.0",)
SUPERB = ("gain -3.0", "silence 1 0.1 0.1% -1 0.1 0.1%")
CHAINS = {
    "gain": GAIN,
    "clip": ("gain 4.5",),
    "superb": SUPERB,
    "start": ("gain -3.0", "silence 1 0.1 0.1%"),
    "other": ("gain -1.7", "silence 1 0.05 1% -1 0.25 0.02%"),
    "higher": ("gain -3", "silence 1 0.02 0.1% -1 0.02 3%"),
    "samples": ("gain -3", "silence 1 1 0.1% -1 37 0.1%"),
    "zero": ("gain -3", "silence 1 0.01 0% -1 0.02 0%"),  # shows even the rounding of the running sum
    "no_gain": SUPERB[1:],
}


def noise(name, samples, amplitude):
    """White noise of a hash: the same on every machine."""
    raw = np.frombuffer(hashlib.shake_256(name.encode()).digest(2 * samples), "<i2").astype(np.int64)
    return (raw * amplitude // 32_768).astype(np.int16)


def triangle(samples, period, amplitude):
    phase = np.arange(samples) % period
    return (amplitude * (abs(4 * phase - 2 * period) - period) // period).astype(np.int16)


def zeros(samples):
    return np.zeros(samples, np.int16)


def gaps():
    """Noise, tones and pauses of all lengths around the durations and the block, loud and near the threshold."""
    lengths = itertools.cycle([1599, 700, 1600, 1601, 3000, 1280, 1281, 8192, 1, 320, 5000, 319, 2500, 1919, 12_000])
    levels = itertools.cycle([0, 20_000, 20, 0, 3000, 60, 90, 0, 32_767, 81, 0, 200, 10, 15_000])
    return [(next(lengths), next(levels)) for _ in range(90)]


def signals():
    """Name to int16 samples."""
    parts = gaps()
    noisy = [noise(f"part {index}", length, level) for index, (length, level) in enumerate(parts)]
    toned = [triangle(length, 40 + index, level) for index, (length, level) in enumerate(parts)]
    return {
        "noise": np.concatenate(noisy),
        "tones": np.concatenate(toned[::-1]),
        "mixed": np.concatenate([part for pair in zip(noisy, toned, strict=True) for part in pair]),
        "padded": np.concatenate([zeros(20_000), noise("voice", 30_000, 9000), zeros(20_000)]),
        "ends_in_pause": np.concatenate([noise("voice", 6000, 9000), noise("hiss", 900, 12)]),
        "ends_in_sound": np.concatenate([noise("voice", 6000, 9000), zeros(4000), noise("last", 900, 9000)]),
        "every_value": np.arange(-32_768, 32_768).astype(np.int16),
        "clipped": np.clip(3 * triangle(30_000, 177, 30_000).astype(np.int64), -32_768, 32_767).astype(np.int16),
        "silent": zeros(50_000),
        "hiss": noise("hiss", 50_000, 40),
        "one": noise("one", 1, 30_000),
        "window": noise("window", 320, 30_000),
        "too_short": noise("short", 1599, 30_000),
        "just_long": np.concatenate([noise("short", 1600, 30_000)]),
    }


SIGNALS = signals()
needs_sox = pytest.mark.skipif(shutil.which("sox") is None, reason="the sox program is not on the PATH")
needs_speech = pytest.mark.skipif("REAL_SPEECH" not in os.environ, reason="REAL_SPEECH names no folder of real speech")


def entry(result):
    """Length and digest of float32 samples, as the golden numbers hold them."""
    return [result.size, hashlib.sha256(result.astype("<f4").tobytes()).hexdigest()]


def apply(samples, chain):
    """int16 samples through the effects."""
    return effects.apply((samples / 32_768).astype(np.float32), effects.parse(chain))


def sox(samples, chain, bits=16, rate=RATE):
    """What the program makes of integer samples: its 32-bit ones."""
    raw = ["-t", "raw", "-c", "1", "-e", "signed-integer", "-L"]
    command = ["sox", "-D", "-V1", *raw, "-r", str(rate), "-b", str(bits), "-", *raw, "-b", "32", "-"]
    words = [word for effect in chain for word in effect.split()]
    data = samples.astype(f"<i{bits // 8}").tobytes()
    done = subprocess.run([*command, *words], input=data, capture_output=True, check=True)
    return np.frombuffer(done.stdout, "<i4").astype(np.int64)


def torchaudios(samples):
    """sox's 32-bit samples as torchaudio hands them on: rounded to 24 bits, over 2**31."""
    return ((samples + 64) // 128 * 128 / 2**31).astype(np.float32)


def assert_as_sox(samples, chain, bits=16):
    got = effects.apply((samples / 2.0 ** (bits - 1)).astype(np.float32), effects.parse(chain))
    np.testing.assert_array_equal(got, torchaudios(sox(samples, chain, bits)))


def rules(samples, silence):
    """``silence`` sample by sample, after sox's manual: the samples that are kept, and nothing vectorised."""
    kept, held, window, looking = [], [], [0] * 320, True
    for sample in samples:
        window = [*window[1:], sample]
        level = math.isqrt(sum(value * value for value in window) // 320)
        percent = silence.sound_percent if looking else silence.pause_percent
        loud = 100 * level > percent * (2**31 - 1)
        if looking:
            held = [*held, sample] if loud else []
            if len(held) == silence.sound:
                kept, held, looking = kept + held, [], False
        elif loud or silence.pause is None:
            kept, held = [*kept, *held, sample], []
        else:
            held = [*held, sample]
            if len(held) == silence.pause:
                held, window, looking = [], [0] * 320, True
    return kept if looking else kept + held


def real_files(task, count):
    """Whole files, evenly from the manifest."""
    root = Path(os.environ["REAL_SPEECH"])
    with (root / task / "manifest.csv").open(newline="") as file:
        paths = sorted({root / row["path"] for row in csv.DictReader(file) if row["path"].endswith(".flac")})
    return paths[:: max(1, len(paths) // count)]


def int16(path):
    wave = audio.load(path) * 32_768
    assert np.array_equal(wave, np.round(wave))
    return wave.astype(np.int16)


@pytest.mark.parametrize("chain", CHAINS)
def test_results_are_torchaudios(chain):
    got = {f"{name} {chain}": apply(samples, CHAINS[chain]) for name, samples in SIGNALS.items()}
    assert {result.dtype for result in got.values()} == {np.dtype(np.float32)}
    golden = json.loads(GOLDEN.read_text())["results"]
    assert {key: entry(result) for key, result in got.items()} == {key: golden[key] for key in got}


def test_golden_numbers_tell_the_cases_apart():
    """Cuts at the start, in the middle, at the end, everywhere and nowhere are among them."""
    kept = {key: row[0] for key, row in json.loads(GOLDEN.read_text())["results"].items()}
    assert set(kept) == {f"{name} {chain}" for name in SIGNALS for chain in CHAINS}
    assert kept["silent superb"] == kept["too_short superb"] == kept["hiss superb"] == 0
    assert kept["clipped superb"] == SIGNALS["clipped"].size
    assert kept["ends_in_pause superb"] == 6900
    assert 5900 < kept["ends_in_sound superb"] < 6400
    assert len({kept[f"mixed {chain}"] for chain in CHAINS}) >= 6


@needs_sox
@pytest.mark.parametrize("chain", [name for name in CHAINS if name != "no_gain"])
def test_generated_signals_come_out_as_from_sox(chain):
    for samples in SIGNALS.values():
        assert_as_sox(samples, CHAINS[chain])


@needs_sox
def test_32_bit_samples_come_out_as_from_sox():
    wide = SIGNALS["mixed"].astype(np.int64) * 65_536 + 256 * np.arange(SIGNALS["mixed"].size) % 65_536
    wide = wide // 1024 * 1024  # what a float32 holds
    wide = (wide / 2**31).astype(np.float32).astype(np.float64) * 2**31
    for chain in CHAINS.values():
        assert_as_sox(wide, chain, bits=32)


def test_threshold_itself_is_silence():
    samples = np.full(4000, 2_147_483)  # 0.1 % of full scale is 2,147,483.6
    assert effects.apply((samples / 2**31).astype(np.float32), effects.parse(SUPERB[1:])).size == 0
    louder = effects.apply(((samples + 1) / 2**31).astype(np.float32), effects.parse(SUPERB[1:]))
    assert louder.size == 4000 - 319  # once the window is full
    if shutil.which("sox"):
        assert sox(samples, SUPERB[1:], bits=32).size == 0
        assert sox(samples + 1, SUPERB[1:], bits=32).size == louder.size


@needs_sox
@needs_speech
@pytest.mark.parametrize("chain", [GAIN, SUPERB], ids=["gain", "silence"])
@pytest.mark.parametrize("task", ["asv", "ks", "er"])
def test_real_speech_comes_out_as_from_sox(task, chain):
    paths = real_files(task, 50)
    assert len(paths) >= 50
    for path in paths:
        assert_as_sox(int16(path), chain)


@needs_sox
@needs_speech
def test_real_speech_with_pauses_and_edges_comes_out_as_from_sox():
    files = [int16(path) for task in ("asv", "ks", "er") for path in real_files(task, 8)]
    pauses = itertools.cycle([zeros(1600), zeros(40_000), zeros(1000), noise("hiss", 9000, 30), zeros(8192), zeros(0)])
    long = np.concatenate([part for pair in zip(pauses, files, strict=False) for part in pair] + [zeros(30_000)])
    loud = np.clip(long.astype(np.int64) * 30, -32_768, 32_767).astype(np.int16)
    assert (np.abs(loud.astype(np.int64)) >= 32_767).mean() > 0.05
    for samples in (long, loud, long // 64, *(files[0][:length] for length in (1, 100, 1600, 1601, 5000))):
        assert_as_sox(samples, SUPERB)
    assert 0 < apply(long, SUPERB).size < long.size


@needs_sox
@needs_speech
@pytest.mark.parametrize("rate", [8000, 44_100])
def test_soxr_differs_from_soxs_rate_by_the_stated_bound(rate):
    for path in real_files("asv", 6):
        there = sox(int16(path), (f"rate {rate}",), rate=RATE) // 65_536
        expected = sox(there, ("rate 16000",), rate=rate) / 2**31
        got = soxr.resample((there / 32_768).astype(np.float32), rate, RATE, quality="HQ")
        assert got.size == expected.size
        assert np.abs(got - expected).max() < 5e-4
        assert np.std(got - expected) < np.std(expected) * 10 ** (-69 / 20)


@settings(max_examples=15, deadline=None)
@given(
    parts=st.lists(
        st.tuples(st.integers(1, 900), st.sampled_from([0, 0, 25, 60, 4000, 32_767])), min_size=1, max_size=8
    ),
    seed=st.integers(0, 999),
    sound=st.sampled_from([1, 50, 400]),
    pause=st.sampled_from([None, 1, 60, 350]),
)
def test_silence_follows_the_rules_sample_by_sample(parts, seed, sound, pause):
    samples = np.concatenate([noise(f"{seed} {i}", length, level) for i, (length, level) in enumerate(parts)])
    silence = effects.Silence(sound, 0.1, pause, 0.08)
    got = effects.apply((samples / 32_768).astype(np.float32), (silence,))
    expected = rules([int(sample) * 65_536 for sample in samples], silence)
    np.testing.assert_array_equal(got, np.array(expected) / 2**31)


def test_gain_multiplies_within_its_rounding_and_clips():
    wave = (noise("wave", 40_000, 32_767) / 32_768).astype(np.float32)
    got = effects.apply(wave, effects.parse(["gain -3"])).astype(np.float64)
    assert np.abs(got - wave.astype(np.float64) * 10 ** (-3 / 20)).max() <= 2.0**-25 + 2.0**-32
    np.testing.assert_array_equal(effects.apply(wave, effects.parse(["gain 0"])), wave)
    loud = effects.apply(np.array([0.9, -0.9, 0.1], np.float32), effects.parse(["gain +6"]))
    np.testing.assert_array_equal(loud[:2], [1.0, -1.0])


def test_no_effects_leave_the_samples_and_the_input():
    wave = (noise("wave", 5000, 9000) / 32_768).astype(np.float32)
    before = wave.copy()
    np.testing.assert_array_equal(effects.apply(wave, ()), wave)
    effects.apply(wave, effects.parse(SUPERB))
    np.testing.assert_array_equal(wave, before)
    assert effects.apply(wave[:0], effects.parse(SUPERB)).shape == (0,)


def test_parse_reads_soxs_words():
    assert effects.parse(SUPERB) == (effects.Gain(-3.0), effects.Silence(1600, 0.1, 1600, 0.1))
    assert effects.parse(["gain -3"]) == effects.parse(GAIN)
    assert effects.parse(["silence 1 5 2%"]) == (effects.Silence(5, 2.0),)  # the manual's example: 5 samples
    assert effects.parse(["  silence  1 0.05003 1%  -1 0.05004 0%"]) == (effects.Silence(800, 1.0, 801, 0.0),)
    assert effects.parse([]) == ()


@pytest.mark.parametrize(
    "text",
    [
        *("", "reverb 50", "rate 16000", "gain", "gain loud", "gain nan", "gain -n -3", "gain -3 silence 1 0.1 0.1%"),
        *("silence", "silence 1 0.1", "silence 1 0.1 0.1", "silence 1 0.1 -40d", "silence 1 0.1t 0.1%"),
        *("silence 2 0.1 0.1%", "silence -l 1 1 1%", "silence 1 1e3 0.1%", "silence 1 -1 0.1%", "silence 1 0 0.1%"),
        *("silence 1 0.1 0.1% 1 0.1 0.1%", "silence 1 0.1 0.1% -1 0.1", "silence 1 0.00001 1%"),
        *("gain 99999", "gain -200.5", "silence 1 0.1 100.1%", f"silence 1 0.1 1% -1 0.1 1{'0' * 400}%"),
    ],
)
def test_parse_refuses_what_it_does_not_know(text):
    with pytest.raises(SlimbenchError, match=r"effect .*; (write|give) ") as error:
        effects.parse(["gain -3", text])
    assert repr(text) in str(error.value)


def reference(folder, samples, chain):
    """torchaudio's own result."""
    import torchaudio  # 2.0.2

    path = folder / "samples.wav"
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    words = [effect.split() for effect in chain]
    return torchaudio.sox_effects.apply_effects_file(str(path), words)[0].numpy()[0]


def print_golden_numbers():
    with tempfile.TemporaryDirectory() as name:
        pairs = itertools.product(SIGNALS, CHAINS)
        rows = {f"{s} {c}": entry(reference(Path(name), SIGNALS[s], CHAINS[c])) for s, c in pairs}
    origin = "torchaudio 2.0.2 apply_effects_file on 16-bit WAV: length, SHA-256 of the little-endian float32 samples"
    lines = ",\n".join(f"    {json.dumps(key)}: {json.dumps(row)}" for key, row in rows.items())
    print(f'{{\n  "origin": "{origin}",\n  "results": {{\n{lines}\n  }}\n}}')


if __name__ == "__main__":
    print_golden_numbers()
