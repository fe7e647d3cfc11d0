"""From masks to a smaller model: gates set for a passage, and the cut once training is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from upstreams.distillation.procedures.anatomy import Anatomy
from upstreams.students.cutting import cut
from upstreams.students.mini import Gates, MiniWavLM


@contextmanager
def gated(student: MiniWavLM, gates: Sequence[Gates]) -> Iterator[None]:
    """A student whose layers have these gates; they are gone when the block ends."""
    for layer, gate in zip(student.layers, gates, strict=True):
        layer.gates = gate  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer in student.layers:
            layer.gates = None  # type: ignore[assignment]


def remaining(
    student: MiniWavLM,
    anatomy: Anatomy,
    dims: Sequence[Tensor],
    units: Sequence[Tensor],
    dim_factors: Sequence[Tensor] | None = None,
    unit_factors: Sequence[Tensor] | None = None,
) -> MiniWavLM:
    """The smaller model that is left of a student.

    Args:
        student: the trained whole.
        anatomy: its parts.
        dims: per layer (K,) bool, which dimensions of queries, keys and values stay.
        units: per layer (F,) bool, which feed-forward units stay.
        dim_factors: per layer (K,), what the output of a dimension is multiplied with; ``None`` for 1.
        unit_factors: per layer (F,), the same of units.

    Returns:
        A model of its own, with the factors in its weights.
    """
    state = {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}
    for factors, name in ((dim_factors, "out"), (unit_factors, "down")):
        for layer, factor in enumerate(factors or ()):
            weight = state.get(f"layers.{layer}.{name}.weight")
            if weight is not None:
                weight.mul_(factor.detach().to(weight))
    target = anatomy.left(dims, units)
    with torch.random.fork_rng(devices=[]):  # weights drawn to be replaced are not to change what is drawn next
        made = MiniWavLM(target)
    made.load_state_dict(cut(state, student.config, target, units=[mask.nonzero()[:, 0].tolist() for mask in units]))
    made.lam, made.repeat = student.lam, student.repeat
    return made.to(next(student.parameters()).device).train(student.training)


def fewest_dropped(count: Callable[[int], float], parts: int, most: float) -> int:
    """How many parts, in a fixed order, must go for ``count(dropped)`` to be at most ``most``; all if none suffices."""
    low, high = 0, parts
    while low < high:
        middle = (low + high) // 2
        if count(middle) <= most:
            high = middle
        else:
            low = middle + 1
    return low
