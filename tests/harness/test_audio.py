"""Audio in: every format alike, every conversion said, every broken file one clear error."""

import hashlib
import os
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile

from harness import audio
from harness.interface import SAMPLE_RATE, SlimbenchError


def tone(seconds=1.0, rate=SAMPLE_RATE, hertz=440.0, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(), SAMPLE_RATE, subtype="PCM_16")
    return path


def test_wav_is_read_as_the_standard_library_reads_it(wav):
    with wave.open(str(wav)) as file:
        raw = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    got = audio.load(wav)
    assert got.dtype == np.float32
    assert got.shape == (16_000,)
    np.testing.assert_array_equal(got, raw / np.float32(32768))


@pytest.mark.parametrize(("suffix", "tolerance"), [("flac", 0.0), ("ogg", 0.05)])
def test_other_containers_agree_with_wav(wav, tmp_path, suffix, tolerance):
    other = tmp_path / f"tone.{suffix}"
    soundfile.write(other, audio.load(wav), SAMPLE_RATE)
    np.testing.assert_allclose(audio.load(other), audio.load(wav), atol=tolerance)


def test_cut_is_that_part_of_the_whole(wav):
    notes: set[str] = set()
    np.testing.assert_array_equal(audio.load(wav, 0.25, 0.5, notes), audio.load(wav)[4000:12_000])
    assert notes == set()


def test_stereo_is_averaged_and_said(tmp_path):
    left, right = tone(hertz=300), tone(hertz=700)
    soundfile.write(tmp_path / "s.wav", np.stack([left, right], 1), SAMPLE_RATE, subtype="FLOAT")
    notes: set[str] = set()
    np.testing.assert_allclose(audio.load(tmp_path / "s.wav", notes=notes), (left + right) / 2, atol=1e-6)
    assert notes == {"audio with 2 channels was averaged to mono"}


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100])
def test_other_rates_are_converted_and_said(tmp_path, rate):
    soundfile.write(tmp_path / "r.wav", tone(rate=rate), rate, subtype="FLOAT")
    notes: set[str] = set()
    got = audio.load(tmp_path / "r.wav", seconds=1.0, notes=notes)
    assert abs(got.size - SAMPLE_RATE) <= 1
    middle = slice(2000, 14_000)
    np.testing.assert_allclose(got[middle], tone()[middle], atol=2e-3)  # the same tone, drawn at 16 kHz
    assert notes == {f"audio at {rate} Hz was converted to 16000 Hz"}
    np.testing.assert_allclose(audio.load(tmp_path / "r.wav", 0.5, 0.25)[500:3500], got[8500:11_500], atol=2e-3)


def broken_nan(path):
    wave_ = tone()
    wave_[123] = np.nan
    soundfile.write(path, wave_, SAMPLE_RATE, subtype="FLOAT")


def broken_half(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


BROKEN = {
    "missing": (lambda path: path.unlink(), "no such audio file"),
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "text": (lambda path: path.write_text("I am no sound. " * 9), "cannot be read as audio"),
    "header": (lambda path: soundfile.write(path, np.zeros(0), SAMPLE_RATE), "holds no samples"),
    "half": (broken_half, "is truncated"),
    "nan": (broken_nan, "sample 123 is NaN or infinite"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_is_named_with_a_remedy(wav, name):
    harm, message = BROKEN[name]
    harm(wav)
    with pytest.raises(SlimbenchError, match=message) as caught:
        audio.load(wav)
    assert str(caught.value).startswith(f"{wav}: ")
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["flac", "ogg"])
def test_truncated_containers(wav, suffix):
    path = wav.with_suffix(f".{suffix}")
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 48_000), SAMPLE_RATE)
    assert audio.load(path).size == 48_000
    broken_half(path)
    with pytest.raises(SlimbenchError, match=r"truncated|cannot be read as audio"):
        audio.load(path)


def test_folder_is_no_audio(tmp_path):
    with pytest.raises(SlimbenchError, match="no such audio file"):
        audio.load(tmp_path)


@pytest.mark.parametrize(("start", "seconds"), [(1.0, 0.5), (0.6, 0.5), (-0.1, 0.5), (7.0, None), (0.2, 0.0)])
def test_cut_beyond_the_end(wav, start, seconds):
    with pytest.raises(SlimbenchError, match=r"tone\.wav: the cut .*correct"):
        audio.load(wav, start, seconds)


def test_whole_file_of_another_length_than_the_manifest_says(wav):
    assert audio.load(wav, None, 1.02).size == 16_000
    with pytest.raises(SlimbenchError, match=r"lasts 1\.000 s but 1\.200 s were expected"):
        audio.load(wav, None, 1.2)


def test_a_stream_of_unknown_length_is_no_truncated_file(wav):
    data = bytearray(wav.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff\xff\xff\xff"
    wav.write_bytes(data)
    assert audio.load(wav).size == 16_000


def test_keys_depend_on_content_and_cut_only(wav, tmp_path):
    twin = tmp_path / "twin.wav"
    twin.write_bytes(wav.read_bytes())
    digests = audio.file_digests([wav, twin, wav])
    assert digests == dict.fromkeys((wav, twin), hashlib.sha256(wav.read_bytes()).hexdigest())
    whole = audio.audio_key(digests[wav], None, 1.0)
    cuts = {audio.audio_key(digests[wav], start, s) for start, s in ((0.0, 0.5), (0.0, 0.6), (0.1, 0.5))}
    assert len(cuts | {whole}) == 4
    assert audio.audio_key(digests[twin], None, 2.0) == whole  # the length of a whole file is in its bytes


@pytest.mark.skipif("REAL_SPEECH" not in os.environ, reason="REAL_SPEECH does not name a folder of real speech")
def test_cuts_of_real_ogg_files_are_repeatable_and_near_the_whole():
    path = sorted(Path(os.environ["REAL_SPEECH"]).glob("audio/so762x/*.ogg"))[0]
    whole = audio.load(path)
    cut = audio.load(path, 7.52, 2.957)
    np.testing.assert_array_equal(cut, audio.load(path, 7.52, 2.957))
    np.testing.assert_allclose(cut, whole[120_320:][: cut.size], atol=0.02)
