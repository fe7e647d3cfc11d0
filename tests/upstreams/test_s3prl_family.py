"""The s3prl adapter against s3prl itself, on random checkpoints that s3prl's own code writes; and what is refused."""

import os
import pickle
import socket
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from s3prl.util import download
from tiny_models import S3PRL_CONVOLUTIONS, adapter_card, noise, real_speech, save_wavlm

from harness.cost import count_macs, count_parameters
from harness.interface import SlimbenchError
from upstreams.adapters.s3prl_family import S3prl

SIZES = {"encoder_layers": 2, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 24, "encoder_attention_heads": 2}


def shaken(model):
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.state_dict()


def save_distiller(file):
    from s3prl.upstream.distiller.model import DistillerConfig, DistillerModel

    torch.manual_seed(1)
    config = {
        "extractor_mode": "default",
        "extractor_conv_feature_layers": S3PRL_CONVOLUTIONS,
        "final_dim": 16,
        **SIZES,
    }
    config |= {"n_tasks": 2, "task_emb_type": "expand-last", "out_layer_type": "expand-last", "pred_layer_id": [1, 2]}
    config |= {"conv_pos": 8, "conv_pos_groups": 2, "layer_emb_size": 0, "loss_type": "l1"}
    torch.save({"Distiller": shaken(DistillerModel(DistillerConfig(config))), "Config": {"distiller": config}}, file)


SAVE = {"distiller": save_distiller, "wavlm": save_wavlm}


def s3prl_card(folder, family="wavlm", **options):
    adapter = "upstreams.adapters.s3prl_family:S3prl"
    return adapter_card(folder, "tiny", adapter, weights="tiny.pt", options={"family": family, **options})


def expert(family, file):
    """s3prl's own way to its states."""
    from importlib import import_module

    return import_module(f"s3prl.upstream.{family}.expert").UpstreamExpert(str(file)).eval()


def check(upstream, model, waves, lengths, selection="hidden_states"):
    batched = upstream.encode(waves, lengths)
    for row, length in enumerate(lengths.tolist()):
        with torch.no_grad():
            found = model([waves[row, :length]])[selection]
        expected = [found] if isinstance(found, torch.Tensor) else found
        assert len(expected) == upstream.num_states
        assert int(batched.lengths[row]) == expected[0].shape[1]
        for mine, theirs in zip(batched.states, expected, strict=True):
            torch.testing.assert_close(mine[row, : theirs.shape[1]], theirs[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("entry", ["", "local"])
@pytest.mark.parametrize(("family", "states"), [("distiller", 5), ("wavlm", 3)])
def test_states_are_those_of_s3prl(tmp_path, monkeypatch, family, states, entry):
    SAVE[family](tmp_path / "tiny.pt")
    reference = expert(family, tmp_path / "tiny.pt")
    monkeypatch.setattr(socket, "socket", None)
    upstream = S3prl(s3prl_card(tmp_path, family, entry=f"{family}_{entry}" if entry else ""))
    assert (upstream.num_states, upstream.width, upstream.frame_ms) == (states, 16, 20.0)
    assert upstream.min_samples == 165
    check(upstream, reference, *noise(16_000, 11_111, 5_000))
    unused = 16 if family == "wavlm" else 0  # mask_emb
    assert count_parameters(upstream.module()) == count_parameters(reference) - unused
    assert count_macs(upstream, 1.0) > 0


@pytest.mark.skipif("REAL_SPEECH" not in os.environ, reason="REAL_SPEECH names no folder of recordings")
@pytest.mark.parametrize("family", SAVE)
def test_real_speech(tmp_path, family):
    SAVE[family](tmp_path / "tiny.pt")
    check(S3prl(s3prl_card(tmp_path, family)), expert(family, tmp_path / "tiny.pt"), *real_speech())


def test_another_selection(tmp_path):
    save_distiller(tmp_path / "tiny.pt")
    upstream = S3prl(s3prl_card(tmp_path, "distiller", selection="paper"))
    assert upstream.num_states == 1
    check(upstream, expert("distiller", tmp_path / "tiny.pt"), *noise(16_000, 11_111), selection="paper")
    other = S3prl(s3prl_card(tmp_path, "distiller"))
    assert upstream.fingerprint != other.fingerprint


def change(file, edit):
    found = torch.load(file, weights_only=True)
    edit(found)
    torch.save(found, file)


@pytest.mark.parametrize(
    ("edit", "options", "message"),
    [
        (lambda c: c, {"family": "distiller"}, r"tiny\.pt cannot be loaded as s3prl's family distiller \(KeyError"),
        (lambda c: c, {"family": "hubert"}, r"cannot be loaded as s3prl's family hubert \("),
        (lambda c: c, {"family": "wavlmm"}, r"cannot be loaded as s3prl's family wavlmm \(ModuleNotFoundError"),
        (lambda c: c, {"family": "os.path"}, r"option family is 'os\.path'; name a folder of s3prl/upstream"),
        (lambda c: c, {"family": "hf_wav2vec2"}, r"set 'adapter: upstreams\.adapters\.huggingface:HuggingFace'"),
        (lambda c: c, {"entry": "wavlm_url"}, r"only …_local and …_custom take a local file"),
        (lambda c: c, {"entry": "wavlm_base_plus"}, r"only …_local and …_custom take a local file"),
        (lambda c: c, {"arguments": {"ckpt2": "https://x"}}, r"argument ckpt2 is 'https://x'; write a number"),
        (
            lambda c: c,
            {"selection": "paper"},
            r"no states under 'paper'; set option selection to one of hidden_state_0",
        ),
        (lambda c: c, {"padded": True}, "option padded is not for s3prl models"),
        (
            lambda c: c["model"].pop("layer_norm.bias"),
            {},
            r"do not fit the model: 1 missing \(such as layer_norm\.bias\)",
        ),
        (lambda c: c["model"].update(x=torch.ones(1)), {}, r"do not fit the model: 1 unexpected \(such as x\); name"),
        (lambda c: c["cfg"].update(gru_rel_pos=False), {}, r"unexpected \(such as encoder\.layers\.0\.self_attn\.grep"),
        (lambda c: c["cfg"].update(encoder_embed_dim=32), {}, r"cannot be loaded .* \(RuntimeError: .*size mismatch"),
    ],
)
def test_what_is_refused(tmp_path, edit, options, message):
    save_wavlm(tmp_path / "tiny.pt")
    change(tmp_path / "tiny.pt", edit)
    with pytest.raises(SlimbenchError, match=message) as error:
        S3prl(s3prl_card(tmp_path, **options))
    assert "\n" not in str(error.value)


def test_left_over_weights_can_be_listed(tmp_path):
    save_wavlm(tmp_path / "tiny.pt")
    plain = S3prl(s3prl_card(tmp_path))
    change(tmp_path / "tiny.pt", lambda c: c["model"].update({"final_proj.weight": torch.ones(1)}))
    upstream = S3prl(s3prl_card(tmp_path, left_over=["final_proj."]))
    assert torch.equal(upstream.encode(*noise(8_000)).states[-1], plain.encode(*noise(8_000)).states[-1])


def fake_family(monkeypatch, start):
    """A family of s3prl whose expert begins by ``start(expert, ckpt)``."""

    class UpstreamExpert(torch.nn.Linear):
        def __init__(self, ckpt):
            super().__init__(3, 3)
            start(self, ckpt)

    module = ModuleType("s3prl.upstream.fake.expert")
    module.UpstreamExpert = UpstreamExpert
    monkeypatch.setitem(sys.modules, "s3prl.upstream.fake", ModuleType("s3prl.upstream.fake"))
    monkeypatch.setitem(sys.modules, "s3prl.upstream.fake.expert", module)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (lambda e, c: e.load_state_dict(torch.load(c)["model"], strict=False), r"do not fit .*2 missing .*unexpected"),
        (lambda e, c: torch.load(c), r"s3prl's family fake loads no weights from .*; use another adapter"),
        (lambda e, c: torch.load("/etc/passwd"), r"s3prl wants to load /etc/passwd, but only .*tiny\.pt may be read"),
        (lambda e, c: torch.hub.load_state_dict_from_url("https://x"), "wants to download a file"),
        (lambda e, c: download._urls_to_filepaths("https://x/y.pt"), "wants to download a file"),
    ],
)
def test_what_experts_may_not_do(tmp_path, monkeypatch, start, message):
    """As LightHuBERT's expert, which would leave weights random; and as those that fetch further files."""
    fake_family(monkeypatch, start)
    save_wavlm(tmp_path / "tiny.pt")
    with pytest.raises(SlimbenchError, match=message):
        S3prl(s3prl_card(tmp_path, "fake"))


@pytest.mark.parametrize("family", ["distiller", "wavlm"])
def test_a_pickle_that_runs_code_is_refused(tmp_path, family):
    class Trap:
        def __reduce__(self):
            return (np.save, (str(tmp_path / "sprung"), 1))

    torch.save({"Config": Trap(), "Distiller": {}, "cfg": {}, "model": {}}, tmp_path / "tiny.pt")
    with pytest.raises(SlimbenchError, match=r"tiny\.pt"):
        S3prl(s3prl_card(tmp_path, family))
    assert not list(tmp_path.glob("sprung*"))
    with (tmp_path / "tiny.pt").open("wb") as stream:
        pickle.dump({"a": Trap()}, stream)
    with pytest.raises(SlimbenchError, match=r"tiny\.pt"):
        S3prl(s3prl_card(tmp_path, family))
    assert not list(tmp_path.glob("sprung*"))


def test_torch_is_left_as_it_was(tmp_path):
    before = torch.load, torch.nn.Module.load_state_dict, torch.get_rng_state()
    save_wavlm(tmp_path / "tiny.pt")
    before = *before[:2], torch.get_rng_state()
    S3prl(s3prl_card(tmp_path))
    assert (torch.load, torch.nn.Module.load_state_dict) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])
