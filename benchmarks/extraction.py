"""How fast audio becomes stored features, against one utterance at a time and against the bare upstream.

    python benchmarks/extraction.py --upstream wavlm_mini --suite embedded --minutes 5

Three ways over the same audio, in turns within one run, so that the ratios are good also on a machine that is busy:

* alone: read, encode and average one utterance after the other, nothing stored
* pipeline: what a bench does, from files to shards on disk (harness.extraction.extract)
* bare: the upstream over the same padded batches that lie decoded in memory; nobody can be faster with these batches

Rates are seconds of real audio per second, padding not counted. Beside wall time stands the time that all threads of
the process spent computing on the CPU, which other jobs on the machine hardly change.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")  # as the command line has it, before torch is there

import torch

from harness import cost
from harness.extraction import extract
from harness.extraction.encoding import run as encode
from harness.extraction.survey import Piece, threads
from harness.interface import SAMPLE_RATE, SlimbenchError, Upstream
from harness.preparing import Options, prepare, resolve_device
from harness.store.features import FeatureStore

Item = TypeVar("Item")

ALONE = 0.25
"""Part of the audio that goes through one by one, because that is slow."""


def main() -> None:
    """Measure and print."""
    options = arguments()
    device = resolve_device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        made = prepare(
            Options(
                options.upstream,
                options.suite,
                Path(folder),
                options.cache,
                data=options.data,
                tasks=tuple(options.tasks.split(",")) if options.tasks else (),
                device=device,
                threads=options.threads,
            )
        )
        upstream, dtype = made.plan.upstream, made.plan.suite.dtype
        compute = extract.compute_type(upstream, device, options.compute)
        every, _ = extract.survey(made.plan.pieces, options.cache / "audio.json")
        equal = not upstream.batch_invariant
        planned = extract.batches(made.plan.pieces.values(), every, equal, extract.batch_seconds(device))
        batches = some(planned, options.minutes * 60 / sum(every.values()) * SAMPLE_RATE)
        wanted = {piece.key: piece for batch in batches for piece in batch}
        samples = {key: every[key] for key in wanted}
        describe(upstream, device, compute, dtype, wanted)
        padding("suite", planned, every)
        padding("measured", batches, every)
        decoded = [waveforms(batch, samples) for batch in batches]
        seconds = sum(samples.values()) / SAMPLE_RATE
        few = {piece.key: piece for piece in some(list(wanted.values()), ALONE)}
        ways: dict[str, tuple[float, Callable[[], None]]] = {
            "bare": (seconds, lambda: bare(upstream, decoded, device, compute)),
            "pipeline": (seconds, lambda: pipeline(upstream, wanted, samples, device, compute, dtype, Path(folder))),
            "alone": (sum(samples[key] for key in few) / SAMPLE_RATE, lambda: alone(upstream, few, device, compute)),
        }
        measure(upstream, ways, options.repeats, device)


def arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--upstream", default="wavlm_mini")
    parser.add_argument("--suite", default="embedded")
    parser.add_argument("--data", type=Path, help="data folder, for suites that do not make their own")
    parser.add_argument("--tasks", default="", help="only the audio of these, with commas")
    parser.add_argument("--minutes", type=float, default=5.0, help="of audio, drawn evenly from the suite's lengths")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads of torch")
    parser.add_argument("--compute", choices=("float32", "bfloat16"), help="default: bfloat16 on CUDA, else float32")
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="where the suite's data are made")
    return parser.parse_args()


def some(items: Sequence[Item], share: float) -> list[Item]:
    """A share of the items, at even distances in their order."""
    count = min(len(items), max(1, round(share * len(items))))
    return [items[int((n + 0.5) * len(items) / count)] for n in range(count)]


def describe(upstream: Upstream, device: str, compute: str, dtype: str, wanted: Mapping[str, Piece]) -> None:
    """What is measured, and where."""
    frames = sum(piece.frames for piece in wanted.values())
    print(
        f"{upstream.name} on {device} ({torch.get_num_threads()} threads of torch, {threads()} that decode), torch "
        f"{torch.__version__}, {compute}; frames of {frames} of {len(wanted)} utterances kept in {dtype}"
    )


def padding(name: str, batches: Sequence[Sequence[Piece]], samples: Mapping[str, int]) -> None:
    """Seconds of audio, and by how much padding makes them more."""
    padded = [len(batch) * max(samples[piece.key] for piece in batch) for batch in batches]
    real = [sum(samples[piece.key] for piece in batch) for batch in batches]
    worst = max(a / b for a, b in zip(padded, real, strict=True))
    print(
        f"{name:<10} {sum(real) / SAMPLE_RATE:8.0f} s of audio in {len(batches)} batches, padding "
        f"{100 * (sum(padded) / sum(real) - 1):.2f} %, in the worst batch {100 * (worst - 1):.2f} %"
    )


def waveforms(batch: Sequence[Piece], samples: Mapping[str, int]) -> tuple[torch.Tensor, list[int]]:
    """A batch, decoded and padded."""
    lengths = [samples[piece.key] for piece in batch]
    waves = torch.zeros(len(batch), max(lengths))
    for row, piece in enumerate(batch):
        waves[row, : lengths[row]] = torch.from_numpy(piece.waveform())
    return waves, lengths


def bare(upstream: Upstream, decoded: Sequence[tuple[torch.Tensor, list[int]]], device: str, compute: str) -> None:
    """Encode and forget."""
    for waves, lengths in decoded:
        encode(upstream, waves, lengths, device, compute)
    wait(device)


def alone(upstream: Upstream, pieces: Mapping[str, Piece], device: str, compute: str) -> None:
    """Read, encode, average and fetch, one by one."""
    for piece in pieces.values():
        wave = torch.from_numpy(piece.waveform())
        hidden = encode(upstream, wave[None], [len(wave)], device, compute)
        torch.stack([state[0].float().mean(0) for state in hidden.states]).cpu()


def pipeline(
    upstream: Upstream,
    wanted: Mapping[str, Piece],
    samples: Mapping[str, int],
    device: str,
    compute: str,
    dtype: str,
    folder: Path,
) -> None:
    """Extract into a store that is thrown away."""
    cache = Path(tempfile.mkdtemp(dir=folder))
    extract.extract(upstream, FeatureStore(cache, upstream, dtype, compute), wanted, samples, device)
    wait(device)
    shutil.rmtree(cache)


def wait(device: str) -> None:
    """Until the device has done all that it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def measure(
    upstream: Upstream, ways: Mapping[str, tuple[float, Callable[[], None]]], repeats: int, device: str
) -> None:
    """Time the ways in turns and print rates and ratios."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    busy: dict[str, list[float]] = {name: [] for name in ways}
    ways["bare"][1]()  # warm
    for _ in range(repeats):
        for name, (seconds, go) in ways.items():
            with utilisation(device) as shares:
                began, computed = time.perf_counter(), time.process_time()
                go()
                took[name].append((time.perf_counter() - began) / seconds)
                spent[name].append((time.process_time() - computed) / seconds)
            busy[name] += shares
    macs = per_second(upstream)
    for name in ways:
        rate = 1 / statistics.median(took[name])
        share = f", GPU busy {statistics.mean(busy[name]):.0f} %" if busy[name] else ""
        computing = f", {2 * macs * rate / 1e12:.3g} TFLOP/s" if macs else ""
        print(f"{name:<10} {rate:8.1f} s of audio per s{computing}{share}")
    for one, other, said in (("pipeline", "bare", "floor"), ("alone", "pipeline", "gain over one at a time")):
        wall, cpu = (
            statistics.median(a / b for a, b in zip(times[one], times[other], strict=True)) for times in (took, spent)
        )
        print(f"{one}/{other}: {wall:.3f} times the wall time, {cpu:.3f} times the CPU time ({said})")


def per_second(upstream: Upstream) -> float | None:
    """Multiply-accumulates per second of audio, where they can be counted."""
    try:
        return cost.count_macs(upstream)
    except SlimbenchError:
        return None


@contextmanager
def utilisation(device: str) -> Iterator[list[float]]:
    """Percent of the time in which the GPU had something to do, every fifth of a second; empty elsewhere."""
    shares: list[float] = []
    if not device.startswith("cuda") or shutil.which("nvidia-smi") is None:
        yield shares
        return
    index = torch.device(device).index or 0
    number = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[index : index + 1] or [str(index)]
    ask = ["nvidia-smi", "-i", number[0] or str(index), "--query-gpu=utilization.gpu", "-lms", "200"]
    with subprocess.Popen([*ask, "--format=csv,noheader,nounits"], stdout=subprocess.PIPE, text=True) as watcher:
        try:
            yield shares
        finally:
            watcher.terminate()
            shares += [float(line) for line in watcher.communicate()[0].split() if line.isdigit()]


if __name__ == "__main__":
    main()
