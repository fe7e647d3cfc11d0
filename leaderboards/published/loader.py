"""Reads the published rows into frozen dataclasses, strictly: an unknown field, source, mark or value is an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.interface import SlimbenchError
from harness.records import Record
from leaderboards import strict
from leaderboards.published.marks import MARKS, MEASURED, OF_KIND, PUBLISHED, Mark, Origin

FOLDER = Path(__file__).parent
ROWS = ("features", "pretrained", "wavlm", "compressed", "depth_width", "profiled", "not_recovered")
"""Files of rows, in the order of tables."""

STATUS = ("read", "not_recovered")
KINDS = (*OF_KIND, "none")
EDITIONS = ("leaderboard", "paper")
"""Generations of one system's values: the leaderboard's of today, and those that the first papers print."""

OLDER = "paper"
"""The edition whose values the leaderboard has replaced; shown, not ranked."""

RANKED = "Where a system has two editions of values, the leaderboard's is ranked and the paper's is only shown."
"""The sentence of captions."""

PRINTED = 0.005
"""Half of the last digit of the two decimals, in percent, that the sources print."""


@dataclass(frozen=True)
class Source:
    """Where values were read: a citation in one line, and an address where there is one."""

    name: str
    title: str
    url: str | None


@dataclass(frozen=True)
class Quantity:
    """A metric, size or score: ``group`` is ``metrics``, ``size`` or ``scores``; values lie in ``range``."""

    name: str
    group: str
    title: str
    unit: str
    what: str
    higher_is_better: bool
    range: tuple[float, float]

    def percent(self, value: float) -> float:
        """A metric's value in percent: what is a fraction is multiplied by 100, all others are in percent already."""
        return 100.0 * value if self.unit == "fraction" else value


@dataclass(frozen=True)
class Value:
    """A number that somebody else published, in the unit of its quantity; it can never be a :class:`Measured`.

    ``precision`` is the error of reading in the same unit, where the value was read off a plot.
    """

    quantity: Quantity
    value: float
    mark: Mark
    sources: tuple[Source, ...]
    precision: float | None = None

    @property
    def origin(self) -> Origin:
        """Published."""
        return PUBLISHED

    @property
    def shown(self) -> str:
        """A metric in percent with the two decimals that the sources print."""
        return f"{self.quantity.percent(self.value):.2f}"

    @property
    def doubt(self) -> float:
        """How far a metric may be off, in percent: the error of reading, else half of the last printed digit."""
        return PRINTED if self.precision is None else self.quantity.percent(self.precision)


@dataclass(frozen=True)
class Measured:
    """A number of one of our records, in percent, with its 95 % interval, the record's key and its suite."""

    name: str
    value: float
    ci95: tuple[float, float]
    key: str
    suite: str

    @property
    def origin(self) -> Origin:
        """Measured."""
        return MEASURED


@dataclass(frozen=True)
class Other:
    """Numbers beside the benchmark's own: what they are, how they reached us, and the values by name."""

    title: str
    mark: Mark
    source: Source
    values: Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """One published system. What no source prints is absent, never zero.

    Attributes:
        system: its name; generations of one system have names of their own.
        group: the file that it stands in, one of :data:`ROWS`.
        status: ``read``, or ``not_recovered`` where no score was found.
        source_kind: how far from its authors the source is; gives the values' marks.
        values: by name of quantity.
        cards: names of our cards of the same model, as it was scored where that is known.
        edition: of a system with several generations of values, see :data:`EDITIONS`; else ``None``.
        alternate_of: the row of which this is another set of values, e.g. ``FBANK``.
        layers, width, ffn: of the transformer, where a source says so.
        frame_ms: period of a frame.
    """

    system: str
    group: str
    status: str
    source_kind: str
    sources: tuple[Source, ...]
    values: Mapping[str, Value]
    cards: tuple[str, ...] = ()
    edition: str | None = None
    alternate_of: str | None = None
    teacher: str | None = None
    distill_hours: int | None = None
    distilled_by: str | None = None
    layers: int | None = None
    width: int | None = None
    ffn: int | None = None
    frame_ms: int | None = None
    other: tuple[Other, ...] = ()
    note: str = ""

    @property
    def origin(self) -> Origin:
        """Published."""
        return PUBLISHED

    @property
    def ranked(self) -> bool:
        """Whether it takes part in rankings: of two generations of one system's values only the newer does."""
        return self.edition != OLDER

    def value(self, name: str) -> float | None:
        """The number of that quantity, or ``None`` where none was found."""
        return self.values[name].value if name in self.values else None

    def metrics(self) -> dict[str, float]:
        """The task scores by name, in the units of their quantities."""
        return {name: v.value for name, v in self.values.items() if v.quantity.group == "metrics"}

    def marks(self) -> tuple[Mark, ...]:
        """The marks of its values, each once, strongest first."""
        found = {value.mark.name for value in self.values.values()}
        return tuple(mark for mark in MARKS.values() if mark.name in found)


@dataclass(frozen=True)
class Published:
    """Everything published: rows in the order of tables, quantities and sources by name."""

    rows: tuple[Row, ...]
    quantities: Mapping[str, Quantity]
    sources: Mapping[str, Source]

    def row(self, system: str) -> Row:
        """The row of that system.

        Raises:
            SlimbenchError: there is none.
        """
        for row in self.rows:
            if row.system == system:
                return row
        names = ", ".join(row.system for row in self.rows)
        raise SlimbenchError(f"No published row is called {system!r}: use one of {names}.")

    def listed(self) -> tuple[Row, ...]:
        """The rows without alternate sets of values (the old FBANK)."""
        return tuple(row for row in self.rows if row.alternate_of is None)


@cache
def published() -> Published:
    """The rows that come with this project."""
    return read(FOLDER)


def of_card(name: str) -> tuple[Row, ...]:
    """The published rows of the model that a card describes; several where it has several generations."""
    return tuple(row for row in published().rows if name in row.cards)


def measured_of(record: Record) -> dict[str, Measured]:
    """The main and secondary scores of a record, by ``<task>.<metric>``."""
    main = {"value": record.value, "ci95": record.ci95}
    found = {}
    for metric, entry in {record.metric: main, **record.secondary}.items():
        low, high = entry["ci95"]
        name = f"{record.task}.{metric}"
        found[name] = Measured(name, entry["value"], (low, high), record.key, record.suite)
    return found


def read(folder: Path) -> Published:
    """Read a folder of rows, quantities and sources.

    Raises:
        SlimbenchError: a file is missing or broken, or a row says what the files do not know.
    """
    quantities = _quantities(folder / "quantities.yaml")
    sources = _sources(folder / "sources.yaml")
    rows: list[Row] = []
    for group in ROWS:
        file = folder / f"{group}.yaml"
        listed = strict.items(strict.fields(strict.load(file), str(file), ("rows",))["rows"], f"{file}: rows")
        rows += [_row(value, f"{file}: row {n}", group, quantities, sources) for n, value in enumerate(listed, 1)]
    names = [row.system for row in rows]
    for row in rows:
        if names.count(row.system) > 1:
            raise SlimbenchError(f"{folder}: two rows are called {row.system!r}; rename one.")
        if row.alternate_of is not None and row.alternate_of not in names:
            raise SlimbenchError(f"{folder}: {row.system} is an alternate of {row.alternate_of!r}, which is no row.")
    return Published(tuple(rows), MappingProxyType(quantities), MappingProxyType(sources))


def _quantities(file: Path) -> dict[str, Quantity]:
    found = {}
    for group, listed in strict.fields(strict.load(file), str(file), ("metrics", "size", "scores")).items():
        for name, value in strict.mapping(listed, f"{file}: {group}").items():
            where = f"{file}: {name}"
            entry = strict.fields(value, where, ("title", "unit", "what", "better", "range"))
            low, high = [strict.number(v, f"{where}: range") for v in strict.items(entry["range"], where)]
            higher = strict.choice(entry["better"], f"{where}: better", ("lower", "higher")) == "higher"
            words = [strict.text(entry[key], f"{where}: {key}") for key in ("title", "unit", "what")]
            found[name] = Quantity(name, group, words[0], words[1], words[2], higher, (low, high))
    return found


def _sources(file: Path) -> dict[str, Source]:
    found = {}
    for name, value in strict.load(file).items():
        entry = strict.fields(value, f"{file}: {name}", ("title", "url"))
        url = entry["url"]
        if url is not None and not strict.text(url, f"{file}: {name}: url").startswith("https://"):
            raise SlimbenchError(f"{file}: the address of {name} must begin with https://; correct it.")
        found[name] = Source(name, strict.text(entry["title"], f"{file}: {name}: title"), url)
    return found


_REQUIRED = ("system", "status", "source_kind", "sources")
_TEXTS = ("alternate_of", "teacher", "distilled_by", "note")
_COUNTS = ("distill_hours", "frame_ms")
_GROUPS = ("size", "metrics", "scores")
_FURTHER = ("edition", "cards", "shape", "value_sources", "marks", "precision", "other")


def _row(value: Any, where: str, group: str, quantities: Mapping[str, Quantity], sources: Mapping[str, Source]) -> Row:
    entry = strict.fields(value, where, _REQUIRED, (*_TEXTS, *_COUNTS, *_GROUPS, *_FURTHER))
    where = f"{where} ({strict.text(entry['system'], f'{where}: system')})"
    facts: dict[str, Any] = {name: strict.text(entry[name], f"{where}: {name}") for name in _TEXTS if name in entry}
    facts |= {name: strict.whole(entry[name], f"{where}: {name}") for name in _COUNTS if name in entry}
    shape = strict.fields(entry.get("shape", {}), f"{where}: shape", (), ("layers", "width", "ffn"))
    facts |= {name: strict.whole(size, f"{where}: {name}") for name, size in shape.items()}
    if "edition" in entry:
        facts["edition"] = strict.choice(entry["edition"], f"{where}: edition", EDITIONS)
    cards = tuple(strict.text(c, f"{where}: cards") for c in strict.items(entry.get("cards", []), f"{where}: cards"))
    used = [strict.choice(s, f"{where}: sources", sources) for s in strict.items(entry["sources"], f"{where}: sources")]
    if not used:
        raise SlimbenchError(f"{where}: there is no source; name one.")
    status = strict.choice(entry["status"], f"{where}: status", STATUS)
    values = _values(entry, where, [sources[name] for name in used], quantities, sources)
    if status == "not_recovered" and any(v.quantity.group != "size" for v in values.values()):
        raise SlimbenchError(f"{where}: the status is not_recovered, but there are scores; correct one of them.")
    return Row(
        system=entry["system"],
        group=group,
        status=status,
        source_kind=strict.choice(entry["source_kind"], f"{where}: source_kind", KINDS),
        sources=tuple(sources[name] for name in used),
        values=MappingProxyType(values),
        cards=cards,
        other=tuple(_other(o, f"{where}: other", sources) for o in strict.items(entry.get("other", []), where)),
        **facts,
    )


def _values(
    entry: Mapping[str, Any],
    where: str,
    used: list[Source],
    quantities: Mapping[str, Quantity],
    sources: Mapping[str, Source],
) -> dict[str, Value]:
    """The numbers of a row, each with its mark and sources."""
    usual = OF_KIND.get(strict.choice(entry["source_kind"], f"{where}: source_kind", KINDS))
    marks = strict.mapping(entry.get("marks", {}), f"{where}: marks")
    origins = strict.mapping(entry.get("value_sources", {}), f"{where}: value_sources")
    precision = strict.number(entry["precision"], f"{where}: precision", low=0) if "precision" in entry else None
    found: dict[str, Value] = {}
    for group in _GROUPS:
        known = {name: quantity for name, quantity in quantities.items() if quantity.group == group}
        for name, value in strict.fields(entry.get(group, {}), f"{where}: {group}", (), known).items():
            mark = marks.get(name, usual)
            if mark is None:
                raise SlimbenchError(f"{where}: {name} has a value but no mark and no kind of source; add one.")
            own = (
                [sources[strict.choice(origins[name], f"{where}: value_sources", sources)]] if name in origins else used
            )
            chosen = MARKS[strict.choice(mark, f"{where}: marks", MARKS)]
            number = strict.number(value, f"{where}: {name}", *known[name].range)
            error = precision if chosen.name == "digitised" and group == "metrics" else None
            found[name] = Value(known[name], number, chosen, tuple(own), error)
    for name in {*marks, *origins} - set(found):
        raise SlimbenchError(f"{where}: {name} has a mark or a source, but no value; remove it.")
    return found


def _other(value: Any, where: str, sources: Mapping[str, Source]) -> Other:
    entry = strict.fields(value, where, ("title", "mark", "source", "values"))
    numbers = strict.mapping(entry["values"], f"{where}: values")
    return Other(
        title=strict.text(entry["title"], f"{where}: title"),
        mark=MARKS[strict.choice(entry["mark"], f"{where}: mark", MARKS)],
        source=sources[strict.choice(entry["source"], f"{where}: source", sources)],
        values=MappingProxyType({name: strict.number(v, f"{where}: {name}") for name, v in numbers.items()}),
    )
