"""A score on its own, as tables and model cards carry it: without the predictions that would prove it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from harness.interface import SlimbenchError
from harness.records import Record, load, load_all
from leaderboards.submissions import submission
from leaderboards.submissions.rules import protocol_name
from leaderboards.submissions.verification import accepted


@dataclass(frozen=True)
class Score:
    """One number.

    Attributes:
        suite: name of the suite.
        protocol: name of its protocol.
        upstream: whose score it is.
        task: name of the task.
        metric: name in :data:`harness.metrics.METRICS`.
        value: in percent.
        low: lower end of the 95 % interval, where there is one.
        high: upper end.
        n_test: scored rows, where it is known.
        seeds: how many seeds it is the mean of.
        key: of the record that it comes from; empty where there is none.
    """

    suite: str
    protocol: str
    upstream: str
    task: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    n_test: int | None = None
    seeds: int | None = None
    key: str = ""


def of_records(records: Iterable[Record]) -> list[Score]:
    """All scores of records: the main metric of each, then the further ones."""
    found = []
    for record in records:
        stated = {record.metric: (record.value, record.ci95)}
        stated |= {name: (entry["value"], entry["ci95"]) for name, entry in record.secondary.items()}
        for metric, (value, (low, high)) in stated.items():
            whose = (record.suite, protocol_name(record), record.upstream["name"], record.task, metric)
            found.append(Score(*whose, value, low, high, record.n_test, len(record.seeds), record.key))
    return found


def records_at(path: Path) -> list[Record]:
    """Records of a results folder, a folder of submissions, one submission, or one record.

    Raises:
        SlimbenchError: there are none, or one is broken.
    """
    if path.is_dir():
        found = [*load_all(path), *accepted(path)]
    elif path.suffix == ".json":
        found = [load(path)]
    else:
        found = list(submission.read(path).records.values())
    if not found:
        raise SlimbenchError(f"There are no records under {path}: name a folder of results, or a submission.")
    return found


def disagreements(scores: Iterable[Score], records: Sequence[Record]) -> list[str]:
    """Sentences on scores that name a record which is here and says something else."""
    known = {(score.key, score.metric): score for score in of_records(records)}
    found = []
    for score in scores:
        own = known.get((score.key, score.metric))
        if own is not None and own != score:
            name = next(f.name for f in fields(Score) if getattr(own, f.name) != getattr(score, f.name))
            found.append(
                f"{score.upstream} on {score.task} ({score.metric}): {name} is {getattr(score, name)} and in record "
                f"{score.key[:12]} {getattr(own, name)}."
            )
    return found
