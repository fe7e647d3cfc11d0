"""Similarity of all states of a student to all states of its teacher: CKA of frames and of time means, linear maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from leaderboards.similarity import cka, linear
from leaderboards.similarity.estimates import Estimates, Floats, Ints, clusters
from leaderboards.similarity.states import MOMENTS, Heard, Side, Single

BATCH = 256
"""Most utterances in a batch of CKA."""

ROUNDS = 64
"""How often each speaker has a turn, with one utterance after the other."""

SPEAKERS = 8
"""With fewer speakers, utterances take their place."""


@dataclass(frozen=True)
class Layers:
    """How near two upstreams' states are to each other.

    Attributes:
        student: name of the student.
        teacher: name of the teacher.
        task: whose test utterances were heard.
        utterances: how many.
        units: clusters that were resampled; ``unit`` is what they are, ``speakers`` or ``utterances``.
        frames: CKA (S, T) of single frames, or ``None``.
        means: CKA (S, T) of time means.
        frames_explained: held-out R² (T,) of the teacher's frames, from the student's last state; or ``None``.
        means_explained: the same of time means.
        notes: what a reader must know.
    """

    student: str
    teacher: str
    task: str
    utterances: int
    units: int
    unit: str
    frames: Estimates | None
    means: Estimates
    frames_explained: Estimates | None
    means_explained: Estimates
    notes: tuple[str, ...]


def compare(heard: Heard, repeats: int = 200, seed: int = 0) -> Layers:
    """Compare all states.

    Args:
        heard: states of both on the same utterances.
        repeats: resamples of the speakers for the intervals.
        seed: of batches, folds and resamples.

    Raises:
        SlimbenchError: too few utterances.
    """
    names = heard.speakers
    units = clusters(names)
    unit = "speakers" if all(names) else "speakers or utterances" if any(names) else "utterances"
    notes = list(heard.notes)
    if units.max() + 1 < SPEAKERS:
        notes.append(
            f"With {int(units.max()) + 1} speakers, single utterances are resampled and held out: intervals are of "
            "these speakers only, and too narrow for others."
        )
        units, unit = np.arange(len(names), dtype=np.int64), "utterances"
    count = int(units.max()) + 1
    student, teacher = heard.student, heard.teacher
    framed = student.moments is not None
    return Layers(
        student=student.name,
        teacher=teacher.name,
        task=heard.task,
        utterances=len(names),
        units=count,
        unit=unit,
        frames=cka.cka(batches(heard, units, True, seed), count, repeats, seed) if framed else None,
        means=cka.cka(batches(heard, units, False, seed), count, repeats, seed),
        frames_explained=_explained(student, teacher, units, True, repeats, seed) if framed else None,
        means_explained=_explained(student, teacher, units, False, repeats, seed),
        notes=tuple(notes),
    )


def batches(heard: Heard, speaker: Ints, frames: bool, seed: int = 0) -> Iterator[cka.Batch]:
    """Batches with one utterance of each speaker: its time means, or one of its moments.

    So all items of a batch are independent. In the next batch each speaker's next utterance has its turn.

    Args:
        heard: states of both.
        speaker: of each utterance, numbered from 0.
        frames: whether moments are wanted, not time means.
        seed: of the order of utterances and of the division where there are more than :data:`BATCH` speakers.
    """
    moments = MOMENTS if frames else 1
    for utterances, moment in _rounds(speaker, moments, np.random.default_rng(seed)):
        sides = [
            side.means[:, utterances] if side.moments is None or not frames else side.moments[:, utterances, moment]
            for side in (heard.student, heard.teacher)
        ]
        yield cka.Batch(_double(sides[0]), _double(sides[1]), speaker[utterances])


def _rounds(speaker: Ints, moments: int, generator: np.random.Generator) -> Iterator[tuple[Ints, Ints]]:
    """Per batch: one utterance of each of its speakers, and which of that utterance's moments."""
    mine = [np.flatnonzero(speaker == number) for number in range(int(speaker.max()) + 1)]
    largest = max(map(len, mine))
    rounds = ROUNDS if largest > 1 else min(ROUNDS, moments)
    turn = [np.concatenate([generator.permutation(rows) for _ in range(-(-rounds // len(rows)))]) for rows in mine]
    visit = [np.arange(len(line)) // len(rows) % moments for line, rows in zip(turn, mine, strict=True)]
    for number in range(rounds):
        order = generator.permutation(len(mine))
        for part in np.array_split(order, -(-len(mine) // BATCH)):
            yield np.asarray([turn[s][number] for s in part]), np.asarray([visit[s][number] for s in part])


def _double(states: Single) -> Floats:
    return np.asarray(states, dtype=np.float64)


def _explained(student: Side, teacher: Side, held: Ints, frames: bool, repeats: int, seed: int) -> Estimates:
    """Held-out R² of the teacher's states from the student's last one."""
    if not frames or student.moments is None or teacher.moments is None:
        return linear.explained(_double(student.means[-1]), list(teacher.means), held, repeats, seed)
    moments = student.moments.shape[2]
    x = _double(student.moments[-1]).reshape(-1, student.moments.shape[3])
    y = [state.reshape(-1, state.shape[2]) for state in teacher.moments]
    return linear.explained(x, y, np.repeat(held, moments), repeats, seed)
