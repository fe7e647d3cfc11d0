"""Verifying files and folders: every check on every record, and one verdict per file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import suite
from harness.interface import SlimbenchError
from harness.records import Record, path_of
from leaderboards.submissions import cards, rules, scores, strict, submission, sums, testsets
from leaderboards.submissions.findings import Finding, RefusedError
from leaderboards.submissions.rules import Known

ACCEPTED = Path(__file__).parent.parent / "records"
"""Where accepted submissions live."""
LAB = ACCEPTED / "lab"
"""Those of the students that this project made itself, which the board does not list."""
_BOOTSTRAP = 1000


@dataclass(frozen=True)
class Verdict:
    """What verification says of one file.

    Attributes:
        path: the file.
        upstream: whose results it holds; empty where it could not be read.
        records: what it holds.
        findings: refusals and remarks.
    """

    path: Path
    upstream: str
    records: tuple[Record, ...]
    findings: tuple[Finding, ...]

    @property
    def accepted(self) -> bool:
        """Whether nothing refuses it."""
        return not any(finding.refuses for finding in self.findings)

    def plain(self) -> dict[str, Any]:
        """The verdict as JSON."""
        return {
            "file": str(self.path),
            "verified": self.accepted,
            "upstream": self.upstream,
            "records": [f"{record.suite}/{record.task}" for record in self.records],
            "refusals": [str(finding) for finding in self.findings if finding.refuses],
            "remarks": [str(finding) for finding in self.findings if not finding.refuses],
        }


def check(record: Record, where: str, more: Known | None = None) -> list[Finding]:
    """Every check of one record whose schema and seal are known to be right.

    Args:
        record: the record.
        where: what its file is called in messages.
        more: test sets from data on this machine, for suites that are not known without.
    """
    found = list(scores.unscorable(record, where))
    if found:
        return found
    try:
        chosen = rules.suite_of(record, where)
    except RefusedError as refused:
        return [refused.finding]
    found += sums.findings(record, where)
    found += rules.findings(record, where, chosen, more or {})
    found += scores.findings(record, where, _BOOTSTRAP if chosen is None else chosen.bootstrap)
    return found


def verify(path: Path, more: Known | None = None) -> list[Verdict]:
    """Verify a submission, a record, or all of both below a folder (submissions, and records as ``RESULTS`` has them).

    Raises:
        SlimbenchError: there is nothing to verify at ``path``.
    """
    files = _files(path)
    if not files:
        raise SlimbenchError(f"{path} holds no submission (*.zip) and no record: name a file, or another folder.")
    return [_verdict(file, root, more) for file, root in files]


def accepted(folder: Path = ACCEPTED) -> list[Record]:
    """The records of all submissions in a folder, whole and sealed; for tables and figures.

    Raises:
        RefusedError: a file is not whole.
    """
    return [
        record for path in sorted(folder.glob("*.zip")) for _, record in sorted(submission.read(path).records.items())
    ]


def from_data(record_suites: Sequence[tuple[str, str]], data: Path | None, cache: Path) -> dict[Any, Any]:
    """Test sets of suites and protocols from data on this machine, for :func:`check`.

    Args:
        record_suites: names of suite and protocol.
        data: folder of the data; ``None`` where they are made.
        cache: where they are made and indexed.
    """
    made = {}
    for name, protocol in record_suites:
        chosen = suite.load(name, None if protocol == suite.OWN else protocol)
        made[chosen.name, chosen.protocol] = testsets.from_data(chosen, data, cache, list(chosen.tasks))
    return made


def _files(path: Path) -> list[tuple[Path, Path | None]]:
    """What is to be verified, each with the results folder that it lies in, if it does."""
    if not path.is_dir():
        return [(path, None)] if path.exists() or path.is_symlink() else []
    found: list[tuple[Path, Path | None]] = [(file, None) for file in sorted(path.rglob("*.zip"))]
    found += [(file, path) for file in sorted(path.glob("*/*/*.json"))]
    return [(f, root) for f, root in found if not any(p.startswith(".") for p in f.relative_to(path).parts)]


def _verdict(path: Path, root: Path | None, more: Known | None) -> Verdict:
    upstream = ""
    records: tuple[Record, ...] = ()
    try:
        if path.suffix == ".json":
            record = _record(path, root)
            upstream, records = str(record.upstream["name"]), (record,)
            found = check(record, str(path), more)
        else:
            whole = submission.read(path)
            upstream, records = whole.card.name, tuple(whole.records.values())
            found = list(_submission(whole, more))
    except RefusedError as refused:
        found = [refused.finding]
    return Verdict(path, upstream, records, tuple(dict.fromkeys(found)))


def _record(path: Path, root: Path | None) -> Record:
    if path.is_symlink() or not path.is_file():
        raise RefusedError(str(path), "", "it is not a regular file")
    if path.stat().st_size > strict.MAX_BYTES:
        raise RefusedError(
            str(path), "", f"it has {path.stat().st_size:,} bytes and at most {strict.MAX_BYTES:,} are read"
        )
    try:
        record = submission.read_record(path.read_bytes(), str(path))
    except OSError as error:
        raise RefusedError(str(path), "", f"it cannot be read ({error.strerror})") from error
    if root is not None:
        home = path_of(root, record.suite, record.upstream["name"], record.task, record.key)
        if home != path:
            raise RefusedError(str(path), "", f"it holds the record that belongs at {home}")
    return record


def _submission(whole: submission.Submission, more: Known | None) -> Iterator[Finding]:
    records = list(whole.records.values())
    yield from cards.findings(whole.card, whole.weights, records, f"{whole.path}: {submission.CARD}")
    first = records[0]
    for name, record in whole.records.items():
        where = f"{whole.path}: {name}"
        for field in first.upstream:
            if record.upstream.get(field) != first.upstream[field]:
                text = f"it is {record.upstream.get(field)!r} here and {first.upstream[field]!r} in {first.task}"
                yield Finding(where, f"upstream.{field}", text)
        if record.cost["params"] != first.cost["params"]:
            text = f"it is {record.cost['params']:,} here and {first.cost['params']:,} in {first.task}"
            yield Finding(where, "cost.params", text)
        yield from check(record, where, more)
    if whole.path.resolve().parent in (ACCEPTED, LAB) and whole.path.stem != whole.card.name:
        yield Finding(str(whole.path), "", f"accepted submissions are named by their upstream, {whole.card.name}.zip")
