"""Scores and intervals of a record, worked out again from the predictions that it stores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

from harness import metrics, records, registry, stats
from harness.interface import Row, SlimbenchError, Task
from harness.records import Record
from leaderboards.submissions.findings import Finding

_UTTERANCE = {"id", "speaker", "ref", "hyp"}
_TRIAL = {"enrol", "test", "speakers", "same", "score"}


def unscorable(record: Record, where: str) -> Iterator[Finding]:
    """Why a record's rows cannot be scored at all: metrics or rows of another form than they must have."""
    yield from _metrics(record, where)
    yield from _rows(record, where)


def findings(record: Record, where: str, bootstrap: int) -> Iterator[Finding]:
    """Which scores and intervals the predictions do not give.

    Args:
        record: of a known schema, and scorable.
        where: its file.
        bootstrap: resamples of its intervals.
    """
    try:
        records.verify(record)
    except SlimbenchError as error:
        said = str(error).split(" states ", 1)[-1].split(": delete", 1)[0]
        yield Finding(where, said.split(" = ")[0], f"it states {said}")
        return
    rows = [record.predictions[str(seed)] for seed in record.seeds]
    stated = {record.metric: ("ci95", record.ci95)}
    stated |= {name: (f"secondary.{name}.ci95", entry["ci95"]) for name, entry in record.secondary.items()}
    for metric, (field, interval) in stated.items():
        try:
            again = stats.interval(metric, rows, repeats=bootstrap)
        except SlimbenchError as error:
            yield Finding(where, field, f"its predictions give no interval ({str(error).rstrip('.')})")
            continue
        if not all(math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9) for a, b in zip(interval, again, strict=True)):
            yield Finding(
                where, field, f"it states {interval}, but its predictions give {list(again)} with {bootstrap} resamples"
            )


@lru_cache(maxsize=64)
def task_of(name: str) -> Task | None:
    """A task of this installation; ``None`` where it has none of that name."""
    return registry.task(name) if name in registry.task_names() else None


def _metrics(record: Record, where: str) -> Iterator[Finding]:
    """Whether the metrics are those of the task, where the task is known here."""
    for name in (record.metric, *record.secondary):
        if name not in metrics.METRICS:
            yield Finding(where, "metric", f"{name!r} is no metric of this slimbench")
    task = task_of(record.task)
    if task is not None:
        allowed = {*task.secondary, "wer_lm" if record.metric == "wer" else "eer_test_min"}
        if record.metric != task.metric:
            yield Finding(where, "metric", f"{record.task} is scored with {task.metric}, not with {record.metric}")
        for name in sorted(set(record.secondary) - allowed):
            yield Finding(where, f"secondary.{name}", f"it is no further metric of {record.task}")


def _rows(record: Record, where: str) -> Iterator[Finding]:
    """Whether every seed has the same distinct items, and every row the fields that its metric needs and no others."""
    trials = record.metric in metrics.TRIALS
    needed = _TRIAL if trials else _UTTERANCE
    said = "score" if trials else "hyp"
    further = {"fold", *(f"{said}_{name}" for name in record.secondary)}
    first: list[tuple[str, ...]] | None = None
    for seed in record.seeds:
        rows = record.predictions[str(seed)]
        for number, row in enumerate(rows):
            fault = _fault(row, needed, further, trials)
            if fault:
                yield Finding(where, f"predictions.{seed}[{number}]", fault)
                return
        names = [_name(row) for row in rows]
        if not names:
            yield Finding(where, f"predictions.{seed}", "there are no rows")
            return
        if first is None and len(set(names)) < len(names) and not trials:
            yield Finding(where, f"predictions.{seed}", "an utterance stands there twice")
            return
        if first is not None and names != first:
            yield Finding(where, f"predictions.{seed}", f"its items are not those of seed {record.seeds[0]}")
            return
        first = names
    if len(set(record.seeds)) < len(record.seeds):
        yield Finding(where, "seeds", "a seed stands there twice")


def _fault(row: Row, needed: set[str], further: set[str], trials: bool) -> str:
    """What is wrong with one row; nothing where it is whole."""
    if not needed <= set(row) <= needed | further:
        return f"it has the fields {', '.join(sorted(row))} and should have {', '.join(sorted(needed))}"
    for name, value in row.items():
        if name == "fold":
            good = isinstance(value, int) and not isinstance(value, bool)
        elif name == "same":
            good = isinstance(value, bool)
        elif name == "speakers":
            good = isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value)
        elif trials and name.startswith("score"):
            good = isinstance(value, int | float) and not isinstance(value, bool)
        else:
            good = isinstance(value, str)
        if not good:
            return f"{name} is of the wrong kind"
    return ""


def _name(row: Row) -> tuple[str, ...]:
    return (str(row.get("fold", "")), str(row["id"])) if "id" in row else (row["enrol"], row["test"])
