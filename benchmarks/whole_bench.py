"""What a whole bench takes, as a multiple of one bare pass of the upstream over its distinct audio.

    python benchmarks/whole_bench.py --upstream wavlm_mini --groups ks,ic,sid,er pr asr asv

Bare pass and bench run in processes of their own with the same threads, one after the other; the bench in fresh
folders, with data from ``--from-cache`` where a suite has made them. A bench is everything: start, check, extraction,
all rates and seeds, choice, test, intervals, report. Beside wall time stands processor time, which other jobs hardly
change, and that without the report, which is written once for any number of upstreams.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import measured


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--upstream", default="wavlm_mini")
    parser.add_argument("--suite", default="embedded")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--groups", nargs="+", default=["ks,ic,sid,er"], help="tasks that are benched together")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--from-cache", type=Path, default=Path("cache"), help="where made data lie")
    parser.add_argument("--bare", metavar="CACHE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        bare(options)
        return
    columns = [
        "tasks",
        "audio s",
        "bare pass s",
        "bench s",
        "ratio",
        "CPU: bare pass s",
        "bench s",
        "ratio",
        "no report",
    ]
    print("| " + " | ".join(columns) + " |")
    print("|---" * 9 + "|")
    for tasks in options.groups:
        measure(options, tasks)


def measure(options: argparse.Namespace, tasks: str) -> None:
    """One group: bare pass, bench, a line of the table."""
    with measured.fresh(options.from_cache) as folder:
        cache, results, said = folder / "cache", folder / "results", folder / "bare.json"
        common = ["--upstream", options.upstream, "--suite", options.suite, "--threads", str(options.threads)]
        common += ["--data", str(options.data)] if options.data else []
        measured.command(__file__, *common, "--groups", tasks, "--bare", str(said), "--from-cache", str(cache))
        floor = json.loads(said.read_text())
        folders = ("--cache", str(cache), "--results", str(results))
        whole = measured.command("-m", "harness", "bench", *common, "--tasks", tasks, *folders)
        written = ("--results", str(results), "--out", str(folder / "report"))
        report = measured.command("-m", "harness", "report", *written)
    wall, cpu = floor["wall"], floor["cpu"]
    rest = (whole.cpu - report.cpu) / cpu
    print(
        f"| {tasks} | {floor['audio']:.0f} | {wall:.1f} | {whole.wall:.1f} | {whole.wall / wall:.2f} | {cpu:.1f} | "
        f"{whole.cpu:.1f} | {whole.cpu / cpu:.2f} | {rest:.2f} |",
        flush=True,
    )


def bare(options: argparse.Namespace) -> None:
    """Encode the distinct audio of the tasks in the batches of a bench and forget it; only encoding is timed."""
    from extraction import bare as encode
    from extraction import waveforms

    from harness.extraction import extract
    from harness.preparing import Options, prepare

    with tempfile.TemporaryDirectory() as folder:
        made = prepare(
            Options(
                options.upstream,
                options.suite,
                Path(folder),
                options.from_cache,
                options.data,
                tasks=tuple(options.groups[0].split(",")),
                device="cpu",
                threads=options.threads,
            )
        )
    upstream, pieces = made.plan.upstream, made.plan.pieces
    samples, _ = extract.survey(pieces, Path(options.bare).with_name("audio.json"))
    planned = extract.batches(pieces.values(), samples, not upstream.batch_invariant, extract.BATCH_SECONDS)
    decoded = [waveforms(batch, samples) for batch in planned]
    encode(upstream, decoded[:2], "cpu", "float32")  # warm
    began, computed = time.perf_counter(), time.process_time()
    encode(upstream, decoded, "cpu", "float32")
    wall, cpu = time.perf_counter() - began, time.process_time() - computed
    found = {"audio": sum(samples.values()) / 16_000, "wall": wall, "cpu": cpu}
    Path(options.bare).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
