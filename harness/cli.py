"""The command line: parse, call, print. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness import listing, registry
from harness.arguments import new_verb, positive
from harness.interface import SlimbenchError
from harness.store import cache_verb


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        The exit status: 0; 2 after bad input, with one sentence on stderr; 130 after an interruption.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Idle threads must sleep: libgomp's spinning ones take the cores away from those that work.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    try:
        options = _parser(given).parse_args(given)
        status: int | None = options.run(options)
    except SlimbenchError as error:
        print(f"slimbench: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC and error.filename is None:
            raise
        print(f"slimbench: {_of_files(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nslimbench: interrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    return status or 0


def _of_files(error: OSError) -> str:
    """One sentence on an error of the file system that nothing else has explained."""
    if error.errno == errno.ENOSPC:
        return f"{error.filename or 'the disk'}: no space left; make room and repeat the command, it goes on."
    reason = (error.strerror or type(error).__name__).lower()
    return f"{error.filename}: {reason}; correct the path or its rights and repeat the command."


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slimbench",
        description="SUPERB-style benchmark for compressed self-supervised speech models.",
        epilog="'slimbench VERB --help' shows the options of a verb.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    _add_bench(verbs)
    _add_list(verbs)
    _add_check(verbs)
    _add_new_upstream(verbs)
    cache_verb.add_verb(verbs)
    results = new_verb(verbs, "results", "list the records")
    results.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="records (default: results)"
    )
    results.add_argument("--json", action="store_true", help="one object per record")
    results.set_defaults(run=_results)
    # A verb of a plug-in is imported only when it was asked for, or when all are listed with their words.
    listed = given[:1] in ([], ["-h"], ["--help"])
    for name, add in registry.verbs().items():
        if name in given[:1]:
            add(verbs)
        elif listed:
            _add_listed(verbs, name, add)
        else:
            verbs.add_parser(name)
    return parser


def _add_listed(verbs: Any, name: str, add: Callable[..., None]) -> None:
    """Add a plug-in's verb to the list of verbs; one that cannot be loaded takes no other along."""
    try:
        add(verbs)
    except SlimbenchError as error:
        verbs.add_parser(name, help=str(error).replace("%", "%%"))


def _add_bench(verbs: Any) -> None:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--upstream", required=True, metavar="NAME", help="name of a card, or path of a card file")
    common.add_argument(
        "--suite", default="embedded", metavar="NAME", help="name of a suite, or path of its file (default: embedded)"
    )
    common.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of data, for suites that do not make their own"
    )
    common.add_argument("--protocol", metavar="NAME", help="one of the suite's protocols (default: its first)")
    common.add_argument(
        "--tasks", "--only", default="", metavar="A,B", help="only these tasks (default: all of the suite)"
    )
    common.add_argument("--seeds", type=positive, metavar="N", help="seeds per learning rate (default: the suite's)")
    common.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    common.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: torch's)")
    common.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="where records go (default: results)"
    )
    common.add_argument(
        "--cache", type=Path, default=Path("cache"), metavar="DIR", help="where data and features go (default: cache)"
    )
    common.add_argument(
        "--cache-limit", type=float, metavar="GB", help="most that features may take (default: SLIMBENCH_CACHE_GB)"
    )
    common.add_argument(
        "--frames",
        choices=("auto", "cache", "stream"),
        default="auto",
        help="frames from the disk, or encoded on demand (default: as they fit)",
    )
    common.add_argument(
        "--compute",
        choices=("float32", "bfloat16"),
        help="precision of the upstream's products (default: bfloat16 on CUDA, else float32)",
    )
    common.add_argument(
        "--budget", metavar="HOURS", help="only what fits into so many hours, or minutes as in 30m, cheapest first"
    )
    common.add_argument("--calibrate", action="store_true", help="time this machine anew for the plan")
    for name, action, text in (
        ("plan", _plan, "say what a bench would do and what it costs; at most the suite's data are made"),
        ("bench", _bench, "run an upstream on a suite; what has a record is not run again"),
    ):
        verb = new_verb(verbs, name, text, parents=(common,))
        verb.set_defaults(run=action)
    verb.add_argument(
        "--no-report",
        action="store_true",
        help="leave tables and figures to `slimbench report`: with dozens of upstreams they take a minute",
    )
    verb.add_argument(
        "--executor",
        choices=("inprocess", "ray"),
        default="inprocess",
        help="who does the jobs: this process, or a Ray cluster, see docs/cluster.md (default: inprocess)",
    )
    verb.add_argument(
        "--workers", type=positive, metavar="N", help="jobs at once on Ray (default: as many as the cluster can do)"
    )


def _add_list(verbs: Any) -> None:
    verb = new_verb(verbs, "list", "list upstreams, tasks or suites")
    verb.add_argument("what", choices=("upstreams", "tasks", "suites"))
    verb.add_argument("--json", action="store_true", help="with all fields, as JSON")
    verb.add_argument("--available", action="store_true", help="only upstreams whose weights are here")
    verb.add_argument(
        "--width",
        type=positive,
        metavar="D",
        help="tasks: parameters of each head at SUPERB's label counts on width D",
    )
    verb.set_defaults(run=_list)


def _add_check(verbs: Any) -> None:
    text = "try on made-up sound whether an upstream keeps every promise; no data needed"
    verb = new_verb(verbs, "check", text)
    verb.add_argument("--upstream", required=True, metavar="NAME", help="name of a card, or path of a card file")
    verb.add_argument("--device", default="cpu", help="auto, cpu or cuda (default: cpu)")
    verb.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: torch's)")
    verb.add_argument("--json", action="store_true", help="one object per point")
    verb.set_defaults(run=_check)


def _add_new_upstream(verbs: Any) -> None:
    text = "draft a card from a checkpoint"
    verb = new_verb(verbs, "new-upstream", text)
    verb.add_argument("path", type=Path, metavar="PATH", help="checkpoint file or model folder")
    verb.add_argument("--name", metavar="NAME", help="of the upstream (default: that of the file or folder)")
    verb.add_argument(
        "--out", type=Path, default=Path("cards"), metavar="DIR", help="where the card goes (default: cards)"
    )
    verb.add_argument("--format", metavar="KIND", help="read it as this kind (default: the one that recognises it)")
    verb.set_defaults(run=_new_upstream)


def _list(options: argparse.Namespace) -> None:
    if options.what == "upstreams":
        rows = listing.upstreams(options.available)
    elif options.what == "tasks":
        rows = listing.tasks(options.width)
    else:
        rows = listing.suites()
    print(json.dumps(rows, indent=2, ensure_ascii=False) if options.json else listing.text(rows))


def _results(options: argparse.Namespace) -> None:
    from harness import records

    found = records.load_all(options.results)
    if options.json:
        print(json.dumps([records.summary(record) for record in found], indent=2, ensure_ascii=False))
        return
    from harness import show

    print(show.console(found))


def _check(options: argparse.Namespace) -> int:
    import torch

    from harness.conformance import checking
    from harness.preparing import resolve_device

    if options.threads:
        torch.set_num_threads(options.threads)
    card = registry.card(options.upstream)
    if not options.json:
        print(f"check of {card.name} ({card.file})\n", flush=True)
    report = checking.check(
        options.upstream,
        resolve_device(options.device),
        None if options.json else lambda result: print(checking.row(result), flush=True),
    )
    print(json.dumps(report.plain(), indent=2, ensure_ascii=False) if options.json else "\n" + report.conclusion())
    return 0 if report.passed else 1


def _new_upstream(options: argparse.Namespace) -> None:
    from harness import drafting

    file = drafting.draft(options.path, options.name, options.out, options.format)
    print(file.read_text(encoding="utf-8"), end="")
    print(f"\nwritten to {file}; {drafting.next_steps(file)}")


def _options(options: argparse.Namespace) -> Any:
    from harness.preparing import Options

    tasks = tuple(options.tasks.replace(",", " ").split())
    given = {
        name: getattr(options, name) for name in ("upstream", "suite", "data", "seeds", "device", "threads", "protocol")
    }
    given |= {name: getattr(options, name) for name in ("frames", "compute", "cache_limit")}
    given |= {name: getattr(options, name) for name in ("executor", "workers") if hasattr(options, name)}
    return Options(**given, tasks=tasks, results=options.results, cache=options.cache)


def _plan(options: argparse.Namespace) -> None:
    from harness import run
    from harness.estimation import budget

    seconds = None if options.budget is None else budget.parse(options.budget)
    print(run.describe(_options(options), options.calibrate, seconds))


def _bench(options: argparse.Namespace) -> int:
    import time
    from datetime import UTC, datetime

    from harness import run, show
    from harness.estimation import budget, estimate

    started = datetime.now(UTC).isoformat(timespec="seconds")
    if options.budget is None:
        records = run.bench(_options(options))
    else:
        records = run.bench_within(_options(options), budget.parse(options.budget), options.calibrate)
    print(show.console(records))
    if options.no_report:
        return 0
    began = time.perf_counter()
    status = main(["report", "--results", str(options.results)])
    if any(record.created >= started for record in records):  # a call that finds everything done changes nothing
        estimate.keep_report_seconds(options.cache, time.perf_counter() - began)
    return status
