"""Synthetic speech: the same bytes whatever was spoken before, and effects that do what they say."""

import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import fftconvolve, welch

from harness import synthesis
from harness.interface import SAMPLE_RATE, SlimbenchError
from harness.synthesis import Synthesiser, Voice

VOICE = Voice("f2", pitch=50, rate=175, pitch_range=50)
"""A breathy voice: its noise comes from a generator that the library seeds with the clock."""

SPEAK = """
import sys, hashlib
from harness.synthesis import Synthesiser, Voice
engine = Synthesiser()
for text in sys.argv[1:]:
    engine.renew(5)
    wave = engine.speak(text, Voice("f2", 50, 175, 50))
print(hashlib.sha256(wave.tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def engine():
    with closing(Synthesiser()) as made:
        yield made


def said(engine, text, voice=VOICE, seed=5):
    engine.renew(seed)
    return engine.speak(text, voice)


def test_the_past_does_not_matter(engine):
    first = said(engine, "seven yellow boats")
    engine.speak("something else before", Voice("m7", 30, 200, 20))
    np.testing.assert_array_equal(said(engine, "seven yellow boats"), first)
    assert not np.array_equal(said(engine, "seven yellow boats", seed=6)[:20_000], first[:20_000])


def test_processes_agree():
    heard = [
        subprocess.run([sys.executable, "-c", SPEAK, *texts], capture_output=True, text=True, check=True).stdout
        for texts in (["seven yellow boats"], ["a longer text before it", "seven yellow boats"])
    ]
    assert heard[0] == heard[1]


def test_two_engines_in_one_process_are_refused(engine):
    engine.renew(1)
    with closing(Synthesiser()) as other, pytest.raises(RuntimeError, match="close the other Synthesiser"):
        other.renew(1)
    engine.renew(1)
    assert engine.speak("yes", VOICE).size > 0


def test_all_variants_are_known_and_the_held_out_are_apart(engine):
    assert not set(synthesis.TRAIN_VARIANTS) & set(synthesis.HELD_OUT_VARIANTS)
    for variant in synthesis.TRAIN_VARIANTS + synthesis.HELD_OUT_VARIANTS:
        wave = said(engine, "hello", replace(VOICE, variant=variant))
        assert 0.15 < wave.size / SAMPLE_RATE < 1.5
        assert np.abs(wave).max() == pytest.approx(1.0)
    with pytest.raises(SlimbenchError, match="no voice"):
        said(engine, "hello", replace(VOICE, variant="nobody"))


def test_rate_and_pitch_are_heard(engine):
    slow, fast = (said(engine, "the old river", replace(VOICE, rate=r)).size for r in (120, 220))
    assert slow > 1.3 * fast

    def centre(tract):
        frequency, power = welch(said(engine, "see three", replace(VOICE, tract=tract)), SAMPLE_RATE, nperseg=1024)
        return np.sum(frequency * power) / np.sum(power)

    assert centre(1.15) > 1.1 * centre(0.88)


def test_room_is_a_convolution_with_a_decaying_tail():
    click = np.zeros(SAMPLE_RATE)
    click[0] = 1.0
    answer = synthesis.room(click, np.random.default_rng(3), rt60=0.4, direct_db=6.0)
    assert answer[0] == pytest.approx(1.0)
    assert 10 * np.log10(1.0 / np.sum(answer[1:] ** 2)) == pytest.approx(6.0, abs=1e-6)
    early, late = (np.sum(answer[a : a + 800] ** 2) for a in (400, 3600))
    assert 10 * np.log10(early / late) == pytest.approx(60 * 0.2 / 0.4, abs=2.5)
    speech = np.random.default_rng(0).standard_normal(5000)
    wet = synthesis.room(speech, np.random.default_rng(3), rt60=0.4, direct_db=6.0)
    np.testing.assert_allclose(wet, fftconvolve(speech, answer)[:5000], atol=1e-10)


@pytest.mark.parametrize("tilt", [0.0, 1.0, 2.0])
def test_noise_falls_with_frequency_as_asked(tilt):
    noise = synthesis.coloured_noise(np.random.default_rng(0), 160_001, tilt)
    assert noise.size == 160_001
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(1.0)
    frequency, power = welch(noise, SAMPLE_RATE, nperseg=2048)
    band = (frequency > 200) & (frequency < 6000)
    slope = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
    assert slope == pytest.approx(-tilt, abs=0.1)


def test_snr_and_level_are_what_they_say():
    rng = np.random.default_rng(0)
    speech, noise = 0.1 * rng.standard_normal(SAMPLE_RATE), synthesis.coloured_noise(rng, SAMPLE_RATE, 1.0, 0.8)
    added = synthesis.add_noise(speech, noise, 12.0) - speech
    assert 10 * np.log10(np.mean(speech**2) / np.mean(added**2)) == pytest.approx(12.0)
    assert 10 * np.log10(np.mean(synthesis.set_level(speech, -26.0) ** 2)) == pytest.approx(-26.0)
    assert np.abs(synthesis.set_level(speech, 0.0)).max() == pytest.approx(0.99)
