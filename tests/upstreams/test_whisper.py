"""The Whisper adapter against direct calls of Transformers; windows, padding, and folders that must be refused."""

import json
import math
import os

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny_models import adapter_card, noise, real_speech, save_whisper
from transformers import WhisperFeatureExtractor

from harness.cost import count_macs, count_parameters
from harness.interface import SlimbenchError
from upstreams.adapters.whisper import Whisper

WINDOW = 32_000


def whisper_card(folder, **fields):
    return adapter_card(folder, "tiny", "upstreams.adapters.whisper:Whisper", weights="tiny", **fields)


def direct(model, wave):
    """All states of one window (S,), those of the padding as well, by Transformers alone."""
    extractor = WhisperFeatureExtractor(feature_size=8, chunk_length=2)
    features = extractor(wave.numpy(), sampling_rate=16_000, return_tensors="pt").input_features
    with torch.no_grad():
        return model.get_encoder()(features, output_hidden_states=True).hidden_states


def check(upstream, model, waves, lengths, tolerance):
    got = upstream.encode(waves, lengths)
    for row, length in enumerate(lengths.tolist()):
        parts = [part for part in waves[row, :length].split(WINDOW) if len(part) >= 320]
        windows = [(direct(model, part), len(part) // 320) for part in parts]
        assert int(got.lengths[row]) == length // 320
        for layer, mine in enumerate(got.states):
            theirs = torch.cat([states[layer][0, :count] for states, count in windows])
            torch.testing.assert_close(mine[row, : len(theirs)], theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("lengths", [(16_000,), (32_000,), (31_999, 5_000), (80_100, 32_400, 320)])
def test_states_are_those_of_transformers(tmp_path, lengths):
    model = save_whisper(tmp_path / "tiny")
    upstream = Whisper(whisper_card(tmp_path, family="whisper", depth=2, width=16))
    assert (upstream.num_states, upstream.width, upstream.frame_ms) == (3, 16, 20.0)
    check(upstream, model, *noise(*lengths), tolerance=1e-5)


def test_the_real_size_of_a_window(tmp_path):
    """With the 30 s of real models Transformers' own defaults make the features."""
    model = save_whisper(tmp_path / "tiny", seconds=30)
    waves, lengths = noise(20_000)
    features = WhisperFeatureExtractor(feature_size=8)(waves[0].numpy(), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        expected = model.get_encoder()(features.input_features).last_hidden_state
    states = Whisper(whisper_card(tmp_path)).encode(waves, lengths).states
    torch.testing.assert_close(states[-1], expected[:, :62], rtol=1e-5, atol=1e-5)


def test_states_depend_on_the_padding_to_the_window(tmp_path):
    """What the documentation says of Whisper: silence behind the utterance is not the end of the input."""
    save_whisper(tmp_path / "tiny")
    upstream = Whisper(whisper_card(tmp_path))
    waves, lengths = noise(16_000)
    one = upstream.encode(waves, lengths).states[-1]
    more = torch.cat([waves, 0.1 * torch.ones(1, 8_000)], dim=1)
    assert not torch.allclose(upstream.encode(more, torch.tensor([24_000])).states[-1][:, :40], one[:, :40], atol=1e-3)
    silence = torch.cat([waves, torch.zeros(1, 8_000)], dim=1)
    torch.testing.assert_close(upstream.encode(silence, torch.tensor([24_000])).states[-1][:, :50], one)


@pytest.mark.skipif("REAL_SPEECH" not in os.environ, reason="REAL_SPEECH names no folder of recordings")
def test_real_speech(tmp_path):
    model = save_whisper(tmp_path / "tiny")
    check(Whisper(whisper_card(tmp_path)), model, *real_speech(), tolerance=1e-4)


def test_the_encoder_alone_is_exposed_and_counted(tmp_path):
    model = save_whisper(tmp_path / "tiny")
    upstream = Whisper(whisper_card(tmp_path))
    assert count_parameters(upstream.module()) == count_parameters(model.get_encoder())
    assert any("decoder" in name for name in load_file(tmp_path / "tiny" / "model.safetensors"))
    frames, d, ffn = 100, 16, 24
    front = 2 * frames * 8 * d * 3 + frames * d * d * 3
    layer = frames * (4 * d * d + 2 * d * ffn) + 2 * frames * frames * d
    mels = round(201 * 2.5 / 2 * 400 * math.log2(400)) + 200 * 201 * 8
    assert count_macs(upstream, 2.0) == (mels + front + 2 * layer) / 2.0
    assert count_macs(upstream, 1.0) == mels + front + 2 * layer  # a whole window, however short the utterance


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"model_type": "hubert"}, "has model_type 'hubert'; known are whisper"),
        ("config.json", {"encoder_layers": 3}, r"do not fit .* missing \(such as layers\.2"),
        ("config.json", {"num_mel_bins": 9}, r"makes 200 frames of 8 channels, but config\.json .* wants 200 of 9"),
        ("preprocessor_config.json", {"chunk_length": 30}, "makes 3000 frames of 8 channels"),
        ("preprocessor_config.json", {"n_fft": "400"}, "has n_fft '400', not a whole number"),
        ("preprocessor_config.json", {"sampling_rate": 8000}, "has sampling_rate 8000"),
    ],
)
def test_folders_that_do_not_fit(tmp_path, file, values, message):
    save_whisper(tmp_path / "tiny")
    path = tmp_path / "tiny" / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(SlimbenchError, match=message):
        Whisper(whisper_card(tmp_path))


def test_the_card_must_be_true(tmp_path):
    save_whisper(tmp_path / "tiny")
    with pytest.raises(SlimbenchError, match=r"says depth 4, but .* has 2"):
        Whisper(whisper_card(tmp_path, depth=4))
    with pytest.raises(SlimbenchError, match=r"says family hubert, but .* holds a whisper model"):
        Whisper(whisper_card(tmp_path, family="hubert"))


def test_a_checkpoint_of_the_bare_model_is_read_as_well(tmp_path):
    model = save_whisper(tmp_path / "tiny")
    first = Whisper(whisper_card(tmp_path)).encode(*noise(8_000)).states[-1]
    assert isinstance(model, transformers.WhisperForConditionalGeneration)
    model.model.save_pretrained(tmp_path / "tiny")
    assert torch.equal(Whisper(whisper_card(tmp_path)).encode(*noise(8_000)).states[-1], first)
