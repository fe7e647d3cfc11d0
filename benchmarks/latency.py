"""How long the commands take to answer, as multiples of Python's own start.

    python benchmarks/latency.py --upstream random_mini --tasks ks

A bench of the task is made first in folders of its own (its data are taken from ``--from-cache`` where they are), so
that the repeated one has nothing to do.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import measured


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--upstream", default="random_mini")
    parser.add_argument("--tasks", default="ks")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--from-cache", type=Path, default=Path("cache"), help="where made data lie")
    options = parser.parse_args()
    with measured.fresh(options.from_cache) as folder:
        harness = ("-m", "harness")
        folders = ("--cache", str(folder / "cache"), "--results", str(folder / "results"))
        job = ("--upstream", options.upstream, "--tasks", options.tasks, *folders)
        measured.command(*harness, "bench", *job)
        commands = {
            "python": ("-c", "pass"),
            "import torch": ("-c", "import torch"),
            "--help": (*harness, "--help"),
            "list upstreams": (*harness, "list", "upstreams"),
            "bench, nothing to do": (*harness, "bench", *job),
            "plan, nothing to do": (*harness, "plan", *job),
        }
        times = measured.in_turns(list(commands.values()), options.repeats)
    base = statistics.median(took.cpu for took in times[0])
    print("| command | wall s | CPU s | CPU, in starts of Python |\n|---|---:|---:|---:|")
    for title, rounds in zip(commands, times, strict=True):
        wall, cpu = (statistics.median(getattr(took, what) for took in rounds) for what in ("wall", "cpu"))
        print(f"| {title} | {wall:.2f} | {cpu:.2f} | {cpu / base:.0f} |")


if __name__ == "__main__":
    main()
