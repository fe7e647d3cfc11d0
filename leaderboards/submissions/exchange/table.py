"""Scores as CSV: one line per number, every digit kept, no free text (so that no cell can be a formula)."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable
from dataclasses import astuple, fields
from pathlib import Path

from harness.interface import SlimbenchError
from harness.metrics import METRICS
from leaderboards.submissions.exchange.scores import Score

COLUMNS = tuple(field.name for field in fields(Score))
MAX_BYTES = 16 * 2**20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,200}")
_REAL, _WHOLE = ("value", "low", "high"), ("n_test", "seeds")


def write(scores: Iterable[Score]) -> str:
    """CSV text with a header; what is not known is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for score in scores:
        writer.writerow(
            "" if value is None else repr(value) if isinstance(value, float) else value for value in astuple(score)
        )
    return buffer.getvalue()


def read(path: Path) -> list[Score]:
    """Scores from such a file; further columns are left aside.

    Raises:
        SlimbenchError: the file cannot be read, a column is missing, or a cell is not what its column holds.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SlimbenchError(f"{path} has more than {MAX_BYTES:,} bytes: a table of scores is smaller.")
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), strict=True)
        rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SlimbenchError(f"{path} cannot be read as CSV ({error}); save it as UTF-8 with commas.") from error
    if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
        raise SlimbenchError(f"{path}: column {', '.join(missing)} is missing; the header is {', '.join(COLUMNS)}.")
    return [_score(path, line, row) for line, row in enumerate(rows, start=2)]


def _score(path: Path, line: int, row: dict[str, str | None]) -> Score:
    def cell(name: str) -> str:
        value = row[name]
        if value is None or None in row:
            raise SlimbenchError(f"{path}: line {line} has another number of cells than the header; correct it.")
        return value

    def number(name: str, kind: type[float] | type[int]) -> float | int | None:
        text = cell(name)
        try:
            value = kind(text) if text else None
        except ValueError:
            value = math.nan
        if (value is None and name == "value") or (value is not None and not math.isfinite(value)):
            raise SlimbenchError(f"{path}: line {line}: {name} is {text[:40]!r}; write a number.")
        return value

    for name in ("suite", "protocol", "upstream", "task"):
        if not _NAME.fullmatch(cell(name)):
            raise SlimbenchError(f"{path}: line {line}: {name} is {cell(name)[:40]!r}; write a name.")
    if cell("metric") not in METRICS:
        raise SlimbenchError(f"{path}: line {line}: metric is {cell('metric')[:40]!r}; use {', '.join(METRICS)}.")
    texts = {name: cell(name) for name in ("suite", "protocol", "upstream", "task", "metric", "key")}
    numbers = {name: number(name, float) for name in _REAL} | {name: number(name, int) for name in _WHOLE}
    return Score(**texts, **numbers)  # type: ignore[arg-type]
