"""The verbs ``subnets`` and ``mixture``: searches that follow a training."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from harness.arguments import above_zero, new_verb, positive
from harness.interface import SlimbenchError
from upstreams.distillation.verbs import add_folders, add_places, card_of, place

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HELD_OUT = 40_000_000
"""Number of the first batch that searches look at: crops of the pool that training never comes to."""


def add_subnets(subparsers: Any) -> None:
    """Add ``subnets``: the best subnet of a once-for-all recipe under a budget of parameters, as an upstream."""
    text = "search the subnets of a once-for-all recipe under a budget of parameters and cut the best one out"
    parser = new_verb(subparsers, "subnets", text, "Trains the recipe first where it is not trained.")
    parser.add_argument("recipe", nargs="?", default="lighthubert_like", help="recipe name or YAML file (%(default)s)")
    parser.add_argument("--params", required=True, metavar="1.4M", help="parameters at most")
    parser.add_argument(
        "--batches", type=positive, default=4, metavar="N", help="batches to score on (default: %(default)s)"
    )
    parser.add_argument(
        "--generations", type=positive, default=8, metavar="N", help="of the search (default: %(default)s)"
    )
    add_places(parser)
    parser.set_defaults(run=_subnets)


def _subnets(arguments: argparse.Namespace) -> int:
    from harness import listing
    from upstreams.distillation import recipe, train
    from upstreams.distillation.families.family_verb import parameters
    from upstreams.distillation.procedures.supernet import Supernet, carved
    from upstreams.distillation.search import subnets

    found, where = recipe.load(arguments.recipe), place(arguments)
    if not isinstance(found, recipe.Recipe):
        raise SlimbenchError(f"Recipe {found.name} is a pre-training; give one with procedure supernet.")
    if recipe.stage(found, len(found.stages)).procedure.get("kind") != "supernet":
        raise SlimbenchError(f"Recipe {found.name} trains no subnets; give one with procedure supernet.")
    budget, suffix = parameters(arguments.params), f"-{arguments.params.strip().lower()}"
    recipe.check_product(found.name, suffix)
    (run,), shards = train.trained([found], where)
    supernet = run.learner.procedure
    assert isinstance(supernet, Supernet)  # noqa: S101
    score = subnets.DistillationScore(
        supernet, run.learner.mini, train.held_out(run, HELD_OUT, arguments.batches, where.device), run.learner.matched
    )
    evolution = subnets.Evolution(generations=arguments.generations)
    best = subnets.search(supernet.space, score, budget, found.seed, evolution, least=int(0.9 * budget))
    weights = train.export_product(run, suffix, carved(run.learner.mini, best.subnet), shards, where)
    named = [(name, subnet) for name, subnet in supernet.named.items()] + [("found", best.subnet)]
    rows = [
        {
            "subnet": name,
            "parameters": f"{supernet.space.parameters(subnet):,}",
            "loss": f"{score(subnet):.4f}",
            "width": str(subnet.width),
            "depth": str(subnet.depth),
            "heads": "-".join(map(str, subnet.heads)),
        }
        for name, subnet in named
    ]
    print(listing.text(rows))
    print(f"{best.scored} subnets scored; weights: {weights}; card: {card_of(weights)}")
    return 0


def add_mixture(subparsers: Any) -> None:
    """Add ``mixture``: weights of teacher assistants by differential evolution."""
    text = "find how to mix teacher assistants of equal shape, by differential evolution on crops of the pool"
    parser = new_verb(subparsers, "mixture", text)
    parser.add_argument("assistants", help="upstreams or cards of equal states, separated by commas")
    parser.add_argument("--teacher", default="wavlm_mini", help="what they stand for (default: %(default)s)")
    parser.add_argument("--hours", type=above_zero, default=16.0, help="of synthetic speech in the pool (%(default)s)")
    parser.add_argument(
        "--batches", type=positive, default=12, metavar="N", help="batches to score on (default: %(default)s)"
    )
    add_folders(parser)
    parser.set_defaults(run=_mixture)


def _mixture(arguments: argparse.Namespace) -> int:
    from harness import registry
    from upstreams.distillation import train
    from upstreams.distillation.recipe import Data
    from upstreams.distillation.search import assistants
    from upstreams.distillation.teachers import single
    from upstreams.distillation.terms.base import layer_normed

    where, data = place(arguments), Data(arguments.hours, 1)
    names = [name for name in arguments.assistants.split(",") if name]
    for name in (*names, arguments.teacher):
        registry.card(name)
    batches = train.batches_of(data, where.shards(data), where)
    waves = [batches.draw(HELD_OUT + i, 0)[0].to(where.device) for i in range(arguments.batches)]

    def last(name: str) -> NDArray[np.float64]:
        import torch

        teacher = single(name, where.device)
        seen = [layer_normed(teacher.view(wave)).states[-1].flatten(0, 1) for wave in waves]
        found: NDArray[np.float64] = torch.cat(seen).double().cpu().numpy()
        return found

    target, parts = last(arguments.teacher), [last(name) for name in names]
    train_frames = int(0.7 * len(target))
    probe = assistants.RidgeProbe(parts, target, train_frames)
    found = assistants.search(len(names), probe, 0)
    weights = ", ".join(f"{name}: {weight:.3f}" for name, weight in zip(names, found.weights, strict=True))
    print(f"unexplained variance of {arguments.teacher} {found.value:.4f} after {found.evaluations} evaluations")
    for name, vertex in zip(names, range(len(names)), strict=True):
        alone = [float(index == vertex) for index in range(len(names))]
        print(f"  {name} alone {probe(_array(alone)):.4f}")
    print(f"teachers: [{{name: assistants, mixture: {{{weights}}}}}]")
    return 0


def _array(values: list[float]) -> NDArray[np.float64]:
    import numpy as np

    return np.array(values)
