"""Parts cut out of larger models: equal to the gated whole, trained through, started from, refused where impossible."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from mini_shapes import BASE, PRUNED, SHAPES, batch, close, model_of, passage_of

from harness.interface import SlimbenchError
from upstreams.students.cutting import cut, passage_with, take
from upstreams.students.mini import Gates, MiniConfig, MiniWavLM, skeleton, whole_heads

UNITS = ([3, 0, 5, 7, 9, 11, 13, 20, 21, 22], None, [])


def gated(whole: MiniWavLM, config: MiniConfig, units) -> MiniWavLM:
    """The whole with gates of 0 where a part of that shape has nothing."""
    for layer, plan, chosen in zip(whole.layers, config.plans, units, strict=True):
        heads, dims, open_units = torch.zeros(4), torch.zeros(16), torch.zeros(24)
        heads[list(plan.heads)], dims[list(plan.dims)] = 1.0, 1.0
        open_units[list(range(plan.ffn)) if chosen is None else chosen] = 1.0
        layer.gates = Gates(heads, dims, open_units)
    return whole


@pytest.mark.parametrize("units", [UNITS, (None, None, None)], ids=["chosen", "first"])
def test_a_pruned_model_is_the_gated_one(units):
    whole, part = model_of(BASE), MiniWavLM(PRUNED).eval()
    part.load_state_dict(cut(whole.state_dict(), BASE, PRUNED, units=units))
    close(passage_of(part), passage_of(gated(whole, PRUNED, units)), atol=1e-6)


def test_a_part_can_be_cut_again():
    whole, smaller = model_of(BASE), replace(PRUNED, kept=((2, 9), (), (5, 14, 15)), ffns=(4, 20, 0))
    once = cut(whole.state_dict(), BASE, smaller)
    twice = cut(cut(whole.state_dict(), BASE, PRUNED), PRUNED, smaller)
    assert once.keys() == twice.keys() == MiniWavLM(smaller).state_dict().keys()
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_layers_are_chosen():
    whole, config = model_of(BASE), replace(BASE, layers=2)
    part = MiniWavLM(config).eval()
    part.load_state_dict(cut(whole.state_dict(), BASE, config, layers=[0, 2]))
    del whole.layers[1]
    whole.plans = whole.plans[:2]
    close(passage_of(part), passage_of(whole), atol=0.0)


def test_a_narrower_model_has_the_first_dimensions():
    whole, config = model_of(BASE), replace(BASE, width=8, ffn=12)
    state, part = whole.state_dict(), cut(whole.state_dict(), BASE, config)
    assert {n: t.shape for n, t in part.items()} == {n: t.shape for n, t in MiniWavLM(config).state_dict().items()}
    rows = [0, 1, 2, 3, 4, 5, 6, 7]
    qkv = torch.stack([state["layers.1.qkv.weight"][16 * b + r, :8] for b in range(3) for r in rows])
    assert torch.equal(part["layers.1.qkv.weight"], qkv)
    assert torch.equal(part["layers.2.down.weight"], state["layers.2.down.weight"][:8, :12])
    assert torch.equal(part["bias.embedding.weight"], state["bias.embedding.weight"][:, :2])
    assert torch.equal(part["mel_std"], state["mel_std"])
    all_heads = cut(state, BASE, replace(config, heads=4))
    assert all_heads["layers.0.qkv.weight"].shape == (48, 8)


def test_gradients_of_a_subnet_reach_the_supernet():
    supernet = model_of(BASE)
    config = replace(BASE, layers=2, width=12, heads=4, ffns=(8, 20), kept=whole_heads([1, 3], 4))
    named = dict(supernet.named_parameters()) | dict(supernet.named_buffers())
    got = passage_with(skeleton(config), cut(named, BASE, config, [0, 2]), *batch(), maps=True)
    own = MiniWavLM(config).eval()
    own.load_state_dict(cut(supernet.state_dict(), BASE, config, [0, 2]))
    own_passage = own.passage(*batch(), maps=True)
    assert all(
        torch.equal(a, b) for a, b in zip(got.states + got.maps, own_passage.states + own_passage.maps, strict=True)
    )
    got.states[-1].square().mean().backward()
    own_passage.states[-1].square().mean().backward()
    grad, expected = supernet.layers[2].up.weight.grad, own.layers[1].up.weight.grad
    torch.testing.assert_close(grad[:20, :12], expected, atol=1e-6, rtol=1e-5)
    assert expected.abs().max() > 0
    assert grad[20:].abs().max() == grad[:, 12:].abs().max() == 0
    assert supernet.layers[1].up.weight.grad is None
    assert (
        supernet.layers[0].qkv.weight.grad[[4, 20]].abs().max() == 0 < supernet.layers[0].qkv.weight.grad[0].abs().max()
    )


def test_what_the_whole_lacks_is_left_out():
    state = model_of(BASE).state_dict()
    for changes, lacking in (
        ({"compress": True}, "weights."),
        ({"reduce": 2}, "reduction."),
    ):
        config = replace(BASE, **changes)
        part = cut(state, BASE, config)
        missing = MiniWavLM(config).state_dict().keys() - part.keys()
        assert missing
        assert all(name.startswith(lacking) for name in missing)
    del state["mask_embedding"]
    assert "mask_embedding" not in cut(state, BASE, BASE)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_cut_to_its_own_is_itself(shape):
    config = SHAPES[shape]
    state = model_of(config).state_dict()
    part = cut(state, config, config)
    assert part.keys() == state.keys()
    assert all(torch.equal(part[name], state[name]) for name in state)


@pytest.mark.parametrize("shape", ["compressed", "reduced", "wav2vec2"])
def test_narrower_models_of_other_shapes_fit(shape):
    config = replace(SHAPES[shape], width=8)
    part = cut(model_of(SHAPES[shape]).state_dict(), SHAPES[shape], config)
    MiniWavLM(config).load_state_dict(part)


def test_shared_maps_take_the_values_alone():
    whole, config = model_of(BASE), SHAPES["reuse"]
    part = cut(whole.state_dict(), BASE, config)
    MiniWavLM(config).load_state_dict(part)
    assert torch.equal(part["layers.1.value.weight"], whole.layers[1].qkv.weight[32:])


def test_taking_places():
    x = torch.arange(12.0).view(3, 4).requires_grad_()
    assert take(x, [1, 2], 1).data_ptr() == x.data_ptr() + 4
    assert torch.equal(take(x, [2, 0]), x[[2, 0]])
    assert take(x, [], 1).shape == (3, 0)


@pytest.mark.parametrize(
    ("source", "target", "options", "message"),
    [
        (BASE, replace(BASE, head_width=8), {}, "head_width 8 cannot be cut from one with 4"),
        (BASE, replace(BASE, front="wav2vec2"), {}, "front wav2vec2 cannot be cut from one with logmel"),
        (BASE, replace(BASE, width=20), {}, "width 20 cannot be cut from one with 16"),
        (BASE, replace(BASE, heads=5), {}, "heads 5 cannot be cut from one with 4"),
        (BASE, replace(BASE, layers=4), {}, "Layer 3 is none of the 3 of the whole"),
        (BASE, replace(BASE, layers=1), {"layers": [3]}, "Layer 3 is none of the 3"),
        (BASE, replace(BASE, ffn=30), {}, "layer 0 from layer 0: 30 units are wanted, 30 named, 24 there"),
        (BASE, replace(BASE, ffn=2), {"units": [[1, 1]] * 3}, "2 units are wanted, 1 named, 24 there"),
        (BASE, replace(BASE, ffn=2), {"units": [[0, 1]]}, "Units are named for 1 layers of 3"),
        (PRUNED, BASE, {}, "layer 0 from layer 0: it keeps attention that the other has not"),
        (SHAPES["reuse"], BASE, {}, "layer 1 from layer 1: it keeps attention that the other has not"),
        (replace(BASE, reduce=2), replace(BASE, reduce=3), {}, "joins 3 frames cannot be cut from one that joins 2"),
    ],
)
def test_parts_that_are_not_there(source, target, options, message):
    with pytest.raises(SlimbenchError, match=message):
        cut(model_of(source).state_dict(), source, target, **options)
