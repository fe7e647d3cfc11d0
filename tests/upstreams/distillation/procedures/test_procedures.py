"""What all procedures share: building by name, plain hooks, chance that repeats."""

from dataclasses import replace

import pytest
import torch
from procedure_cases import TINY, moved_burst, noise, student

from harness.interface import SlimbenchError
from upstreams.distillation import procedures
from upstreams.distillation.procedures.base import chance
from upstreams.students.gendistiller import GenDistiller, GenShape

CASES = {
    "plain": {},
    "gates": {"sparsity": 0.3},
    "gradient_pruning": {"sparsity": 0.3},
    "supernet": {"space": {"width": [16, 32]}},
    "sequence": {},
}
SHAPES = {"sequence": replace(TINY, compress=True)}
GENERATOR = GenShape(layers=2, width=16, heads=2, ffn=24, position_kernel=8, position_groups=2, front="logmel")


def test_the_plain_procedure_is_the_student():
    model = student()
    plain = procedures.build({}, model)
    masked = torch.rand(2, 24) < 0.3
    view = plain.view(model, *noise(), masked, 0, 0.0, chance(0, 0), maps=True)
    passage = model.passage(*noise(), masked=masked, maps=True)
    assert all(torch.equal(a, b) for a, b in zip(view.states, passage.states, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(view.maps, passage.maps, strict=True))
    assert torch.equal(view.frames, passage.frames)
    assert plain.penalty(0, 0.0) is None
    assert plain.products(model) == {"": model}
    assert not list(plain.state_dict())


@pytest.mark.parametrize("kind", CASES)
def test_unknown_keys_are_named(kind):
    with pytest.raises(SlimbenchError, match=rf"procedure {kind}: unknown key 'colour'"):
        procedures.build({"kind": kind, **CASES[kind], "colour": "red"}, student(SHAPES.get(kind, TINY)))


@pytest.mark.parametrize("kind", ["gates", "supernet", "sequence"])
def test_a_view_that_chance_has_a_part_in_depends_on_its_step_only(kind):
    model = student(SHAPES.get(kind, TINY))
    procedure = procedures.build({"kind": kind, **CASES[kind]}, model)
    views = [procedure.view(model, *noise(), None, 3, 0.5, chance(1, 3)).states[-1] for _ in range(2)]
    torch.manual_seed(99)
    views.append(procedure.view(model, *noise(), None, 3, 0.5, chance(1, 3)).states[-1])
    assert torch.equal(views[0], views[1])
    assert torch.equal(views[0], views[2])
    others = (procedure.view(model, *noise(), None, step, 0.5, chance(1, step)).states[-1] for step in range(4, 9))
    assert not all(torch.equal(views[0], other) for other in others)


@pytest.mark.parametrize("kind", [*CASES, "gendistiller"])
def test_a_student_hears_nothing_of_masked_frames(kind):
    model = GenDistiller(GENERATOR) if kind == "gendistiller" else student(SHAPES.get(kind, TINY))
    procedure = procedures.build({"kind": kind, **CASES[kind]} if kind in CASES else {}, model)
    *waves, masked = moved_burst()

    @torch.no_grad()
    def state(wave, mask):
        return procedure.view(model, wave, torch.tensor([19_440] * 2), mask, 3, 0.5, chance(1, 3)).states[-1]

    torch.testing.assert_close(state(waves[0], masked), state(waves[1], masked), atol=1e-4, rtol=0)
    assert float((state(waves[0], None) - state(waves[1], None)).abs().max()) > 0.05
    assert float((state(waves[0], masked) - state(waves[0].flip(0), masked)).abs().max()) > 0.05


def test_faulty_settings_are_refused():
    model = student()
    with pytest.raises(SlimbenchError, match="'magic' is none of plain, gates"):
        procedures.build({"kind": "magic"}, model)
    with pytest.raises(SlimbenchError, match=r"gates: sparsity is 1\.5, not within"):
        procedures.build({"kind": "gates", "sparsity": 1.5}, model)
    with pytest.raises(SlimbenchError, match="gates: sparsity is 'much'; write a number"):
        procedures.build({"kind": "gates", "sparsity": "much"}, model)
    with pytest.raises(SlimbenchError, match=r"gates: .*sparsity"):
        procedures.build({"kind": "gates"}, model)
    for kind in ("gates", "gradient_pruning"):
        with pytest.raises(SlimbenchError, match=r"sparsity 0\.99 cannot be reached"):
            procedures.build({"kind": kind, "sparsity": 0.99}, model)
        shared = student(TINY.from_dict(TINY.to_dict() | {"own_maps": [True, False, True]}))
        with pytest.raises(SlimbenchError, match="reuse attention maps"):
            procedures.build({"kind": kind, "sparsity": 0.1}, shared)


def test_chance_differs_by_seed_and_step():
    draws = {chance(seed, step).random() for seed in range(3) for step in range(3)}
    assert len(draws) == 9
    assert chance(1, 2).random() == chance(1, 2).random()
