"""Live progress: one line per stage with rate and time left, on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self, TextIO

from tqdm import tqdm

_EVERY = 10.0
"""Seconds between two plain lines where stderr is no terminal."""


class Progress:
    """A stage under way: a tqdm bar on a terminal, a plain line every few seconds elsewhere.

    Calling it as ``progress(done, total, note)`` moves it, so it serves as the callback of builders and probes.

    Args:
        stage: what is being done.
        total: how much there is to do, in ``unit``.
        unit: what is counted.
        stream: where to write, stderr by default.
    """

    def __init__(self, stage: str, total: float, unit: str, stream: TextIO | None = None) -> None:
        self._stage, self._total, self._unit = stage, total, unit
        self._stream = stream or sys.stderr
        self._began = self._said = self._since = time.monotonic()
        self._done, self._note, self._start = 0.0, "", 0.0
        self._bar: tqdm[Any] | None = None
        if self._stream.isatty():
            form = "{desc}: {percentage:3.0f}%|{bar:24}| {n:.0f}/{total:.0f}{unit}"
            form += " [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
            self._bar = tqdm(
                total=total, desc=stage, unit=f" {unit}", file=self._stream, bar_format=form, dynamic_ncols=True
            )

    def __call__(self, done: float, total: float, note: str = "") -> None:
        """Say that ``done`` of ``total`` is done. What the first call says may come from an earlier run."""
        if not self._done and done:
            self._start, self._since = done, time.monotonic()
            if self._bar is not None:
                self._bar.reset(total)
                self._bar.initial = self._bar.n = done
        self._move(done, total, note)

    def advance(self, amount: float) -> None:
        """Say that ``amount`` more is done."""
        self._move(self._done + amount, self._total, self._note)

    def _move(self, done: float, total: float, note: str) -> None:
        self._done, self._total, self._note = done, total, note
        if self._bar is not None:
            self._bar.total = total
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._said >= _EVERY:
            self._line()

    def __enter__(self) -> Self:
        """Begin the stage."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the stage; after an error nothing is called done."""
        if self._bar is not None:
            self._bar.close()
        elif kind is None:
            self._line()

    def _line(self) -> None:
        self._said = time.monotonic()
        moved, took = self._done - self._start, self._said - self._since
        rate = f", {moved / took:.1f} {self._unit}/s" if moved > 0 < took else ""
        if rate and self._done < self._total:
            rate += f", {clock((self._total - self._done) * took / moved)} left"
        share = 100 * self._done / self._total if self._total else 100.0
        head = f"{self._stage}: {share:3.0f}% of {self._total:.0f} {self._unit} in {clock(self._said - self._began)}"
        print(head + rate + (f", {self._note}" if self._note else ""), file=self._stream, flush=True)


def clock(seconds: float) -> str:
    """Seconds as m:ss, or h:mm:ss from an hour on."""
    whole = round(seconds)
    minutes, hours = whole // 60 % 60, whole // 3600
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def say(sentence: str) -> None:
    """One line on stderr."""
    print(sentence, file=sys.stderr, flush=True)
