"""The verb ``sweep``: distil and bench a whole family, resumably; with ``--plan`` only say what that takes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.arguments import new_verb, positive
from harness.interface import SlimbenchError

if TYPE_CHECKING:
    from upstreams.distillation.families.sweep import Sweep


def add_sweep(subparsers: Any) -> None:
    """Add ``sweep``."""
    text = "distil and bench all students of a family, cheapest first; the same command goes on after an interruption"
    parser = new_verb(subparsers, "sweep", text)
    parser.add_argument("family", metavar="FAMILY", help="name of a family in --families, or path of its folder")
    parser.add_argument("--plan", action="store_true", help="only say what would be done and how long training takes")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder that holds real/ and pretrain/ (default: none)"
    )
    parser.add_argument("--suites", default="embedded", metavar="A,B", help="to bench on (default: %(default)s)")
    parser.add_argument(
        "--tasks", default="", metavar="A,B", help="only these, in this order (default: cheapest first)"
    )
    parser.add_argument(
        "--bench-data", type=Path, metavar="DIR", help="data of suites that make none (default: real/ in --data)"
    )
    for name, default, text in (
        ("families", "families", "where families are"),
        ("work", "runs", "pool, checkpoints, curves and marks"),
        ("out", "students", "models and their cards"),
        ("results", "results", "records"),
        ("cache", "cache", "data and features"),
    ):
        parser.add_argument(
            f"--{name}", type=Path, default=Path(default), metavar="DIR", help=f"{text} (default: %(default)s)"
        )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads of a bench (default: torch's)")
    parser.add_argument(
        "--jobs", type=positive, default=1, metavar="N", help="cohorts, then benches at once (default: 1)"
    )
    parser.add_argument(
        "--seeds", type=positive, metavar="N", help="seeds per learning rate of a bench (default: suite's)"
    )
    parser.add_argument("--frames", choices=("auto", "cache", "stream"), default="auto", help="as in bench")
    parser.add_argument("--cache-limit", type=float, metavar="GB", help="most that features may take")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from harness import cli
    from upstreams.distillation.families import files, sweep_plan
    from upstreams.distillation.families.sweep import Sweep
    from upstreams.distillation.families.sweep_hands import Place, Workshop, columns

    folder = Path(arguments.family)
    if not (folder / files.LIST).is_file():
        folder = arguments.families / arguments.family
    family = files.read(folder)
    names = (
        "work",
        "out",
        "results",
        "cache",
        "data",
        "bench_data",
        "device",
        "threads",
        "seeds",
        "frames",
        "cache_limit",
    )
    place = Place(**{name: getattr(arguments, name) for name in names})
    hands = Workshop(family, place)
    chosen = columns(_words(arguments.suites), _words(arguments.tasks))
    if not chosen:
        raise SlimbenchError("--suites is empty; name at least one suite.")
    for column in chosen:
        hands.data_of(column.suite)
    if arguments.data is not None and not arguments.data.is_dir():
        raise SlimbenchError(f"--data: {arguments.data} is no folder; name one that holds real/ and pretrain/.")
    if arguments.plan:
        timer = sweep_plan.Timer(family, sweep_plan.device(arguments.device))
        print(sweep_plan.describe(family, chosen, hands, arguments.jobs, timer))
        return 0
    sweep = Sweep(family, chosen, hands, arguments.jobs)
    sweep.run()
    print(conclusion(sweep))
    if sweep.made and any(arguments.results.glob("*/*/*.json")):
        cli.main(["report", "--results", str(arguments.results)])
    return 1 if sweep.failures else 0


def conclusion(sweep: Sweep) -> str:
    """What came of a sweep, and what failed with its reason."""
    benches = len(sweep.family.students) * len(sweep.columns)
    lines = [f"sweep {sweep.family.name}: {len(sweep.family.students)} students, {benches} benches"]
    if not sweep.failures:
        return f"{lines[0]}, all done"
    lines[0] += f", {len(sweep.failures)} failed:"
    return "\n".join([*lines, *(f"  {failure.what}: {failure.reason}" for failure in sweep.failures)])


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(text.replace(",", " ").split()))
