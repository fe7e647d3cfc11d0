"""Shapes of equal size: the students of a depth-versus-width family, solved for a budget of parameters.

At a constant number of parameters a deeper student is narrower. What is varied here, and nothing else: the number of
layers (given), the width (a multiple of the head size) and the inner size of the feed-forward blocks, a multiple of 8
that trims what the coarse steps of the width leave over and stays between 2 and 8 times the width (4 is usual). Mel
front end, positional convolution and relative-position buckets are the same for all. Parameters are counted as an
upstream exposes them, without the mask embedding of pre-training.

Equal size as in Ashihara et al., "Deep versus Wide" (arXiv 2207.06867).
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness import cost
from harness.cards import Card
from harness.interface import SlimbenchError
from upstreams.adapters.mini import Mini
from upstreams.students.mini import MiniConfig, parameters

HEAD_WIDTHS = (64, 48, 32, 24, 16)
"""Sizes of an attention head that may be tried; the first is the teacher's."""
TOLERANCE = 0.02
"""Most that the parameters of a shape may be away from the budget, as a share of it."""
STEP = 8
"""The feed-forward size is a multiple of this."""
USUAL, LEAST, MOST = 4.0, 2.0, 8.0
"""Feed-forward size over width: what is aimed at, and the limits."""
SLACK = 0.6
"""A head size serves a whole family where no shape's feed-forward ratio is further from the usual one."""


@dataclass(frozen=True)
class Shape:
    """One student's shape.

    Attributes:
        budget: parameters that were asked for.
        config: the shape.
        parameters: of the exposed model.
    """

    budget: int
    config: MiniConfig
    parameters: int

    @property
    def deviation(self) -> float:
        """How far the parameters are from the budget, as a share of it, with its sign."""
        return self.parameters / self.budget - 1.0

    @property
    def ratio(self) -> float:
        """Feed-forward size over width."""
        return self.config.ffn / self.config.width

    @property
    def student(self) -> dict[str, Any]:
        """The ``student`` of a recipe."""
        config = self.config
        return {"family": "mini", "layers": config.layers, "width": config.width, "ffn": config.ffn,
                "head_width": config.head_width}  # fmt: skip


def solve(budget: int, depth: int, head_widths: Sequence[int] = HEAD_WIDTHS, tolerance: float = TOLERANCE) -> Shape:
    """The shape of ``depth`` layers that meets a budget.

    For every width the feed-forward size that comes nearest to the budget is taken; among the widths that meet it, the
    one whose feed-forward ratio is nearest to 4 is chosen, then the larger head, then the closer count.

    Args:
        budget: parameters.
        depth: transformer layers.
        head_widths: sizes of a head that may be used.
        tolerance: most deviation, as a share of the budget.

    Raises:
        SlimbenchError: no shape meets the budget; the message names the nearest.
    """
    if budget < 1 or depth < 1 or not head_widths or min(head_widths) < 1:
        raise SlimbenchError(
            f"{depth} layers with {budget} parameters and heads of {list(head_widths)} are no shape; "
            "give numbers above 0."
        )
    found = [shape for head in head_widths for shape in _near(budget, depth, head)]
    fitting = [shape for shape in found if abs(shape.deviation) <= tolerance]
    if not fitting:
        near = min(found, key=lambda shape: abs(shape.deviation))
        raise SlimbenchError(
            f"No student of {depth} layers has {budget:,} parameters within {100 * tolerance:g} %: the nearest is "
            f"width {near.config.width}, feed-forward {near.config.ffn}, heads of {near.config.head_width} with "
            f"{near.parameters:,}; give another budget or depth, or other --head-widths."
        )
    return min(fitting, key=_order)


def grid(
    budgets: Iterable[int],
    depths: Iterable[int],
    head_widths: Sequence[int] = HEAD_WIDTHS,
    tolerance: float = TOLERANCE,
) -> list[Shape]:
    """Shapes for all budgets and depths, of one head size where that is possible.

    The first of ``head_widths`` that gives every shape with a feed-forward ratio within :data:`SLACK` of 4 is taken for
    all of them, so that the head is no second thing that differs; where none does, each shape has the head that suits
    it best, as :func:`solve` chooses.

    Raises:
        SlimbenchError: a budget cannot be met at some depth.
    """
    wanted = [(budget, depth) for budget in budgets for depth in depths]
    for head in head_widths:
        alike = _all_with(wanted, head, tolerance)
        if alike is not None:
            return alike
    return [solve(budget, depth, head_widths, tolerance) for budget, depth in wanted]


def _all_with(wanted: Sequence[tuple[int, int]], head: int, tolerance: float) -> list[Shape] | None:
    """All shapes with one head size; ``None`` as soon as one cannot be had."""
    shapes: list[Shape] = []
    for budget, depth in wanted:
        try:
            shape = solve(budget, depth, (head,), tolerance)
        except SlimbenchError:
            return None
        if abs(shape.ratio - USUAL) > SLACK:
            return None
        shapes.append(shape)
    return shapes


def _order(shape: Shape) -> tuple[float, int, float]:
    return abs(shape.ratio - USUAL), -shape.config.head_width, abs(shape.deviation)


def _near(budget: int, depth: int, head: int) -> Iterator[Shape]:
    """One shape per width from the last that is too small to the first that is too large, the closest count of each."""
    low, high = 0, 1
    while _count(depth, high * head, _limits(high * head)[1], head) < budget:
        low, high = high, 2 * high
    while high - low > 1:  # the first width that can be large enough
        middle = (low + high) // 2
        enough = _count(depth, middle * head, _limits(middle * head)[1], head) >= budget
        low, high = (low, middle) if enough else (middle, high)
    for heads in range(max(1, low), 2**31):
        width = heads * head
        least, most = _limits(width)
        base = _count(depth, width, least, head)
        ffn = least + STEP * round((budget - base) / (STEP * depth * (2 * width + 1)))
        ffn = min(max(ffn, least), most)
        config = MiniConfig(layers=depth, width=width, ffn=ffn, head_width=head)
        yield Shape(budget, config, base + (ffn - least) * depth * (2 * width + 1))
        if base > budget:
            return


def _limits(width: int) -> tuple[int, int]:
    """Smallest and largest feed-forward size at a width."""
    return STEP * math.ceil(LEAST * width / STEP), STEP * max(1, math.floor(MOST * width / STEP))


@lru_cache(4096)
def _count(depth: int, width: int, ffn: int, head: int) -> int:
    return parameters(MiniConfig(layers=depth, width=width, ffn=ffn, head_width=head))


@lru_cache(1024)
def macs_per_second(config: MiniConfig) -> float:
    """Multiply-accumulates per second of audio of an untrained model of this shape, counted as records count them.

    Raises:
        SlimbenchError: the harness cannot count them.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.json")
        file.write_text(json.dumps(config.to_dict()), encoding="utf-8")
        card = Card(
            name="untrained", title="untrained", adapter="upstreams.adapters.mini:Mini", licence="none", source="none",
            exposes="all", options={"random": True, "config": file.name}, file=Path(folder, "card.yaml"),
        )  # fmt: skip
        return cost.count_macs(Mini(card))
