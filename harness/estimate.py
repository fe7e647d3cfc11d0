"""How long a bench will take on this machine, and how much disk: measured in seconds, on the real upstream and heads.

The upstream encodes a little noise; every head makes a few updates on random features of the task's size. The rest is
multiplication, so the hours are those of this machine under its present load (three times as many were seen beside
other jobs), and an upper bound for probes, which train side by side and are timed one by one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from harness import cost, registry, suite
from harness.features import settings
from harness.interface import SPLITS, Labels, Split, Task, TrainingProtocol, Upstream
from harness.plan import Plan
from harness.stacked import Noise, StackedAdam, build_bank
from harness.suite import Suite

_FRAMES = 200
"""Most frames per utterance in the trial updates; longer utterances are extrapolated."""
_ITEMS = 4
"""Utterances in a trial update of a task that reads frames."""


@dataclass(frozen=True)
class Load:
    """What a task asks for.

    Attributes:
        task: the task.
        protocol: how its probes are trained.
        trials: probes, over all folds.
        classes: outputs of the head.
        counts: utterances per split.
        seconds: mean seconds of audio per utterance of each split, after crops.
        encode: seconds of audio that this task has to have encoded.
        audio: what names its audio; tasks of the same name share the encoding.
    """

    task: Task
    protocol: TrainingProtocol
    trials: int
    classes: int
    counts: Mapping[Split, int]
    seconds: Mapping[Split, float]
    encode: float
    audio: str


def of_plan(made: Plan) -> list[Load]:
    """The loads of a plan: its own utterances; audio that several tasks use counts for the first."""
    loads, seen = [], set()
    for item in made.todo:
        rows = {split: item.manifest.split(split) for split in SPLITS}
        new = {item.audio[u.id]: u.seconds for u in item.manifest.utterances if item.audio[u.id] not in seen}
        missing = {piece.key for piece in made.pieces.values() if not made.store.has(piece.key, piece.frames)}
        seen |= set(new)
        trials = len(item.protocol.learning_rates) * len(made.seeds) * len(item.folds)
        counts = {split: len(rows[split]) for split in SPLITS}
        seconds = {split: sum(u.seconds for u in rows[split]) / max(1, len(rows[split])) for split in SPLITS}
        encode = sum(length for key, length in new.items() if key in missing)
        loads.append(Load(item.task, item.protocol, trials, item.labels.size, counts, seconds, encode, item.task.name))
    return loads


def of_suite(chosen: Suite, names: Sequence[str], seeds: int) -> list[Load]:
    """The loads of a suite whose data are not at hand, from the sizes that its file states."""
    loads: list[Load] = []
    for name in names:
        task, size = registry.task(name), chosen.sizes[name]
        protocol = suite.protocol(chosen, task)
        counts = {split: int(size[split][0]) for split in SPLITS}
        seconds = {split: 3600 * float(size[split][1]) / counts[split] for split in SPLITS}
        audio = str(size.get("audio", name))
        shared = any(load.audio == audio for load in loads)
        encode = 0.0 if shared else 3600 * float(size["encode"])
        trials = len(protocol.learning_rates) * seeds * int(size.get("folds", 1))
        loads.append(Load(task, protocol, trials, task.superb_labels, counts, seconds, encode, audio))
    return loads


def describe(upstream: Upstream, loads: Sequence[Load], device: str, dtype: str) -> str:
    """Hours and GB per task on this machine, as a table."""
    with torch.no_grad():
        factor = cost.real_time_factor(upstream, repeats=2)
    lines = [
        f"estimated on this machine ({device}, {torch.get_num_threads()} threads): {upstream.name} encodes "
        f"{1 / factor:.0f} s of audio per second",
        "task   audio h  encode h  probes h  features GB  training GB",
    ]
    total = [0.0] * 5
    frames = {load.audio for load in loads if load.task.need == "frames"}
    for load in loads:
        probes = update_seconds(upstream, load, device) * load.protocol.steps * load.trials
        probes *= 1 + _looks(load)
        stored = _bytes(upstream, load, load.audio in frames, dtype) if load.encode else 0.0
        kept = _training_bytes(upstream, load) / 1e9
        row = (load.encode / 3600, load.encode * factor / 3600, probes / 3600, stored / 1e9, kept)
        total = [max(a, b) if column == 4 else a + b for column, (a, b) in enumerate(zip(total, row, strict=True))]
        lines.append(_line(load.task.name, row))
    return "\n".join([*lines, _line("all", total)])


def _line(name: str, row: Sequence[float]) -> str:
    hours, encode, probes, stored, training = row
    return f"{name:<5} {hours:>8.2f}  {encode:>8.2f}  {probes:>8.2f}  {stored:>11.2f}  {training:>11.2f}"


def _looks(load: Load) -> float:
    """What the looks at dev cost beside the updates: a forward pass is a third of an update."""
    batch = load.protocol.batch * load.protocol.accumulate
    ratio = load.counts["dev"] * load.seconds["dev"] / (batch * load.seconds["train"])
    return ratio / 3 / load.protocol.eval_every


def update_seconds(upstream: Upstream, load: Load, device: str) -> float:
    """Seconds per update of one probe, from the second of two updates on random features."""
    protocol, pooled = load.protocol, load.task.need == "pooled"
    batch = protocol.batch * protocol.accumulate
    seconds = min(load.seconds["train"], protocol.max_seconds or load.seconds["train"])
    frames = max(20, round(seconds * 1000 / upstream.frame_ms))
    small, short = (batch, frames) if pooled else (min(batch, _ITEMS), min(frames, _FRAMES))
    head = load.task.head(upstream.width, load.classes, protocol.head)
    bank = build_bank([head], upstream.num_states, device)
    optimizer = StackedAdam(protocol.optimizer, bank.params, [1e-4], protocol.clip)
    shape = (small, upstream.width) if pooled else (small, short, upstream.width)
    x = torch.randn(upstream.num_states, *shape, device=device)
    lengths = torch.full((small,), 1 if pooled else short, device=device)
    targets = [[0] for _ in range(small)]
    labels = Labels((tuple(map(str, range(load.classes))),))
    took = 0.0
    for step in range(2):
        began = time.perf_counter()
        output = bank(x, lengths, Noise([0], step, device))
        loss = load.task.loss(output.flatten(0, 1), lengths, targets, labels).mean()
        grads = torch.autograd.grad(loss, list(bank.params.values()))
        optimizer.step(dict(zip(bank.params, grads, strict=True)))
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        took = time.perf_counter() - began
    return took if pooled else took * (batch / small) * (frames / short)


def _training_bytes(upstream: Upstream, load: Load) -> float:
    """Disk that training takes until the task is done: a checkpoint while the next one is written, and kept looks.

    A checkpoint holds four numbers per weight of every probe of a fold: itself, two moments and its best value.
    """
    head = load.task.head(upstream.width, load.classes, load.protocol.head)
    weights = cost.count_parameters(head) + upstream.num_states
    looks = load.protocol.steps // load.protocol.eval_every if load.protocol.looks_on_test else 0
    return 4.0 * weights * (2 * 4 * load.trials + looks * load.trials)


def _bytes(upstream: Upstream, load: Load, frames: bool, dtype: str) -> float:
    itemsize = getattr(torch, settings(dtype)["dtype"]).itemsize
    state = upstream.num_states * upstream.width
    utterances = sum(load.counts.values())
    stored = load.encode * 1000 / upstream.frame_ms * state * itemsize if frames else 0.0
    return float(stored + utterances * state * 4)
