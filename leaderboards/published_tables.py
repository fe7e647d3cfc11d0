"""Tables of published rows alone: every value with its mark, nothing measured among them, no intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from leaderboards import overall
from leaderboards.depth_width.shapes import PUBLISHED_TOLERANCE, published_columns
from leaderboards.depth_width.tables import published_tables as shape_tables
from leaderboards.published import MARKS, PUBLISHED, RANKED, Quantity, Row, Value
from leaderboards.published.marks import Mark, footnotes
from leaderboards.ranking import Mark as Rank
from leaderboards.ranking import Shown, marks
from leaderboards.render import EMPTY, Cell, Table

ORDER = (
    "asr.wer", "asr.wer_lm", "pr.per", "ks.accuracy", "ic.accuracy", "sid.accuracy", "asv.eer", "er.accuracy",
    "qbe.mtwv", "sd.der", "sf.f1", "sf.cer",
)  # fmt: skip
"""Columns by group, then the tasks that this project does not have."""

FLOOR = "FBANK"


def published_tables(rows: Sequence[Row], tolerance: float = PUBLISHED_TOLERANCE) -> list[Table]:
    """All tables of published rows that have at least one row."""
    made = [results(rows), gain_kept(rows), *shape_tables(rows, tolerance)]
    return [table for table in made if table.rows]


def results(rows: Sequence[Row]) -> Table:
    """Every published row with its size, its scores and superb_s worked out anew where all of its metrics are there."""
    scored = [row for row in rows if row.metrics()]
    silent = [row.system for row in rows if not row.metrics()]
    quantities = {name: row.values[name].quantity for name in ORDER for row in scored if name in row.values}
    whole = overall.published(scored)
    older = {row.system for row in scored if not row.ranked}
    ranks = {name: _ranks(scored, name) for name in quantities}
    lines = [
        (
            Cell(f"{row.system}{PUBLISHED.sign}"),
            *(_size(row.values.get(name)) for name in ("params_m", "macs_g")),
            *(_cell(row.values.get(name), ranks[name].get(row.system, "")) for name in quantities),
            overall.cell(whole, row.system, older),
        )
        for row in scored
    ]
    header = [f"{_title(quantity)} {'↑' if quantity.higher_is_better else '↓'}" for quantity in quantities.values()]
    absent = f"No task score could be found of {', '.join(silent)}." if silent else ""
    return Table(
        name="results",
        title="Published results",
        caption=(
            "SUPERB scores in percent as others published them; best in bold, second underlined, no mark where the "
            f"order is within the precision of print or plot. {RANKED} MACs: G over the 32 "
            f"utterances of SUPERB's profiler. {whole.title}: worked out here from the scores of its ten tasks."
        ),
        header=("System", "Params (M)", "GMACs", *header, f"{whole.title} ↑"),
        rows=tuple(lines),
        data=pd.DataFrame([fact for row in rows for fact in _facts(row)]),
        notes=(*_notes(value.mark for row in scored for value in row.values.values()), *([absent] if absent else [])),
    )


def gain_kept(rows: Sequence[Row]) -> Table:
    """The share of the teacher's published gain over FBANK that each published student keeps."""
    columns = published_columns(rows)
    by_name = {row.system: row for row in rows}
    lines, facts = [], []
    for row in rows:
        if row.teacher not in by_name or FLOOR not in by_name or not row.metrics():
            continue
        cells = []
        for column in columns:
            trio = [column.values.get(name) for name in (row.system, row.teacher, FLOOR)]
            share = _share(*trio)
            sign = column.signs.get(row.system, "")
            cells.append(EMPTY if share is None else Cell(f"{share:.0f} %{sign}"))
            facts.append(
                {"student": row.system, "teacher": row.teacher, "over": FLOOR, "task": column.task, "kept": share,
                 "origin": PUBLISHED.name}
            )  # fmt: skip
        lines.append((Cell(f"{row.system}{PUBLISHED.sign}"), *cells))
    return Table(
        name="gain_kept",
        title="Share of the teacher's gain kept, published",
        caption=(
            f"Published by others. (student − {FLOOR}) / (teacher − {FLOOR}) of the scores, in percent, without "
            "intervals; above 100: better than the teacher."
        ),
        header=("Student", *(column.task.upper() for column in columns)),
        rows=tuple(lines),
        data=pd.DataFrame(facts),
        notes=tuple(_notes(value.mark for row in rows if row.teacher for value in row.values.values())),
    )


def _share(student: float | None, teacher: float | None, floor: float | None) -> float | None:
    if student is None or teacher is None or floor is None or teacher == floor:
        return None
    return 100.0 * (student - floor) / (teacher - floor)


def _title(quantity: Quantity) -> str:
    task, _, metric = quantity.name.partition(".")
    return f"{task.upper()} {'Acc' if metric == 'accuracy' else metric.upper().replace('_', ' ')}"


def _ranks(rows: Sequence[Row], name: str) -> dict[str, Rank]:
    """The marks of a quantity, by system; of two generations of one system only the newer ranks."""
    there = {row.system: row.values[name] for row in rows if name in row.values and row.ranked}
    shown = {
        system: Shown(value.shown, value.quantity.percent(value.value), value.doubt) for system, value in there.items()
    }
    return marks(shown, next(iter(there.values())).quantity.higher_is_better) if there else {}


def _cell(value: Value | None, mark: Rank) -> Cell:
    return EMPTY if value is None else Cell(value.shown + value.mark.sign, mark=mark)


def _size(value: Value | None) -> Cell:
    return EMPTY if value is None else Cell(f"{value.value:g}{value.mark.sign}")


def _notes(marks: Iterable[Mark]) -> list[str]:
    found = {mark.name for mark in marks}
    return footnotes([PUBLISHED], [mark for mark in MARKS.values() if mark.name in found])


def _facts(row: Row) -> list[dict[str, Any]]:
    """One line per value, in the unit of its source, with mark and sources."""
    return [
        {
            "system": row.system,
            "origin": PUBLISHED.name,
            "teacher": row.teacher,
            "layers": row.layers,
            "width": row.width,
            "quantity": name,
            "value": value.value,
            "unit": value.quantity.unit,
            "precision": value.precision,
            "mark": value.mark.name,
            "sources": "; ".join(source.url or source.title for source in value.sources),
        }
        for name, value in row.values.items()
    ]
