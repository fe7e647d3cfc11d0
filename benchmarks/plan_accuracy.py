"""What a plan says beside what the bench then took: a table per upstream, in seconds.

    python benchmarks/plan_accuracy.py --upstreams distilled_wavlm,wavlm_mini,fbank --suite embedded
    python benchmarks/plan_accuracy.py --upstreams fbank --suite real-mini --data FOLDER --repeats 3 --each

Plan and bench run in processes of their own, right after each other, in folders that are fresh each time; only data
that a suite makes are taken from ``--from-cache``. With ``--each`` that is done task by task, which tells a wrong plan
from a machine whose load has changed in the meantime. The load average before each is printed: above the number of
threads, the times are also those of other jobs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROWS = ("extraction", "train and looks", "test and interval")


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstreams", default="distilled_wavlm,wavlm_mini,fbank")
    parser.add_argument("--suite", default="embedded")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", default="", help="these tasks")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--each", action="store_true", help="plan and bench task by task")
    parser.add_argument("--from-cache", type=Path, default=Path("cache"), help="where made data lie")
    parser.add_argument("--predict", nargs=3, metavar=("UPSTREAM", "CACHE", "RESULTS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.predict:
        print(json.dumps(predict(options)))
        return
    print("| upstream | task | part | plan s | bench s | plan / bench | load before plan, bench |\n" + "|---" * 7 + "|")
    for upstream in options.upstreams.split(","):
        for _ in range(options.repeats):
            compare(options, upstream)


def predict(options: argparse.Namespace) -> dict[str, Any]:
    """The plan's numbers, in a process that starts as a bench does."""
    from harness import preparing, run
    from harness.estimation import forecast

    upstream, cache, results = options.predict
    asked = preparing.Options(
        upstream,
        options.suite,
        Path(results),
        Path(cache),
        options.data,
        tasks=tuple(options.only.replace(",", " ").split()),
        seeds=options.seeds,
        threads=options.threads,
    )
    made, found = run.expected(asked, again=True)
    rows = forecast.forecast(made.plan.upstream, found.loads, found.found, gpu=False)
    return {
        "once": found.once.seconds,
        "check": found.once.check,
        "tasks": {
            row.name: dict(zip(ROWS, (row.extraction, row.train + row.looks, row.test + row.interval), strict=True))
            for row in rows
        },
    }


def compare(options: argparse.Namespace, upstream: str) -> None:
    """One plan and one bench, or one of each per task."""
    with tempfile.TemporaryDirectory(prefix="plan-accuracy-") as name:
        cache, results = Path(name, "cache"), Path(name, "results")
        (cache / "data").mkdir(parents=True)
        for folder in (options.from_cache / "data").glob("*"):
            (cache / "data" / folder.name).symlink_to(folder.resolve())
        tasks = options.only or ",".join(_tasks(options.suite))
        for only in tasks.split(",") if options.each else [tasks]:
            pair(options, upstream, cache, results, only)


def pair(options: argparse.Namespace, upstream: str, cache: Path, results: Path, only: str) -> None:
    """Plan, then bench the tasks ``only``, and print the rows."""
    common = ["--suite", options.suite, "--only", only, "--threads", str(options.threads)]
    common += ["--data", str(options.data)] if options.data else []
    common += ["--seeds", str(options.seeds)] if options.seeds else []
    loads = [os.getloadavg()[0]]
    said = _run([__file__, *common, "--predict", upstream, str(cache), str(results)])
    plan = json.loads(said.splitlines()[-1])
    loads.append(os.getloadavg()[0])
    began = time.perf_counter()
    folders = ["--cache", str(cache), "--results", str(results)]
    _run(["-m", "harness", "bench", "--upstream", upstream, *common, *folders])
    wall = time.perf_counter() - began
    files = [json.loads(file.read_text()) for file in results.glob("*/*/*.json")]
    records = {record["task"]: record for record in files if record["task"] in only.split(",")}
    shared = next(iter(records.values()))["provenance"]["shared_seconds"]
    load = f"{loads[0]:.1f}, {loads[1]:.1f}"

    def row(task: str, part: str, expected: float, took: float) -> None:
        ratio = f"{expected / took:.2f}" if took else ""
        print(f"| {upstream} | {task} | {part} | {expected:.1f} | {took:.1f} | {ratio} | {load} |", flush=True)

    row("all", "extraction", sum(parts[ROWS[0]] for parts in plan["tasks"].values()), shared.get("extract", 0.0))
    row("all", "check", plan["check"], shared.get("check", 0.0))
    for task, parts in plan["tasks"].items():
        seconds = records[task]["seconds"]
        row(task, ROWS[1], parts[ROWS[1]], seconds["train"])
        row(task, ROWS[2], parts[ROWS[2]], sum(seconds.get(part, 0.0) for part in ("test", "looks", "interval")))
    row(only, "wall", plan["once"] + sum(sum(parts.values()) for parts in plan["tasks"].values()), wall)


def _tasks(name: str) -> Sequence[str]:
    from harness import suite

    return list(suite.load(name).tasks)


def _run(arguments: Sequence[str]) -> str:
    quiet = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}  # as the command line has it, for both
    environment = {**os.environ, **quiet}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
