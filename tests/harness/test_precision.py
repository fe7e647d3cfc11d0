"""Upstreams in 16 and in 8 bits against themselves in float32, and 8-bit layers against torch's own."""

import pytest
import torch
from torch import nn
from wrapped import Convolution, Encoder, Recurrent, Wrapped

from harness import cost
from harness.cards import read_card
from harness.extraction.extract import check_upstream
from harness.interface import HiddenStates, SlimbenchError
from harness.precision import Reduced
from harness.precision.quantised import Int8Linear, Int8Weights
from harness.registry import load_upstream

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

LENGTHS = (9_000, 5_000, 1_500)


class Speech(nn.Module):
    """What speech models are made of: group norm over time, weight norm, attention by parts, batch norm, a table."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv1d(1, 8, 400, 320, bias=False)
        self.norm = nn.GroupNorm(8, 8)
        self.batch = nn.BatchNorm1d(8)
        self.positional = nn.utils.parametrizations.weight_norm(nn.Conv1d(8, 8, 5, padding=2, groups=2), dim=2)
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.ffn = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 24), nn.GELU(), nn.Linear(24, 8, bias=False))
        self.register_buffer("table", torch.randn(1, 1, 8))
        self.batch.running_var.fill_(2.0)

    def attend(self, x):
        projections = (self.q, self.k, self.v)
        biases = torch.cat([layer.bias for layer in projections])
        names = {f"{name}_proj_weight": layer.weight for name, layer in zip("qkv", projections, strict=True)}
        return nn.functional.multi_head_attention_forward(
            x, x, x, 8, 2, None, biases, None, None, False, 0.0, self.out.weight, self.out.bias,
            training=False, need_weights=False, use_separate_proj_weight=True, **names,
        )[0]  # fmt: skip

    def forward(self, waves):
        x = self.batch(self.norm(self.conv(waves[:, None])))
        x = (x + self.positional(x)).transpose(1, 2) + self.table
        x = x + self.attend(x.transpose(0, 1)).transpose(0, 1)
        return x + self.ffn(x)


def upstream(module=Speech):
    torch.manual_seed(0)
    return Wrapped(module())


def audio():
    waves = torch.randn(len(LENGTHS), max(LENGTHS), generator=torch.Generator().manual_seed(1))
    for wave, length in zip(waves, LENGTHS, strict=True):
        wave[length:] = 0
    return waves, torch.tensor(LENGTHS)


def far(one, other):
    """Relative distance of two states."""
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize(("precision", "bound"), [("float16", 2e-3), ("bfloat16", 2e-2), ("int8", 2e-2)])
@pytest.mark.parametrize("module", [Speech, Encoder, lambda: Recurrent(nn.LSTM, num_layers=2)])
def test_states_are_near_those_in_float32(module, precision, bound):
    if precision == "int8" and module not in (Speech, Encoder):
        pytest.skip("no linear layers")
    waves, lengths = audio()
    full, reduced = upstream(module), Reduced(upstream(module), precision)
    states = reduced.encode(waves, lengths)
    assert states.states[0].dtype == torch.float32
    for index, length in enumerate(LENGTHS):
        expected = full.encode(waves[index : index + 1, :length], lengths[index : index + 1])
        frames = int(expected.lengths)
        assert int(states.lengths[index]) == frames
        assert 1e-5 < far(states.states[0][index, :frames], expected.states[0][0]) < bound
        assert not states.states[0][index, frames:].any()


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "int8"])
def test_an_utterance_has_the_same_states_in_any_company(precision):
    reduced, (waves, lengths) = Reduced(upstream(), precision), audio()
    together = reduced.encode(waves, lengths)
    loud = torch.cat([waves, 100 * waves[:1]])
    with_loud = reduced.encode(loud, torch.tensor([*LENGTHS, LENGTHS[0]]))
    for index, length in enumerate(LENGTHS):
        alone = reduced.encode(waves[index : index + 1, :length], lengths[index : index + 1])
        frames = int(alone.lengths)
        assert torch.equal(together.states[0][index, :frames], alone.states[0][0])
        assert torch.equal(with_loud.states[0][index, :frames], alone.states[0][0])
    assert reduced.batch_invariant
    check_upstream(reduced, "cpu")


def test_8_bit_inputs_depend_on_their_company_inside():
    """Why utterances are encoded one by one."""
    layer = Int8Linear(nn.Linear(8, 8))
    x = torch.randn(1, 5, 8)
    assert not torch.equal(layer(x), layer(torch.cat([x, 100 * x]))[:1])


def test_everything_else_is_passed_on():
    full = upstream()
    full.frame_ms, full.variable_rate, full.min_samples, full.batch_invariant = 12.5, True, 777, False
    reduced = Reduced(full, "bfloat16")
    assert (reduced.name, reduced.frame_ms, reduced.variable_rate, reduced.min_samples) == ("wrapped", 12.5, True, 777)
    assert (reduced.num_states, reduced.width) == (full.num_states, full.width)


def test_a_fingerprint_for_each_precision_and_each_upstream():
    other = upstream()
    other.fingerprint = "1"
    made = [Reduced(upstream(), precision) for precision in ("float16", "bfloat16", "int8")] + [Reduced(other, "int8")]
    keys = {item.fingerprint for item in made} | {"0", "1"}
    assert len(keys) == 6
    assert Reduced(upstream(), "int8").fingerprint == made[2].fingerprint


def test_parameters_and_their_bytes():
    full = upstream().module()
    count = cost.count_parameters(full)
    assert count == sum(parameter.numel() for parameter in full.parameters())
    assert cost.parameter_bytes(full) == 4 * count
    batch_norm = 2 * 8
    for precision in ("float16", "bfloat16"):
        half = Reduced(upstream(), precision).module()
        assert cost.count_parameters(half) == count
        assert cost.parameter_bytes(half) == 2 * count + 2 * batch_norm
    linear = 4 * 8 * 8 + 2 * 8 * 24
    eighth = Reduced(upstream(), "int8").module()
    assert cost.count_parameters(eighth) == count
    assert cost.parameter_bytes(eighth) == 4 * (count - linear) + linear


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "int8"])
def test_macs_stay_what_they_are(precision):
    buckets = {"a": (2_000, 12_345)}
    found = cost.count_superb_macs(Reduced(upstream(), precision), buckets)
    assert found == cost.count_superb_macs(upstream(), buckets)
    assert found.counted == "shapes"


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_waveforms_and_tables_stay_in_float32(precision):
    seen = {}

    class Looking(Speech):
        def __init__(self):
            super().__init__()
            self.window = torch.nn.Module()
            self.window.register_buffer("hann", torch.hann_window(400))
            self.window.register_buffer("mel", torch.rand(400, 8))

        def forward(self, waves):
            seen.update(wave=waves.dtype, window=self.window.hann.dtype, variance=self.batch.running_var.dtype)
            seen.update(weight=self.conv.weight.dtype, mel=(waves[:, :400] @ self.window.mel).dtype)
            self.conv.register_forward_hook(lambda *found: seen.update(product=found[2].dtype))
            return super().forward(waves)

    Reduced(upstream(Looking), precision)
    half = getattr(torch, precision)
    assert seen == dict.fromkeys(("wave", "window", "mel", "variance"), torch.float32) | {
        "weight": half,
        "product": half,
    }


def test_norms_sum_in_float32():
    """A long constant offset would swallow a sum in 16 bits."""
    for norm, x in ((nn.GroupNorm(1, 1), torch.randn(1, 1, 60_000)), (nn.LayerNorm(8_192), torch.randn(1, 8_192))):
        x = (x + 8).bfloat16()
        half = norm.bfloat16()(x).float()
        assert abs(float(half.mean())) < 2e-3
        assert float(half.std()) == pytest.approx(1, abs=2e-3)


def test_an_8_bit_layer_is_torchs_own():
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Linear(16, 12))
    linear.qconfig = torch.ao.quantization.per_channel_dynamic_qconfig
    settings = {nn.Linear: torch.ao.quantization.per_channel_dynamic_qconfig}
    torchs = torch.ao.quantization.quantize_dynamic(linear, settings)[0]
    ours, x = Int8Linear(linear[0]), torch.randn(7, 16)
    weight = torchs.weight()
    assert far(Int8Weights(linear[0]).weight, weight.dequantize()) < 0.01
    assert far(ours(x), torchs(x)) < 0.02
    assert 1e-4 < far(ours(x), linear(x)) < 0.02


def test_layers_whose_weights_are_taken_out_have_8_bits_as_well():
    module = Reduced(upstream(), "int8").module()
    assert [type(module.get_submodule(name)) for name in ("q", "out", "ffn.1")] == [
        Int8Weights,
        Int8Weights,
        Int8Linear,
    ]
    assert module.q.rounded.dtype == torch.int8
    assert far(module.q.weight, upstream().module().q.weight) < 0.01


def test_shared_layers_stay_shared():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.front, self.one = Convolution(), nn.Linear(8, 8)
            self.two = self.one

        def forward(self, waves):
            return self.two(self.one(self.front(waves)))

    module = Reduced(upstream(Twice), "int8").module()
    assert module.one is module.two
    assert isinstance(module.one, Int8Linear)


class Elsewhere(Wrapped):
    """Computes with a copy of its module."""

    def __init__(self):
        super().__init__(Speech())
        self.copy = Speech().eval()

    def encode(self, waves, lengths):
        state = self.copy(waves)
        return HiddenStates([state], torch.tensor([state.shape[1]]), 20.0)


class Mixed(Wrapped):
    """Multiplies float32 with the weights, past the module that owns them."""

    def __init__(self, product):
        super().__init__(Convolution(320, 320, 320))
        self.product = product

    def encode(self, waves, lengths):
        frames = waves[:, : waves.shape[1] // 320 * 320].unflatten(1, (-1, 320))
        state = self.product(frames, self.inner.conv.weight[:, 0])
        return HiddenStates([state], torch.tensor([state.shape[1]]), 20.0)


def outer(frames, weight):
    """A product that the harness does not know."""
    return torch.inner(frames[0], weight)[None]


@pytest.mark.parametrize("product", [nn.functional.linear, lambda x, w: x @ w.T])
def test_products_outside_of_modules_are_in_16_bits_too(product):
    torch.manual_seed(0)
    reduced = Reduced(Mixed(product), "bfloat16")
    torch.manual_seed(0)
    full, (waves, lengths) = Mixed(product), audio()
    found, expected = (item.encode(waves[:1], lengths[:1]).states[0] for item in (reduced, full))
    assert 1e-4 < far(found, expected) < 0.01


class Bare(Wrapped):
    def module(self):
        return None


@pytest.mark.parametrize(
    ("make", "precision", "message"),
    [
        (lambda: Bare(Speech()), "int8", "has no weights, so it cannot run in int8; leave out precision"),
        (lambda: Bare(Speech()), "float16", "has no weights, so it cannot run in float16"),
        (lambda: Wrapped(Convolution()), "int8", "has no linear layers inside"),
        (lambda: Wrapped(torch.jit.script(Convolution().conv)), "float16", "TorchScript or quantised module"),
        (lambda: Reduced(upstream(), "int8"), "int8", "TorchScript or quantised module"),
        (lambda: Wrapped(Speech()), "float8", "precision 'float8' is not known; write one of float32, float16"),
        (Elsewhere, "float16", "its states are the same as in float32"),
        (Elsewhere, "int8", "its states are the same as in float32"),
        (lambda: Mixed(outer), "float16", r"cannot run in float16 on cpu \(.*\); choose another precision"),
    ],
)
def test_what_cannot_be_is_an_error_of_one_sentence(make, precision, message):
    with pytest.raises(SlimbenchError, match=message) as caught:
        Reduced(make(), precision)
    assert "\n" not in str(caught.value)


def test_no_8_bits_on_a_gpu():
    with pytest.raises(SlimbenchError, match="cannot run in int8 on cuda: torch has int8 layers on the CPU only"):
        Reduced(upstream(), "int8", "cuda")


def test_a_card_asks_for_it(tmp_path, monkeypatch):
    import toy_upstream

    card = toy_upstream.write_card(tmp_path)
    card.write_text(card.read_text() + "variants:\n  half: {precision: bfloat16}\n  int8: {precision: int8}\n")
    full, half, eighth = (load_upstream(f"{card}{variant}") for variant in ("", "@half", "@int8"))
    assert read_card(card).precision == "float32"
    assert len({item.fingerprint for item in (full, half, eighth)}) == 3
    assert half.precision == "bfloat16"
    assert cost.parameter_bytes(eighth.module()) * 4 == cost.parameter_bytes(half.module()) * 2
    waves, lengths = audio()
    expected = full.encode(waves[:1], lengths[:1]).states[0]
    for item in (half, eighth):
        assert 1e-4 < far(item.encode(waves[:1], lengths[:1]).states[0], expected) < 2e-2
