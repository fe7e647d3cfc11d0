"""What the page shows: one entry per system and suite, measured here or published elsewhere, and never mixed up.

The page knows records and published rows only through these classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Literal

from harness.records import Record
from harness.show import face, number
from leaderboards.board import Board, boards
from leaderboards.costs import condition, median_cost
from leaderboards.groups import GROUPS, group_of
from leaderboards.published.marks import of_signs
from leaderboards.ranking import MEASURED_PRECISION, Mark, Shown, marks

Origin = Literal["measured", "published"]

OTHER = "other"
"""Group of a task that has none of :data:`leaderboards.groups.GROUPS`."""

OVERALL = "overall"
"""Task and group of the scores over all tasks."""

SUPERB = "superb"
"""The suite under which published rows stand, and records of suite ``superb`` under its protocol ``superb``."""

POINTS = frozenset({"superb_s", "slim gain"})
"""Overall scores that are not in percent."""

TASK_TITLES = {
    "pr": "phone recognition",
    "asr": "speech recognition",
    "ks": "keyword spotting",
    "qbe": "query by example",
    "sid": "speaker identification",
    "asv": "speaker verification",
    "sd": "speaker diarisation",
    "ic": "intent classification",
    "sf": "slot filling",
    "er": "emotion recognition",
    OVERALL: "all tasks in one number",
}


@dataclass(frozen=True, order=True)
class Column:
    """One score column: a task under one metric.

    Attributes:
        task: name of the task, lower case.
        metric: short title of the metric, as ``WER``.
        higher_is_better: the direction of the metric.
    """

    task: str
    metric: str
    higher_is_better: bool

    @property
    def arrow(self) -> str:
        """The arrow that points to better."""
        return "↑" if self.higher_is_better else "↓"

    @property
    def group(self) -> str:
        """SUPERB's group of the task."""
        home = OVERALL if self.task == OVERALL else OTHER
        return group_of(self.task) or home

    @property
    def title(self) -> str:
        """The task as it is written: ``ASR``, ``QbE``."""
        return {"qbe": "QbE", OVERALL: OVERALL}.get(self.task, self.task.upper())

    @property
    def unit(self) -> str:
        """Percent, or points."""
        return "points" if self.metric in POINTS else "%"


@dataclass(frozen=True)
class Score:
    """One number of an entry.

    Attributes:
        value: in percent.
        ci95: 95 % interval, for measured scores.
        mark: rank among the comparable scores of its suite and origin, from the numbers as shown.
        record: the record behind a measured score.
        odd: measured under other conditions than the rest of its column, so that it takes part in no ranking.
        note: what a reader must know of this number.
        sign: follows a published number that its source does not itself print (read off a plot, second-hand).
        shown: the text, where it is not made from the value.
        precision: how far the value may be off by its reading or rounding, in the unit of the value.
    """

    value: float
    ci95: tuple[float, float] | None = None
    mark: Mark = ""
    record: Record | None = None
    odd: bool = False
    note: str = ""
    sign: str = ""
    shown: str = ""
    precision: float = MEASURED_PRECISION

    @property
    def text(self) -> str:
        """The score as shown: published rows with the two decimals that they print, measured ones with one."""
        if self.shown:
            return self.shown
        return number(self.value) if self.record else f"{self.value:.2f}"

    @property
    def decimals(self) -> int | None:
        """How many decimals are shown, ``None`` for overall scores; a column with several aligns by this."""
        return None if self.shown else len(self.text.partition(".")[2])

    @property
    def record_path(self) -> PurePosixPath | None:
        """Where the page keeps its copy of the record, below its ``records`` folder."""
        if self.record is None:
            return None
        name = f"{self.record.task}-{self.record.key[:12]}.json"
        return PurePosixPath(self.record.suite, self.record.upstream["name"], name)


@dataclass(frozen=True)
class Entry:
    """One system in one suite.

    Attributes:
        name: what it is called; for measured ones the name of its card.
        title: the card's title, or the name again.
        params: number of parameters.
        macs: multiply-accumulates over SUPERB's 32 utterances, in G.
        macs_rate: multiply-accumulates per second of audio, in G.
        facts: further facts for the detail page, as pairs of name and text.
        sources: where published values were read: titles and addresses, which may be empty.
        ranked: whether it takes part in rankings; of two editions of a system's values only the newer does.
    """

    origin: Origin
    suite: str
    name: str
    title: str
    params: float | None
    scores: dict[Column, Score]
    macs: float | None = None
    macs_rate: float | None = None
    teacher: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    sources: tuple[tuple[str, str], ...] = ()
    ranked: bool = True


@dataclass(frozen=True)
class Content:
    """All that the page shows.

    Attributes:
        entries: measured ones first, suite by suite in the order of their boards; then the published ones.
        boards: the boards of the measured ones.
        notes: sentences on what is left out or not comparable, by suite.
    """

    entries: tuple[Entry, ...]
    boards: tuple[Board, ...] = ()
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def suites(self) -> list[str]:
        """Names of the suites, in order of first appearance."""
        return list(dict.fromkeys(entry.suite for entry in self.entries))

    def columns(self) -> list[Column]:
        """All columns, by group, then in the group's order."""
        order = [task for tasks in GROUPS.values() for task in tasks]

        def place(column: Column) -> tuple[int, str, bool, str]:
            at = order.index(column.task) if column.task in order else len(order) + (column.task == OVERALL)
            return (at, column.task, not column.higher_is_better, column.metric)

        return sorted({column for entry in self.entries for column in entry.scores}, key=place)

    def groups(self) -> dict[str, list[Column]]:
        """The columns of each group that has any."""
        found = {name: [c for c in self.columns() if c.group == name] for name in (*GROUPS, OTHER, OVERALL)}
        return {name: columns for name, columns in found.items() if columns}


Overall = Callable[[Board], Mapping[str, Mapping[Column, Score]]]
"""Overall scores of a board, by upstream."""


def content(
    records: Iterable[Record],
    published: Sequence[Entry] = (),
    notes: Sequence[str] = (),
    overall: Overall = lambda _: {},
) -> Content:
    """Records and published rows as what the page shows, ranked within each suite and origin."""
    found = boards(records)
    entries = []
    for board in found:
        whole = overall(board)
        entries += [replace(e, scores={**e.scores, **whole.get(e.name, {})}) for e in measured(board)]
    said: dict[str, tuple[str, ...]] = {shown_suite(board): board.notes for board in found}
    if notes:
        said[SUPERB] = (*said.get(SUPERB, ()), *notes)
    return Content(tuple(ranked([*entries, *published])), tuple(found), said)


def shown_suite(board: Board) -> str:
    """The board's name; SUPERB's data under SUPERB's protocol goes by ``superb``, beside the published rows."""
    return SUPERB if board.suite == f"{SUPERB}-{SUPERB}" else board.suite


def column(record: Record) -> Column:
    """The column of a record."""
    return Column(record.task, metric_title(record.metric), face(record.metric).higher_is_better)


def metric_title(metric: str) -> str:
    """A metric in a column's heading: ``WER``, ``Acc``."""
    return "Acc" if metric == "accuracy" else metric.upper() if len(metric) <= 4 else metric


def measured(board: Board) -> list[Entry]:
    """One entry per upstream of a board."""
    return [_measured(board, name) for name in board.upstreams]


def _measured(board: Board, name: str) -> Entry:
    last = board.any_of(name)
    scores = {
        column(record): Score(
            record.value,
            (record.ci95[0], record.ci95[1]),
            record=record,
            odd=(name, record.task) in board.odd,
            note="other protocol, seeds or data than its column" if (name, record.task) in board.odd else "",
        )
        for record in board.of(name)
    }
    per_second = median_cost(board, name, "macs_per_second")
    whole = last.cost.get("macs_superb")
    return Entry(
        origin="measured",
        suite=shown_suite(board),
        name=name,
        title=last.upstream["title"] or name,
        params=float(last.cost["params"]),
        scores=scores,
        macs=float(whole) if whole is not None else None,
        macs_rate=per_second / 1e9 if per_second is not None else None,
        teacher=last.upstream["teacher"] or "",
        facts=tuple(_facts(last)),
    )


def _facts(record: Record) -> Iterable[tuple[str, str]]:
    """What the detail page says of a measured upstream."""
    upstream, cost = record.upstream, record.cost
    yield "family", upstream["family"]
    for what in ("depth", "width"):
        if upstream[what]:
            yield what, str(upstream[what])
    yield "states", f"{upstream['num_states']} of width {upstream['state_width']}, every {upstream['frame_ms']:g} ms"
    yield "exposes", upstream["exposes"]
    yield "licence", upstream["licence"]
    if cost["bytes_on_disk"]:
        yield "on disk", f"{cost['bytes_on_disk'] / 1e6:.1f} MB"
    if cost["real_time_factor"]:
        yield "real-time factor", f"{cost['real_time_factor']:.4f} on {condition(record)}"
    yield "fingerprint of the weights", upstream["fingerprint"]


def ranked(entries: Iterable[Entry]) -> list[Entry]:
    """The entries with the best and second best of each suite, origin and column marked (:mod:`leaderboards.ranking`).

    Older editions of a system's values and scores under other conditions than their column's are not ranked.
    """
    everything = list(entries)
    columns: dict[tuple[str, str, Column], dict[int, Shown]] = {}
    for place, entry in enumerate(everything):
        for where, score in entry.scores.items():
            if entry.ranked and not score.odd:
                shown = Shown(score.text, score.value, score.precision)
                columns.setdefault((entry.suite, entry.origin, where), {})[place] = shown
    found = {place: marks(shown, place[2].higher_is_better) for place, shown in columns.items()}
    return [
        replace(
            entry,
            scores={
                where: replace(score, mark=found.get((entry.suite, entry.origin, where), {}).get(place, ""))
                for where, score in entry.scores.items()
            },
        )
        for place, entry in enumerate(everything)
    ]


def sign_notes(shown: Iterable[Entry], where: Column) -> str:
    """What the signs of these scores mean, each sentence after a space; empty where there are none."""
    found = of_signs("".join(entry.scores[where].sign for entry in shown))
    return "".join(f" {mark.footnote}" for mark in found)


def mean_weights(record: Record) -> list[float]:
    """Layer weights of a record, mean over its seeds."""
    rows = record.layer_weights
    return [sum(row[i] for row in rows) / len(rows) for i in range(len(rows[0]))] if rows else []
