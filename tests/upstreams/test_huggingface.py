"""The Hugging Face adapter against direct calls of Transformers, for each family; and folders that must be refused."""

import json
import os
import pickle
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES, hf_card, hf_class, hf_model, noise, real_speech, save_hf
from torchaudio.models.wav2vec2.utils import import_huggingface_model
from transformers import Wav2Vec2FeatureExtractor

from harness.cost import count_macs, count_parameters
from harness.interface import SlimbenchError
from upstreams.adapters.huggingface import HuggingFace

LENGTHS = (16_000, 11_111, 5_000)


def direct(model, wave, do_normalize):
    """Hidden states of one utterance (S,) by Transformers alone, with its own feature extractor and final norm."""
    extractor = Wav2Vec2FeatureExtractor(do_normalize=do_normalize)
    values = extractor([wave.numpy()], sampling_rate=16_000, return_tensors="pt").input_values
    with torch.no_grad():
        output = model(values, output_hidden_states=True)
    return [*output.hidden_states[:-1], output.last_hidden_state]


@pytest.mark.parametrize("do_normalize", [True, False])
@pytest.mark.parametrize("norm", ["layer", "group"])
@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_of_transformers(tmp_path, family, norm, do_normalize):
    folder = save_hf(hf_model(family, norm=norm), tmp_path / "tiny", do_normalize)
    upstream = HuggingFace(hf_card(tmp_path, family=family, depth=3, width=16))
    reference = hf_class(family, "Model").from_pretrained(folder).eval()
    for length in LENGTHS:
        waves, lengths = noise(length)
        got = upstream.encode(waves, lengths)
        expected = direct(reference, waves[0], do_normalize)
        assert upstream.num_states == len(got.states) == len(expected) == 4
        assert got.lengths.tolist() == [expected[0].shape[1]]
        for mine, theirs in zip(got.states, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


CASES = [(family, norm, {}) for family in FAMILIES for norm in ("layer", "group")]
CASES += [("hubert", "layer", {"conv_pos_batch_norm": True}), ("hubert", "group", {"feat_proj_layer_norm": False})]
CASES += [("wav2vec2-conformer", "layer", {"position_embeddings_type": kind}) for kind in ("rotary", None)]


@pytest.mark.parametrize(("family", "norm", "settings"), CASES)
def test_a_padded_batch_equals_single_calls(tmp_path, family, norm, settings):
    model = hf_model(family, norm=norm, **settings)
    if "conv_pos_batch_norm" in settings:  # an offset, as training would leave it, makes something of the padding
        model.encoder.pos_conv_embed.batch_norm.bias.data += 1.0
    for part in model.modules():  # likewise in the convolutions of Conformer layers
        if isinstance(part, torch.nn.BatchNorm1d):
            part.running_mean.normal_()
    folder = save_hf(model, tmp_path / "tiny")
    upstream = HuggingFace(hf_card(tmp_path))
    waves, lengths = noise(*LENGTHS)
    assert upstream.batch_invariant
    got = upstream.encode(waves, lengths)
    reference = hf_class(family, "Model").from_pretrained(folder).eval()
    for row, (wave, length) in enumerate(zip(waves, LENGTHS, strict=True)):
        expected = direct(reference, wave[:length], True)
        assert got.lengths[row] == expected[0].shape[1]
        for mine, theirs in zip(got.states, expected, strict=True):
            torch.testing.assert_close(mine[row, : theirs.shape[1]], theirs[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["hubert", "data2vec-audio", "wav2vec2-conformer"])
def test_without_our_masks_a_padded_batch_differs(tmp_path, family):
    """The test above can fail: Transformers' own batch has other states."""
    model = hf_model(family, norm="group")
    waves, lengths = noise(*LENGTHS)
    mask = (torch.arange(waves.shape[1]) < lengths[:, None]).long()
    with torch.no_grad():
        batched = model(waves, attention_mask=mask).last_hidden_state
        alone = model(waves[2:, : LENGTHS[2]]).last_hidden_state
    assert not torch.allclose(batched[2:, : alone.shape[1]], alone, atol=1e-3)


@pytest.mark.parametrize("family", ["wav2vec2", "hubert"])
def test_the_last_state_of_large_models_is_normed(tmp_path, family):
    """As in the encoder's output of fairseq and s3prl; torchaudio's copy of the model says so independently."""
    folder = save_hf(hf_model(family), tmp_path / "tiny")
    other = import_huggingface_model(hf_class(family, "Model").from_pretrained(folder)).eval()
    waves, lengths = noise(8_000)
    states = HuggingFace(hf_card(tmp_path, options={"do_normalize": False})).encode(waves, lengths).states
    with torch.no_grad():
        layers, last = other.extract_features(waves)[0], other(waves)[0]
    for mine, theirs in zip(states[1:], [*layers[:-1], last], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(states[-1], layers[-1], atol=0.1)


def test_the_padding_beyond_the_longest_is_ignored(tmp_path):
    save_hf(hf_model("hubert", norm="group"), tmp_path / "tiny")
    upstream = HuggingFace(hf_card(tmp_path))
    waves, lengths = noise(8_000)
    wider = torch.nn.functional.pad(waves, (0, 5_000))
    assert torch.equal(upstream.encode(wider, lengths).states[-1], upstream.encode(waves, lengths).states[-1])


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        *(("wav2vec2", "ForPreTraining"), ("unispeech", "ForPreTraining"), ("unispeech-sat", "ForPreTraining")),
        *(("wav2vec2", "ForCTC"), ("hubert", "ForCTC"), ("wavlm", "ForCTC"), ("wav2vec2-conformer", "ForCTC")),
    ],
)
def test_pretraining_heads_are_left_out(tmp_path, family, kind):
    settings = {
        "num_codevector_groups": 2,
        "num_codevectors_per_group": 4,
        "codevector_dim": 8,
        "proj_codevector_dim": 8,
    }
    model = hf_model(family, kind, **settings)
    save_hf(model, tmp_path / "tiny", do_normalize=False)
    upstream = HuggingFace(hf_card(tmp_path))
    waves, lengths = noise(8_000)
    with torch.no_grad():
        expected = getattr(model, model.base_model_prefix)(waves).last_hidden_state
    torch.testing.assert_close(upstream.encode(waves, lengths).states[-1], expected, rtol=1e-5, atol=1e-5)
    heads = sum(p.numel() for n, p in model.named_parameters() if not n.startswith(model.base_model_prefix))
    heads += getattr(model, model.base_model_prefix).masked_spec_embed.numel()
    if family == "wav2vec2-conformer":  # stored and built, but used by no pass
        heads += sum(p.numel() for p in model.wav2vec2_conformer.encoder.pos_conv_embed.parameters())
    assert count_parameters(upstream.module()) == count_parameters(model) - heads


def test_other_heads_are_refused(tmp_path):
    save_hf(hf_model("hubert", "ForSequenceClassification"), tmp_path / "tiny")
    with pytest.raises(SlimbenchError, match=r"do not fit .* 4 unexpected \(such as classifier\.bias\); take both"):
        HuggingFace(hf_card(tmp_path))


def test_a_torch_file_with_old_weight_norm_names(tmp_path):
    folder = save_hf(hf_model("wavlm"), tmp_path / "tiny")
    new = HuggingFace(hf_card(tmp_path))
    state = load_file(folder / "model.safetensors")
    old = {n.replace("parametrizations.weight.original0", "weight_g"): t for n, t in state.items()}
    old = {n.replace("parametrizations.weight.original1", "weight_v"): t for n, t in old.items()}
    assert old.keys() != state.keys()
    (folder / "model.safetensors").unlink()
    torch.save({f"wavlm.{name}": tensor for name, tensor in old.items()}, folder / "pytorch_model.bin")
    upstream = HuggingFace(hf_card(tmp_path))
    waves = noise(8_000)
    assert torch.equal(upstream.encode(*waves).states[-1], new.encode(*waves).states[-1])
    assert upstream.fingerprint != new.fingerprint


def test_shards_are_put_together(tmp_path):
    folder = save_hf(hf_model("hubert"), tmp_path / "tiny")
    whole = HuggingFace(hf_card(tmp_path))
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    save_file({n: state[n] for n in names[:9]}, folder / "model-00001-of-00002.safetensors")
    save_file({n: state[n] for n in names[9:]}, folder / "model-00002-of-00002.safetensors")
    waves = noise(8_000)
    assert torch.equal(HuggingFace(hf_card(tmp_path)).encode(*waves).states[-1], whole.encode(*waves).states[-1])


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    folder = save_hf(hf_model("hubert"), tmp_path / "tiny")
    (folder / "model.safetensors").unlink()

    class Trap:
        def __reduce__(self):
            return (np.save, (str(tmp_path / "sprung"), 1))

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Trap()}))
    with pytest.raises(SlimbenchError, match=r"pytorch_model\.bin cannot be read as a file of weights"):
        HuggingFace(hf_card(tmp_path))
    assert not list(tmp_path.glob("sprung*"))


@pytest.mark.parametrize("declared", ["wav2vec2", "hubert"])
def test_a_wavlm_folder_declared_as_another_family_is_refused(tmp_path, declared):
    folder = save_hf(hf_model("wavlm"), tmp_path / "tiny")
    with pytest.raises(SlimbenchError, match=rf"tiny\.yaml says family {declared}, but .* holds a wavlm model"):
        HuggingFace(hf_card(tmp_path, family=declared))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": declared}))
    with pytest.raises(SlimbenchError, match=r"do not fit .* unexpected \(such as encoder\.layers\.0\.attention\.gru"):
        HuggingFace(hf_card(tmp_path))


def test_no_family_passes_for_another(tmp_path):
    """Each family under each other's name: refused, or the same computation with the same states."""
    refused = set()
    for family in FAMILIES:
        folder = save_hf(hf_model(family, norm="group", num_hidden_layers=1), tmp_path / family)
        true = HuggingFace(hf_card(tmp_path, family)).encode(*noise(8_000)).states
        for claimed in FAMILIES.keys() - {family}:
            edit_config(folder, model_type=claimed)
            try:
                found = HuggingFace(hf_card(tmp_path, family)).encode(*noise(8_000)).states
            except SlimbenchError as error:
                refused.add((family, claimed, bool(re.search("do not fit|does not describe", str(error)))))
            else:
                for mine, theirs in zip(found, true, strict=True):
                    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    for special in ("wavlm", "wav2vec2-conformer"):
        for other in FAMILIES.keys() - {special}:
            assert {(special, other, True), (other, special, True)} <= refused


@pytest.mark.parametrize("family", ["whisper", "wav2vec2-bert"])
def test_families_with_an_adapter_of_their_own(tmp_path, family):
    edit_config(save_hf(hf_model("hubert"), tmp_path / "tiny"), model_type=family)
    with pytest.raises(SlimbenchError, match=r"set 'adapter: upstreams\.adapters\.w.*' in .*tiny\.yaml"):
        HuggingFace(hf_card(tmp_path))


def edit_config(folder, **values):
    """Change config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "bert"}, r"config\.json has model_type 'bert'; known are wav2vec2, hubert"),
        ({"add_adapter": True}, "adds adapter layers after the encoder"),
        ({"num_hidden_layers": 4}, r"do not fit .*: 16 missing \(such as encoder\.layers\.3\."),
        ({"intermediate_size": 20}, r"intermediate_dense\.bias is \(24,\) where the model has \(20,\)"),
    ],
)
def test_configurations_that_do_not_fit(tmp_path, values, message):
    folder = save_hf(hf_model("wav2vec2"), tmp_path / "tiny")
    edit_config(folder, **values)
    with pytest.raises(SlimbenchError, match=message):
        HuggingFace(hf_card(tmp_path))


@pytest.mark.parametrize(
    "values", [{"hidden_size": "abc"}, {"hidden_size": 15}, {"hidden_act": "nope"}, {"num_attention_heads": 0}]
)
def test_configurations_that_transformers_refuses_are_one_sentence(tmp_path, values):
    folder = save_hf(hf_model("hubert"), tmp_path / "tiny")
    edit_config(folder, **values)
    with pytest.raises(SlimbenchError, match=r"tiny.config\.json does not describe a model .*; copy it") as error:
        HuggingFace(hf_card(tmp_path))
    assert "\n" not in str(error.value)


def test_a_weight_in_two_files_is_refused(tmp_path):
    folder = save_hf(hf_model("hubert"), tmp_path / "tiny")
    state = load_file(folder / "model.safetensors")
    name = min(state)
    save_file({name: state[name] + 1}, folder / "other.safetensors")
    said = rf"model\.safetensors and .*other\.safetensors both hold the weight {name}; keep"
    with pytest.raises(SlimbenchError, match=said):
        HuggingFace(hf_card(tmp_path))


@pytest.mark.parametrize("value", ["true", 1])
def test_do_normalize_is_true_or_false(tmp_path, value):
    save_hf(hf_model("hubert"), tmp_path / "tiny")
    with pytest.raises(SlimbenchError, match=r"tiny\.yaml: option do_normalize is .*; write true or false, without"):
        HuggingFace(hf_card(tmp_path, options={"do_normalize": value}))


def test_the_depth_on_the_card_must_be_true(tmp_path):
    save_hf(hf_model("wav2vec2"), tmp_path / "tiny")
    with pytest.raises(SlimbenchError, match=r"tiny\.yaml says depth 12, but .*tiny has 3; correct the card"):
        HuggingFace(hf_card(tmp_path, depth=12))


def test_files_that_are_missing_or_broken(tmp_path):
    folder = save_hf(hf_model("wav2vec2"), tmp_path / "tiny")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(SlimbenchError, match=r"preprocessor_config\.json .*cannot be read"):
        HuggingFace(hf_card(tmp_path))
    assert HuggingFace(hf_card(tmp_path, options={"do_normalize": True})).do_normalize
    (folder / "preprocessor_config.json").write_text("{}")
    with pytest.raises(SlimbenchError, match=r"preprocessor_config\.json lacks do_normalize"):
        HuggingFace(hf_card(tmp_path))
    (folder / "config.json").write_text("{")
    with pytest.raises(SlimbenchError, match=r"config\.json .*is not valid JSON"):
        HuggingFace(hf_card(tmp_path))


def test_the_fingerprint_is_of_content(tmp_path):
    model = hf_model("hubert")
    folder = save_hf(model, tmp_path / "tiny")
    first = HuggingFace(hf_card(tmp_path)).fingerprint
    save_hf(model, tmp_path / "renamed")
    assert HuggingFace(hf_card(tmp_path, "renamed")).fingerprint == first
    assert HuggingFace(hf_card(tmp_path, options={"do_normalize": False})).fingerprint != first
    edit_config(folder, layer_norm_eps=1e-3)
    assert HuggingFace(hf_card(tmp_path)).fingerprint != first
    save_hf(model, folder)
    assert HuggingFace(hf_card(tmp_path)).fingerprint == first
    model.feature_projection.projection.bias.data += 1.0
    save_hf(model, folder)
    assert HuggingFace(hf_card(tmp_path)).fingerprint != first


@pytest.mark.parametrize("family", FAMILIES)
def test_macs_can_be_counted(tmp_path, family):
    """Every family passes the counter's own checks, and a wider feed-forward costs what its matrices say."""
    save_hf(hf_model(family), tmp_path / "tiny")
    save_hf(hf_model(family, intermediate_size=40), tmp_path / "wide")
    tiny, wide = (count_macs(HuggingFace(hf_card(tmp_path, name)), 1.0) for name in ("tiny", "wide"))
    frames = (16_000 - 165) // 320 + 1
    matrices = 4 if family == "wav2vec2-conformer" else 2  # two feed-forward blocks per layer
    assert wide - tiny == frames * 3 * matrices * 16 * (40 - 24)


@pytest.mark.skipif("REAL_SPEECH" not in os.environ, reason="REAL_SPEECH names no folder of recordings")
@pytest.mark.parametrize("norm", ["layer", "group"])
@pytest.mark.parametrize("family", FAMILIES)
def test_real_speech(tmp_path, family, norm):
    folder = save_hf(hf_model(family, norm=norm), tmp_path / "tiny")
    upstream, reference = HuggingFace(hf_card(tmp_path)), hf_class(family, "Model").from_pretrained(folder).eval()
    waves, lengths = real_speech()
    batched = upstream.encode(waves, lengths)
    for row, length in enumerate(lengths.tolist()):
        wave = waves[row, :length]
        alone = upstream.encode(wave[None], lengths[row : row + 1]).states
        for one, many, theirs in zip(alone, batched.states, direct(reference, wave, True), strict=True):
            torch.testing.assert_close(one, theirs, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(many[row, : theirs.shape[1]], theirs[0], rtol=1e-4, atol=1e-4)
