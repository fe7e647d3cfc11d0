"""Timing heads: some updates, a look at dev, a test and an interval of one task, with all its trials side by side.

It is the code of the bench that runs, :class:`harness.probes.training.Run` on a sample of the task's utterances; only
the features are noise. What would take too long or too much memory is done with fewer trials and shorter utterances, in
two sizes, and extrapolated: both enter linearly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from harness import adapt, cost, stats
from harness.estimation.loads import Load, lengths
from harness.estimation.standin import TRIALS, NoiseFeatures
from harness.interface import Manifest, Split, Upstream, Utterance
from harness.probes import probe
from harness.probes.order import Order
from harness.probes.outputs import classes_of
from harness.probes.training import Run
from harness.probes.trials import ProbeTrial
from harness.processes import free_memory
from harness.store.features import settings

SECONDS = 2.5
"""How long the updates of one head are timed, at least :data:`UPDATES` of them."""
UPDATES = 3
MOST_FLOPS = 1e11
"""Operations of a timed update; a larger one is made smaller first. Two cores take some seconds over them."""
MOST_BYTES = 4e8
"""Features that a sample may have."""
ORDERS = 300
"""Updates of the bench whose batches are looked at for their size."""


@dataclass(frozen=True)
class Speed:
    """Seconds that one task takes per fold, with all trials side by side.

    Attributes:
        setup: from stored features to the first update.
        update: one update.
        look: one look at dev with the checkpoint after it.
        test: predictions for test with the chosen probes.
        interval: the score on test with its interval.
    """

    setup: float
    update: float
    look: float
    test: float
    interval: float


@dataclass(frozen=True)
class _Size:
    """How much of a load is timed: trials, and the longest utterance in frames (``None``: as they are)."""

    trials: int
    frames: int | None


@dataclass(frozen=True)
class _Timed:
    """What one size took, and how much it was: padded frames per update, sample over whole of train and dev."""

    speed: Speed
    padded: float


def time_head(upstream: Upstream, load: Load, device: str, dtype: str, bootstrap: int, folder: Path) -> Speed:
    """Time one task.

    Args:
        upstream: says what its features look like.
        load: the task.
        device: torch device.
        dtype: stored precision of frames.
        bootstrap: resamples of the interval.
        folder: where a checkpoint is written.
    """
    real = _padded(load, _lengths(upstream, load, None), load.manifest)
    size = _size(upstream, load, device, real)
    full = _time(upstream, load, size, device, dtype, bootstrap, folder)
    if size.frames is None:
        update = full.speed.update * real / full.padded
    else:
        half = _time(upstream, load, replace(size, frames=size.frames // 2), device, dtype, bootstrap, folder)
        slope = max(0.0, full.speed.update - half.speed.update) / (full.padded - half.padded)
        update = max(full.speed.update, full.speed.update + slope * (real - full.padded))
    more = load.trials / size.trials
    speed = full.speed
    return replace(speed, setup=speed.setup * more, update=update * more, look=speed.look * more)


def _size(upstream: Upstream, load: Load, device: str, padded: float) -> _Size:
    """As much of the load as can be timed within seconds and within a quarter of the free memory."""
    with torch.device("meta"):
        weights = cost.count_parameters(load.task.head(upstream.width, load.labels.size, load.protocol.head))
    room = _free(device) / 4

    def flops(trials: int, frames: float) -> float:
        return 6.0 * weights * trials * frames

    def memory(trials: int, frames: float) -> float:
        return 24.0 * weights * trials + 12.0 * upstream.width * frames * (upstream.num_states + trials)

    if flops(load.trials, padded) <= MOST_FLOPS and memory(load.trials, padded) <= room:
        return _Size(load.trials, None)
    trials = min(load.trials, torch.get_num_threads())
    if load.task.need == "pooled" or (flops(trials, padded) <= MOST_FLOPS and memory(trials, padded) <= room):
        return _Size(trials, None)
    together = load.protocol.batch * load.protocol.accumulate
    share = min(MOST_FLOPS / flops(trials, padded), room / memory(trials, padded))
    return _Size(trials, max(40, int(share * padded / together)))


def _time(upstream: Upstream, load: Load, size: _Size, device: str, dtype: str, bootstrap: int, folder: Path) -> _Timed:
    table = _sample(upstream, load, size, dtype)
    frames = _lengths(upstream, load, size.frames, table)
    features = NoiseFeatures(upstream, getattr(torch, settings(dtype)["dtype"]), frames)
    seeds = range(load.trials // len(load.protocol.learning_rates))
    trials = [ProbeTrial(rate, seed) for rate in load.protocol.learning_rates for seed in seeds][: size.trials]
    began = time.perf_counter()
    run = Run(load.task, load.labels, table, features, load.protocol, tuple(trials), device)
    setup = _since(began, device)
    update, count = _time_updates(run, device)
    look = _time_look(run, device, folder / "probe.pt")
    chosen = run.results()[: load.seeds]
    began = time.perf_counter()
    what = (load.task, load.labels, table, features, load.protocol)
    said = probe.predict_all(*what, chosen, "dev", device)
    test = _since(began, device) * load.seeds / len(chosen)
    rows = [load.task.rows(table, "dev", predictions, load.labels) for predictions in said]
    began = time.perf_counter()
    for metric in (load.task.metric, *load.task.secondary):
        stats.interval(metric, rows, repeats=bootstrap)
    interval = (time.perf_counter() - began) * load.seeds / len(chosen)
    seen, whole = _amount(load, table, frames, "dev"), {split: _whole(upstream, load, split) for split in load.rows}
    speed = Speed(
        setup=setup * max(1.0, whole["train"] / _amount(load, table, frames, "train")),
        update=update,
        look=look * whole["dev"] / seen,
        test=test * whole["test"] / seen,
        interval=interval * _scored(load) / len(rows[0]),
    )
    return _Timed(speed, _padded(load, frames, table, 1, count))


def _time_updates(run: Run, device: str) -> tuple[float, int]:
    """Seconds per update after a first one, and how many were timed."""
    began = time.perf_counter()
    run.update(0)
    first = _since(began, device)
    count, began = 0, time.perf_counter()
    while count < (1 if first > SECONDS else UPDATES) or _since(began, device) < SECONDS:
        count += 1
        run.update(count)
    return _since(began, device) / count, count


def _time_look(run: Run, device: str, file: Path) -> float:
    """Seconds of a look and a checkpoint; the second one's, where the first was short."""
    took = 0.0
    for _ in range(2):
        began = time.perf_counter()
        run.look()
        run.save(file)
        took = _since(began, device)
        if took > SECONDS:
            break
    return took


def _sample(upstream: Upstream, load: Load, size: _Size, dtype: str) -> Manifest:
    """Training and dev utterances whose features take at most :data:`MOST_BYTES`, as blocks of neighbours in length.

    The batches that are made of them are then as those of the bench; test is left out.
    """
    state = upstream.num_states * upstream.width
    per_frame = state * (4 if load.task.need == "pooled" else getattr(torch, settings(dtype)["dtype"]).itemsize)
    frames = _lengths(upstream, load, size.frames)
    block = 2 * load.protocol.batch * load.protocol.accumulate
    kept: list[Utterance] = []
    for split, share in (("train", 0.75), ("dev", 0.25)):
        rows = load.manifest.split("train" if split == "train" else "dev")
        each = per_frame * (1 if load.task.need == "pooled" else sum(frames[row.id] for row in rows) / len(rows))
        kept += _blocks(rows, max(1, int(share * MOST_BYTES / each)), block)
    names = {row.id for row in kept}
    trials = {
        split: tuple(trial for trial in those if {trial.enrol, trial.test} <= names)
        for split, those in load.manifest.trials.items()
    }
    return replace(load.manifest, utterances=tuple(kept), trials=trials, folds=())


def _blocks(rows: Sequence[Utterance], most: int, block: int) -> list[Utterance]:
    """About ``most`` of the rows: blocks of neighbours in length, evenly spaced; all of them where they are no more."""
    if len(rows) <= most:
        return list(rows)
    order = sorted(range(len(rows)), key=lambda place: rows[place].seconds)
    count = max(1, most // block)
    starts = [round((number + 0.5) * max(0, len(rows) - block) / count) for number in range(count)]
    chosen = sorted({order[place] for start in starts for place in range(start, min(start + block, len(rows)))})
    return [rows[place] for place in chosen]


def _lengths(upstream: Upstream, load: Load, most: int | None, table: Manifest | None = None) -> dict[str, int]:
    """Frames per utterance; 1 where means are read."""
    rows = (table or load.manifest).utterances
    if load.task.need == "pooled":
        return dict.fromkeys((row.id for row in rows), 1)
    with torch.device("meta"):
        least = load.task.head(upstream.width, load.labels.size, load.protocol.head).min_frames
    return lengths(rows, upstream.frame_ms, least, most)


def _padded(load: Load, frames: Mapping[str, int], table: Manifest, first: int = 0, count: int = ORDERS) -> float:
    """Mean padded frames of an update over ``count`` updates from ``first`` on."""
    protocol, rows = load.protocol, table.split("train")
    if load.task.need == "pooled":
        return float(protocol.batch * protocol.accumulate)
    targets = [load.task.target(row, load.labels) for row in rows]
    order = Order(
        protocol,
        load.task.need,
        [frames[row.id] for row in rows],
        [row.seconds for row in rows],
        [len(target) for target in targets],
        classes_of(targets) if protocol.balanced else None,
        adapt.groups(rows),
    )
    crop = math.inf
    if protocol.max_seconds is not None:
        crop = protocol.max_seconds * sum(frames.values()) / sum(row.seconds for row in table.utterances)
    total = 0.0
    steps = range(first, first + min(count, protocol.steps))
    for step in steps:
        places = order.update(step)[0].tolist()
        total += len(places) * min(crop, max(frames[rows[place].id] for place in places))
    return total / len(steps)


def _amount(load: Load, table: Manifest, frames: Mapping[str, int], split: Split) -> float:
    """Utterances of a split of a sample, or their frames where those are read."""
    rows = table.split(split)
    return float(len(rows)) if load.task.need == "pooled" else float(sum(frames[row.id] for row in rows))


def _whole(upstream: Upstream, load: Load, split: Split) -> float:
    """The same of the whole split."""
    return float(load.rows[split]) if load.task.need == "pooled" else load.seconds[split] * 1000 / upstream.frame_ms


def _scored(load: Load) -> int:
    """Rows that the score on test is made of."""
    trials = load.manifest.trials
    if not trials:
        return load.rows["test"]
    sampled = len(load.manifest.split("test")) < load.rows["test"]
    return TRIALS * load.rows["test"] if sampled else len(trials["test"])


def _since(began: float, device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _free(device: str) -> int:
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()
