"""The conformance check of one upstream, from its card to a table (the verb ``check``)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness import registry
from harness.conformance import Result, Subject
from harness.conformance.card import loads
from harness.conformance.points import BEFORE, POINTS
from harness.show import duration, printable


@dataclass(frozen=True)
class Report:
    """What the check of one upstream found.

    Attributes:
        upstream: its name.
        results: of the points that were tried, in order.
        untried: names of the points that could not be tried, because the upstream does not load.
        seconds: how long it took.
    """

    upstream: str
    results: tuple[Result, ...]
    untried: tuple[str, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether all points were tried and passed."""
        return not self.untried and all(result.passed for result in self.results)

    def plain(self) -> dict[str, Any]:
        """All of it as JSON-able data."""
        return {**asdict(self), "passed": self.passed}

    def conclusion(self) -> str:
        """What each failure means and how to mend it, and a sum."""
        failed = [result for result in self.results if not result.passed]
        notes = [f"{r.name} failed: {printable(r.figure)}\n  {r.meaning}\n  To mend it: {r.remedy}" for r in failed]
        left = f", {len(self.untried)} not tried ({', '.join(self.untried)})" if self.untried else ""
        sums = f"{len(self.results) - len(failed)} of {len(self.results)} passed{left}, {duration(self.seconds)}"
        return "\n\n".join([*notes, sums])


_COLUMN = max(len(point.name) for point in (*BEFORE, *POINTS))


def row(result: Result) -> str:
    """One line of the table."""
    return f"{'passed' if result.passed else 'FAILED'}  {result.name.ljust(_COLUMN)}  {printable(result.figure)}"


def check(name: str, device: str = "cpu", said: Callable[[Result], None] | None = None) -> Report:
    """Try every point on the upstream of that name, or card file.

    Args:
        name: as :func:`harness.registry.card` takes it.
        device: where the model runs.
        said: is told each result as soon as it is known.

    Raises:
        SlimbenchError: there is no such upstream, or its card cannot be read.
    """
    card = registry.card(name)
    return examine(Subject(card, lambda: registry.load_upstream(name, device), device), said)


def examine(subject: Subject, said: Callable[[Result], None] | None = None) -> Report:
    """Try every point on a subject."""
    began = time.perf_counter()
    results: list[Result] = []

    def attempt(points: Sequence[Callable[[Subject], Result]]) -> None:
        for point in points:
            results.append(point(subject))
            if said is not None:
                said(results[-1])

    attempt(BEFORE)
    alive = next(result for result in results if result.name == loads.name).passed
    if alive:
        attempt(POINTS)
    untried = () if alive else tuple(point.name for point in POINTS)
    return Report(subject.card.name, tuple(results), untried, time.perf_counter() - began)
