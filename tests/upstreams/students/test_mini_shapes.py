"""Compressed shapes of the lab's models: against the uncompressed one with weights of 0, or worked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from mini_shapes import BASE, LENGTHS, PRUNED, SHAPES, batch, close, model_of, passage_of
from torch import Tensor
from torch.nn import functional

from upstreams.students import cif
from upstreams.students.mini import (
    Gates,
    Layer,
    LogMel,
    MiniConfig,
    MiniWavLM,
    parameters,
    skeleton,
    whole_heads,
)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_padded_batch_is_its_utterances(shape):
    model = model_of(SHAPES[shape])
    model.lam = 0.7 if SHAPES[shape].compress else 0.0
    together = passage_of(model)
    waves, lengths = batch()
    for row, length in enumerate(LENGTHS):
        with torch.no_grad():
            alone = model.passage(waves[row : row + 1, :length], lengths[row : row + 1])
        assert int(alone.frames) == int(together.frames[row]) == alone.states[0].shape[1]
        for one, many in zip(alone.states, together.states, strict=True):
            torch.testing.assert_close(many[row, : one.shape[1]], one[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_built_from_its_own_dictionary(shape):
    config = SHAPES[shape]
    again = MiniConfig.from_dict(config.to_dict())
    assert again == config
    model = MiniWavLM(config)
    assert parameters(config) == sum(p.numel() for p in model.parameters()) - config.width
    assert model.heads == tuple(maps.shape[1] for maps in passage_of(model, maps=True).maps)
    assert all(torch.isfinite(state).all() for state in passage_of(model).states)
    assert {p.device.type for p in skeleton(config).parameters()} == {"meta"}


def test_the_dictionary_of_a_plain_model_has_no_new_keys():
    first = ["layers", "width", "ffn", "head_width", "mels", "conv_kernel", "buckets", "max_distance"]
    assert list(BASE.to_dict()) == first
    assert list(replace(BASE, reduce=2, heads=3).to_dict()) == [*first, "heads", "reduce"]


def zeroed(config: MiniConfig) -> MiniWavLM:
    """The uncut model of a pruned shape with the cut parts' weights at 0."""
    model = model_of(replace(config, kept=None, ffns=None))
    with torch.no_grad():
        for layer, plan in zip(model.layers, config.plans, strict=True):
            gone = [dim for dim in range(16) if dim not in plan.dims]
            for block in range(3):
                rows = [16 * block + dim for dim in gone]
                layer.qkv.weight[rows], layer.qkv.bias[rows] = 0.0, 0.0
            layer.down.weight[:, plan.ffn :] = 0.0
    return model


def parts(whole: MiniWavLM, config: MiniConfig) -> dict[str, Tensor]:
    """Weights of a pruned shape, picked by hand."""
    state = {name: tensor for name, tensor in whole.state_dict().items() if not name.startswith("layers.")}
    for index, (layer, plan) in enumerate(zip(whole.layers, config.plans, strict=True)):
        dims, found = list(plan.dims), {"out.bias": layer.out.bias, "down.bias": layer.down.bias}
        if dims:
            found |= {f"norm_attention.{k}": v for k, v in layer.norm_attention.state_dict().items()}
            for kind in ("weight", "bias"):
                found[f"qkv.{kind}"] = torch.cat([part[dims] for part in getattr(layer.qkv, kind).chunk(3)])
            found |= {"gate.weight": layer.gate.weight, "gate.bias": layer.gate.bias}
            found |= {"gate_scale": layer.gate_scale[list(plan.heads)], "out.weight": layer.out.weight[:, dims]}
        if plan.ffn:
            found |= {f"norm_ffn.{k}": v for k, v in layer.norm_ffn.state_dict().items()}
            found |= {"up.weight": layer.up.weight[: plan.ffn], "up.bias": layer.up.bias[: plan.ffn]}
            found["down.weight"] = layer.down.weight[:, : plan.ffn]
        state |= {f"layers.{index}.{name}": tensor.detach() for name, tensor in found.items()}
    return state


def test_kept_dimensions_are_the_model_with_the_others_at_zero():
    whole, cut = zeroed(PRUNED), MiniWavLM(PRUNED).eval()
    cut.load_state_dict(parts(whole, PRUNED))
    close(passage_of(cut), passage_of(whole), atol=1e-6)
    assert not torch.allclose(passage_of(cut).states[-1], passage_of(model_of(BASE)).states[-1], atol=1e-2)


def test_whole_heads_are_not_scattered_and_lost_heads_cost_nothing():
    config = replace(BASE, kept=((0, 1, 2, 3, 8, 9, 10, 11), (), tuple(range(16))))
    model = model_of(config)
    assert [name for name, _ in model.named_buffers() if name.startswith("layers.")] == ["layers.0.picked"]
    assert [len(list(layer.parameters())) for layer in model.layers] == [15, 7, 15]
    with_part = replace(BASE, kept=((0, 1, 2, 3, 8, 9, 11), (), tuple(range(16))))
    assert parameters(config) - parameters(with_part) == 3 * (16 + 1) + 16
    assert whole_heads([2, 0, 4], 4) == ((0, 1, 2, 3, 4, 5, 6, 7), (), tuple(range(16)))


def test_gates_of_zero_are_weights_of_zero():
    plain, expected = model_of(BASE), zeroed(PRUNED)
    for layer, plan in zip(plain.layers, PRUNED.plans, strict=True):
        dims, units = torch.zeros(16), torch.zeros(24)
        dims[list(plan.dims)], units[: plan.ffn] = 1.0, 1.0
        layer.gates = Gates(dims=dims, units=units)
    close(passage_of(plain), passage_of(expected), atol=1e-6)


def test_a_gate_on_a_head_scales_what_it_gives():
    layer, x = model_of(BASE).layers[1], torch.randn(2, 5, 16)
    bias = torch.randn(4, 5, 5)
    factors = torch.tensor([1.0, 0.0, 0.3, 2.0])
    with torch.no_grad():
        layer.gates = Gates(heads=factors)
        got, maps = layer.attend(x, bias, None)
        values = layer.qkv(x)[..., 32:].view(2, 5, 4, 4)
        mixed = torch.einsum("bhqk,bkhd->bqhd", maps, values) * factors[:, None]
        torch.testing.assert_close(got, layer.out(mixed.flatten(2)), atol=1e-5, rtol=1e-5)


def attention_by_hand(layer: Layer, x: Tensor, bias: Tensor) -> Tensor:
    """Maps (H, T, T) of one utterance x (T, D), pair by pair."""
    q, k, _ = (part.view(len(x), -1, layer.head_width) for part in layer.qkv(x).chunk(3, -1))
    maps = torch.zeros(q.shape[1], len(x), len(x))
    for head in range(q.shape[1]):
        for t, query in enumerate(q[:, head]):
            update, reset = torch.sigmoid(layer.gate(query))
            gate = 2.0 + update * (reset * layer.gate_scale[head] - 1.0)
            scores = torch.stack([query @ key for key in k[:, head]]) / layer.head_width**0.5 + gate * bias[head, t]
            maps[head, t] = scores.exp() / scores.exp().sum()
    return maps


@pytest.mark.parametrize("shape", ["plain", "heads", "reuse", "reuse-pruned"])
def test_maps_and_their_reuse_by_hand(shape):
    model = model_of(SHAPES[shape])
    waves, lengths = batch()
    with torch.no_grad():
        passage = model.passage(waves[:1], lengths[:1], maps=True)
        states, maps = passage.states, passage.maps
        bias, last = model.bias(states[0].shape[1]), torch.zeros(0)
        for index, layer in enumerate(model.layers):
            x = layer.norm_attention(states[index][0])
            if layer.plan.own:
                heads = list(layer.plan.heads)
                last, lender = attention_by_hand(layer, x, bias[heads]), heads
                value = layer.qkv(x).chunk(3, -1)[2]
            else:
                assert not hasattr(layer, "qkv")
                value = layer.value(x)
            mine = last[[lender.index(head) for head in layer.plan.heads]]
            torch.testing.assert_close(maps[index][0], mine, atol=1e-5, rtol=1e-4)
            given = torch.zeros(len(x), len(layer.plan.dims))
            for place, dim in enumerate(layer.plan.dims):
                given[:, place] = mine[layer.plan.heads.index(dim // 4)] @ value[:, place]
            middle = states[index][0] + layer.out(given)
            expected = middle + layer.down(functional.gelu(layer.up(layer.norm_ffn(middle))))
            torch.testing.assert_close(states[index + 1][0], expected, atol=1e-4, rtol=1e-4)


def test_maps_are_given_only_when_asked_for():
    model = model_of(PRUNED)
    assert passage_of(model).maps == []
    maps = passage_of(model, maps=True).maps
    assert [tuple(m.shape[:2]) for m in maps] == [(3, 2), (3, 0), (3, 2)]
    for row, frames in enumerate(passage_of(model).frames.tolist()):
        total = maps[0][row, :, :frames, :frames].sum(-1)
        torch.testing.assert_close(total, torch.ones_like(total), atol=1e-5, rtol=0)


def test_passages_of_plain_models_are_what_encode_mel_gives():
    model, (waves, lengths) = model_of(BASE), batch()
    masked = torch.arange(24)[None, :] % 5 == torch.tensor([0, 1, 2])[:, None]
    with torch.no_grad():
        passage = model.passage(waves, lengths, masked)
        states, frames = model.encode_mel(model.front(waves), 1 + (lengths - 400) // 160, masked)
        exposed, _ = model(waves, lengths)
    assert passage.frames.tolist() == frames.tolist() == passage.grid_frames.tolist()
    assert all(torch.equal(a, b) for a, b in zip(passage.states, states, strict=True))
    assert passage.repeated()[0] is passage.states
    assert not torch.allclose(passage_of(model).states[0], states[0], atol=1e-2)
    plain = passage_of(model).states[-1][0]
    expected = (plain - plain.mean(-1, keepdim=True)) / plain.std(-1, correction=0)[:, None]
    torch.testing.assert_close(exposed[-1][0], expected, atol=1e-3, rtol=1e-3)


def test_reduction_joins_frames_by_hand():
    model, config = model_of(SHAPES["reduced"]), SHAPES["reduced"]
    passage = passage_of(model)
    plain = MiniWavLM(replace(config, reduce=1)).eval()
    plain.load_state_dict({n: t for n, t in model.state_dict().items() if not n.startswith("reduction.")})
    before = passage_of(plain)
    assert passage.frames.tolist() == [frames // 2 for frames in before.frames.tolist()]
    assert model.frame_ms == 40.0
    with torch.no_grad():
        for row, frames in enumerate(passage.frames.tolist()):
            for t in range(frames):
                x = before.states[0][row, 2 * t : 2 * t + 2]
                expected = model.reduction.bias + sum(model.reduction.weight[..., k] @ x[k] for k in range(2))
                torch.testing.assert_close(passage.states[0][row, t], expected, atol=1e-5, rtol=1e-4)
    states, frames = passage.repeated()
    assert frames.tolist() == before.frames.tolist() == passage.grid_frames.tolist()
    for row, count in enumerate(frames.tolist()):
        for t in range(count):
            source = min(t // 2, int(passage.frames[row]) - 1)
            assert torch.equal(states[-1][row, t], passage.states[-1][row, source])


def test_reduction_needs_a_whole_frame():
    model = model_of(SHAPES["reduced"])
    shortest = torch.zeros(1, model.min_samples)
    assert model.passage(shortest, torch.tensor([model.min_samples])).frames.tolist() == [1]
    with pytest.raises(ValueError, match="1 frames are too few for one reduced frame, which takes 2"):
        model.passage(shortest[:, :-1], torch.tensor([model.min_samples - 1]))


def test_without_compression_a_compressing_model_is_the_plain_one():
    model = model_of(SHAPES["compressed"])
    plain = MiniWavLM(BASE).eval()
    plain.load_state_dict({n: t for n, t in model.state_dict().items() if not n.startswith("weights.")})
    close(passage_of(model), passage_of(plain))
    close(passage_of(model, lam=0.0), passage_of(plain))


def test_compression_joins_frames_by_their_weights():
    model = model_of(SHAPES["compressed"])
    waves, lengths = batch()
    counts = []
    for lam in (0.0, 0.5, 1.0, 1.5):
        passage = passage_of(model, lam=lam)
        counts.append(int(passage.frames[0]))
        with torch.no_grad():
            x, grid = model.embed(waves, lengths)
            weights = model.weights(x, grid)
        torch.testing.assert_close(passage.weights, weights, atol=1e-6, rtol=0)
        mixed = cif.mixed(weights, lam) * (torch.arange(x.shape[1]) < grid[:, None])
        for row, frames in enumerate(grid.tolist()):
            total = float(mixed[row].sum())
            if total < 2:
                continue
            assert int(passage.frames[row]) == int(total + 1e-4)
            states, _ = passage.repeated()
            for t in range(frames):
                middle = float(mixed[row, :t].sum() + mixed[row, t] / 2)
                if abs(middle - round(middle)) > 1e-3:
                    source = min(int(middle), int(passage.frames[row]) - 1)
                    assert torch.equal(states[1][row, t], passage.states[1][row, source])
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < counts[0] == 24


def test_the_weights_of_compression_learn():
    model = model_of(SHAPES["compressed"])
    passage = model.passage(*batch(), lam=0.8)
    passage.states[-1].square().mean().backward()
    assert model.weights.linear.weight.grad.abs().max() > 0
    assert model.project.weight.grad.abs().max() > 0


def test_compression_is_for_models_that_have_it():
    with pytest.raises(ValueError, match="lam is for models that compress"):
        model_of(BASE).passage(*batch(), lam=0.5)


def test_a_front_end_on_the_waveform():
    model, (waves, lengths) = model_of(SHAPES["wav2vec2"]), batch()
    assert not isinstance(model.front, LogMel)
    assert model.min_samples == 400
    with torch.no_grad():
        features = model.front(waves[1:2, :5000], lengths[1:2])[0][0]
        normed = (features - features.mean(-1, keepdim=True)) / (features.var(-1, correction=0) + 1e-5).sqrt()[:, None]
        normed = normed * model.feature_norm.weight + model.feature_norm.bias
        expected = normed @ model.project.weight.T + model.project.bias
        got, frames = model.embed(waves, lengths)
    assert frames.tolist() == [24, 15, 9]
    torch.testing.assert_close(got[1, :15], expected, atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match="takes waveforms, not log-mels"):
        model.encode_mel(torch.zeros(1, 10, 20), torch.tensor([10]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 18}, "width 18 is not a multiple of head_width 4"),
        ({"front": "cnn"}, "front is 'cnn', not one of logmel, wav2vec2"),
        ({"heads": 0}, "heads is 0, not a whole number of at least 1"),
        ({"ffns": (1, 2)}, "ffns is not a list with a value for each of the 3 layers"),
        ({"ffns": (1, 2, -1)}, "ffns is -1, not a whole number of at least 0"),
        ({"kept": ((0,), (16,), ())}, "dimensions from 0 to 15"),
        ({"kept": ((0,), (3, 2), ())}, "once, in ascending order"),
        ({"kept": ((0,), (2, 2), ())}, "once, in ascending order"),
        ({"own_maps": (False, True, True)}, "layer 0 has heads whose map no layer before it computes"),
        ({"own_maps": (True, False, True), "kept": ((0,), (4,), (0,))}, "layer 1 has heads whose map no layer"),
        ({"own_maps": (1, 1, 1)}, "not a list of true and false"),
        ({"reduce": 0}, "reduce is 0, not a whole number of at least 1"),
        ({"compress": 1}, "compress is 1, not true or false"),
        ({"compress": True, "reduce": 2}, "both set the frame rate"),
        ({"conv_kernel": 4}, "conv_kernel is 4, not an odd number"),
    ],
)
def test_shapes_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(BASE, **changes)


def test_a_cut_head_count_needs_no_multiple():
    model = model_of(replace(BASE, width=18, heads=4))
    assert model.layers[0].qkv.weight.shape == (48, 18)
    assert torch.isfinite(passage_of(model).states[-1]).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_trains_in_mixed_precision(shape):
    model, (waves, lengths) = model_of(SHAPES[shape]).train(), batch()
    masked = torch.arange(24)[None, :].expand(3, -1) % 4 == 0
    with torch.autocast("cpu", torch.bfloat16):
        passage = model.passage(waves, lengths, masked, maps=True, lam=0.5 if SHAPES[shape].compress else None)
        loss = sum(state.float().square().mean() for state in passage.states)
    loss.backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == set()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
