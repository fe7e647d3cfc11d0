"""Tables of fidelity: answers, states, and linear maps."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from harness.show import face, number
from leaderboards.render import EMPTY, Cell, Table
from leaderboards.similarity.estimates import Estimate, Estimates, Floats
from leaderboards.similarity.fidelity import Fidelity, TaskAgreement
from leaderboards.similarity.layers import Layers

KINDS = {"agreement": "same label", "closeness": "1 − error rate", "ranks": "rank correlation"}
"""What the main measure of a task is called."""

_PERCENT = frozenset({"agreement", "closeness", "on_right", "on_wrong", "gap"})


def agreement_table(found: Fidelity) -> Table:
    """One line per task: how far the student's answers are its teacher's."""
    rows = [_agreement_row(task) for task in found.tasks]
    notes = [f"{task.task}: {text}" for task in found.tasks for text in (task.refusal, *task.cautions) if text]
    caption = (
        f"{found.student} beside {found.teacher}, suite {found.board}, on the same test items, probe by probe of one "
        "seed, mean over seeds; small: 95 % interval over speakers. Agreement is the share (%) of the same labels; for "
        "texts 1 − error rate (%) of the student's text against the teacher's; for trials Spearman's rank correlation "
        "of the scores. Teacher's seeds: the same measure between probes of different seeds on the teacher itself. "
        "Kappa is chance-corrected agreement; it and the next columns are over utterances, over tokens of the "
        "reference (what was recognised in their place), or over accepted and rejected trials."
    )
    header = (
        "task", "agreement is", "agreement", "teacher's seeds", "kappa", "where teacher is right (%)",
        "where teacher is wrong (%)", "gap (points)", "student's score", "teacher's score",
    )  # fmt: skip
    title = f"Answers of {found.student} and {found.teacher}, suite {found.board}"
    data = pd.DataFrame([_agreement_data(found, task) for task in found.tasks])
    return Table("agreement", title, caption, header, tuple(rows), data, (*notes, *found.notes))


def _agreement_row(task: TaskAgreement) -> tuple[Cell, ...]:
    look = face(task.metric)
    ends = tuple(Cell(f"{number(score)} {look.title}") for score in (task.student_score, task.teacher_score))
    head = (Cell(task.task.upper()), Cell(KINDS[task.main] if task.measures else "–"))
    if not task.measures:
        return (*head, *([EMPTY] * 6), *ends)
    found = task.measures
    ceiling = EMPTY if task.ceiling is None else _cell(task.main, task.ceiling)
    middle = (_cell(name, found[name]) for name in ("kappa", "on_right", "on_wrong", "gap"))
    return (*head, _cell(task.main, found[task.main]), ceiling, *middle, *ends)


def _cell(name: str, estimate: Estimate) -> Cell:
    """A measure with its interval: percent with one decimal, or two decimals."""
    if math.isnan(estimate.value):
        return EMPTY
    shown = _percent if name in _PERCENT else _two
    bounded = not math.isnan(estimate.low)
    return Cell(shown(estimate.value), f"[{shown(estimate.low)}, {shown(estimate.high)}]" if bounded else "")


def _percent(share: float) -> str:
    return number(100.0 * share)


def _two(value: float) -> str:
    return f"{value + 0.0:.2f}" if round(value, 2) else "0.00"


def _agreement_data(found: Fidelity, task: TaskAgreement) -> dict[str, object]:
    line: dict[str, object] = {
        "suite": found.suite, "student": found.student, "teacher": found.teacher, "task": task.task,
        "metric": task.metric, "n_test": task.n_test, "seeds": task.seeds, "main": task.main,
        "student_score": task.student_score, "teacher_score": task.teacher_score,
    }  # fmt: skip
    every = {**task.measures, **({} if task.ceiling is None else {"teacher_seeds": task.ceiling})}
    for name, estimate in every.items():
        line |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return {**line, "student_key": task.keys[0], "teacher_key": task.keys[1], "refusal": task.refusal}


def cka_tables(board: str, layers: Layers) -> list[Table]:
    """The matrices of CKA: of frames where they were compared, and of time means."""
    made = []
    for name, what, values in (("frames", "single frames", layers.frames), ("means", "time means", layers.means)):
        if values is not None:
            made.append(_matrix(board, layers, name, what, values))
    return made


def _matrix(board: str, layers: Layers, name: str, what: str, values: Estimates) -> Table:
    students, teachers = values.value.shape
    best = _best_places(values.value)
    rows = tuple(
        (
            Cell(f"{layers.student} {s}"),
            *(_marked(values.at(s, t), best[s] == t) for t in range(teachers)),
        )
        for s in range(students)
    )
    caption = (
        f"Linear CKA, unbiased and batchwise, of {what}: states of {layers.student} (lines) and of {layers.teacher} "
        f"(columns), 0 nearest the input. {layers.utterances} test utterances of {layers.task}, suite {board}; small: "
        f"95 % interval over {layers.units} {layers.unit}. Bold: the teacher's state nearest to the line's."
    )
    data = pd.DataFrame(
        {
            "suite": board, "task": layers.task, "of": name, "student": layers.student, "student_state": s,
            "teacher": layers.teacher, "teacher_state": t, "cka": values.value[s, t], "low": values.low[s, t],
            "high": values.high[s, t],
        }
        for s in range(students)
        for t in range(teachers)
    )  # fmt: skip
    header = ("state", *(str(t) for t in range(teachers)))
    title = f"CKA of {what}, {layers.student} and {layers.teacher}, suite {board}"
    return Table(f"cka_{name}", title, caption, header, rows, data, layers.notes)


def _best_places(values: Floats) -> list[int]:
    """Where each line is greatest; −1 where it has no number."""
    return [-1 if np.isnan(line).all() else int(np.nanargmax(line)) for line in values]


def _marked(estimate: Estimate, best: bool) -> Cell:
    cell = _cell("cka", estimate)
    return Cell(cell.text, cell.small, "best") if best else cell


def linear_table(board: str, layers: Layers) -> Table:
    """What the best linear map from the student's last state explains of each teacher state."""
    columns = [("frames", layers.frames_explained), ("time means", layers.means_explained)]
    there = [(name, values) for name, values in columns if values is not None]
    count = len(layers.means_explained.value)
    rows = tuple(
        (
            Cell(f"{layers.teacher} {t}"),
            *(_cell("r2", values.at(t)) for _, values in there),
            *(_cell("error", _rest(values.at(t))) for _, values in there),
        )
        for t in range(count)
    )
    caption = (
        f"Share R² of each state of {layers.teacher} that the best linear map (ridge) from the last state of "
        f"{layers.student} explains on {layers.unit} held out, and the relative squared error, 1 − R². "
        f"{layers.utterances} test utterances of {layers.task}, suite {board}; small: 95 % interval over "
        f"{layers.units} {layers.unit}, the maps given."
    )
    header = ("state", *(f"R², {name}" for name, _ in there), *(f"error, {name}" for name, _ in there))
    data = pd.DataFrame(
        {
            "suite": board, "task": layers.task, "of": name, "student": layers.student, "teacher": layers.teacher,
            "teacher_state": t, "r2": values.value[t], "low": values.low[t], "high": values.high[t],
        }
        for name, values in there
        for t in range(count)
    )  # fmt: skip
    title = f"Linear maps from {layers.student} to {layers.teacher}, suite {board}"
    return Table("linear", title, caption, header, rows, data, layers.notes)


def _rest(explained: Estimate) -> Estimate:
    return Estimate(1.0 - explained.value, 1.0 - explained.high, 1.0 - explained.low)
