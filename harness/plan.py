"""What a bench will do and what it costs, worked out before anything is done.

The key of a record is the digest of all that its result depends on: the upstream's content, the manifest, the audio,
the protocol, the seeds and the settings of extraction. A name is no part of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import adapt, audio, manifest, records, registry, suite
from harness.data import Data
from harness.extraction import extract, frames, stream
from harness.extraction.frames import Asked, Choice
from harness.identity import digest_json
from harness.interface import (
    SPLITS,
    Labels,
    Manifest,
    Need,
    SecondDecode,
    SlimbenchError,
    Task,
    TrainingProtocol,
    Upstream,
)
from harness.records import Record
from harness.store import cache, features
from harness.store.features import FeatureStore
from harness.suite import Suite

PROTOCOL_VERSION = 1
"""Raised when the harness trains, decodes or scores differently, so that no old record passes for a new one."""


@dataclass(frozen=True)
class TaskPlan:
    """One task of a bench.

    Attributes:
        task: the task.
        manifest: its utterances.
        labels: the output vocabulary.
        protocol: how its probes are trained.
        audio: content key of the audio per utterance id.
        key: key of the record.
        record: the record, where it is there already.
        second: another decoder for test, where the data have one.
        notes: what a reader of the record must know of its data.
    """

    task: Task
    manifest: Manifest
    labels: Labels
    protocol: TrainingProtocol
    audio: Mapping[str, str]
    key: str
    record: Record | None
    second: SecondDecode | None = None
    notes: tuple[str, ...] = ()

    @property
    def folds(self) -> tuple[Manifest, ...]:
        """The manifests that probes are trained on one after the other; most tasks have one."""
        return self.manifest.folds or (self.manifest,)


@dataclass(frozen=True)
class Plan:
    """A bench of one upstream on one suite.

    Attributes:
        upstream: loaded.
        suite: what is trained on what.
        data: where they are.
        seeds: of every learning rate.
        tasks: that were asked for.
        pieces: distinct audio of those that have no record.
        store: of the features.
        frames: where frames come from, for every task of the suite that reads them.
    """

    upstream: Upstream
    suite: Suite
    data: Data
    seeds: tuple[int, ...]
    tasks: tuple[TaskPlan, ...]
    pieces: Mapping[str, extract.Piece]
    store: FeatureStore
    frames: Mapping[str, Choice]

    @property
    def todo(self) -> tuple[TaskPlan, ...]:
        """The tasks that have no record yet."""
        return tuple(task for task in self.tasks if task.record is None)

    def streams(self, item: TaskPlan) -> bool:
        """Whether a task's frames are encoded on demand."""
        return item.task.name in self.frames and self.frames[item.task.name].way == "stream"

    @property
    def in_step(self) -> list[tuple[TaskPlan, ...]]:
        """The groups of tasks to do that share what is encoded on demand, where there are two or more of them."""
        groups: dict[tuple[str, ...], list[TaskPlan]] = {}
        for item in filter(self.streams, self.todo):
            if item.manifest.folds:
                continue
            groups.setdefault(self.frames[item.task.name].together, []).append(item)
        return [tuple(group) for group in groups.values() if len(group) > 1]


@dataclass(frozen=True)
class Workplace:
    """Where a bench is done.

    Attributes:
        results: where records are kept; ``None`` plans as if there were none.
        cache: where features are kept.
        device: torch device that encodes.
        compute: precision of the upstream's products; ``None`` for what is usual on the device.
        frames: where frames come from, for all tasks or by task.
        limit: bytes that the features of the cache may take.
    """

    results: Path | None
    cache: Path
    device: str = "cpu"
    compute: str | None = None
    frames: Asked | Mapping[str, Asked] = "auto"
    limit: float | None = None


def choose_tasks(chosen: Suite, names: Sequence[str]) -> list[str]:
    """The tasks to run, in the suite's order; all of them where none is named.

    Raises:
        SlimbenchError: a name is no task, or none of this suite.
    """
    for name in names:
        if name not in chosen.tasks:
            raise registry.unknown(f"task of suite {chosen.name}", name, chosen.tasks)
    return [name for name in chosen.tasks if name in names or not names]


def make(
    upstream: Upstream,
    chosen: Suite,
    data: Data,
    names: Sequence[str],
    seeds: Sequence[int],
    place: Workplace,
) -> Plan:
    """Read and check everything but the audio's samples, and find out what is done already.

    Args:
        upstream: loaded.
        chosen: the suite.
        data: where manifests and audio are.
        names: tasks to run.
        seeds: seeds of every learning rate.
        place: folders and device.

    Raises:
        SlimbenchError: a manifest is broken, a label is missing in training, or audio is in two splits.
    """
    tasks = {name: registry.task(name) for name in chosen.tasks}
    protocols = {name: suite.protocol(chosen, task) for name, task in tasks.items()}
    # What is kept of a piece of audio depends on all tasks of the suite: run one by one, they still encode it once.
    there = [name for name in tasks if name in names or (data.manifests / name / "manifest.csv").is_file()]
    manifests = {name: adapt.apply(manifest.read(data.manifests, name, data.root), protocols[name]) for name in there}
    files = (u.path for table in manifests.values() for u in table.utterances)
    digests = audio.file_digests(files, place.cache / audio.MEMO)
    changes = {name: protocol.effects for name, protocol in protocols.items()}
    keys = {
        name: {u.id: extract.key_of(u, digests, changes[name]) for u in table.utterances}
        for name, table in manifests.items()
    }
    compute = extract.compute_type(upstream, place.device, place.compute)
    store = FeatureStore(place.cache, upstream, chosen.dtype, compute)
    plans = []
    for name in names:
        task, table = tasks[name], manifests[name]
        said = data.task_notes(name)
        if data.official:
            said += _repeats(table, keys[name])
        else:
            for fold in table.folds or (table,):
                manifest.check_content(fold, keys[name])
        labels = _labels(task, table)
        second = task.second_decode(data.root)
        key = record_key(upstream, chosen, name, table, protocols[name], keys[name], seeds, second, compute)
        record = None if place.results is None else records.find(place.results, chosen.name, upstream.name, name, key)
        plans.append(TaskPlan(task, table, labels, protocols[name], keys[name], key, record, second, tuple(said)))
    todo = [plan.task.name for plan in plans if plan.record is None]
    twice = {plan.task.name for plan in plans if plan.second is not None}
    reading = [
        frames.of_manifest(name, protocols[name], table, keys[name], store, 1 + (tasks[name].name in twice))
        for name, table in manifests.items()
        if tasks[name].need == "frames"
    ]
    seconds = {keys[name][row.id]: row.seconds for name in todo for row in manifests[name].utterances}
    ways = frames.choose(reading, _room(place, store, seconds), place.frames, first=todo)
    streamed = [name for name, choice in ways.items() if choice.way == "stream"]
    needs: dict[str, Need] = {name: tasks[name].need for name in manifests}
    wanted = extract.pieces(manifests, needs, keys, todo, changes, streamed)
    return Plan(upstream, chosen, data, tuple(seeds), tuple(plans), wanted, store, ways)


def _room(place: Workplace, store: FeatureStore, seconds: Mapping[str, float]) -> frames.Room:
    """Room for frames beside the means of all audio that a bench needs, which are stored in any case."""
    lacking = [length for key, length in seconds.items() if not store.has(key, frames=False)]
    means = sum(store.bytes_needed(length, frames=False) for length in lacking)
    cap = None if place.limit is None else max(0.0, cache.growth(place.limit, store, seconds) - means)
    return frames.Room(max(0.0, extract.free_bytes(place.cache) - means), cap, stream.memory_bound())


def _repeats(table: Manifest, keys: Mapping[str, str]) -> list[str]:
    """What is to be said of a published corpus that holds the same audio in two splits: it stays as published."""
    found = [pair for fold in table.folds or (table,) for pair in manifest.repeats(fold, keys)]
    if not found:
        return []
    one, other = found[0]
    return [
        f"{len(found)} utterances hold the same audio as one of another split, as published, e.g. {one.path.name} "
        f"({one.split}) and {other.path.name} ({other.split})"
    ]


def _labels(task: Task, table: Manifest) -> Labels:
    """The vocabulary of a task, once every row and the trials are known to fit it."""
    if task.metric == "eer" and not table.trials:
        raise SlimbenchError(
            f"{table.file}: {task.name} is scored on trials; put trials_dev.txt and trials_test.txt beside it."
        )
    labels = task.labels(table)
    for utterance in (row for fold in table.folds or (table,) for row in fold.utterances):
        try:
            task.target(utterance, labels)
        except SlimbenchError as error:
            raise SlimbenchError(f"{table.file}: line {utterance.row}: {error}") from error
    return labels


def record_key(
    upstream: Upstream,
    chosen: Suite,
    task: str,
    table: Manifest,
    protocol: TrainingProtocol,
    keys: Mapping[str, str],
    seeds: Sequence[int],
    second: SecondDecode | None = None,
    compute: str = "float32",
) -> str:
    """Digest of all that a result depends on."""
    return digest_json(
        {
            **({} if second is None else {second.metric: second.identity}),
            **({} if chosen.protocol == suite.OWN else {"protocol_name": chosen.protocol}),
            "protocol_version": PROTOCOL_VERSION,
            "upstream": upstream.fingerprint,
            "task": task,
            "manifest": table.digest,
            "audio": sorted(keys.items()),
            "protocol": protocol.settings(),
            "seeds": list(seeds),
            "features": features.settings(chosen.dtype, compute),
            "bootstrap": chosen.bootstrap,
        }
    )


def describe(plan: Plan) -> str:
    """The plan as text: what is there, what will be done, and what it costs."""
    seconds = sum(piece.utterance.seconds for piece in plan.pieces.values())
    left = extract.missing(plan.store, plan.pieces.values())
    protocol = "" if plan.suite.protocol == suite.OWN else f", protocol {plan.suite.protocol}"
    lines = [
        f"upstream {plan.upstream.name} ({plan.upstream.num_states} states of width {plan.upstream.width} every "
        f"{plan.upstream.frame_ms:g} ms) on suite {plan.suite.name}{protocol} ({plan.data.root})",
        f"audio: {seconds:.0f} s of distinct audio are needed, {sum(piece.utterance.seconds for piece in left):.0f} s "
        f"are still to encode; their features take about {extract.bytes_needed(plan.store, left) / 1e6:.0f} MB",
        "task  reads    train   dev  test  updates  batch  trials  record",
    ]
    for item in plan.tasks:
        counts = [len(adapt.groups(item.manifest.split(split))) for split in SPLITS]
        trials = f"{len(item.protocol.learning_rates)}x{len(plan.seeds)}"
        state = "to do" if item.record is None else f"there ({item.key[:12]})"
        lines.append(
            f"{item.task.name:<5} {item.task.need:<7} {counts[0]:>6} {counts[1]:>5} {counts[2]:>5} "
            f"{item.protocol.steps:>8} {item.protocol.batch:>6} {trials:>7}  {state}"
        )
    return "\n".join([*lines, *said_of_frames(plan.frames, [item.task.name for item in plan.todo])])


def said_of_frames(ways: Mapping[str, Choice], names: Sequence[str]) -> list[str]:
    """A line per choice between disk and demand, with its reason."""
    found: dict[str, list[str]] = {}
    for name in names:
        if name in ways:
            words = {"cache": "come from the disk", "stream": "are encoded on demand"}[ways[name].way]
            found.setdefault(f"{words}: {ways[name].why}", []).append(name)
    return [f"frames of {' and '.join(those)} {text}" for text, those in found.items()]
