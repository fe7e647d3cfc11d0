"""The Wav2Vec2-BERT adapter against direct calls of Transformers, and folders that must be refused."""

import json
import os

import pytest
import torch
from tiny_models import adapter_card, noise, real_speech, save_wav2vec2_bert
from transformers import SeamlessM4TFeatureExtractor

from harness.cost import count_macs, count_parameters
from harness.interface import SlimbenchError
from upstreams.adapters.wav2vec2_bert import Wav2Vec2Bert

POSITIONS = ["relative_key", "relative", "rotary"]


def bert_card(folder, **fields):
    return adapter_card(folder, "tiny", "upstreams.adapters.wav2vec2_bert:Wav2Vec2Bert", weights="tiny", **fields)


def check(upstream, model, waves, lengths, tolerance):
    """Batch and single calls against Transformers on each utterance alone."""
    extractor = SeamlessM4TFeatureExtractor(feature_size=80, num_mel_bins=80, stride=2, padding_value=1)
    batched = upstream.encode(waves, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = upstream.encode(waves[row : row + 1, :length], lengths[row : row + 1])
        inputs = extractor(waves[row, :length].numpy(), sampling_rate=16_000, return_tensors="pt")
        with torch.no_grad():
            expected = model(**inputs, output_hidden_states=True).hidden_states
        frames = int(inputs.attention_mask.sum())
        assert int(batched.lengths[row]) == int(alone.lengths[0]) == frames == ((length - 400) // 160 + 1) // 2
        for many, one, theirs in zip(batched.states, alone.states, expected, strict=True):
            torch.testing.assert_close(one[0], theirs[0, :frames], rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(many[row, :frames], theirs[0, :frames], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("position", POSITIONS)
def test_states_are_those_of_transformers(tmp_path, position):
    model = save_wav2vec2_bert(tmp_path / "tiny", position_embeddings_type=position)
    upstream = Wav2Vec2Bert(bert_card(tmp_path, family="wav2vec2-bert", depth=2, width=16))
    assert (upstream.num_states, upstream.width, upstream.frame_ms) == (3, 16, 20.0)
    check(upstream, model, *noise(16_000, 11_200, 9_040, 560), tolerance=1e-5)


@pytest.mark.skipif("REAL_SPEECH" not in os.environ, reason="REAL_SPEECH names no folder of recordings")
def test_real_speech(tmp_path):
    model = save_wav2vec2_bert(tmp_path / "tiny")
    check(Wav2Vec2Bert(bert_card(tmp_path)), model, *real_speech(), tolerance=1e-5)


def test_what_is_counted(tmp_path):
    model = save_wav2vec2_bert(tmp_path / "tiny")
    save_wav2vec2_bert(tmp_path / "wide", intermediate_size=40)
    tiny, wide = Wav2Vec2Bert(bert_card(tmp_path)), Wav2Vec2Bert(bert_card(tmp_path, title="w"))
    wide = Wav2Vec2Bert(adapter_card(tmp_path, "wide", "upstreams.adapters.wav2vec2_bert:Wav2Vec2Bert", weights="wide"))
    assert count_parameters(tiny.module()) == count_parameters(model) - model.masked_spec_embed.numel()
    assert count_macs(wide, 1.0) - count_macs(tiny, 1.0) == 49 * 2 * 4 * 16 * (40 - 24)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"model_type": "wavlm"}, "has model_type 'wavlm'; known are wav2vec2-bert"),
        ("config.json", {"add_adapter": True}, "adds layers after the encoder"),
        ("config.json", {"num_hidden_layers": 3}, "do not fit .* missing"),
        ("preprocessor_config.json", {"stride": 1}, "makes features 80 wide, but config.json .* wants 160"),
        ("preprocessor_config.json", {"num_mel_bins": None}, "has num_mel_bins None"),
        ("preprocessor_config.json", {"sampling_rate": 8000}, "has sampling_rate 8000"),
    ],
)
def test_folders_that_do_not_fit(tmp_path, file, values, message):
    save_wav2vec2_bert(tmp_path / "tiny")
    path = tmp_path / "tiny" / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(SlimbenchError, match=message):
        Wav2Vec2Bert(bert_card(tmp_path))
