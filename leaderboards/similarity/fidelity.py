"""A student's records beside its teacher's: on which tasks they can be compared, and how far their answers agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from harness.cards import hint
from harness.interface import SlimbenchError
from harness.records import Record
from leaderboards import paired
from leaderboards.board import boards
from leaderboards.similarity import agreement
from leaderboards.similarity.estimates import Estimate


@dataclass(frozen=True)
class TaskAgreement:
    """Student and teacher on one task.

    Attributes:
        task: the task.
        metric: its main metric; the scores are in percent.
        student_score: of the student.
        teacher_score: of the teacher.
        n_test: test rows.
        seeds: how many pairs of probes were compared.
        keys: of both records, student first.
        measures: as :func:`leaderboards.similarity.agreement.measures` gives them, as shares.
        ceiling: the main measure between the teacher's own probes of different seeds; ``None`` where there is one seed.
        cautions: what limits the comparison.
        refusal: why there is none; ``measures`` is then empty.
    """

    task: str
    metric: str
    student_score: float
    teacher_score: float
    n_test: int
    keys: tuple[str, str]
    seeds: int = 0
    measures: dict[str, Estimate] = field(default_factory=dict)
    ceiling: Estimate | None = None
    cautions: tuple[str, ...] = ()
    refusal: str | None = None

    @property
    def main(self) -> str:
        """The measure that stands for the task."""
        return agreement.main_measure(self.metric)


@dataclass(frozen=True)
class Fidelity:
    """Student and teacher in one suite under one protocol.

    Attributes:
        board: name of the suite, with the protocol where it has several.
        suite: its name.
        protocol: of the records; ``None`` for the suite's own.
        student: name of the student.
        teacher: name of the teacher.
        fingerprints: of the two that the records are of, student first.
        tasks: the tasks that both have.
        notes: what a reader must know.
    """

    board: str
    suite: str
    protocol: str | None
    student: str
    teacher: str
    fingerprints: tuple[str, str]
    tasks: tuple[TaskAgreement, ...]
    notes: tuple[str, ...] = ()


def fidelity(
    found: Sequence[Record], student: str, teacher: str, tasks: Sequence[str] = (), repeats: int = 1000, seed: int = 0
) -> list[Fidelity]:
    """Compare a student's records with its teacher's, one result per suite and protocol that both have.

    Args:
        found: records.
        student: name of the student.
        teacher: name of the teacher.
        tasks: only these; empty: all that both have.
        repeats: resamples of the intervals.
        seed: of the resamples.
    """
    made = []
    for board in boards(record for record in found if record.upstream["name"] in (student, teacher)):
        shared = [task for task in board.tasks if {(student, task), (teacher, task)} <= board.cells.keys()]
        shared = [task for task in shared if not tasks or task in tasks]
        if not shared:
            continue
        sides = board.any_of(student), board.any_of(teacher)
        pairs = [(board.cells[student, task], board.cells[teacher, task]) for task in shared]
        made.append(
            Fidelity(
                board=board.suite,
                suite=sides[0].suite,
                protocol=pairs[0][0].data.get("protocol"),
                student=student,
                teacher=teacher,
                fingerprints=(sides[0].upstream["fingerprint"], sides[1].upstream["fingerprint"]),
                tasks=tuple(_task(*pair, odd=_odd(board.odd, pair), repeats=repeats, seed=seed) for pair in pairs),
                notes=board.notes,
            )
        )
    return made


def _odd(odd: frozenset[tuple[str, str]], pair: tuple[Record, Record]) -> bool:
    return any((record.upstream["name"], record.task) in odd for record in pair)


def _task(student: Record, teacher: Record, odd: bool, repeats: int, seed: int) -> TaskAgreement:
    """One task; a refusal where the test data differ or no probes of one seed are there."""
    blank = TaskAgreement(
        task=student.task,
        metric=student.metric,
        student_score=student.value,
        teacher_score=teacher.value,
        n_test=student.n_test,
        keys=(student.key, teacher.key),
    )
    try:
        _same_data(student, teacher)
        pairs = _seed_pairs(student, teacher)
        rows = paired.align({"student": student, "teacher": teacher})
        measures = agreement.measures(student.metric, rows["student"], rows["teacher"], pairs, repeats, seed)
    except SlimbenchError as refusal:
        return replace(blank, refusal=str(refusal))
    count = len(teacher.seeds)
    others = [(i, j) for i in range(count) for j in range(count) if i != j]
    ceiling = None
    if others:
        own = agreement.measures(student.metric, rows["teacher"], rows["teacher"], others, repeats, seed)
        ceiling = own[blank.main]
    cautions = ["They were trained under different protocols, seeds or data, which may explain it."] if odd else []
    if math.isnan(measures[blank.main].value):
        cautions.append("The main measure is not defined here: the teacher's answers are all empty or all alike.")
    return replace(blank, seeds=len(pairs), measures=measures, ceiling=ceiling, cautions=tuple(cautions))


def _seed_pairs(student: Record, teacher: Record) -> list[tuple[int, int]]:
    """Places of the seeds that both have.

    Raises:
        SlimbenchError: there is none.
    """
    pairs = [(place, teacher.seeds.index(seed)) for place, seed in enumerate(student.seeds) if seed in teacher.seeds]
    if not pairs:
        raise SlimbenchError("They share no seed, and probes are compared seed by seed: run both with the same seeds.")
    return pairs


def _same_data(student: Record, teacher: Record) -> None:
    """The manifests, and the audio where both records know it, are the same.

    Raises:
        SlimbenchError: they are not.
    """
    for what, name in (("manifest_digest", "manifests"), ("audio_digest", "audio")):
        digests = [record.data.get(what) for record in (student, teacher)]
        if all(digests) and digests[0] != digests[1]:
            raise SlimbenchError(
                f"The records of {student.task} are of different {name} "
                f"({str(digests[0])[:12]} and {str(digests[1])[:12]}): run both on the same data."
            )


def teacher_of(found: Sequence[Record], student: str, stated: str | None) -> str:
    """The teacher that the student's newest record names, or else ``stated``, what its card names.

    Raises:
        SlimbenchError: neither names one.
    """
    mine = sorted((r for r in found if r.upstream["name"] == student), key=lambda r: (r.created, r.key))
    named = mine[-1].upstream["teacher"] if mine else None
    if named or stated:
        return str(named or stated)
    known = sorted({record.upstream["name"] for record in found})
    near = "" if student in known else hint(student, known)
    raise SlimbenchError(
        f"Neither a record nor a card says who taught {student}{near}: name the teacher as a second argument, or add "
        "`teacher` to the card."
    )
