"""Time and memory of a bench by the amount of audio and by the number of trials.

``python benchmarks/growth.py [--figure docs/figures/growth.png]``. Each point is a process of its own: it writes noise
as audio files, encodes them with ``--upstream``, and trains PR's probes. Frames beyond ``--hold`` MB are read from the
store, as on a machine whose memory the corpus exceeds. Memory is anonymous memory (``RssAnon``) beyond that of the
process with all modules loaded; mapped shards are page cache. Time is CPU time, which other jobs hardly change.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator
from synthetic import manifest

from harness import audio, registry
from harness.extraction import extract
from harness.probes import batches, probe
from harness.store.features import FeatureStore, TaskFeatures
from leaderboards.style import GREYS, PALETTE, freeze, legend, panels, styled

AUDIO = (1, 2, 4, 8)
TRIALS = (1, 5, 15, 45)
UTTERANCES, SECONDS = 40, 3.0
"""Of the least amount of audio."""
STEPS, BATCH = 30, 8


def measure(upstream_name: str, times: int, trials: int, hold: float, folder: Path) -> dict[str, float]:
    """Encode and train in this process; seconds and MB."""
    upstream, task = registry.load_upstream(upstream_name, "cpu"), registry.task("pr")
    table = manifest("pr", (times * UTTERANCES, 8, 8), SECONDS, folder)
    noise = np.random.default_rng(0)
    for row in table.utterances:
        soundfile.write(row.path, 0.1 * noise.standard_normal(int(16_000 * SECONDS)).astype(np.float32), 16_000)
    digests = audio.file_digests(row.path for row in table.utterances)
    keys = {"pr": {row.id: extract.key_of(row, digests) for row in table.utterances}}
    wanted = extract.pieces({"pr": table}, {"pr": "frames"}, keys, ["pr"])
    samples, _ = extract.survey(wanted, folder / "audio.json")
    store = FeatureStore(folder / "cache", upstream)
    extract.check_upstream(upstream, "cpu")
    batches._free_bytes = lambda device: int(hold * 1e6 / batches.SHARE)
    with Peak() as encoding:
        extract.extract(upstream, store, wanted, samples, "cpu")
    changes = {"steps": STEPS, "eval_every": STEPS, "batch": BATCH, "accumulate": 1, "batching": "by_length"}
    protocol = dataclasses.replace(task.protocol, **changes)
    grid = [probe.ProbeTrial(10.0 ** -(1 + r % 5), r // 5) for r in range(trials)]
    with Peak() as training:
        probe.train(task, task.labels(table), table, TaskFeatures(store, keys["pr"]), protocol, grid)
    frames = sum(store.bytes_needed(SECONDS, True) for _ in table.utterances) / 1e6
    return {
        "encode CPU s": encoding.seconds,
        "train CPU s": training.seconds,
        "encode MB": encoding.megabytes,
        "train MB": training.megabytes,
        "frames MB": frames,
    }


class Peak:
    """CPU seconds, and the most memory beyond that at the start, of what is done inside."""

    seconds = megabytes = 0.0

    def __enter__(self) -> Peak:
        """Begin, with what is free given back."""
        ctypes.CDLL(None).malloc_trim(0)
        self._before, self._began, self._done = anonymous(), time.process_time(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.megabytes = max(self.megabytes, anonymous() - self._before)

    def __exit__(self, *error: object) -> None:
        """End."""
        self.seconds = time.process_time() - self._began
        self._done.set()
        self._thread.join()


def anonymous() -> float:
    """MB of anonymous memory of this process (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(row for row in status if row.startswith("RssAnon")).split()[1]) / 1e3


def point(options: argparse.Namespace, times: int, trials: int) -> dict[str, float]:
    """:func:`measure` in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--upstream", options.upstream, "--hold", str(options.hold)]
        command += ["--point", str(times), str(trials), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    cells = " | ".join(f"{value:.1f}" for value in found.values())
    print(f"| {times} | {trials} | {cells} |", flush=True)
    return found


def draw(file: Path, audio_points: Sequence[dict[str, float]], trial_points: Sequence[dict[str, float]]) -> None:
    """Four panels: CPU seconds and MB by audio and by trials."""
    names = {"CPU s": "CPU seconds", "MB": "Memory (MB)"}
    minutes = UTTERANCES * SECONDS / 60
    with styled():
        figure, axes, _ = panels(4, 1.7)
        for place, unit in enumerate(names):
            for kind, marker, color in zip(("encode", "train"), "os", PALETTE, strict=False):
                values = [one[f"{kind} {unit}"] for one in audio_points]
                axes[place].plot([minutes * n for n in AUDIO], values, marker=marker, color=color)
            values = [one[f"train {unit}"] for one in trial_points]
            axes[2 + place].plot(TRIALS, values, marker="s", color=PALETTE[1])
            axes[place].set_xlabel("minutes of training audio")
            axes[2 + place].set_xlabel("trials")
            for panel in (axes[place], axes[2 + place]):
                panel.set_title(names[unit])
        frames = [one["frames MB"] for one in audio_points]
        axes[1].plot([minutes * n for n in AUDIO], frames, ":", color=GREYS[0])
        for panel in axes:
            _double(panel, [minutes * n for n in AUDIO] if panel in axes[:2] else TRIALS)
        handles = [
            Line2D([], [], marker="o", color=PALETTE[0], label="encoding"),
            Line2D([], [], marker="s", color=PALETTE[1], label="training"),
            Line2D([], [], ls=":", color=GREYS[0], label="frames on disk"),
        ]
        legend(figure, None, handles)
        freeze(figure)
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file)


def _double(panel: Axes, xs: Sequence[float]) -> None:
    panel.set_xscale("log")
    panel.set_xticks(list(xs))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_ylim(bottom=0)


def main() -> None:
    """Measure all points, print them, draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", default="distilled_wavlm")
    parser.add_argument("--hold", type=float, default=4.0, help="MB of frames that may be held in memory")
    parser.add_argument("--figure", type=Path, default=Path("docs/figures/growth.png"))
    parser.add_argument("--point", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        times, trials, folder = options.point
        print(json.dumps(measure(options.upstream, int(times), int(trials), options.hold, Path(folder))))
        return
    print(
        f"cpu, {torch.get_num_threads()} threads, torch {torch.__version__}, {platform.machine()}; one time is "
        f"{UTTERANCES * SECONDS:.0f} s of training audio, {STEPS} updates of PR at batch {BATCH}, {options.upstream}"
    )
    print("| audio | trials | encode CPU s | train CPU s | encode MB | train MB | stored frames MB |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    by_audio = [point(options, times, 5) for times in AUDIO]
    by_trials = [point(options, 1, trials) for trials in TRIALS]
    draw(options.figure, by_audio, by_trials)
    print(f"figure: {options.figure}")


if __name__ == "__main__":
    main()
