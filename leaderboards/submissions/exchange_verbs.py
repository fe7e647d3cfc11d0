"""The verbs ``export`` and ``import``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import atomic
from harness.arguments import new_verb
from harness.interface import SlimbenchError

if TYPE_CHECKING:
    from harness.records import Record
    from leaderboards.submissions.exchange.scores import Score

FORMATS = ("csv", "model-index", "s3prl")


def add_export(subparsers: Any) -> None:
    """Add ``export`` to the command line."""
    text = "write scores as CSV or for a model card, or test predictions as s3prl writes them"
    verb = new_verb(subparsers, "export", text)
    verb.add_argument("upstreams", nargs="*", metavar="UPSTREAM", help="names (default: all; one but for csv)")
    verb.add_argument("--as", dest="format", choices=FORMATS, default="csv", help="format (default: csv)")
    verb.add_argument("--suite", metavar="NAME", help="only records of this suite")
    verb.add_argument("--protocol", metavar="NAME", help="only records of this protocol")
    verb.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="PATH",
        help="records, or submissions (default: results)",
    )
    verb.add_argument("--seed", type=int, metavar="N", help="s3prl: whose predictions (default: the first)")
    verb.add_argument("--out", type=Path, metavar="PATH", help="file, or folder for s3prl (default: standard output)")
    verb.set_defaults(run=_export)


def add_import(subparsers: Any) -> None:
    """Add ``import`` to the command line."""
    text = "read scores from CSV or a model card, or score predictions in s3prl's files"
    verb = new_verb(subparsers, "import", text)
    verb.add_argument("path", type=Path, metavar="PATH", help=".csv, .md or .yaml; else s3prl's folder or predict.zip")
    verb.add_argument("--suite", default="superb", metavar="NAME", help="s3prl: whose test set (default: superb)")
    verb.add_argument("--protocol", metavar="NAME", help="s3prl: one of the suite's protocols (default: its first)")
    verb.add_argument("--upstream", default="imported", metavar="NAME", help="s3prl: whose predictions they are")
    verb.add_argument("--data", type=Path, metavar="DIR", help="s3prl: data of the suite, where it needs them")
    verb.add_argument("--cache", type=Path, default=Path("cache"), metavar="DIR", help="where data are indexed")
    verb.add_argument(
        "--results", type=Path, metavar="PATH", help="records, or submissions, to compare with what is read"
    )
    verb.add_argument("--json", action="store_true", help="one object per score (default: CSV)")
    verb.set_defaults(run=_import)


def _export(options: argparse.Namespace) -> None:
    from leaderboards.submissions.exchange import model_index, table
    from leaderboards.submissions.exchange.scores import of_records

    found = _chosen(options)
    if options.format == "s3prl":
        _export_predictions(found, options)
        return
    text = table.write(of_records(found)) if options.format == "csv" else model_index.write(found)
    if options.out is None:
        print(text, end="")
    else:
        atomic.write(options.out, text.encode())
        print(f"export: {options.out}")


def _export_predictions(found: list[Record], options: argparse.Namespace) -> None:
    from leaderboards.submissions import archive
    from leaderboards.submissions.exchange import s3prl

    if options.out is None:
        raise SlimbenchError("Predictions are several files: name a folder for them with --out.")
    if len({(r.suite, r.upstream["name"], r.data.get("protocol")) for r in found}) != 1:
        raise SlimbenchError("Predictions are of one upstream on one suite: name it, with --suite and --protocol.")
    files = s3prl.write(found, options.seed)
    inside = {name: data for name, data in files.items() if name.startswith("predict/")}
    for name, data in files.items():
        if name not in inside:
            atomic.write(options.out / name, data)
    atomic.write(options.out / s3prl.ARCHIVE, archive.pack(inside))
    print(f"export: {options.out} ({len(inside)} prediction files, and {s3prl.ARCHIVE} of them)")


def _chosen(options: argparse.Namespace) -> list[Record]:
    from leaderboards.submissions.exchange.scores import records_at
    from leaderboards.submissions.rules import protocol_name

    found = records_at(options.results)
    there = {record.upstream["name"] for record in found}
    for name in options.upstreams:
        if name not in there:
            raise SlimbenchError(f"{options.results} holds no record of {name!r}: use {', '.join(sorted(there))}.")
    found = [
        record
        for record in found
        if (not options.upstreams or record.upstream["name"] in options.upstreams)
        and options.suite in (None, record.suite)
        and options.protocol in (None, protocol_name(record))
    ]
    if not found:
        raise SlimbenchError(f"{options.results} holds no record of that suite and protocol: correct the names.")
    return found


def _import(options: argparse.Namespace) -> int:
    from leaderboards.submissions.exchange import table
    from leaderboards.submissions.exchange.scores import disagreements, records_at

    found = _read(options)
    print(json.dumps([asdict(s) for s in found], indent=2) if options.json else table.write(found), end="")
    if options.json:
        print()
    if options.results is None:
        return 0
    wrong = disagreements(found, records_at(options.results))
    for text in wrong:
        print(f"differs: {text}")
    return 1 if wrong else 0


def _read(options: argparse.Namespace) -> list[Score]:
    from leaderboards.submissions.exchange import model_index, table

    if not options.path.exists():
        raise SlimbenchError(f"{options.path}: no such file or folder; correct the path.")
    if options.path.suffix == ".csv":
        return table.read(options.path)
    if options.path.suffix in (".md", ".yaml", ".yml"):
        found, others = model_index.read(options.path)
        if others:
            print(f"note: {others} results on other data were left out")
        return found
    return _predictions(options)


def _predictions(options: argparse.Namespace) -> list[Score]:
    from harness import suite
    from leaderboards.submissions import testsets
    from leaderboards.submissions.exchange import s3prl

    chosen = suite.load(options.suite, options.protocol)
    sets = testsets.known(chosen.name)
    if options.data is not None or not sets:
        wanted = {layout.task for layout in s3prl.read(options.path)}
        tasks = [name for name in chosen.tasks if name in wanted]
        sets = testsets.from_data(chosen, options.data, options.cache, tasks)
    return s3prl.scores(options.path, chosen.name, chosen.protocol, sets, options.upstream, chosen.bootstrap)
