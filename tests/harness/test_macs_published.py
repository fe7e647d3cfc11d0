"""The counts that SUPERB's leaderboard prints, from models of the published shapes; their weights do not matter."""

import pytest
import torch
from transformers import HubertConfig, HubertModel

from harness import cost
from harness.interface import HiddenStates
from harness.superb_lengths import BUCKETS

PROFILER = 1_669_156_022_848  # HuBERT base in the README of the leaderboard's profiling tool


@pytest.fixture(scope="module", autouse=True)
def _weights_without_a_draw():
    """Every weight is 0.01: drawing some hundred million random numbers takes longer than counting."""

    def fill(tensor, *_, **__):
        with torch.no_grad():
            return tensor.fill_(0.01)

    with pytest.MonkeyPatch.context() as patch:
        for name in (name for name in vars(torch.nn.init) if name.endswith("_") and not name.startswith("_")):
            patch.setattr(torch.nn.init, name, fill)
        for name in ("normal_", "uniform_"):
            patch.setattr(torch.Tensor, name, fill)
        yield


class Model:
    """A module and how to get its states, as an upstream."""

    fingerprint, frame_ms, variable_rate, min_samples, batch_invariant = "0", 20.0, False, 400, False

    def __init__(self, name, module, states):
        self.name, self.inner, self.states = name, module.eval().requires_grad_(False), states

    def module(self):
        return self.inner

    @torch.no_grad()
    def encode(self, waves, lengths):
        states = self.states(self.inner, waves)
        return HiddenStates(states, torch.full_like(lengths, states[0].shape[1]), self.frame_ms)


def hubert(layers=12):
    config = HubertConfig(num_hidden_layers=layers, mask_time_prob=0.0)
    return Model("hubert", HubertModel(config), lambda m, x: m(x, output_hidden_states=True).hidden_states)


def in_fused_attention(layers=12, width=768, heads=12):
    """What the profiler adds: elementwise work of torch's fused attention, by its own formulas.

    Biases of queries, keys and values, the scale of the queries; mask, two for softmax, dropout.
    """
    total = 0
    for bucket in BUCKETS.values():
        for samples in bucket:
            frames = (samples - 400) // 320 + 1
            total += layers * (3 * frames * width + frames * width + (1 + 2 + 1) * heads * frames**2)
    return total


@pytest.fixture(scope="module")
def base(_weights_without_a_draw):
    return cost.count_superb_macs(hubert())


def test_hubert_base(base):
    assert base.counted == "shapes"
    assert base.total / 1e9 == pytest.approx(1669.16, rel=0.005)
    buckets = [value / 1e9 for value in base.buckets.values()]
    assert buckets == pytest.approx([149.26, 261.28, 422.37, 836.25], rel=0.005)  # as the leaderboard prints them


def test_hubert_base_to_the_last_product(base):
    assert base.total + in_fused_attention() == PROFILER


def distiller(heads):
    from s3prl.upstream.distiller.model import DistillerConfig, DistillerModel

    settings = {
        "extractor_conv_feature_layers": "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2",
        "encoder_layers": 2,
        "task_emb_type": "expand-last",
        "n_tasks": 3,
    }
    model = DistillerModel(DistillerConfig(settings))
    if not heads:
        model.output_layer = None

    def states(model, waves):
        _, final, predicted, _, hidden = model(waves, torch.ones(waves.shape), get_hidden=True, no_pred=not heads)
        return [final, *hidden, *(predicted.unbind(1) if heads else ())]

    return Model("distiller", model, states)


@pytest.mark.parametrize(
    ("heads", "params", "macs", "within"), [(False, 23.49, 785.0, 0.001), (True, 27.03, 825.6, 0.002)]
)
def test_distilhubert(heads, params, macs, within):
    pytest.importorskip("s3prl")
    upstream = distiller(heads)
    assert cost.count_parameters(upstream.module()) / 1e6 == pytest.approx(params, abs=0.005)
    found = cost.count_superb_macs(upstream)
    assert found.counted == "shapes"
    assert found.total / 1e9 == pytest.approx(macs, rel=within)


def test_lighthubert_small():
    pytest.importorskip("s3prl")
    from s3prl.upstream.lighthubert.lighthubert import LightHuBERT, LightHuBERTConfig

    model = LightHuBERT(LightHuBERTConfig({"supernet_type": "small"}))
    model.set_sample_config(model.supernet.subnet)
    model.remove_pretraining_modules()
    model.mask_emb = None
    upstream = Model("lighthubert", model, lambda m, x: m.extract_features(x, ret_hs=True)[0])
    found = cost.count_superb_macs(upstream)
    assert found.counted == "shapes"
    assert found.total / 1e9 == pytest.approx(860.7, rel=0.01)
