"""The filter-bank adapter against s3prl's own extractor, and what cannot be compared with it."""

import os
from pathlib import Path

import pytest
import soundfile
import torch
from tiny_models import noise, write_card

from harness.cards import read_card
from harness.interface import SlimbenchError
from upstreams.adapters.fbank import Fbank

REAL_SPEECH = os.environ.get("REAL_SPEECH")


def upstream(folder, **options):
    return Fbank(read_card(write_card(folder, "tiny", "upstreams.adapters.fbank:Fbank", options=options)))


def s3prl_features(wave, cmvn):
    """What s3prl's fbank upstream computes of one waveform."""
    extracter = pytest.importorskip("s3prl.upstream.baseline.extracter", reason="s3prl is not installed")
    config = {
        "kaldi": {
            "feat_type": "fbank",
            "fbank": {"num_mel_bins": 80, "frame_length": 25.0, "frame_shift": 10.0, "use_log_fbank": True},
        },
        "delta": {"order": 2, "win_length": 5},
        "cmvn": {"use_cmvn": cmvn},
    }
    return extracter.get_extracter(config)[0](wave)


@pytest.mark.parametrize("cmvn", [True, False])
@pytest.mark.parametrize("samples", [16_000, 24_321, 720])
def test_parity_with_s3prl(tmp_path, cmvn, samples):
    waves, lengths = noise(samples)
    states = upstream(tmp_path, cmvn=cmvn).encode(waves, lengths)
    expected = s3prl_features(waves[0], cmvn)
    assert states.states[0].shape[1:] == expected.shape == (int(states.lengths[0]), 240)
    torch.testing.assert_close(states.states[0][0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not REAL_SPEECH, reason="REAL_SPEECH is not set to the folder of real recordings")
def test_parity_with_s3prl_on_real_speech(tmp_path):
    file = next(path for path in sorted(Path(REAL_SPEECH or "").rglob("*")) if path.suffix in {".wav", ".flac"})
    data, rate = soundfile.read(file, dtype="float32", frames=48_000)
    assert rate == 16_000
    wave = torch.from_numpy(data)
    states = upstream(tmp_path).encode(wave[None], torch.tensor([len(wave)]))
    torch.testing.assert_close(states.states[0][0], s3prl_features(wave, True), rtol=1e-5, atol=1e-5)


def test_cmvn_leaves_no_time_mean_and_unit_variance(tmp_path):
    states = upstream(tmp_path).encode(*noise(16_000))
    features = states.states[0][0].double()
    torch.testing.assert_close(features.mean(0), torch.zeros(240, dtype=torch.double), atol=1e-4, rtol=0)
    torch.testing.assert_close(features.std(0), torch.ones(240, dtype=torch.double), atol=1e-4, rtol=0)


def test_a_single_frame_has_no_variance(tmp_path):
    states = upstream(tmp_path).encode(*noise(400))
    assert states.lengths.tolist() == [1]
    assert torch.equal(states.states[0], torch.zeros(1, 1, 240))


def test_fingerprints_follow_settings_not_names(tmp_path):
    (tmp_path / "b").mkdir()
    plain, same = upstream(tmp_path), upstream(tmp_path / "b", cmvn=True)
    assert plain.fingerprint == same.fingerprint
    assert plain.fingerprint != upstream(tmp_path, cmvn=False).fingerprint


def test_unknown_option(tmp_path):
    with pytest.raises(SlimbenchError, match=r"tiny\.yaml: unknown option 'cmnv', did you mean 'cmvn'\?"):
        upstream(tmp_path, cmnv=False)
