"""Do a student and its teacher give the same answers? From the rows of two records alone.

Three kinds of answers. A *label* per utterance: its two labels are the same or not. *Text* (words or phones): every
token of the reference is an item, and the answer is what was recognised in its place, by each system's own alignment
with the reference; besides, the student's text is scored against the teacher's as if that were the reference.
*Trials*: the answer is accept or reject at each system's own equal-error threshold; besides, ranks of scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import rankdata
from sklearn.metrics import roc_curve

from harness import metrics
from harness.interface import Row, SlimbenchError
from leaderboards.similarity.estimates import Estimate, Floats, Ints, clusters, resamples, summed_up
from leaderboards.similarity.tokens import said_in_place

CHUNK = 50
"""Resamples at a time, which bounds memory."""

TEXT = frozenset({"wer", "per"})

Seeds = Sequence[Sequence[Row]]
Measured = dict[str, Floats]
Measure = Callable[[Floats], Measured]
"""From weights of the rows (R, N) to measures (R,) each."""
Weigh = Callable[[Floats], Floats]
"""From resamples of the speakers (R, units) to weights of the rows (R, N)."""


@dataclass(frozen=True)
class Answers:
    """What two systems answered to the same N items.

    Attributes:
        student: its answer to each item, numbered (N,).
        teacher: the same of the teacher; equal answers have equal numbers.
        right: whether the teacher's is the right one (N,).
        row: place of the row that each item belongs to (N,).
    """

    student: Ints
    teacher: Ints
    right: NDArray[np.bool_]
    row: Ints

    @staticmethod
    def of(student: Sequence[str], teacher: Sequence[str], truth: Sequence[str], row: Sequence[int]) -> Answers:
        """From texts."""
        numbers = clusters([f"={text}" for text in (*student, *teacher)])
        right = np.asarray([said == true for said, true in zip(teacher, truth, strict=True)], dtype=np.bool_)
        return Answers(numbers[: len(student)], numbers[len(student) :], right, np.asarray(row, dtype=np.int64))


def main_measure(metric: str) -> str:
    """The measure that stands for a task: agreement of labels, closeness of texts, rank correlation of scores."""
    return "closeness" if metric in TEXT else "ranks" if metric in metrics.TRIALS else "agreement"


def measures(
    metric: str, student: Seeds, teacher: Seeds, pairs: Sequence[tuple[int, int]], repeats: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """All measures of agreement, means over pairs of seeds (and over folds), with intervals over speakers.

    Args:
        metric: main metric of the task.
        student: rows of each of its seeds.
        teacher: the same items in the same order.
        pairs: places of the seeds of student and teacher that are set beside each other.
        repeats: resamples of the speakers; all pairs share them.
        seed: of the resampling.

    Returns:
        ``agreement`` (share of items with the same answer), ``kappa`` (Cohen's), ``on_right`` and ``on_wrong``
        (agreement where the teacher is right, and where it is not), ``gap`` (their difference); for text also
        ``closeness`` (1 − error rate of the student's text against the teacher's); for trials also ``ranks``
        (Spearman). NaN where undefined.

    Raises:
        SlimbenchError: a metric whose answers are not known here.
    """
    if metric not in TEXT | metrics.TRIALS | {"accuracy"}:
        raise SlimbenchError(f"What agreement means for the metric {metric!r} is not known; leave its task out.")
    generator = np.random.default_rng(seed)
    folds = []
    for part in metrics.folds(teacher[0]):
        sides = [[[rows[i] for i in part] for rows in side] for side in (student, teacher)]
        times, weigh = _weights(sides[1][0], repeats, generator)
        found = [_measure(metric, sides[0][i], sides[1][j]) for i, j in pairs]
        folds.append(_mean([_in_chunks(each, times, weigh) for each in found]))
    return {name: summed_up(values[:, None]).at(0) for name, values in _mean(folds).items()}


def _measure(metric: str, student: Sequence[Row], teacher: Sequence[Row]) -> Measure:
    if metric in metrics.TRIALS:
        return _of_trials(metric, student, teacher)
    field = metrics.field(metric, teacher, "hyp")
    said = [[str(row[field]) for row in rows] for rows in (student, teacher)]
    truth = [str(row["ref"]) for row in teacher]
    if metric == "accuracy":
        return _of_answers(Answers.of(said[0], said[1], truth, range(len(truth))))
    return _of_texts(metric, said[0], said[1], truth)


def _of_answers(answers: Answers) -> Measure:
    same = (answers.student == answers.teacher).astype(np.float64)
    right = answers.right.astype(np.float64)
    kinds = int(max(answers.student.max(), answers.teacher.max())) + 1
    items = np.arange(len(same))
    tables = [
        sparse.csr_array((np.ones(len(same)), (said, items)), shape=(kinds, len(same)))
        for said in (answers.student, answers.teacher)
    ]

    def measured(weights: Floats) -> Measured:
        weights = weights[:, answers.row]
        total = weights.sum(axis=1)
        shares = [np.asarray(table @ weights.T) / total for table in tables]
        agreement, chance = weights @ same / total, (shares[0] * shares[1]).sum(axis=0)
        on_right = weights @ (same * right) / (weights @ right)
        on_wrong = weights @ (same * (1 - right)) / (weights @ (1 - right))
        kappa = np.where(chance < 1.0 - 1e-12, (agreement - chance) / (1.0 - chance), np.nan)
        return {
            "agreement": agreement,
            "kappa": kappa,
            "on_right": on_right,
            "on_wrong": on_wrong,
            "gap": on_right - on_wrong,
        }

    return measured


def _of_texts(metric: str, student: Sequence[str], teacher: Sequence[str], truth: Sequence[str]) -> Measure:
    places = [said_in_place(truth, said) for said in (student, teacher)]
    row = [number for number, tokens in enumerate(places[0]) for _ in tokens]
    flat = [[token for tokens in side for token in tokens] for side in places]
    answers = _of_answers(Answers.of(flat[0], flat[1], [token for text in truth for token in text.split()], row))
    edits, length = _against_teacher(metric, student, teacher)

    def measured(weights: Floats) -> Measured:
        said = weights @ length
        closeness = np.where(said > 0, 1.0 - (weights @ edits) / said, np.nan)
        return {"closeness": closeness, **answers(weights)}

    return measured


def _against_teacher(metric: str, student: Sequence[str], teacher: Sequence[str]) -> tuple[Floats, Floats]:
    """Edits from the teacher's text to the student's, and tokens of the teacher's, per utterance."""
    edits = np.asarray([len(text.split()) for text in student], dtype=np.float64)  # where the teacher says nothing
    length = np.zeros(len(edits))
    spoken = [place for place, text in enumerate(teacher) if text.split()]
    if spoken:
        rows: list[Row] = [{"ref": teacher[place], "hyp": student[place]} for place in spoken]
        edits[spoken], length[spoken] = metrics.counts(metric, rows)
    return edits, length


def _of_trials(metric: str, student: Sequence[Row], teacher: Sequence[Row]) -> Measure:
    scored = metrics.field(metric, teacher, "score")
    (_, first), (same, second) = (metrics.trial_arrays(rows, scored) for rows in (student, teacher))
    accepts = [_accepts(same, scores) for scores in (first, second)]
    said = [np.where(accepted, "same", "other").tolist() for accepted in accepts]
    answers = _of_answers(Answers.of(said[0], said[1], np.where(same, "same", "other").tolist(), range(len(same))))
    orders = [rankdata(scores, method="dense").astype(np.int64) - 1 for scores in (first, second)]

    def measured(weights: Floats) -> Measured:
        ranks = [_weighted_ranks(order, weights) for order in orders]
        return {"ranks": _correlation(ranks[0], ranks[1], weights), **answers(weights)}

    return measured


def _accepts(same: NDArray[np.bool_], scores: Floats) -> NDArray[np.bool_]:
    """Which trials a system accepts at the threshold where false accepts come nearest to false rejects."""
    false_accept, true_accept, thresholds = roc_curve(same, scores, drop_intermediate=False)
    place = int(np.argmin(np.abs(false_accept - (1.0 - true_accept))))
    return np.asarray(scores >= thresholds[place], dtype=np.bool_)


def _weighted_ranks(order: Ints, weights: Floats) -> Floats:
    """Mean ranks (R, N), as if each item were there as often as its weight says; ``order`` numbers distinct values."""
    table = sparse.csr_array((np.ones(len(order)), (order, np.arange(len(order)))))
    held = np.asarray(table @ weights.T)
    middle = np.cumsum(held, axis=0) - 0.5 * held
    return np.asarray(middle[order].T, dtype=np.float64)


def _correlation(one: Floats, two: Floats, weights: Floats) -> Floats:
    """Weighted Pearson correlation per line."""
    total = weights.sum(axis=1, keepdims=True)
    one, two = (x - (weights * x).sum(axis=1, keepdims=True) / total for x in (one, two))
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt((weights * one**2).sum(axis=1) * (weights * two**2).sum(axis=1))
        return np.asarray((weights * one * two).sum(axis=1) / spread)


def _weights(rows: Sequence[Row], repeats: int, generator: np.random.Generator) -> tuple[Floats, Weigh]:
    """Resamples of the speakers of these rows, and what a part of them gives as weights of the rows.

    A trial of two speakers counts as often as both were drawn, one of a single speaker as often as that one.
    """
    if "id" in rows[0]:
        cluster = clusters([str(row.get("speaker") or "") for row in rows])
        times = resamples(int(cluster.max()) + 1, repeats, generator)
        return times, lambda part: part[:, cluster]
    names = [name for row in rows for name in _speakers(row)]
    sides = clusters(names).reshape(-1, 2)
    times = resamples(int(sides.max()) + 1, repeats, generator)

    def weigh(part: Floats) -> Floats:
        first, second = part[:, sides[:, 0]], part[:, sides[:, 1]]
        return np.where(sides[:, 0] == sides[:, 1], first, first * second)

    return times, weigh


def _speakers(row: Row) -> tuple[str, str]:
    """The speakers of a trial; an unknown one is its utterance."""
    first, second = row.get("speakers") or ("", "")
    return str(first or f"\0{row['enrol']}"), str(second or f"\0{row['test']}")


def _in_chunks(measure: Measure, times: Floats, weigh: Weigh) -> Measured:
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = [measure(weigh(part)) for part in np.array_split(times, -(-len(times) // CHUNK))]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _mean(found: Sequence[Mapping[str, Floats]]) -> Measured:
    return {name: np.mean([each[name] for each in found], axis=0) for name in found[0]}
