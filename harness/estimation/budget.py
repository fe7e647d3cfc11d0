"""A bench within a budget of time: the cheapest tasks first, as far as the plan says that they fit."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.estimation.calibrate import Calibration
from harness.estimation.forecast import Once, duration, times
from harness.estimation.loads import Load
from harness.interface import SlimbenchError

_UNITS = {"": 3600.0, "h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}


def parse(text: str) -> float:
    """Seconds of a budget: hours, or a number with ``h``, ``m`` or ``s``.

    Raises:
        SlimbenchError: it is no such thing.

    >>> parse("1.5"), parse("30m"), parse("2h")
    (5400.0, 1800.0, 7200.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(h|min|m|s)?", text.strip())
    seconds = float(found[1]) * _UNITS[found[2] or ""] if found else 0.0
    if seconds <= 0:
        raise SlimbenchError(f"a budget is hours, or minutes as in 30m; {text!r} is neither.")
    return seconds


def choose(
    loads: Sequence[Load], found: Calibration, once: Once, seconds: float, start: float = 0.0
) -> tuple[list[str], list[str]]:
    """Which tasks to do now, cheapest first, and which to leave for another call.

    Audio that a chosen task has encoded costs the others nothing, so after each choice the rest is priced anew.

    Args:
        loads: the tasks.
        found: what was timed.
        once: what the bench takes besides.
        seconds: the budget.
        start: what of it is spent already.
    """
    left = {load.name: load for load in loads}
    chosen: list[str] = []
    done: set[str] = set()
    spent = start + once.seconds
    while left:
        prices = {name: times(load, found, done).seconds for name, load in left.items()}
        name = min(prices, key=lambda name: prices[name])
        if spent + prices[name] > seconds:
            break
        spent += prices[name]
        done |= set(left.pop(name).audio)
        chosen.append(name)
    return chosen, list(left)


def said(names: Sequence[str], others: Sequence[str], seconds: float) -> str:
    """For people: what is done now and what is left for another call."""
    if not others:
        return f"budget of {duration(seconds)}: all tasks fit"
    now = f"now {', '.join(names)}" if names else "not even the cheapest task fits, nothing is done"
    return f"budget of {duration(seconds)}: {now}; left for another call: {', '.join(others)}"
