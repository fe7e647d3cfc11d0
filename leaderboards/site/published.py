"""Published rows and overall scores as what the page shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from leaderboards import scores
from leaderboards.board import Board
from leaderboards.published import Row, Source, Value, published
from leaderboards.site.entries import OVERALL, SUPERB, Column, Entry, Score, metric_title

BESIDE = frozenset({"asr.wer_lm"})
"""Scores that stand on the detail page only: another decoder of a task that has its column already."""

WEIGHTINGS = {"published": ("superb_s", "mean11"), "measured": ("slim_mean",)}
"""Overall scores of each origin; superb_s and the mean of eleven are defined for published rows."""


def published_entries() -> tuple[list[Entry], list[str]]:
    """The published rows that have a score, and sentences on those that have none."""
    rows = published().rows
    entries = [_entry(row) for row in rows]
    found = [entry for entry in entries if entry.scores]
    silent = [entry.name for entry in entries if not entry.scores]
    overall = _overall(rows)
    with_scores = [replace(entry, scores={**entry.scores, **overall.get(entry.name, {})}) for entry in found]
    notes = [f"No task score could be found of {', '.join(silent)}; they have no row."] if silent else []
    return with_scores, notes


def _overall(rows: Sequence[Row]) -> dict[str, dict[Column, Score]]:
    found: dict[str, dict[Column, Score]] = {}
    for name in WEIGHTINGS["published"]:
        how = scores.weighting(name)
        for system, score in scores.score_published(how, rows).items():
            if score.value is not None and not score.missing:
                found.setdefault(system, {})[Column(OVERALL, how.title, True)] = _whole(score)
    return found


def _whole(score: scores.Score) -> Score:
    return Score(
        score.value or 0.0,
        shown=score.text,
        note="worked out from the scores of its tasks",
        precision=0.5 * 10.0**-score.digits,
    )


def overall_of(board: Board) -> dict[str, dict[Column, Score]]:
    """Overall scores of the comparable records of a board, by upstream; only of those that have all of its tasks."""
    found: dict[str, dict[Column, Score]] = {}
    whole = [n for n in board.upstreams if len(board.of(n)) == len(board.tasks) and not _is_odd(board, n)]
    for name in WEIGHTINGS["measured"]:
        how = scores.weighting(name)
        for system, score in scores.score_records(how, [r for n in whole for r in board.of(n)]).items():
            if score.value is not None and not score.missing:
                found.setdefault(system, {})[Column(OVERALL, how.title, True)] = _whole(score)
    return found


def _is_odd(board: Board, name: str) -> bool:
    return any((name, task) in board.odd for task in board.tasks)


def _entry(row: Row) -> Entry:
    values = {v: value for v, value in row.values.items() if value.quantity.group == "metrics" and v not in BESIDE}
    params, macs = row.value("params_m"), row.value("macs_g")
    return Entry(
        origin="published",
        suite=SUPERB,
        name=row.system,
        title=row.system,
        params=params * 1e6 if params is not None else None,
        macs=macs,
        scores={_column(name, value): _score(value) for name, value in values.items()},
        teacher=row.teacher or "",
        facts=tuple(_facts(row)),
        sources=tuple((source.title, source.url or "") for source in _sources(row)),
        ranked=row.ranked,
    )


def _column(name: str, value: Value) -> Column:
    task, metric = name.split(".", 1)
    return Column(task, metric_title(metric), value.quantity.higher_is_better)


def _score(value: Value) -> Score:
    percent = value.quantity.percent(value.value)
    mark = value.mark
    note = f"{mark.title}" + (f", ± {value.quantity.percent(value.precision):g}" if value.precision else "")
    return Score(round(percent, 6), note=note if mark.sign else "", sign=mark.sign, precision=value.doubt)


def _sources(row: Row) -> list[Source]:
    used = [source for value in row.values.values() for source in value.sources]
    used += [other.source for other in row.other]
    return list(dict.fromkeys([*row.sources, *used]))


def _facts(row: Row) -> Iterable[tuple[str, str]]:
    """What the detail page says of a published system."""
    shape = [f"{getattr(row, what)} {what}" for what in ("layers", "width", "ffn") if getattr(row, what)]
    stated = {
        "shape": ", ".join(shape),
        "frame period": f"{row.frame_ms} ms" if row.frame_ms else "",
        "distilled by": row.distilled_by,
        "distilled on": f"{row.distill_hours} h of speech" if row.distill_hours else "",
        "another set of values of": row.alternate_of,
    }
    yield from ((what, text) for what, text in stated.items() if text)
    yield from _further(row)
    if row.note:
        yield "note", row.note


def _further(row: Row) -> Iterable[tuple[str, str]]:
    """Numbers that have no column, and how the sizes are known."""
    for name in sorted(BESIDE & set(row.values)):
        value = row.values[name]
        yield value.quantity.what, f"{value.quantity.percent(value.value):g}{value.mark.sign} %"
    for name in ("params_m", "macs_g"):
        if name in row.values and row.values[name].mark.sign:
            yield f"{row.values[name].quantity.title}, how known", row.values[name].mark.title
    for other in row.other:
        numbers = ", ".join(f"{name} {value:g}" for name, value in other.values.items())
        yield other.title, f"{numbers}{other.mark.sign} ({other.source.title})"
