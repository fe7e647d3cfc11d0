"""The search over subnets against looking at every one."""

import numpy as np
import pytest
import torch
from procedure_cases import TINY, noise, student
from torch.nn import functional

from harness.interface import SlimbenchError
from upstreams.distillation.procedures.base import build
from upstreams.distillation.procedures.space import Space
from upstreams.distillation.search import subnets
from upstreams.distillation.search.subnets import DistillationScore, Evolution, search
from upstreams.distillation.terms.base import View

SPACE = Space.of(TINY, {"width": [16, 24, 32], "heads": [1, 2, 4], "ratio": [0.25, 0.5, 0.75], "depth": [2, 3]})
QUICK = Evolution(population=24, parents=8, generations=20)


def made_up(subnet):
    """Smooth in the choices, with a preference that differs by layer."""
    likes = zip((3.1, 1.2, 2.4), (0.3, 0.7, 0.6), subnet.heads, subnet.ratios, strict=False)
    return abs(subnet.width - 25) / 8 + sum(abs(a - h) + 3 * abs(b - r) for a, b, h, r in likes) - subnet.depth


@pytest.mark.parametrize("budget", [16_000, 20_000, 25_000])
def test_the_search_finds_the_best_of_all(budget):
    fitting = [s for s in SPACE.every() if SPACE.parameters(s) <= budget]
    assert 10 < len(fitting) <= SPACE.size
    best = min(fitting, key=made_up)
    found = search(SPACE, made_up, budget, seed=0, evolution=QUICK)
    assert found.score == made_up(best)
    assert found.parameters <= budget
    assert found.parameters == SPACE.parameters(found.subnet)
    assert found.scored < SPACE.size


def test_each_subnet_is_scored_once_and_only_within_the_budget():
    asked = []

    def score(subnet):
        asked.append(subnet)
        return made_up(subnet)

    found = search(SPACE, score, 20_000, seed=1, evolution=QUICK, least=18_000)
    assert len(asked) == len(set(asked)) == found.scored
    assert all(18_000 <= SPACE.parameters(subnet) <= 20_000 for subnet in asked)


def test_the_same_seed_gives_the_same_subnet():
    one, two = (search(SPACE, made_up, 20_000, seed=3, evolution=Evolution(8, 3, 2)) for _ in range(2))
    assert one == two


def test_children_are_within_the_space():
    rng = np.random.default_rng(0)
    everything = set(SPACE.every())
    for _ in range(200):
        one, other = SPACE.sample(rng), SPACE.sample(rng)
        child = subnets.crossed(one, other, rng)
        assert child in everything
        assert subnets.mutated(SPACE, one, rng, 0.5) in everything
        assert subnets.mutated(SPACE, one, rng, 0.0) == one
        assert child.width in (one.width, other.width)
        assert child.depth in (one.depth, other.depth)


def test_the_score_is_the_mean_loss_on_held_out_batches():
    model, teacher = student(), student(seed=9)
    procedure = build({"kind": "supernet", "space": {"width": [16, 32], "depth": [2, 3]}}, model)
    batches = []
    for seed in (1, 2):
        waves, lengths = noise(seed=seed)
        passage = teacher.passage(waves, lengths)
        batches.append((waves, lengths, View(tuple(passage.states), passage.frames)))
    score = DistillationScore(procedure, model, batches, lambda a, b: functional.mse_loss(a.states[-1], b.states[-1]))
    subnet = procedure.space.smallest
    expected = [
        functional.mse_loss(procedure.passed(model, subnet, w, n).states[-1], t.states[-1]).item()
        for w, n, t in batches
    ]
    assert score(subnet) == pytest.approx(np.mean(expected))
    found = search(procedure.space, score, 10**6, seed=0, evolution=Evolution(4, 2, 2))
    assert found.score == min(score(s) for s in procedure.space.every())
    assert all(p.grad is None for p in model.parameters())


def test_an_impossible_budget_is_refused():
    with pytest.raises(SlimbenchError, match="no subnet with 0 to 100 parameters"):
        search(SPACE, made_up, 100, seed=0, evolution=Evolution(2, 1, 1))
    model = student()
    with pytest.raises(SlimbenchError, match="held-out batches"):
        DistillationScore(build({"kind": "supernet", "space": {}}, model), model, [], lambda a, b: torch.zeros(()))
