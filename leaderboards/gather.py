"""The records that tables and figures are made from: those of a results folder, and the accepted submissions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness import records
from harness.records import Record


def gather(results: Path, accepted: bool = False, lab: bool = False) -> list[Record]:
    """The records of a results folder and, where asked, those of the submissions that this project accepted.

    Args:
        results: folder of records; an absent one holds none.
        accepted: whether the accepted submissions are read too.
        lab: whether those of the distillation lab's students are.

    Raises:
        SlimbenchError: a record or a submission is broken.
    """
    local = records.load_all(results)
    return merged(local, [*(_accepted() if accepted else ()), *(_lab() if lab else ())])


def merged(local: Iterable[Record], others: Iterable[Record]) -> list[Record]:
    """Local records, then the others, the first of each run. A run is its upstream's name and its key."""
    found = list(local)
    known = {_run(record) for record in found}
    for record in others:
        if _run(record) not in known:
            known.add(_run(record))
            found.append(record)
    return found


def _run(record: Record) -> tuple[str, str]:
    return record.upstream["name"], record.key


def _accepted() -> list[Record]:
    from leaderboards.submissions import verification

    return verification.accepted()


def _lab() -> list[Record]:
    from leaderboards.submissions import verification

    return verification.accepted(verification.LAB)
