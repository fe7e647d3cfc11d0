"""A plan with its price: what the tasks of a bench ask for, timed on this machine, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import kept
from harness.estimation import budget, forecast
from harness.estimation.calibrate import Calibration, Machine, calibrate
from harness.estimation.forecast import Once
from harness.estimation.loads import Load, of_plan, of_suite
from harness.extraction.extract import free_bytes
from harness.extraction.frames import Asked, Choice, Room
from harness.extraction.stream import memory_bound
from harness.plan import Plan
from harness.processes import since_start
from harness.suite import Suite

__all__ = ["Expected", "Machine", "keep_report_seconds", "of_bench", "of_sizes", "report_seconds"]

REPORT = 12.0
"""Seconds of a report where none has been written on this machine."""


@dataclass(frozen=True)
class Expected:
    """What a bench is expected to take.

    Attributes:
        machine: where.
        loads: what its tasks ask for.
        found: how fast the machine is.
        once: what it takes besides its tasks.
        frames: where frames come from, for every task that reads them.
    """

    machine: Machine
    loads: list[Load]
    found: Calibration
    once: Once
    frames: Mapping[str, Choice]

    def table(self, seconds: float | None = None) -> str:
        """As text; with a budget in seconds also which tasks fit into it."""
        device = self.machine.device
        rows = forecast.forecast(self.machine.upstream, self.loads, self.found, device.startswith("cuda"))
        lines = [forecast.describe(self.loads, rows, self.found, self.once, device)]
        if seconds is not None:
            lines.append(budget.said(*budget.choose(self.loads, self.found, self.once, seconds), seconds))
        return "\n".join(lines)


def of_sizes(
    machine: Machine,
    chosen: Suite,
    names: Sequence[str],
    seeds: int,
    again: bool = False,
    asked: Asked = "auto",
    limit: float | None = None,
) -> Expected:
    """What a bench is expected to take on data that are not here, by the sizes that the suite states.

    Args:
        machine: where.
        chosen: the suite.
        names: tasks.
        seeds: of every learning rate.
        again: time everything anew.
        asked: where frames are to come from.
        limit: bytes that features may take.
    """
    start = since_start()
    room = Room(free_bytes(machine.cache), limit, memory_bound())
    loads, ways = of_suite(chosen, names, seeds, machine.upstream, room, asked)
    found = calibrate(machine, loads, again=again)
    audio = {key: seconds for load in loads for key, seconds in load.audio.items()}
    check = sum(audio.values()) * found.encoding.check if found.encoding is not None else 0.0
    return Expected(machine, loads, found, Once(start, check, report_seconds(machine.cache)), ways)


def of_bench(made: Plan, device: str, cache: Path, spent: float = 0.0, again: bool = False) -> Expected:
    """What a prepared bench is expected to take.

    Args:
        made: its plan.
        device: torch device.
        cache: folder of the cache.
        spent: seconds of this process that the bench will not need again, such as for making the data.
        again: time everything anew.
    """
    start = since_start() - spent
    machine = Machine(made.upstream, device, made.suite.dtype, made.suite.bootstrap, cache, made.store.compute)
    loads = of_plan(made)
    missing = {key: piece for key, piece in made.pieces.items() if not made.store.has(key, piece.frames)}
    found = calibrate(machine, loads, missing or made.pieces, again)  # what streams is encoded though it is there
    known = set(kept.read(cache / "audio.json") or {})
    unchecked = sum(piece.utterance.seconds for key, piece in made.pieces.items() if key not in known)
    check = unchecked * found.encoding.check if found.encoding is not None else 0.0
    return Expected(machine, loads, found, Once(start, check, report_seconds(cache)), made.frames)


def report_seconds(cache: Path) -> float:
    """What the last report of this cache took, or :data:`REPORT`."""
    return float(kept.read(_report(cache)) or REPORT)


def keep_report_seconds(cache: Path, seconds: float) -> None:
    """Remember what a report took."""
    kept.write(_report(cache), round(seconds, 1))


def _report(cache: Path) -> Path:
    return cache / "calibration" / "report.json"
