"""Costs against formulas worked out by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from harness import cost
from harness.cards import Card
from harness.interface import HiddenStates, SlimbenchError

SECONDS, RATE = 2.0, 16_000
SAMPLES = 32_000


class Wrapped:
    """Any module from (1, S) waves to one state, as an upstream."""

    def __init__(self, module):
        self.name, self.inner = "wrapped", module.eval()

    def module(self):
        return self.inner

    @torch.no_grad()
    def encode(self, waves, lengths):
        return HiddenStates([self.inner(waves)], lengths, 20.0)


class Convolution(nn.Module):
    """Strided convolution: (B, S) to (B, T, width)."""

    def __init__(self, width, kernel, stride):
        super().__init__()
        self.conv = nn.Conv1d(1, width, kernel, stride)
        self.frames = (SAMPLES - kernel) // stride + 1

    def forward(self, waves):
        return self.conv(waves[:, None]).transpose(1, 2)


class Encoder(nn.Module):
    """Convolution, grouped positional convolution with weight norm, two transformer layers."""

    def __init__(self, width=16, ffn=48, heads=2, layers=2):
        super().__init__()
        self.front = Convolution(width, 400, 320)
        self.positional = nn.utils.parametrizations.weight_norm(nn.Conv1d(width, width, 5, padding=2, groups=4))
        layer = nn.TransformerEncoderLayer(width, heads, ffn, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, waves):
        x = self.front(waves)
        return self.layers(x + self.positional(x.transpose(1, 2)).transpose(1, 2))


def test_parameters():
    shared = nn.Linear(3, 2)
    assert cost.count_parameters(None) == 0
    assert cost.count_parameters(nn.Sequential(shared, nn.Conv1d(2, 4, 5, bias=False), shared)) == 8 + 40


def test_macs_of_a_convolution():
    module = Convolution(8, 400, 160)
    assert cost.count_macs(Wrapped(module), SECONDS) == module.frames * 8 * 400 / SECONDS


@pytest.mark.parametrize("fast", [True, False])
def test_macs_of_a_transformer(fast):
    width, ffn, layers = 16, 48, 2
    module = Encoder(width, ffn, layers=layers)
    t = module.front.frames
    layer = t * (4 * width * width + 2 * width * ffn) + 2 * t * t * width
    expected = t * 400 * width + t * width * (width // 4) * 5 + layers * layer
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast)
    try:
        assert cost.count_macs(Wrapped(module), SECONDS) == expected / SECONDS
        assert torch.backends.mha.get_fastpath_enabled() is fast
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def test_attention_is_counted_and_grows_with_the_square():
    class Attention(nn.Module):
        def forward(self, waves):
            x = waves.view(1, 1, -1, 64)
            return functional.scaled_dot_product_attention(x, x, x)[0]

    t = SAMPLES // 64
    assert cost.count_macs(Wrapped(Attention()), SECONDS) == 2 * t * t * 64 / SECONDS
    assert cost.count_macs(Wrapped(Attention()), 2 * SECONDS) == 2 * 2 * t * t * 64 / SECONDS


@pytest.mark.parametrize(("transform", "factor"), [("rfft", 2.5), ("fft", 5.0)])
def test_fourier_transforms_by_formula(transform, factor):
    dtype = torch.complex64 if transform == "fft" else torch.float32

    class Spectrum(nn.Module):
        def forward(self, waves):
            return getattr(torch.fft, transform)(waves.view(1, -1, 320).to(dtype), 512).abs()

    frames = SAMPLES // 320
    assert cost.count_macs(Wrapped(Spectrum()), SECONDS) == frames * factor * 512 * math.log2(512) / 2 / SECONDS


def test_embeddings_are_free():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(10, 4)

        def forward(self, waves):
            return self.table((waves > 0).long())

    assert cost.count_macs(Wrapped(Table()), SECONDS) == 0


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_are_refused(kind):
    module = nn.Sequential(Convolution(8, 400, 320), kind(8, 8))
    with pytest.raises(SlimbenchError, match=f"MACs of wrapped cannot be counted: 1 is a {kind.__name__}"):
        cost.count_macs(Wrapped(module), SECONDS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_quantised_and_scripted_modules_are_refused():
    quantised = torch.ao.nn.quantized.dynamic.Linear(4, 4)
    scripted = torch.jit.trace(nn.Linear(4, 4), torch.zeros(1, 4))
    for part in (quantised, scripted):
        with pytest.raises(SlimbenchError, match="MACs of wrapped cannot be counted: 0 is a"):
            cost.count_macs(Wrapped(nn.Sequential(part)), SECONDS)


def test_an_operator_of_unknown_cost_is_refused():
    class Distance(nn.Module):
        def __init__(self):
            super().__init__()
            self.centres = nn.Parameter(torch.randn(5, 64))

        def forward(self, waves):
            return torch.cdist(waves.view(1, -1, 64), self.centres[None])

    with pytest.raises(SlimbenchError, match=r"operator aten\._\w+dist\S* on centres has no known cost"):
        cost.count_macs(Wrapped(Distance()), SECONDS)


def test_a_weight_that_is_never_used_is_refused():
    module = Convolution(8, 400, 320)
    module.head = nn.Linear(8, 3)
    with pytest.raises(SlimbenchError, match=r"never touches head\.weight \(1 such"):
        cost.count_macs(Wrapped(module), SECONDS)


def test_real_time_factor_is_the_median_after_a_warm_up(monkeypatch):
    clock = iter(np.cumsum([0, 50, 0, 4, 0, 1, 0, 9]))  # warm-up 50 s, then 4, 1 and 9 s
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(clock))
    assert cost.real_time_factor(Wrapped(Convolution(1, 400, 320)), seconds=2.0, repeats=3) == 2.0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the high-water mark of Linux")
def test_peak_memory_agrees_with_the_kernel():
    np.ones(8_000_000).sum()
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM"))
    assert cost.peak_memory_mb() == pytest.approx(int(line.split()[1]) * 1024 / 1e6, rel=0.02)


def test_bytes_on_disk(tmp_path):
    fields = dict.fromkeys(("title", "adapter", "licence", "source", "exposes"), "x")
    assert cost.bytes_on_disk(Card("a", **fields)) == 0
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    assert cost.bytes_on_disk(Card("a", **fields, weights=tmp_path)) == 5
    assert cost.bytes_on_disk(Card("a", **fields, weights=tmp_path / "model.safetensors")) == 5
