"""Pruning by learnt gates: counts against cut models, the cut against the gated passage, the target reached."""

import copy

import pytest
import torch
from procedure_cases import TINY, like, noise, student, train

from upstreams.distillation.procedures import hard_concrete as hc
from upstreams.distillation.procedures.anatomy import Anatomy, some
from upstreams.distillation.procedures.base import build, chance
from upstreams.distillation.procedures.pruned import fewest_dropped, remaining
from upstreams.students.mini import MiniConfig, parameters

PARTIAL = MiniConfig.from_dict(
    TINY.to_dict() | {"heads": 4, "kept": [[0, 1, 9, 30], list(range(32)), []], "ffns": [24, 0, 5]}
)


def masks(anatomy, seed, chance_of=None):
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(1, generator=generator) if chance_of is None else chance_of
    return [[torch.rand(n, generator=generator) < share for n in sizes] for sizes in (anatomy.dims, anatomy.units)]


@pytest.mark.parametrize("config", [TINY, PARTIAL], ids=["whole", "partial"])
def test_counts_are_those_of_the_cut_models(config):
    anatomy = Anatomy.of(config, "x")
    for seed in range(12):
        dims, units = masks(anatomy, seed, {0: 1.0, 1: 0.0}.get(seed))
        left = anatomy.left(dims, units)
        assert anatomy.count(dims, units) == parameters(left)
    assert anatomy.count(*masks(anatomy, 0, 1.1)) == parameters(config)


def test_the_expected_count_is_the_mean_over_cut_models():
    anatomy = Anatomy.of(TINY, "x")
    heads, units = [torch.full((4,), 0.6)] * 3, [torch.full((24,), 0.1)] * 3
    counts = []
    for _ in range(1000):
        drawn = anatomy.by_head([torch.rand(4) < h for h in heads])
        counts.append(anatomy.count(drawn, [torch.rand(24) < u for u in units]))
    error = torch.tensor(counts, dtype=torch.float64).std() / len(counts) ** 0.5
    assert float(anatomy.expected(heads, None, units)) == pytest.approx(sum(counts) / len(counts), abs=4 * float(error))


def test_the_expected_count_has_the_gradient_of_its_differences():
    anatomy = Anatomy.of(TINY, "x")
    values = [torch.rand(4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    units = [torch.rand(24, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda *x: anatomy.expected(x[:3], None, x[3:]), (*values, *units))
    assert float(some(torch.tensor([0.5, 0.5]))) == 0.75
    assert float(some(torch.zeros(0))) == 0


def test_expected_and_exact_counts_agree_when_gates_are_0_or_1():
    model = student()
    procedure = build({"kind": "gates", "sparsity": 0.4}, model)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        for part in (*procedure.heads, *procedure.units):
            part.data = torch.where(torch.rand(len(part), generator=generator) < 0.5, 1.0, -1.0)  # 100 times in use
        heads = [part.detach() > 0 for part in procedure.heads]
        units = [part.detach() > 0 for part in procedure.units]
        left = procedure.anatomy.left(procedure.anatomy.by_head(heads), units)
        assert procedure.sparsity().item() == pytest.approx(1 - parameters(left) / parameters(TINY), abs=1e-6)


def test_the_cut_model_computes_what_the_gated_one_does():
    model = student()
    procedure = build({"kind": "gates", "sparsity": 0.45, "speed": 1.0}, model).eval()
    torch.manual_seed(3)
    for part in (*procedure.heads, *procedure.units):
        part.data = torch.randn(len(part))
    heads, units = procedure.open()
    cut = procedure.products(model)[""]
    for part, mask in zip((*procedure.heads, *procedure.units), (*heads, *units), strict=True):
        part.data = torch.where(mask, part.data, -50.0)  # those that are cut give exactly 0
    with torch.no_grad():
        view = procedure.view(model, *noise(), None, 0, 1.0, chance(0, 0))
        states = cut.passage(*noise()).states
    for mine, theirs in zip(view.states, states, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
    assert parameters(cut.config) <= 0.55 * parameters(TINY)
    assert sum(p.numel() for n, p in cut.named_parameters() if n != "mask_embedding") == parameters(cut.config)


def test_what_is_least_open_closes_and_no_more_than_must():
    procedure = build({"kind": "gates", "sparsity": 0.4}, student())
    torch.manual_seed(1)
    for part in (*procedure.heads, *procedure.units):
        part.data = torch.randn(len(part))
    parts = [*procedure.heads, *procedure.units]
    stays = [mask for side in procedure.open() for mask in side]
    values = torch.cat([p.detach() for p in parts])
    keep = torch.cat(stays)
    assert values[~keep].max() < values[keep].min()
    again = keep.clone()
    again[values.masked_fill(keep, -torch.inf).argmax()] = True  # the last that closed
    split = torch.split(again, [len(p) for p in parts])
    anatomy = procedure.anatomy
    assert anatomy.count(anatomy.by_head(split[:3]), split[3:]) > 0.6 * parameters(TINY)


def fresh():
    model = student(seed=5)
    return model, build({"kind": "gates", "sparsity": 0.5, "end": 0.4, "speed": 50.0, "climb": 500.0}, model)


def test_the_penalty_reaches_the_target_against_a_loss_that_wants_all_gates():
    """Without a student: a made-up loss, the worth of each part times how far it is closed."""
    _, procedure = fresh()
    parts = [*procedure.heads, *procedure.units]
    worth = torch.rand(sum(len(p) for p in parts), generator=torch.Generator().manual_seed(0))
    optimiser = torch.optim.AdamW(procedure.parameters(), lr=1e-3, betas=(0.9, 0.98))
    for step in range(300):
        penalty = procedure.penalty(step, step / 300)
        gates = hc.openness(torch.cat([hc.quick(p, 50.0) for p in parts]))
        optimiser.zero_grad()
        (penalty.loss + 0.02 * (worth * (1 - gates)).sum()).backward()
        optimiser.step()
    assert penalty.figures["target_sparsity"] == 0.5
    assert penalty.figures["sparsity"] == pytest.approx(0.5, abs=0.03)
    stays = torch.cat([mask for side in procedure.open() for mask in side])
    units = slice(12, None)  # heads cost more than they are worth here
    assert worth[units][stays[units]].mean() > worth[units][~stays[units]].mean() + 0.2


def test_the_loss_of_the_student_reaches_gates_and_the_product_keeps_the_budget():
    model, procedure = fresh()
    before = [p.detach().clone() for p in procedure.parameters()]
    _, figures = train(procedure, model, 10, like(student(seed=7)))
    assert figures[0]["target_sparsity"] == 0
    assert all(not torch.equal(a, b) for a, b in zip(before, procedure.parameters(), strict=True))
    cut = procedure.products(model)[""]
    assert 0.44 * parameters(TINY) < parameters(cut.config) <= 0.5 * parameters(TINY)  # a head has 4.5 %


def test_a_resumed_run_repeats():
    teacher = student(seed=7)
    model, procedure = fresh()
    train(procedure, model, 8, like(teacher))
    again, other = fresh()
    optimiser, _ = train(other, again, 3, like(teacher), total=8)
    resumed, last = fresh()
    resumed.load_state_dict(copy.deepcopy(again.state_dict()))
    last.load_state_dict(copy.deepcopy(other.state_dict()))
    second = torch.optim.AdamW([*resumed.parameters(), *last.parameters()])
    second.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    train(last, resumed, 5, like(teacher), start=3, total=8, optimiser=second)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(procedure.parameters(), last.parameters(), strict=True))


def test_multipliers_climb_when_too_little_is_pruned_and_a_closed_gate_has_no_effect():
    model = student()
    procedure = build({"kind": "gates", "sparsity": 0.5, "end": 0.5}, model)
    penalty = procedure.penalty(0, 1.0)
    penalty.loss.backward()
    gap = procedure.sparsity().item() - 0.5
    assert gap < 0
    assert procedure.multipliers.grad.tolist() == pytest.approx([-gap, -(gap**2)], rel=1e-4)  # ascent on (gap, gap²)
    assert all(p.dim() == 1 for p in procedure.parameters())
    for part in procedure.heads:
        part.data.fill_(-20.0)
    anatomy = procedure.anatomy
    bare = remaining(model, anatomy, [torch.zeros(32, dtype=torch.bool)] * 3, [torch.ones(24, dtype=torch.bool)] * 3)
    assert bare.bias is None
    for part in procedure.units:
        part.data.fill_(20.0)
    view = procedure.view(model, *noise(), None, 0, 0.5, chance(0, 0))
    torch.testing.assert_close(view.states[-1], bare.passage(*noise()).states[-1], atol=1e-5, rtol=1e-5)
    assert model.layers[0].gates is None


def test_gates_are_drawn_by_the_step():
    model = student()
    procedure = build({"kind": "gates", "sparsity": 0.5, "opened": 0.5}, model)
    one, same, other = (procedure.view(model, *noise(), None, s, 0.0, chance(0, s)).states[-1] for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)
    assert float(hc.openness(hc.quick(procedure.heads[0], 100.0)).detach().mean()) == pytest.approx(0.5, abs=1e-5)


def test_the_fewest_are_dropped():
    for most in (-1, 0, 3, 6.5, 100):
        brute = next((n for n in range(11) if 10 - n <= most), 10)
        assert fewest_dropped(lambda n: 10 - n, 10, most) == brute
