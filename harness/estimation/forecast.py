"""What a bench will take, from what its tasks ask for and how fast the machine is: arithmetic, and the table of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from harness import cost
from harness.estimation.calibrate import Calibration
from harness.estimation.loads import Load, apart, passes
from harness.interface import Upstream

H100_FLOPS = 10e12
"""Operations per second that a price without a GPU counts on: 15 % of an H100's 67 TFLOP/s in float32.

s3prl evaluating WavLM Base+ on an H100 was seen to pass 840 to 1,190 s of audio per second, which is 12 to 18 TFLOP/s
(protocol section 8.3), and a step of its ASR at one learning rate took 0.24 s; this gives 0.26 s.
"""
H100_CALL = 5e-3
"""Seconds that an update, or a batch of a look, takes on an H100 however small it is: launching its kernels."""
EVALUATED = 32
"""Utterances in a batch of a look, for the price."""


@dataclass(frozen=True)
class Forecast:
    """What one task is expected to take, in seconds, with the audio that tasks before it have had encoded.

    Attributes:
        name: of the task.
        passes: of the upstream over its audio, in words.
        audio: seconds of distinct audio.
        encode: seconds of audio to encode for it.
        size: bytes that this adds to the store.
        training: bytes that training takes on the disk of the results, until the record is there.
        extraction: seconds.
        train: seconds of setting up, of all updates of all folds, and of all that is encoded on demand.
        looks: seconds of all looks at dev with their checkpoints.
        test: seconds of predictions for test.
        interval: seconds of scores and intervals.
        gpu: upper estimate of the seconds on an H100.
    """

    name: str
    passes: str
    audio: float
    encode: float
    size: float
    training: float
    extraction: float
    train: float
    looks: float
    test: float
    interval: float
    gpu: float

    @property
    def seconds(self) -> float:
        """Of everything."""
        return self.extraction + self.train + self.looks + self.test + self.interval


@dataclass(frozen=True)
class Once:
    """Seconds that a bench takes besides its tasks: to start, to check the audio, to write the report."""

    start: float
    check: float
    report: float

    @property
    def seconds(self) -> float:
        """Together."""
        return self.start + self.check + self.report


def forecast(upstream: Upstream, loads: Sequence[Load], found: Calibration, gpu: bool) -> list[Forecast]:
    """One forecast per load, in their order.

    Args:
        upstream: that encodes.
        loads: the tasks.
        found: what was timed.
        gpu: whether ``found`` is of a GPU, so that its seconds are the price.
    """
    done: set[str] = set()
    made = []
    for load, said in zip(loads, passes(loads), strict=True):
        made.append(_one(upstream, load, found, done, said))
        done |= set(load.audio)
    return [replace(row, gpu=row.seconds) for row in made] if gpu else made


@dataclass(frozen=True)
class Times:
    """Seconds of the parts of one task, see :class:`Forecast`."""

    extraction: float
    train: float
    looks: float
    test: float
    interval: float

    @property
    def seconds(self) -> float:
        """Together."""
        return self.extraction + self.train + self.looks + self.test + self.interval


def times(load: Load, found: Calibration, done: set[str]) -> Times:
    """What a task takes where the audio ``done`` is encoded already in this bench."""
    encode, _ = load.to_encode(done)
    speed = found.speeds[load.name]
    extraction = 0.0
    if encode and found.encoding is not None:
        extraction = encode * found.encoding.second + (0.0 if done else found.encoding.start)
    on_demand = load.streamed * found.encoding.second if found.encoding is not None else 0.0
    again = load.looks if load.protocol.looks_on_test else 0  # every look is tested too, and scored by itself
    return Times(
        extraction=extraction,
        train=load.folds * (speed.setup + load.protocol.steps * speed.update) + on_demand,
        looks=load.folds * load.looks * speed.look,
        test=load.folds * (1 + again) * speed.test,
        interval=load.folds * (2 if again else 1) * speed.interval,
    )


def _one(upstream: Upstream, load: Load, found: Calibration, done: set[str], said: str) -> Forecast:
    encode, size = load.to_encode(done)
    weights = _weights(upstream, load)
    return Forecast(
        name=load.name,
        passes=said,
        audio=sum(load.audio.values()),
        encode=encode,
        size=size,
        training=_training_bytes(load, weights),
        **vars(times(load, found, done)),
        gpu=_h100_seconds(upstream, load, encode + load.streamed, weights, found.macs or 0.0),
    )


def _weights(upstream: Upstream, load: Load) -> int:
    """Parameters of one probe."""
    with torch.device("meta"):
        head = load.task.head(upstream.width, load.labels.size, load.protocol.head)
    return cost.count_parameters(head) + upstream.num_states


def _training_bytes(load: Load, weights: int) -> float:
    """A checkpoint while the next one is written, and the kept looks.

    A checkpoint holds four numbers per weight of every probe of a fold: itself, two moments and its best value.
    """
    kept = load.looks if load.protocol.looks_on_test else 0
    return 4.0 * weights * load.trials * load.folds * (2 * 4 + kept)


def _h100_seconds(upstream: Upstream, load: Load, encode: float, weights: int, macs: float) -> float:
    """Operations over :data:`H100_FLOPS`, and :data:`H100_CALL` for every update and batch of a look.

    Two operations per MAC; an update is a forward pass and twice as much backward; a weight of a head is used once per
    frame, or once per utterance where means are read.
    """
    protocol, pooled = load.protocol, load.task.need == "pooled"
    frames = {
        split: load.rows[split] if pooled else load.seconds[split] * 1000 / upstream.frame_ms for split in load.rows
    }
    mean = frames["train"] / max(1, load.rows["train"])
    if protocol.max_seconds is not None and not pooled:
        mean = min(mean, protocol.max_seconds * 1000 / upstream.frame_ms)
    updated = protocol.steps * protocol.batch * protocol.accumulate * mean
    flops = load.folds * 2.0 * weights * load.trials * (3 * updated + load.looks * frames["dev"])
    calls = load.folds * (protocol.steps + load.looks * load.rows["dev"] / EVALUATED)
    return (2.0 * macs * encode + flops) / H100_FLOPS + calls * H100_CALL


def describe(loads: Sequence[Load], rows: Sequence[Forecast], found: Calibration, once: Once, device: str) -> str:
    """The forecast as text: the table, its totals, and how its numbers came about."""
    lines = [
        f"expected here ({device}, {torch.get_num_threads()} threads, timed {found.made} UTC), in minutes; every task "
        "with the audio that those above it have had encoded:",
        f"{'task':<5} {'audio h':>8} {'passes':<24} {'there h':>8} {'cache GB':>8} {'train GB':>8} {'encode':>8} "
        f"{'train':>9} {'dev':>8} {'test':>7} {'interval':>8} {'all':>9} {'GPU h':>8}",
    ]
    for load, row in zip(loads, rows, strict=True):
        there = row.audio - sum(seconds for seconds, _ in load.missing.values())
        lines.append(_line(row.name, row.passes, there, row))
    lines.append(_total(loads, rows))
    seconds = sum(row.seconds for row in rows) + once.seconds
    lines.append(
        f"all         {duration(seconds)}, with {once.start:.0f} s to start, {once.check:.0f} s to check audio and "
        f"{once.report:.0f} s for the report"
    )
    lines += [f"note: {said}" for said in apart(loads)]
    lines.append(_price(rows, device, found.macs))
    return "\n".join(lines)


def _total(loads: Sequence[Load], rows: Sequence[Forecast]) -> str:
    """Sums over tasks; audio that several of them read counts once, and of training the largest takes the disk."""
    audio = {key: seconds for load in loads for key, seconds in load.audio.items()}
    missing = {key: amounts[0] for load in loads for key, amounts in load.missing.items()}
    total = Forecast(
        name="all",
        passes="",
        audio=sum(audio.values()),
        training=max(row.training for row in rows),
        **{
            name: sum(getattr(row, name) for row in rows)
            for name in ("encode", "size", "extraction", "train", "looks", "test", "interval", "gpu")
        },
    )
    return _line("all", "", total.audio - sum(missing.values()), total)


def _line(name: str, said: str, there: float, row: Forecast) -> str:
    minutes = [value / 60 for value in (row.extraction, row.train, row.looks, row.test, row.interval, row.seconds)]
    encode, train, looks, test, interval, together = minutes
    return (
        f"{name:<5} {row.audio / 3600:>8.2f} {said:<24} {there / 3600:>8.2f} {row.size / 1e9:>8.2f} "
        f"{row.training / 1e9:>8.2f} {encode:>8.2f} {train:>9.2f} {looks:>8.2f} {test:>7.2f} {interval:>8.2f} "
        f"{together:>9.2f} {row.gpu / 3600:>8.3f}"
    )


def _price(rows: Sequence[Forecast], device: str, macs: float | None) -> str:
    hours = sum(row.gpu for row in rows) / 3600
    if device.startswith("cuda"):
        return f"price: {hours:.2f} GPU-hours on this device, from the times above"
    upstream = (
        "the upstream's MACs cannot be counted and are not in it" if macs is None else f"{2 * macs:.3g} per second"
    )
    return (
        f"price: at most about {hours:.2f} GPU-hours of an H100, an estimate that no GPU has confirmed: operations of "
        f"upstream ({upstream}) and heads at {H100_FLOPS / 1e12:g} TFLOP/s (15 % of its float32 peak) and "
        f"{H100_CALL * 1e3:g} ms for every update or batch; scores and intervals, which run on the CPU, are not in it"
    )


def duration(seconds: float) -> str:
    """For people: ``12 min``, ``3.4 h``.

    >>> duration(95), duration(20_000)
    ('1.6 min', '5.6 h')
    """
    return f"{seconds / 3600:.1f} h" if seconds >= 2 * 3600 else f"{seconds / 60:.1f} min"
