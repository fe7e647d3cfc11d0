"""Pruning by gradients: importance against autograd and finite differences, what closes, the cut, resuming."""

import copy

import pytest
import torch
from procedure_cases import TINY, like, noise, student, train

from harness.interface import SlimbenchError
from upstreams.distillation.procedures.base import build, chance
from upstreams.distillation.procedures.gradient_pruning import products
from upstreams.distillation.procedures.pruned import gated
from upstreams.students.mini import Gates, parameters


def make(model, **settings):
    return build({"kind": "gradient_pruning", "sparsity": 0.4, **settings}, model)


def test_products_of_weights_and_gradients_are_the_gradients_of_gates():
    model = student()
    ones = [Gates(dims=torch.ones(32, requires_grad=True), units=torch.ones(24, requires_grad=True)) for _ in range(3)]
    with gated(model, ones):
        states = model.passage(*noise()).states
    (states[-1] ** 2).mean().backward()
    for layer, gates in zip(model.layers, ones, strict=True):
        column = (layer.out.weight * layer.out.weight.grad).sum(0)  # what the gate on values says a second time
        torch.testing.assert_close(products(layer, "dims") - column, gates.dims.grad, atol=1e-6, rtol=1e-4)
        column = (layer.down.weight * layer.down.weight.grad).sum(0)
        row = (layer.up.weight * layer.up.weight.grad).sum(1) + layer.up.bias * layer.up.bias.grad
        torch.testing.assert_close(column, gates.units.grad, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(products(layer, "units"), column + row)


def test_products_are_the_slope_of_the_loss_as_the_weights_of_a_part_grow():
    model = student().double()
    waves, lengths = noise()

    def loss():
        return (model.passage(waves.double(), lengths).states[-1] ** 2).mean()

    loss().backward()
    layer, dim, step = model.layers[1], 11, 1e-4
    expected = products(layer, "dims")[dim]
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            saved = copy.deepcopy(layer.state_dict())
            rows = torch.tensor([dim, 32 + dim, 64 + dim])
            layer.qkv.weight[rows] *= 1 + sign * step
            layer.qkv.bias[rows] *= 1 + sign * step
            layer.out.weight[:, dim] *= 1 + sign * step
            values.append(float(loss()))
            layer.load_state_dict(saved)
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected.item(), rel=1e-4)


def test_importance_is_a_moving_average_of_absolute_products():
    model = student()
    procedure = make(model, begin=0.9, end=1.0, memory=0.7)
    expected = torch.zeros_like(procedure.importance)
    for step in range(3):
        model.zero_grad()
        view = procedure.view(model, *noise(seed=step), None, step, 0.0, chance(0, step))
        view.states[-1].abs().mean().backward()
        found = torch.cat([products(layer, kind) for kind in ("dims", "units") for layer in model.layers])
        expected = 0.7 * expected + 0.3 * found.detach().abs()
        procedure.after_backward(model, step, 0.0)
    torch.testing.assert_close(procedure.importance, expected)
    assert bool(procedure.keep.all())


def brute(procedure, most):
    """Close one part after the other, the least score first, until few enough parameters are left."""
    keep, scores = procedure.keep.clone(), procedure.scores()
    while procedure.anatomy.count(*procedure.parts(keep)) > most:
        keep[scores.masked_fill(~keep, torch.inf).argmin()] = False
    return keep


def test_closing_is_greedy_and_for_good():
    procedure = make(student())
    for seed, share in enumerate((0.9, 0.8, 0.8, 0.6)):
        procedure.importance = torch.rand(len(procedure.keep), generator=torch.Generator().manual_seed(seed))
        before, most = procedure.keep.clone(), share * parameters(TINY)
        expected = brute(procedure, most)
        procedure.close(most)
        assert torch.equal(procedure.keep, expected)
        assert not (procedure.keep & ~before).any()


def test_importance_is_per_parameter_saved():
    procedure = make(student(), alpha=0.0)
    dims, units = procedure.anatomy.per_dim, procedure.anatomy.per_unit
    procedure.importance = torch.cat([torch.full((96,), float(dims)), torch.full((72,), float(units))])
    torch.testing.assert_close(procedure.scores(), torch.ones(168))
    assert (dims, units) == (4 * 32 + 3, 2 * 32 + 1)


def heads_touched(alpha):
    procedure = make(student(), alpha=alpha)
    procedure.importance = torch.rand(len(procedure.keep), generator=torch.Generator().manual_seed(0)) + 0.5
    procedure.importance[96:] = 100.0  # units stay
    for share in torch.linspace(0.98, 0.75, 12).tolist():
        procedure.close(share * parameters(TINY))
    kept = torch.stack(procedure.parts(procedure.keep)[0]).view(12, 8).sum(1)
    return int(((kept > 0) & (kept < 8)).sum()), int((kept == 0).sum())


def test_regularisation_removes_whole_heads():
    plain, whole = heads_touched(0.0), heads_touched(2.0)
    assert whole[0] < plain[0]
    assert whole[1] > plain[1]


def test_training_follows_the_schedule_and_the_cut_model_computes_the_same():
    model, teacher = student(seed=5), student(seed=7)
    procedure = make(model, begin=0.2, end=0.8, sparsity=0.5)
    _, figures = train(procedure, model, 30, like(teacher))
    curve = [f["sparsity"] for f in figures]
    assert curve[:7] == [0] * 7
    for step in (10, 15, 20, 29):  # shown one step after it was asked for
        wanted = 0.5 * (1 - (1 - min(((step - 1) / 30 - 0.2) / 0.6, 1)) ** 3)
        assert wanted <= curve[step] < wanted + 0.02
    cut = procedure.products(model)[""]
    assert 0.48 * parameters(TINY) < parameters(cut.config) <= 0.5 * parameters(TINY)
    with torch.no_grad():
        view = procedure.view(model, *noise(seed=99), None, 60, 1.0, chance(0, 60))
        states = cut.passage(*noise(seed=99)).states
    for mine, theirs in zip(view.states, states, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_a_resumed_pruning_repeats():
    teacher = student(seed=7)
    model = student(seed=5)
    procedure = make(model)
    train(procedure, model, 8, like(teacher))
    again = student(seed=5)
    other = make(again)
    optimiser, _ = train(other, again, 4, like(teacher), total=8)
    resumed = student(seed=5)
    last = make(resumed)
    resumed.load_state_dict(copy.deepcopy(again.state_dict()))
    last.load_state_dict(copy.deepcopy(other.state_dict()))
    second = torch.optim.AdamW(resumed.parameters())
    second.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    train(last, resumed, 4, like(teacher), start=4, total=8, optimiser=second)
    assert torch.equal(procedure.keep, last.keep)
    assert torch.equal(procedure.importance, last.importance)
    assert not procedure.keep.all()


def test_frozen_weights_are_refused():
    model = student().requires_grad_(False)
    with pytest.raises(SlimbenchError, match="do not freeze"):
        make(model).after_backward(model, 0, 0.5)
