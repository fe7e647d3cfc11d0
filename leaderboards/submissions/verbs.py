"""The verbs ``submit`` and ``verify``."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from harness import atomic
from harness.arguments import new_verb
from harness.interface import SlimbenchError


def add_submit(subparsers: Any) -> None:
    """Add ``submit`` to the command line."""
    text = "pack an upstream's records and card into one file that others can verify"
    verb = new_verb(subparsers, "submit", text, "Weights never go along.")
    verb.add_argument("upstream", metavar="UPSTREAM", help="name of a card, or path of a card file")
    verb.add_argument("--suite", default="", metavar="A,B", help="only records of these suites (default: all)")
    verb.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="records (default: results)")
    verb.add_argument("--out", type=Path, metavar="FILE", help="where it goes (default: UPSTREAM.zip)")
    verb.set_defaults(run=_submit)


def add_verify(subparsers: Any) -> None:
    """Add ``verify`` to the command line."""
    text = "recompute every score and interval of submissions or records, and check keys, digests, protocol, test set"
    verb = new_verb(subparsers, "verify", text)
    verb.add_argument("path", nargs="+", type=Path, metavar="FILE|FOLDER", help="submission, record, or folder of both")
    verb.add_argument(
        "--data", type=Path, metavar="DIR", help="data of the suite, for suites that are not known without"
    )
    verb.add_argument("--cache", type=Path, default=Path("cache"), metavar="DIR", help="where data are indexed")
    verb.add_argument("--json", action="store_true", help="one object per file")
    verb.set_defaults(run=_verify)


def _submit(options: argparse.Namespace) -> int:
    from leaderboards.submissions import submission
    from leaderboards.submissions.verification import verify

    packed, notes = submission.make(options.upstream, options.results, options.suite.replace(",", " ").split())
    out = options.out
    if out is None:
        from harness import registry

        out = Path(f"{registry.card(options.upstream).name}.zip")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unverified-", dir=out.parent) as folder:
        trial = Path(folder, out.name)
        atomic.write(trial, packed)
        (verdict,) = verify(trial)
        refusals = [str(f).replace(str(trial), str(out)) for f in verdict.findings if f.refuses]
        if refusals:
            raise SlimbenchError(f"Nothing was written, since it would be refused: {refusals[0]}")
        trial.replace(out)
    held = Counter(record.suite for record in verdict.records)
    for note in notes:
        print(f"note: {note}")
    _print_remarks([str(f).replace(str(trial), str(out)) for f in verdict.findings])
    what = ", ".join(f"{count} records of suite {name}" for name, count in sorted(held.items()))
    print(
        f"submission: {out} ({len(packed):,} bytes: {verdict.upstream}, {what}); docs/leaderboard.md says what is next"
    )
    return 0


def _verify(options: argparse.Namespace) -> int:
    from leaderboards.submissions import verification

    more: dict[Any, Any] | None = None
    if options.data is not None:
        more = _own_data(options)
    verdicts = [verdict for path in options.path for verdict in verification.verify(path, more)]
    if options.json:
        print(json.dumps([verdict.plain() for verdict in verdicts], indent=2, ensure_ascii=False))
    else:
        for verdict in verdicts:
            _print(verdict)
        good = sum(verdict.accepted for verdict in verdicts)
        print(f"{good} of {len(verdicts)} files verified")
    return 0 if all(verdict.accepted for verdict in verdicts) else 1


def _own_data(options: argparse.Namespace) -> dict[Any, Any]:
    """Test sets from the folder that the user names, for the suites whose records are to be verified."""
    from leaderboards.submissions import rules, testsets, verification

    named = {
        (record.suite, rules.protocol_name(record))
        for path in options.path
        for verdict in verification.verify(path)
        for record in verdict.records
        if not testsets.known(record.suite)
    }
    return verification.from_data(sorted(named), options.data, options.cache)


def _print(verdict: Any) -> None:
    if verdict.accepted:
        tasks = ", ".join(f"{record.suite} {record.task}" for record in verdict.records)
        print(f"{verdict.path}: verified: {verdict.upstream} ({tasks})")
    else:
        print(f"{verdict.path}: refused")
        for finding in verdict.findings:
            if finding.refuses:
                print(f"  refused: {finding}")
    _print_remarks([str(finding) for finding in verdict.findings if not finding.refuses])


def _print_remarks(remarks: list[str]) -> None:
    for text in remarks:
        print(f"  remark: {text}")
