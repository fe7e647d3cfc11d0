"""The verb ``compare``: which records are compared, and the answer as a page or as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import atomic
from harness.arguments import new_verb
from harness.cards import hint
from harness.interface import SlimbenchError
from harness.records import Record
from leaderboards.gather import gather


def add_verb(subparsers: Any) -> None:
    """Add ``compare`` to the command line."""
    text = "compare upstreams on the same test items: differences, intervals, tests, verdicts"
    verb = new_verb(subparsers, "compare", text)
    verb.add_argument("upstreams", nargs="+", metavar="UPSTREAM", help="two or more names, as in records")
    verb.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="records (default: results)")
    verb.add_argument("--accepted", action="store_true", help="also the accepted submissions; local records come first")
    verb.add_argument("--lab", action="store_true", help="also the students that this project distilled")
    verb.add_argument("--suite", metavar="NAME", help="only this suite (default: each that two of them share)")
    verb.add_argument("--tasks", default="", metavar="A,B", help="only these tasks (default: all shared ones)")
    verb.add_argument("--repeats", type=int, default=1000, metavar="N", help="resamples (default: 1000)")
    verb.add_argument("--json", action="store_true", help="as JSON instead of Markdown")
    verb.add_argument("--out", type=Path, metavar="DIR", help="also write compare.md and compare.json here")
    verb.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from leaderboards.comparison.compare import compare
    from leaderboards.comparison.verdicts import markdown, plain

    if options.repeats < 100:
        raise SlimbenchError(f"--repeats {options.repeats} gives no 95 % interval: use at least 100.")
    tasks = options.tasks.replace(",", " ").split()
    there = gather(options.results, options.accepted, options.lab)
    made = [
        compare(found, options.upstreams, tasks, options.repeats)
        for found in chosen(there, options.results, options.upstreams, options.suite, tasks)
    ]
    text = "\n".join(markdown(comparison) for comparison in made)
    values = json.dumps([plain(comparison) for comparison in made], indent=1, ensure_ascii=False, allow_nan=False)
    if options.out:
        atomic.write(options.out / "compare.md", text.encode())
        atomic.write(options.out / "compare.json", (values + "\n").encode())
    print(values if options.json else text, end="\n" if options.json else "")


def chosen(
    found: Sequence[Record], results: Path, names: Sequence[str], suite: str | None, tasks: Sequence[str]
) -> list[list[Record]]:
    """The records of the named upstreams, suite by suite, where at least two of them have some.

    Raises:
        SlimbenchError: fewer than two names; a name without records, with the nearest that has some; no common suite.
    """
    if len(set(names)) < 2:
        raise SlimbenchError("A comparison needs two different upstreams: name another.")
    known = sorted({record.upstream["name"] for record in found})
    for name in names:
        if name not in known:
            raise SlimbenchError(f"{name} has no records under {results}{_elsewhere(name, known)}.")
    for what, wanted, there in (
        ("suite", [suite] if suite else [], {record.suite for record in found}),
        ("task", tasks, {record.task for record in found}),
    ):
        for name in wanted:
            if name not in there:
                raise SlimbenchError(
                    f"No record under {results} has the {what} {name!r}: use {', '.join(sorted(there))}."
                )
    mine = [record for record in found if record.upstream["name"] in names and suite in (None, record.suite)]
    suites = sorted({record.suite for record in mine})
    grouped = [[record for record in mine if record.suite == name] for name in suites]
    shared = [group for group in grouped if len({record.upstream["name"] for record in group}) > 1]
    if not shared:
        raise SlimbenchError(f"{' and '.join(names)} have no suite in common under {results}: run both on one.")
    return shared


def _elsewhere(name: str, known: Sequence[str]) -> str:
    """What to do about a name without records; a published row has no predictions to pair."""
    from leaderboards.published import published

    if any(name == row.system for row in published().rows):
        return ": it is a published row, without predictions, and nothing can be paired with it; compare measured ones"
    here = "--accepted and --lab add the records that come with the project"
    return f"{hint(name, known)}: run 'slimbench bench --upstream {name}' first ({here})"
