"""Where the frames that tasks read come from: from the disk, or from the upstream each time.

Tasks that read the same audio share its stored frames, so the choice is one for all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from harness.identity import digest_json
from harness.interface import SPLITS, Manifest, Split, TrainingProtocol
from harness.store.features import FeatureStore

Way = Literal["cache", "stream"]
"""Where frames come from: from the store, or encoded on demand."""
Asked = Literal["auto", "cache", "stream"]
ASKED: tuple[Asked, ...] = get_args(Asked)
"""What ``--frames`` takes."""


@dataclass(frozen=True)
class Demand:
    """What one task wants of the frames.

    Attributes:
        task: its name.
        audio: what names its audio; tasks with the same name share stored frames.
        bytes: of the frames that the store lacks; those of other tasks with the same audio are the same ones.
        seconds: of distinct audio.
        encode: seconds of audio to encode where frames are streamed: all updates, looks at dev, one test.
        train: the part of ``encode`` for the updates.
        order: tasks with the same order ask for the same utterances at the same update.
    """

    task: str
    audio: str
    bytes: float
    seconds: float
    encode: float
    train: float
    order: str


@dataclass(frozen=True)
class Room:
    """What there is to decide by.

    Attributes:
        disk: bytes that are free where the store is, less what must stay free.
        cap: bytes that the store may still grow by, where the user has set a limit.
        memory: bytes of states that streaming may keep in memory.
    """

    disk: float
    cap: float | None = None
    memory: float = 0.0


@dataclass(frozen=True)
class Choice:
    """Where a task's frames come from.

    Attributes:
        way: from the store, or encoded on demand.
        why: one sentence.
        passes: how often the audio of this task and those that share it goes through the upstream in all.
        together: the tasks, this one included, that are trained in step so that they share encodings.
        encode: seconds of audio to encode on demand for this task and those that come together with it.
    """

    way: Way
    why: str
    passes: float
    together: tuple[str, ...]
    encode: float = 0.0


def demand(
    task: str,
    protocol: TrainingProtocol,
    train: Sequence[tuple[str, float]],
    others: Mapping[Split, float],
    missing: float,
    audio: str | None = None,
    folds: int = 1,
    tests: int = 1,
) -> Demand:
    """The demand of a task that reads frames.

    Args:
        task: its name.
        protocol: how it is trained.
        train: content key and seconds of every training utterance in the manifest's order.
        others: seconds of dev and test audio.
        missing: bytes of frames that the store lacks.
        audio: what names its audio; by default its content keys.
        folds: trainings of this size.
        tests: how often test is predicted in each, looks at it apart.
    """
    seconds = sum(length for _, length in train)
    updates = protocol.steps * protocol.accumulate * min(protocol.batch, len(train)) / max(1, len(train)) * seconds
    looks = -(-protocol.steps // protocol.eval_every)
    dev, test = others.get("dev", 0.0), others.get("test", 0.0)
    tests += looks if protocol.looks_on_test else 0
    keys = [key for key, _ in train]
    batching = [protocol.batching, protocol.batch, protocol.accumulate, protocol.drop_last, protocol.balanced]
    alone = protocol.batching == "windows" or protocol.balanced or folds > 1  # drawn by the task's own labels, or folds
    own = task if alone else ""
    return Demand(
        task,
        digest_json([sorted(keys), dev, test]) if audio is None else audio,
        missing,
        seconds + dev + test,
        folds * (updates + looks * dev + tests * test),
        folds * updates,
        digest_json([keys, batching, own]),
    )


def of_manifest(
    task: str,
    protocol: TrainingProtocol,
    table: Manifest,
    keys: Mapping[str, str],
    store: FeatureStore,
    tests: int = 1,
) -> Demand:
    """The demand of a task that reads frames, from its manifest.

    Args:
        task: its name.
        protocol: how it is trained.
        table: its utterances.
        keys: content key of the audio per utterance id.
        store: what it has need not be stored.
        tests: how often test is predicted, looks at it apart.
    """
    fold = table.folds[0] if table.folds else table
    train = [(keys[row.id], row.seconds) for row in fold.split("train")]
    others: dict[Split, float] = {split: sum(row.seconds for row in fold.split(split)) for split in SPLITS[1:]}
    distinct = {keys[row.id]: row.seconds for row in table.utterances}
    lacking = [seconds for key, seconds in distinct.items() if not store.has(key, frames=True)]
    missing = sum(store.bytes_needed(seconds, frames=True) for seconds in lacking)
    return demand(task, protocol, train, others, missing, folds=max(1, len(table.folds)), tests=tests)


def choose(
    demands: Sequence[Demand], room: Room, asked: Asked | Mapping[str, Asked] = "auto", first: Collection[str] = ()
) -> dict[str, Choice]:
    """Cache or stream, per task that reads frames.

    The audio that would be encoded most often comes into the store first, as long as there is room.

    Args:
        demands: of the tasks that read frames.
        room: disk and memory.
        asked: what the user wants, of all tasks or by task; ``auto`` decides by the room.
        first: tasks whose audio comes into the store before that of all others.
    """
    groups: dict[str, list[Demand]] = {}
    for one in demands:
        groups.setdefault(one.audio, []).append(one)
    left = room.disk if room.cap is None else min(room.disk, room.cap)
    chosen: dict[str, Choice] = {}

    def turn(group: Sequence[Demand]) -> tuple[bool, float]:
        return not any(one.task in first for one in group), -_passes(group, room)

    for whole in sorted(groups.values(), key=turn):
        group = [one for one in whole if one.task in first] or whole  # what others would take is not of this run
        way, why = _way(group, left, room, asked if isinstance(asked, str) else asked.get(group[0].task, "auto"))
        if way == "cache":
            left -= max(one.bytes for one in group)
        for one in whole:
            same = tuple(other.task for other in group if other.order == one.order) or (one.task,)
            together = same if way == "stream" else (one.task,)
            if way == "cache":
                chosen[one.task] = Choice(way, why, 1.0, together)
                continue
            encode = _encode([other for other in whole if other.task in together], room)
            chosen[one.task] = Choice(way, why, _passes(group, room), together, encode)
    return {one.task: chosen[one.task] for one in demands}


def _way(group: Sequence[Demand], left: float, room: Room, asked: Asked) -> tuple[Way, str]:
    needed = max(one.bytes for one in group)
    size = f"{needed / 1e9:.1f} GB of frames"
    cost = _cost(group, room)
    if asked == "cache":
        return "cache", f"--frames cache asks for it; the store grows by {size}."
    if asked == "stream":
        return "stream", f"--frames stream asks for it; {cost}."
    if needed > left:
        limit = "limit of the cache" if room.cap is not None and room.cap < room.disk else "free disk"
        return "stream", f"{size} do not fit into {max(0.0, left) / 1e9:.1f} GB of {limit}; {cost}."
    return "cache", f"{size} fit into {left / 1e9:.1f} GB of disk; when streaming, {cost}."


def _passes(group: Sequence[Demand], room: Room) -> float:
    """How often the audio of a group is encoded when it is streamed; once where all states stay in memory."""
    return _encode(group, room) / max(max(one.seconds for one in group), 1e-9)


def _encode(group: Sequence[Demand], room: Room) -> float:
    """Seconds of audio that go through the upstream for tasks that stream the same audio."""
    if not any(one.bytes for one in group):
        return 0.0
    if max(one.bytes for one in group) <= room.memory:
        return max(one.seconds for one in group)
    orders: dict[str, float] = {}
    for one in group:
        orders[one.order] = max(orders.get(one.order, 0.0), one.train)
    return sum(orders.values()) + sum(one.encode - one.train for one in group)


def _cost(group: Sequence[Demand], room: Room) -> str:
    passes = _passes(group, room)
    if not passes:
        return "all of them are stored already"
    names = " and ".join(one.task for one in group)
    if passes == 1.0:
        return f"all states stay in memory, so {names} encode the audio once"
    text = f"{names} encode{'s' if len(group) == 1 else ''} the audio {passes:.0f} times"
    if len(group) > 1:
        shared = len({one.order for one in group}) < len(group)
        text += (
            ", in one pass for those with the same batches" if shared else ", each for itself as their batches differ"
        )
    return text
