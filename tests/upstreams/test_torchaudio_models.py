"""The torchaudio adapter against direct calls of torchaudio, and cards that must be refused."""

import os

import pytest
import torch
import torchaudio
from tiny_models import TORCHAUDIO, noise, real_speech, save_torchaudio, torchaudio_card

from harness.cost import count_macs, count_parameters
from harness.interface import SlimbenchError
from upstreams.adapters import torchaudio_models
from upstreams.adapters.torchaudio_models import Torchaudio

KINDS = ["Wav2Vec2", "WavLM"]
LENGTHS = (16_000, 11_111, 5_000)


def direct(model, wave, normalize):
    """States of one utterance (S,) by torchaudio alone: all layers, the encoder's output in the place of the last."""
    wave = torch.nn.functional.layer_norm(wave, wave.shape) if normalize else wave
    with torch.no_grad():
        layers = model.extract_features(wave[None])[0]
        return [*layers[:-1], model.encoder(model.feature_extractor(wave[None], None)[0])]


def check(upstream, model, waves, lengths, normalize):
    batched = upstream.encode(waves, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = upstream.encode(waves[row : row + 1, :length], lengths[row : row + 1])
        expected = direct(model, waves[row, :length], normalize)
        assert len(alone.states) == len(expected) + 1
        assert int(batched.lengths[row]) == int(alone.lengths[0]) == expected[0].shape[1]
        for one, many, theirs in zip(alone.states[1:], batched.states[1:], expected, strict=True):
            torch.testing.assert_close(one, theirs, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(many[row, : theirs.shape[1]], theirs[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_states_are_those_of_torchaudio(tmp_path, kind, large):
    model = save_torchaudio(tmp_path / "tiny.pth", kind, large)
    upstream = Torchaudio(torchaudio_card(tmp_path, "tiny", kind, large, depth=3, width=16))
    check(upstream, model, *noise(*LENGTHS), normalize=large)


@pytest.mark.skipif("REAL_SPEECH" not in os.environ, reason="REAL_SPEECH names no folder of recordings")
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_real_speech(tmp_path, kind, large):
    model = save_torchaudio(tmp_path / "tiny.pth", kind, large)
    check(Torchaudio(torchaudio_card(tmp_path, "tiny", kind, large)), model, *real_speech(), normalize=large)


@pytest.mark.parametrize("large", [False, True])
def test_state_0_is_what_the_first_layer_gets(tmp_path, large):
    model = save_torchaudio(tmp_path / "tiny.pth", "Wav2Vec2", large)
    seen = []
    model.encoder.transformer.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    waves, lengths = noise(8_000)
    direct(model, waves[0], large)
    states = Torchaudio(torchaudio_card(tmp_path, "tiny", "Wav2Vec2", large)).encode(waves, lengths).states
    torch.testing.assert_close(states[0], seen[0], rtol=1e-5, atol=1e-5)


def test_a_bundle_brings_its_configuration(tmp_path, monkeypatch):
    """A pipeline with tiny parameters in the place of HUBERT_ASR_LARGE: normalised, with a linear layer to leave."""
    params = TORCHAUDIO["Wav2Vec2"] | {"encoder_layer_norm_first": True, "extractor_mode": "layer_norm"}
    bundle = torchaudio.pipelines.Wav2Vec2ASRBundle(
        "x.pth", {**params, "aux_num_out": 5}, 16_000, True, "Wav2Vec2", (), ()
    )
    monkeypatch.setattr(torchaudio.pipelines, "HUBERT_ASR_LARGE", bundle)
    model = save_torchaudio(tmp_path / "tiny.pth", "Wav2Vec2", large=True)
    state = torch.load(tmp_path / "tiny.pth", weights_only=True)
    torch.save({**state, "aux.weight": torch.ones(5, 16), "aux.bias": torch.ones(5)}, tmp_path / "tiny.pth")
    upstream = Torchaudio(torchaudio_card(tmp_path, options={"bundle": "HUBERT_ASR_LARGE"}))
    assert upstream.normalize
    check(upstream, model, *noise(*LENGTHS), normalize=True)
    assert count_parameters(upstream.module()) == count_parameters(model)


@pytest.mark.parametrize("name", sorted(torchaudio_models._bundles()))
def test_every_pipeline_is_known(name, monkeypatch):
    """Kinds and arguments of all installed pipelines fit the factories; nothing of their size is allocated."""
    kind, params, normalize = torchaudio_models._description(torchaudio_card_of(name))
    assert isinstance(normalize, bool)
    with torch.device("meta"):
        model = torchaudio_models.FACTORIES[kind](**{**params, "aux_num_out": None, "encoder_num_layers": 1})
    assert count_parameters(model) > 10**6


def torchaudio_card_of(bundle):
    from harness.cards import Card

    return Card("x", "x", "x", "x", "x", "x", options={"bundle": bundle})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "set option bundle, a name in torchaudio.pipelines, or model and params"),
        ({"bundle": "HUBERT_BAS"}, "no pipeline 'HUBERT_BAS', did you mean 'HUBERT_BASE'"),
        ({"bundle": "HUBERT_BASE", "normalize": True}, "bundle says params and normalize already"),
        ({"bundle": "HUBERT_BASE", "model": "WavLM"}, "set option bundle, .* or model and params"),
        ({"model": "Conformer"}, "option model is 'Conformer'; write one of Wav2Vec2, WavLM"),
        ({"model": "WavLM", "params": {"depth": 3}}, r"builds no WavLM model of option params \(.*unexpected keyword"),
        ({"model": "WavLM", "params": TORCHAUDIO["WavLM"]}, r"do not fit .* missing .* unexpected"),
        (
            {"model": "Wav2Vec2", "params": {**TORCHAUDIO["Wav2Vec2"], "encoder_num_layers": 4}},
            r"do not fit .*layers\.3",
        ),
    ],
)
def test_cards_that_are_refused(tmp_path, options, message):
    save_torchaudio(tmp_path / "tiny.pth", "Wav2Vec2")
    with pytest.raises(SlimbenchError, match=message):
        Torchaudio(torchaudio_card(tmp_path, options=options))


def test_a_wavlm_file_as_hubert_is_refused(tmp_path):
    save_torchaudio(tmp_path / "tiny.pth", "WavLM")
    with pytest.raises(
        SlimbenchError, match=r"do not fit .* unexpected \(such as encoder\.transformer\.layers\.0\.att"
    ):
        Torchaudio(torchaudio_card(tmp_path, "tiny", "Wav2Vec2"))


@pytest.mark.parametrize("kind", KINDS)
def test_macs_can_be_counted(tmp_path, kind):
    save_torchaudio(tmp_path / "tiny.pth", kind)
    save_torchaudio(tmp_path / "wide.pth", kind, encoder_ff_interm_features=40)
    tiny = Torchaudio(torchaudio_card(tmp_path, "tiny", kind))
    wide = Torchaudio(torchaudio_card(tmp_path, "wide", kind, encoder_ff_interm_features=40))
    frames = (16_000 - 165) // 320 + 1
    assert count_macs(wide, 1.0) - count_macs(tiny, 1.0) == frames * 3 * 2 * 16 * (40 - 24)
