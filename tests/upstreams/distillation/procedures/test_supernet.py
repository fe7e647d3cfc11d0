"""Subnets against models of their own, filled-up states against sliced heads, the space against the paper's numbers."""

import numpy as np
import pytest
import torch
from procedure_cases import TINY, like, noise, student, train
from torch import nn
from torch.nn import functional

from harness.interface import SlimbenchError
from upstreams.distillation.procedures.base import build, chance
from upstreams.distillation.procedures.space import Space, Subnet, drop_order
from upstreams.distillation.procedures.supernet import carved, pad_states
from upstreams.students.mini import MiniConfig, parameters
from upstreams.students.subnet import DROPPED

SPACE = {"width": [16, 24, 32], "heads": [1, 2, 4], "ratio": [0.5, 0.75], "depth": [2, 3]}
SMALL = {"width": 16, "heads": [1, 2], "ratio": 0.5, "depth": 2}
HUBERT = MiniConfig(layers=12, width=768, ffn=3072)


def make(model, **settings):
    return build({"kind": "supernet", "space": SPACE, "products": {"small": SMALL}, **settings}, model)


def test_the_published_spaces_have_as_many_subnets_as_published():
    base = Space.of(HUBERT, {"width": [512, 640, 768], "heads": [8, 10, 12], "ratio": [3.5, 4.0], "depth": [12]})
    assert base.size == 6_530_347_008
    small = {"width": [256, 384, 512], "heads": [4, 6, 8], "ratio": [3, 3.5, 4], "depth": [10, 11, 12]}
    assert Space.of(HUBERT, small).size == 951_892_141_473


def normed(state):
    return functional.layer_norm(state, state.shape[-1:])


def test_layers_go_in_the_published_order():
    assert tuple(drop_order(12)[:6]) == DROPPED
    for layers in range(1, 14):
        assert sorted(drop_order(layers)) == list(range(1, layers + 1))
    assert Subnet(32, (4,) * 9, (1.0,) * 9).layers(HUBERT) == [0, 1, 2, 4, 5, 6, 8, 9, 10]


def test_the_formula_counts_what_a_model_has():
    space = Space.of(TINY, SPACE)
    assert len(list(space.every())) == space.size
    rng = np.random.default_rng(0)
    for subnet in [space.largest, space.smallest, *(space.sample(rng) for _ in range(20))]:
        assert space.parameters(subnet) == parameters(subnet.config(TINY))
    assert space.largest.config(TINY) == TINY


def test_samples_are_fair():
    space, rng = Space.of(TINY, SPACE), np.random.default_rng(1)
    drawn = [space.sample(rng) for _ in range(1500)]
    assert {s.width for s in drawn} == {16, 24, 32}
    for values in ([s.width for s in drawn], [s.heads[1] for s in drawn]):
        assert min(values.count(v) for v in set(values)) > 420
    assert len({s.heads for s in drawn if s.depth == 2}) == 9


def test_a_filled_up_state_under_a_head_is_the_state_under_the_heads_columns():
    states = [torch.randn(2, 5, 16)]
    head = nn.Linear(32, 7)
    sliced = states[0] @ head.weight[:, :16].T + head.bias
    torch.testing.assert_close(head(pad_states(states, 32)[0]), sliced)


def test_a_subnets_view_is_that_of_the_model_carved_out():
    model = student()
    procedure = make(model)
    masked = torch.rand(2, 24) < 0.3
    for subnet in (procedure.named["small"], Subnet(24, (4, 1, 2), (0.5, 0.75, 0.5)), procedure.space.largest):
        view = procedure.passed(model, subnet, *noise(), masked)
        own = carved(model, subnet)
        passage = own.passage(*noise(), masked=masked)
        assert sum(p.numel() for n, p in own.named_parameters() if n != "mask_embedding") == parameters(own.config)
        numbers = [0]
        for layer in range(3):
            numbers.append(subnet.layers(TINY).index(layer) + 1 if layer in subnet.layers(TINY) else numbers[-1])
        assert len(view.states) == 4
        for state, number in zip(view.states, numbers, strict=True):
            exposed = normed(passage.states[number])
            torch.testing.assert_close(state[..., : subnet.width], exposed, atol=1e-5, rtol=1e-5)
            assert not state[..., subnet.width :].any()


def test_gradients_reach_the_shared_weights_and_no_others():
    model = student()
    procedure = make(model)
    chosen = torch.randn(16, generator=torch.Generator().manual_seed(2))
    (procedure.passed(model, procedure.named["small"], *noise()).states[-1][..., :16] @ chosen).sum().backward()
    ups = [layer.up.weight.grad for layer in model.layers]
    assert drop_order(3)[0] == 3
    assert ups[2] is None
    assert bool(ups[0][:8, :16].any())
    assert not ups[0][8:].any()
    assert not ups[0][:, 16:].any()
    own = carved(model, procedure.named["small"])
    (normed(own.passage(*noise()).states[-1]) @ chosen).sum().backward()
    torch.testing.assert_close(own.layers[0].up.weight.grad, ups[0][:8, :16], atol=1e-4, rtol=1e-4)


def test_a_batch_is_divided_among_the_subnets_of_a_step():
    model = student()
    procedure = make(model, each_step=["largest", "sampled", "smallest", "small"])
    waves, lengths = noise(8)
    view = procedure.view(model, waves, lengths, None, 5, 0.5, chance(0, 5))
    drawn = procedure.space.sample(chance(0, 5))
    kinds = [procedure.space.largest, drawn, procedure.space.smallest, procedure.named["small"]]
    for number, subnet in enumerate(kinds):
        rows = slice(2 * number, 2 * number + 2)
        alone = procedure.passed(model, subnet, waves[rows], lengths[rows])
        for mine, theirs in zip(view.states, alone.states, strict=True):
            torch.testing.assert_close(mine[rows], theirs, atol=1e-5, rtol=1e-5)
    assert len(view.frames) == 8
    whole = normed(model.passage(waves[:2], lengths[:2]).states[-1])
    torch.testing.assert_close(view.states[-1][:2], whole, atol=1e-5, rtol=1e-5)


def test_with_fewer_utterances_than_subnets_steps_take_turns():
    model = student()
    procedure = make(model, each_step=["largest", "smallest", "small"])
    waves, lengths = noise(1)
    seen = [procedure.view(model, waves, lengths, None, s, 0.0, chance(0, s)).states[-1] for s in range(3)]
    subnets = (procedure.space.largest, procedure.space.smallest, procedure.named["small"])
    for state, subnet in zip(seen, subnets, strict=True):
        torch.testing.assert_close(state, procedure.passed(model, subnet, waves, lengths).states[-1])


def test_training_brings_subnets_nearer_to_the_teacher_and_the_products_run():
    model, teacher = student(seed=5), student(seed=7)
    procedure = make(model, each_step=["largest", "sampled", "small"])
    loss = like(teacher)

    def distances():
        with torch.no_grad():
            return [
                float(loss(procedure.passed(model, subnet, *noise(seed=1000)), *noise(seed=1000)))
                for subnet in (procedure.named["small"], procedure.space.largest)
            ]

    before = distances()
    train(procedure, model, 15, loss)
    assert all(b > a for b, a in zip(before, distances(), strict=True))
    products = procedure.products(model)
    assert list(products) == ["", "_small"]
    assert products[""] is model
    states, _ = products["_small"](*noise())
    assert states[-1].shape == (2, 24, 16)
    assert not procedure.state_dict()


def test_what_the_student_does_not_have_is_refused():
    model = student()
    for space, words in (
        ({"width": [64]}, "width 64 is not within 1 and the student's 32"),
        ({"heads": [5]}, "heads 5"),
        ({"ratio": [2.0]}, "ratio times width 64"),
        ({"depth": [4]}, "depth 4"),
        ({"colour": [4]}, "space is a mapping of width, heads, ratio, depth"),
        ({"width": ["wide"]}, "width of space is"),
    ):
        with pytest.raises(SlimbenchError, match=words):
            build({"kind": "supernet", "space": space}, model)
    with pytest.raises(SlimbenchError, match=r"each_step is \['best'\]"):
        make(model, each_step=["best"])
    with pytest.raises(SlimbenchError, match="one per layer"):
        make(model, products={"odd": {"heads": [1, 2], "depth": 3}})
    with pytest.raises(SlimbenchError, match="attention maps"):
        make(model).view(model, *noise(), None, 0, 0.0, chance(0, 0), maps=True)
    pruned = student(MiniConfig.from_dict(TINY.to_dict() | {"ffns": [24, 3, 24]}))
    with pytest.raises(SlimbenchError, match="has no subnets"):
        make(pruned)


def test_a_subnet_survives_being_written_as_settings():
    space = Space.of(TINY, SPACE)
    subnet = space.sample(np.random.default_rng(4))
    assert space.named(subnet.as_settings(), "it") == subnet
