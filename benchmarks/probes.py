"""Updates per second of probes that are trained side by side, by their number.

``python benchmarks/probes.py [--seconds 2]``. Features are made up. KS has SUPERB's sizes (13 states of width 768,
batch 32); the other heads are small ones, so that 45 fit a small machine. The column "times one" says how much longer
an update of all trials takes than that of one; trained one by one, it would be the number of trials. On a CPU it and
the updates per second are counted in CPU time, which other jobs on the machine hardly change.

``--superb`` takes tables, heads, batches and lengths of SUPERB's own sizes with 13 states of width 768, and says how
many hours its number of updates takes.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import platform
import statistics
import time
from typing import Any

import torch
from synthetic import MadeFeatures, manifest

from harness import registry, suite
from harness.probes.probe import ProbeTrial
from harness.probes.training import Run

TRIALS = (1, 5, 15, 45)
KINDS: dict[str, dict[str, Any]] = {
    "ks": {"states": 13, "width": 768, "frames": 50, "batch": 32, "head": {}, "note": "linear on time means"},
    "pr": {"states": 13, "width": 768, "frames": 150, "batch": 4, "head": {}, "note": "linear on frames, CTC"},
    "asr": {
        "states": 3,
        "width": 256,
        "frames": 100,
        "batch": 4,
        "head": {"project": 64, "hidden": 64},
        "note": "LSTM, CTC",
    },
    "asv": {
        "states": 3,
        "width": 256,
        "frames": 100,
        "batch": 8,
        "head": {"project": 64, "channels": 64, "pool": 128, "embed": 64},
        "note": "x-vector",
    },
}


def superb_run(name: str, trials: int, device: str) -> Run:
    """A run of a task as SUPERB trains it, on made-up features of SUPERB's numbers and mean lengths."""
    task, sizes = registry.task(name), suite.load("superb").sizes[name]
    count, hours = sizes["train"]
    pooled = task.need == "pooled"
    seconds = min(3600 * hours / count, task.protocol.max_seconds or math.inf)
    table = manifest(name, (count if pooled else 64, 8, 8), seconds)
    protocol = dataclasses.replace(task.protocol, batching="by_length", crops=0, min_seconds=None)
    features = MadeFeatures(13, 768, round(50 * seconds))
    grid = tuple(ProbeTrial(10.0 ** -(1 + r % 5), r // 5) for r in range(trials))
    return Run(task, task.labels(table), table, features, protocol, grid, device)


def run_of(name: str, trials: int, device: str) -> Run:
    """A run of a task on made-up features."""
    kind, task = KINDS[name], registry.task(name)
    table = manifest(name, (512, 8, 8) if task.need == "pooled" else (64, 8, 8), kind["frames"] / 50)
    changes = {"batch": kind["batch"], "head": kind["head"], "batching": "by_length", "accumulate": 1, "steps": 10**6}
    protocol = dataclasses.replace(task.protocol, **changes, max_seconds=None, min_seconds=None)
    features = MadeFeatures(kind["states"], kind["width"], kind["frames"])
    grid = tuple(ProbeTrial(10.0 ** -(1 + r % 5), r // 5) for r in range(trials))
    return Run(task, task.labels(table), table, features, protocol, grid, device)


def seconds_per_update(run: Run, budget: float) -> tuple[float, float]:
    """Medians of wall and CPU seconds over the updates that the budget of CPU seconds allows, at least three."""
    wall: list[float] = []
    busy: list[float] = []
    ends = time.process_time() + budget
    for step in range(1_000):
        began, worked = time.perf_counter(), time.process_time()
        run.update(step)
        if run.device.startswith("cuda"):
            torch.cuda.synchronize()
        wall.append(time.perf_counter() - began)
        busy.append(time.process_time() - worked)
        if len(wall) >= 5 and time.process_time() > ends:
            break
    return statistics.median(wall[2:]), statistics.median(busy[2:])  # the first two warm up


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU time per cell of the table")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--superb", action="store_true", help="SUPERB's own sizes")
    parser.add_argument("--tasks", default="ks,ic,er,pr,asr,asv", help="of --superb")
    parser.add_argument("--trials", default="1,5,15", help="of --superb")
    options = parser.parse_args()
    where = f"{options.device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {platform.machine()}"
    print(where)
    if options.superb:
        superb(options)
        return
    print("| task | head | states | batch | trials | ms per update | CPU ms | updates/s of all trials | times one |")
    print("|---|---|---|---:|---:|---:|---:|---:|---:|")
    for name, kind in KINDS.items():
        one = 0.0
        for trials in TRIALS:
            wall, busy = seconds_per_update(run_of(name, trials, options.device), options.seconds)
            took = busy if options.device == "cpu" else wall
            one = one or took
            print(
                f"| {name} | {kind['note']} | {kind['states']}x{kind['width']} | {kind['batch']} | {trials} | "
                f"{1000 * wall:.1f} | {1000 * busy:.1f} | {trials / took:.0f} | {took / one:.1f} |",
                flush=True,
            )


def superb(options: argparse.Namespace) -> None:
    """Print the table of SUPERB's sizes."""
    print("| task | utterances | s each | trials | ms per update | CPU ms | updates/s | updates of SUPERB | hours |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name in options.tasks.split(","):
        for trials in map(int, options.trials.split(",")):
            run = superb_run(name, trials, options.device)
            wall, busy = seconds_per_update(run, options.seconds)
            rows, steps = run.manifest.split("train"), run.protocol.steps
            folds = int(suite.load("superb").sizes[name].get("folds", 1))
            print(
                f"| {name} | {len(rows)} | {rows[0].seconds:.1f} | {trials} | {1000 * wall:.1f} | {1000 * busy:.1f} | "
                f"{1 / wall:.1f} | {folds * steps} | {folds * steps * wall / 3600:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
