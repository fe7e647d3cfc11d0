"""What each task of a bench asks for, in numbers: audio to encode, utterances, updates; from a plan, or from sizes.

Nothing is measured here. Audio that several tasks read with the same settings has one key, so whoever comes first has
it encoded and the others find it there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from harness import metrics, registry, suite
from harness.estimation.standin import StandIn, stand_in_manifest
from harness.extraction.frames import Asked, Choice, Demand, Room, choose, demand
from harness.interface import SPLITS, Labels, Manifest, Split, Task, TrainingProtocol, Upstream, Utterance
from harness.plan import Plan
from harness.store.features import settings
from harness.suite import Suite


@dataclass(frozen=True)
class Load:
    """What one task asks for.

    Attributes:
        task: the task; one that stands in for it where there are no data.
        protocol: how its probes are trained.
        labels: the outputs of the head.
        manifest: utterances of one fold; a sample of their lengths where there are no data.
        rows: utterances per split and fold as the heads see them.
        seconds: seconds of audio per split and fold as the heads see them.
        trials: probes of one fold: learning rates times seeds.
        seeds: of every learning rate.
        folds: trainings one after the other.
        audio: seconds per piece of distinct audio.
        missing: seconds and bytes of features per piece that the store lacks.
        recordings: files (or a name for them) that the audio is taken from.
        streamed: seconds of audio to encode on demand for this task; what tasks in step share is the first one's.
        follows: the task with which it is trained in step, where that task has the audio encoded.
    """

    task: Task
    protocol: TrainingProtocol
    labels: Labels
    manifest: Manifest
    rows: Mapping[Split, int]
    seconds: Mapping[Split, float]
    trials: int
    seeds: int
    folds: int
    audio: Mapping[str, float]
    missing: Mapping[str, tuple[float, float]]
    recordings: frozenset[str]
    streamed: float = 0.0
    follows: str = ""

    @property
    def name(self) -> str:
        """Of the task."""
        return self.task.name

    @property
    def looks(self) -> int:
        """Looks at dev in one fold, the one after the last update included."""
        return -(-self.protocol.steps // self.protocol.eval_every)

    def to_encode(self, done: set[str]) -> tuple[float, float]:
        """Seconds and bytes that have to be made for this task once the pieces ``done`` are there."""
        wanted = [amounts for key, amounts in self.missing.items() if key not in done]
        return sum(seconds for seconds, _ in wanted), sum(size for _, size in wanted)


def of_plan(made: Plan) -> list[Load]:
    """The loads of the tasks that have no record yet, from their own utterances."""
    pieces = {key: piece for key, piece in made.pieces.items() if not made.store.has(key, piece.frames)}
    cost = {
        key: (piece.utterance.seconds, made.store.bytes_needed(piece.utterance.seconds, piece.frames))
        for key, piece in pieces.items()
    }
    streamed = _streamed(made.frames, [item.task.name for item in made.todo])
    loads = []
    for item in made.todo:
        fold = item.folds[0]
        audio = {item.audio[row.id]: row.seconds for row in item.manifest.utterances}
        loads.append(
            Load(
                task=item.task,
                protocol=item.protocol,
                labels=item.labels,
                manifest=fold,
                rows={split: len(fold.split(split)) for split in SPLITS},
                seconds={split: sum(row.seconds for row in fold.split(split)) for split in SPLITS},
                trials=len(item.protocol.learning_rates) * len(made.seeds),
                seeds=len(made.seeds),
                folds=len(item.folds),
                audio=audio,
                missing={key: cost[key] for key in audio if key in cost},
                recordings=frozenset(str(row.path) for row in item.manifest.utterances),
                streamed=streamed.get(item.task.name, _NOTHING)[0],
                follows=streamed.get(item.task.name, _NOTHING)[1],
            )
        )
    return loads


_NOTHING = (0.0, "")


def _streamed(frames: Mapping[str, Choice], names: Sequence[str]) -> dict[str, tuple[float, str]]:
    """Per task the seconds of audio to encode on demand, and the task before it that has its audio encoded."""
    found: dict[str, tuple[float, str]] = {}
    for name in names:
        if name in frames and frames[name].way == "stream":
            leader = next((other for other in found if name in frames[other].together), "")
            found[name] = (0.0 if leader else frames[name].encode, leader)
    return found


def of_suite(
    chosen: Suite, names: Sequence[str], seeds: int, upstream: Upstream, room: Room | None = None, asked: Asked = "auto"
) -> tuple[list[Load], dict[str, Choice]]:
    """The loads of a suite whose data are not at hand, from the sizes that its file states; the store counts as empty.

    Args:
        chosen: a suite with sizes.
        names: tasks.
        seeds: of every learning rate.
        upstream: says how large its features are.
        room: for features; by default all there may be.
        asked: where frames are to come from.

    Returns:
        The loads, and where frames come from, for every task of the suite that reads them.
    """
    tasks = {name: registry.task(name) for name in chosen.tasks}
    itemsize = getattr(torch, settings(chosen.dtype)["dtype"]).itemsize
    state = upstream.num_states * upstream.width
    per_hour = 3600 * 1000 / upstream.frame_ms * state * itemsize
    reading = [_demand(chosen, task, per_hour) for task in tasks.values() if task.need == "frames"]
    ways = choose(reading, room or Room(float("inf")), asked, first=names)
    frames = {_audio(chosen, name) for name, choice in ways.items() if choice.way == "cache"}
    streamed = _streamed(ways, names)
    loads = []
    for name in names:
        size, audio = chosen.sizes[name], _audio(chosen, name)
        protocol = suite.protocol(chosen, tasks[name])
        rows: dict[Split, int] = {split: int(size[split][0]) for split in SPLITS}
        seconds: dict[Split, float] = {split: 3600 * float(size[split][1]) for split in SPLITS}
        encode = 3600 * float(size["encode"])
        stored = encode / 3600 * per_hour if audio in frames else 0.0
        labels = Labels((tuple(map(str, range(tasks[name].superb_labels))),))
        verifies = tasks[name].metric in metrics.TRIALS
        means = {split: seconds[split] / rows[split] for split in SPLITS}
        loads.append(
            Load(
                task=StandIn(tasks[name], labels),
                protocol=protocol,
                labels=labels,
                manifest=stand_in_manifest(tasks[name], labels, means, rows, verifies),
                rows=rows,
                seconds=seconds,
                trials=len(protocol.learning_rates) * seeds,
                seeds=seeds,
                folds=int(size.get("folds", 1)),
                audio={audio: encode},
                missing={audio: (encode, stored + sum(rows.values()) * state * 4)},
                recordings=frozenset({str(size.get("recordings", audio))}),
                streamed=streamed.get(name, _NOTHING)[0],
                follows=streamed.get(name, _NOTHING)[1],
            )
        )
    return loads, ways


def _demand(chosen: Suite, task: Task, per_hour: float) -> Demand:
    """What a task wants of frames, by the sizes that a suite states."""
    size, audio = chosen.sizes[task.name], _audio(chosen, task.name)
    count, hours = size["train"]
    rows = [(f"{audio} {number}", 3600 * hours / count) for number in range(count)]
    others: dict[Split, float] = {split: 3600 * size[split][1] for split in SPLITS[1:]}
    whole = size["encode"] / sum(size[split][1] for split in SPLITS)  # heads may see crops of what is encoded whole
    rows = [(name, whole * seconds) for name, seconds in rows]
    others = {split: whole * seconds for split, seconds in others.items()}
    folds = int(size.get("folds", 1))
    return demand(task.name, suite.protocol(chosen, task), rows, others, size["encode"] * per_hour, audio, folds)


def _audio(chosen: Suite, name: str) -> str:
    return str(chosen.sizes[name].get("audio", name))


def passes(loads: Sequence[Load]) -> list[str]:
    """Per task, in words: whether the upstream runs over its audio, which task it shares that pass with, and why not.

    Tasks share what they read with the same cuts and effects. What is taken from the same recordings in another way
    is other audio.
    """
    said = []
    for place, load in enumerate(loads):
        mine = set(load.audio)
        sharing = [other.name for other in loads if other is not load and mine & set(other.audio)]
        first = next((other.name for other in loads[:place] if mine & set(other.audio)), None)
        if load.follows:
            text = f"those of {load.follows}"
        elif load.streamed:
            text = f"{load.streamed / sum(load.audio.values()):.0f}, on demand"
        elif not load.missing:
            text = "0, in the store"
        elif first is not None and mine <= set().union(*(other.audio for other in loads[:place])):
            text = f"0, that of {first}"
        else:
            text = "1" + (f", with {', '.join(sharing)}" if sharing else "")
        if load.folds > 1:
            text += f", for {load.folds} folds"
        said.append(text)
    return said


def apart(loads: Sequence[Load]) -> list[str]:
    """A sentence on every two tasks that read the same recordings but not the same audio."""
    said = []
    for place, load in enumerate(loads):
        for other in loads[:place]:
            if load.recordings & other.recordings and not set(load.audio) & set(other.audio):
                said.append(
                    f"{other.name} and {load.name} read the same recordings in different ways "
                    f"({_way(other.protocol)}; {_way(load.protocol)}), so each has its own pass"
                )
    return said


def _way(protocol: TrainingProtocol) -> str:
    effects = f"effects {', '.join(protocol.effects)}" if protocol.effects else "no effects"
    return effects + (f", {protocol.crops} fixed crops of {protocol.max_seconds:g} s" if protocol.crops else "")


def lengths(rows: Sequence[Utterance], frame_ms: float, least: int, most: int | None) -> dict[str, int]:
    """Frames per utterance as far as its seconds tell, at least ``least`` and at most ``most``."""
    found = {row.id: max(least, int(row.seconds * 1000 / frame_ms)) for row in rows}
    return found if most is None else {name: min(frames, max(least, most)) for name, frames in found.items()}
