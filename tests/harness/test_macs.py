"""MACs against formulas worked out by hand, and passes on shapes against passes on values."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from wrapped import SAMPLES, SECONDS, Convolution, Encoder, Recurrent, Wrapped

from harness.cost import macs
from harness.cost.meter import Weights
from harness.cost.shapes import Shape, ShapeMeter, UntraceableError
from harness.interface import HiddenStates, SlimbenchError
from harness.precision.quantised import Int8Linear

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Map(nn.Module):
    """Frames of 64 samples through a function."""

    def __init__(self, function, parts=()):
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, waves):
        return self.function(waves.unflatten(1, (-1, 64)))


class Distance(nn.Module):
    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.randn(5, 64))

    def forward(self, waves):
        return torch.cdist(waves.view(1, -1, 64), self.centres[None])


def by_passes(upstream, lengths):
    return sum(macs._pass(upstream, length) for length in lengths)


def count(module):
    return macs.count_macs(Wrapped(module), SECONDS) * SECONDS


def test_a_convolution():
    module = Convolution(8, 400, 160)
    assert count(module) == module.frames * 8 * 400


def test_a_transposed_convolution():
    class Up(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.ConvTranspose1d(64, 12, 4, stride=2, groups=2)

        def forward(self, waves):
            return self.up(waves.view(1, 64, -1)).transpose(1, 2)

    assert count(Up()) == SAMPLES // 64 * 64 * (12 // 2) * 4  # each input is spread over 4 places of its group


@pytest.mark.parametrize("fast", [True, False])
def test_a_transformer(fast):
    module = Encoder()
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast)
    try:
        assert count(module) == module.macs(SAMPLES)
        assert torch.backends.mha.get_fastpath_enabled() is fast
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def attend(x):
    return functional.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])[:, 0]


def flash(x):
    x = x[:, None]
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(x, x, x)[0][:, 0]


@pytest.mark.parametrize("kernel", [attend, flash])
def test_attention_grows_with_the_square(kernel):
    t = SAMPLES // 64
    upstream = Wrapped(Map(kernel))
    assert macs.count_macs(upstream, SECONDS) == 2 * t * t * 64 / SECONDS
    assert macs.count_macs(upstream, 2 * SECONDS) == 2 * 2 * t * t * 64 / SECONDS


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
@pytest.mark.parametrize(("layers", "ways"), [(1, 1), (2, 2)])
def test_recurrent_layers(kind, gates, layers, ways):
    module = Recurrent(kind, num_layers=layers, bidirectional=ways == 2)
    t = module.front.frames
    first, further = gates * 6 * (8 + 6), gates * 6 * (ways * 6 + 6)
    assert count(module) == t * 8 * 400 + t * ways * (first + (layers - 1) * further)


@pytest.mark.parametrize(("transform", "factor"), [("rfft", 2.5), ("fft", 5.0)])
def test_fourier_transforms(transform, factor):
    dtype = torch.complex64 if transform == "fft" else torch.float32
    module = Map(lambda x: getattr(torch.fft, transform)(x.to(dtype), 512).abs())
    assert count(module) == SAMPLES // 64 * factor * 512 * math.log2(512) / 2


def test_a_spectrogram_and_its_inverse():
    window = torch.hann_window(400)

    def there(x):
        return torch.stft(x.flatten(1), 400, 160, window=window, center=False, return_complex=True).abs().mT

    def back(x):
        return torch.fft.irfft(torch.fft.rfft(x, 400), 400)

    cost = 2.5 * 400 * math.log2(400) / 2
    assert count(Map(there)) == round(cost * ((SAMPLES - 400) // 160 + 1))
    assert count(Map(back)) == pytest.approx(2 * SAMPLES // 64 * cost, abs=2)


def test_layers_in_8_bits_cost_what_they_cost_in_32():
    linear = nn.Linear(64, 24)
    expected = SAMPLES // 64 * 64 * 24
    torchs = torch.ao.quantization.quantize_dynamic(nn.Sequential(linear), {nn.Linear})
    for layer in (linear, Int8Linear(linear), torchs):
        assert count(Map(layer, [layer])) == expected


def test_an_8_bit_layer_that_is_never_called_is_refused():
    for layer in (Int8Linear(nn.Linear(64, 8)), torch.ao.nn.quantized.dynamic.Linear(64, 8)):
        with pytest.raises(SlimbenchError, match=r"never touches parts\.0 \(1 such"):
            count(Map(lambda x: x, [layer]))


def test_recurrent_layers_in_8_bits_are_refused():
    module = torch.ao.quantization.quantize_dynamic(Recurrent(nn.LSTM), {nn.LSTM})
    with pytest.raises(SlimbenchError, match=r"operator .*lstm.* has no known cost"):
        count(module)


def test_torchscript_costs_what_it_was_made_of():
    layers = nn.Sequential(nn.Linear(64, 8), nn.GELU(), nn.Linear(8, 5)).eval()
    expected = SAMPLES // 64 * (64 * 8 + 8 * 5)
    for scripted in (torch.jit.script(layers), torch.jit.trace(layers, torch.zeros(1, 3, 64))):
        for _ in range(3):  # the interpreter optimises after the first passes
            assert count(Map(scripted, [scripted])) == expected


def test_exported_programs_cost_what_they_were_made_of():
    layers = nn.Sequential(nn.Linear(64, 8), nn.GELU(), nn.Linear(8, 5)).eval()

    class Exported(Wrapped):
        def __init__(self, program):
            self.name, self.inner = "exported", program

        def encode(self, waves, lengths):
            return HiddenStates([self.inner(waves.view(1, -1, 64))], lengths // 64, 4.0)

    program = torch.export.export(layers, (torch.zeros(1, SAMPLES // 64, 64),)).module()
    macs_per_second = macs.count_macs(Exported(program), SECONDS)
    assert macs_per_second * SECONDS == SAMPLES // 64 * (64 * 8 + 8 * 5)


def test_embeddings_and_norms_are_free():
    table = nn.Embedding(10, 4)
    assert count(Map(lambda x: table((x > 0).long()), [table])) == 0
    norm = nn.LayerNorm(64)
    assert count(Map(norm, [norm])) == 0


def test_an_operator_of_unknown_cost_is_refused():
    with pytest.raises(SlimbenchError, match=r"operator aten\._\w+dist\S* on centres has no known cost"):
        count(Distance())
    with pytest.raises(SlimbenchError, match=r"operator aten\._\w+dist\S* has no known cost"):
        count(Map(lambda x: torch.cdist(x, x)))


def test_a_refusal_survives_code_that_rewords_errors():
    class Rewording(Wrapped):
        def encode(self, waves, lengths):
            try:
                return super().encode(waves, lengths)
            except Exception as error:
                raise ValueError("something else") from error

    with pytest.raises(SlimbenchError, match="has no known cost"):
        macs.count_macs(Rewording(Distance()), SECONDS)


def test_a_custom_operator_is_refused():
    @torch.library.custom_op("wrapped::twice", mutates_args=())
    def twice(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x @ weight

    layer = nn.Linear(64, 64, bias=False)
    with pytest.raises(SlimbenchError, match=r"wrapped\.twice\.default on parts\.0\.weight has no known cost"):
        count(Map(lambda x: twice(x, layer.weight), [layer]))


def test_a_weight_matrix_that_is_never_read_is_refused():
    module = Convolution()
    before = count(module)
    module.mask = nn.Parameter(torch.zeros(8))  # a vector costs nothing
    assert count(module) == before
    module.head = nn.Linear(8, 3)
    with pytest.raises(SlimbenchError, match=r"never touches head\.weight \(1 such"):
        count(module)


def test_parameters_that_share_memory_are_told_apart():
    flat = torch.randn(2 * 64 * 8)
    used, unused = nn.Linear(64, 8, bias=False), nn.Linear(64, 8, bias=False)
    used.weight.data, unused.weight.data = flat[: 64 * 8].view(8, 64), flat[64 * 8 :].view(8, 64)
    with pytest.raises(SlimbenchError, match=r"never touches parts\.1\.weight \(1 such"):
        count(Map(used, [used, unused]))


BUCKETS = {"a": (SAMPLES, 1_000), "b": (41_234,)}


@pytest.mark.parametrize("module", [Encoder(), Recurrent(nn.LSTM), Recurrent(nn.GRU, bidirectional=True)])
def test_shapes_give_what_passes_give(module):
    upstream = Wrapped(module)
    found = macs.count_superb_macs(upstream, BUCKETS)
    assert found.buckets == {name: by_passes(upstream, lengths) for name, lengths in BUCKETS.items()}
    assert found.total == sum(found.buckets.values())
    assert found.per_second == macs.count_macs(upstream)
    if isinstance(module, Encoder):
        assert found.counted == "shapes"
        assert found.buckets["a"] == module.macs(SAMPLES) + module.macs(1_000)


def firing(module):
    """Keeps the frames whose mean is positive: what follows depends on what is said."""

    class Firing(nn.Module):
        def __init__(self):
            super().__init__()
            self.front, self.last = module, nn.Linear(8, 8)

        def forward(self, waves):
            x = self.front(waves)
            return self.last(x[:, x.mean((0, 2)) > 0])

    return Firing()


def test_where_values_decide_noise_is_encoded():
    torch.manual_seed(0)
    upstream = Wrapped(firing(Convolution()))
    found = macs.count_superb_macs(upstream, BUCKETS)
    assert found.counted == "passes"
    assert found.buckets == {name: by_passes(upstream, lengths) for name, lengths in BUCKETS.items()}
    frames = [Convolution().frames_of(length) for length in (*BUCKETS["a"], *BUCKETS["b"])]
    assert sum(frames) * 400 * 8 < found.total < sum(frames) * (400 * 8 + 8 * 8)


def looks_after(samples):
    """Values decide beyond a length only."""

    class Looking(Wrapped):
        def encode(self, waves, lengths):
            if waves.shape[1] > samples and waves.sum() > 1e9:
                raise ValueError
            return super().encode(waves, lengths)

    return Looking(Convolution())


def test_where_values_decide_at_some_lengths_only():
    upstream = looks_after(170_000)
    found = macs.count_superb_macs(upstream, {"a": (1_000,), "b": (180_000,)})
    assert found.counted == "passes"
    assert found.buckets["b"] == upstream.inner.frames_of(180_000) * 8 * 400


def test_a_pass_that_counts_otherwise_on_shapes_is_not_trusted():
    class Two(Wrapped):
        def encode(self, waves, lengths):
            if isinstance(waves, Shape):
                super().encode(waves, lengths)
            return super().encode(waves, lengths)

    upstream = Two(Convolution())
    found = macs.count_superb_macs(upstream, BUCKETS)
    assert found.counted == "passes"
    assert found.buckets["b"] == upstream.inner.frames_of(41_234) * 8 * 400


def on_shapes(function):
    """What a function gives for a shape of (2, 6)."""
    with torch.no_grad(), ShapeMeter("it", Weights(None)):
        return function(Shape(torch.empty(2, 6, device="meta"), torch.device("cpu")))


@pytest.mark.parametrize(
    "peek",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: [0, 1][int(x[0, 0])],
        lambda x: torch.equal(x, x),
        lambda x: torch.zeros(2, 6).copy_(x).tolist(),
        lambda x: torch.zeros(2, 6).add_(x)[0].numpy(),
        lambda x: torch.zeros(2, 6).copy_(x).sum().item(),
        lambda x: list(range(int(torch.zeros(2, 6).copy_(x).view(-1)[0]))),
    ],
)
def test_no_value_comes_out_of_a_shape(peek):
    with pytest.raises((UntraceableError, RuntimeError, NotImplementedError, TypeError)):
        on_shapes(peek)


def test_a_view_loses_its_values_with_what_it_looks_at():
    def write(x):
        buffer = torch.zeros(4, 6)
        view = buffer[1:3]
        buffer[:2] = x
        return view.sum().item()

    with pytest.raises((UntraceableError, RuntimeError, NotImplementedError)):
        on_shapes(write)


def test_what_does_not_depend_on_the_audio_keeps_its_values():
    found = on_shapes(lambda x: (torch.arange(x.shape[1]).sum().item(), (x + torch.ones(6)).shape, x.device.type))
    assert found == (15, (2, 6), "cpu")


def test_lengths_have_values():
    class Cutting(Wrapped):
        def encode(self, waves, lengths):
            longest = max(lengths.tolist())
            parts = [wave[: int(length)] for wave, length in zip(waves, lengths, strict=True)]
            waves = nn.utils.rnn.pad_sequence(parts, batch_first=True)
            mask = torch.arange(longest)[None] < lengths[:, None]
            return HiddenStates([self.inner(waves * mask)], lengths, 20.0)

    assert macs.count_superb_macs(Cutting(Encoder()), BUCKETS).counted == "shapes"


def test_superbs_utterances_are_those_of_its_profiler():
    from harness.superb_lengths import BUCKETS as LENGTHS

    lengths = [length for bucket in LENGTHS.values() for length in bucket]
    assert [len(bucket) for bucket in LENGTHS.values()] == [8] * 4
    assert lengths == sorted(lengths)
    assert sum(lengths) / 16_000 == pytest.approx(224.86)
    ends = [(round(b[0] / 16_000, 2), round(b[-1] / 16_000, 2)) for b in LENGTHS.values()]
    assert ends == [(1.28, 3.44), (3.69, 5.47), (5.79, 8.91), (9.62, 20.38)]  # as the leaderboard prints them
