"""Overall scores: superb_s, the mean of eleven, and any other weighting that a YAML file under ``weights/`` defines.

Every scale is a line per metric, so a weighting is: which metrics, where each scale is 0 and 1 (or 1000), which
weights, and what happens where a metric is missing. A missing metric is never passed over in silence: the score is
refused, or its name says how many metrics it covers, or the file says that it counts 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.interface import SlimbenchError
from harness.metrics import metric as harness_metric
from harness.records import Record
from leaderboards import strict
from leaderboards.published import Row, published

FOLDER = Path(__file__).parent / "weights"
SCALES = ("points", "percent", "zscore")
MISSING = ("refuse", "omit", "zero")
FULL = 1000.0
"""What a metric at its ``full`` reference point counts on the scale ``points``."""

Floats = NDArray[np.float64]
Table = Mapping[str, Mapping[str, float]]
"""Scores in percent by system, then by metric (``<task>.<metric>``)."""


@dataclass(frozen=True)
class Group:
    """A task of a weighting: its weight, and its metrics with reference points (empty off the scale ``points``)."""

    weight: float
    metrics: Mapping[str, tuple[float, float] | None]


@dataclass(frozen=True)
class Reference:
    """Systems of the board whose own scores are the points 0 and 1000; ``least_gap`` in percent between them."""

    zero: str
    full: str
    least_gap: float


@dataclass(frozen=True)
class Weighting:
    """A way to make one number of many.

    Attributes:
        name: of its file; ``title`` in tables.
        about: what it is, in a sentence or two; ``source`` where it comes from.
        data: ``published``, ``measured`` or ``any``: which values it may be given.
        scale: ``points`` (1000 (x - zero) / (full - zero)), ``percent`` (x, or 100 - x for errors), ``zscore``.
        missing: ``refuse`` (no score), ``omit`` (the rest is weighted, the name says so), ``zero`` (counts 0).
        groups: by task; a task is the plain mean of its metrics.
        reference: systems that give the reference points, instead of numbers in the groups.
        unused: further reference points that the source states.
    """

    name: str
    title: str
    about: str
    source: str
    data: str
    scale: str
    unit: str
    digits: int
    missing: str
    groups: Mapping[str, Group]
    reference: Reference | None
    unused: Mapping[str, tuple[float, float]]

    def metrics(self) -> tuple[str, ...]:
        """All metrics, in the order of the groups."""
        return tuple(name for group in self.groups.values() for name in group.metrics)


@dataclass(frozen=True)
class Line:
    """A metric's scale: ``(x - offset) * slope``, up is better."""

    offset: float
    slope: float


@dataclass(frozen=True)
class Score:
    """One system's overall score.

    Attributes:
        name: the weighting's title; where metrics are left out, with the number of those that are in.
        value: ``None`` where it was refused.
        used: metrics in the score. Scores of different ``used`` must not be ranked against each other.
        missing: the other metrics, each with the reason.
    """

    name: str
    value: float | None
    used: tuple[str, ...]
    missing: Mapping[str, str]
    digits: int

    @property
    def text(self) -> str:
        """The value as printed; a dash where there is none."""
        return "–" if self.value is None else f"{round(self.value, self.digits) + 0.0:.{self.digits}f}"


def names() -> list[str]:
    """The weightings that come with this project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@cache
def weighting(name: str) -> Weighting:
    """A weighting of this project by name, or any by the path of its file (``….yaml``).

    Raises:
        SlimbenchError: there is none, or the file is wrong.
    """
    if name.endswith((".yaml", ".yml")):
        return read(Path(name))
    return read(FOLDER / f"{strict.choice(name, 'The weighting', names())}.yaml")


def scores(how: Weighting, table: Table) -> dict[str, Score]:
    """The score of every system of a board.

    Args:
        how: the weighting.
        table: scores in percent by system and metric; what is missing is absent.

    Returns:
        One score per system, in the order of ``table``; ``value`` is ``None`` where it had to be refused.
    """
    found, closed = lines(how, table)
    return {system: _score(how, values, found, closed) for system, values in table.items()}


def lines(how: Weighting, table: Table) -> tuple[dict[str, Line], dict[str, str]]:
    """The scale of each metric on this board, and why metrics without a scale have none."""
    found: dict[str, Line] = {}
    closed: dict[str, str] = {}
    for group in how.groups.values():
        for name, points in group.metrics.items():
            line = _line(how, name, points, table)
            if isinstance(line, Line):
                found[name] = line
            else:
                closed[name] = line
    return found, closed


def combine(how: Weighting, values: Mapping[str, Floats], scale: Mapping[str, Line]) -> Floats:
    """The weighted mean over all metrics in ``values``, element by element; all arrays have one shape.

    Metrics of the weighting that are not in ``values`` take no part: the caller answers for them.
    """
    total, weights = np.zeros(1), 0.0
    for group in how.groups.values():
        parts = [(values[n] - scale[n].offset) * scale[n].slope for n in group.metrics if n in values]
        if parts:
            total = total + group.weight * np.mean(parts, axis=0)
            weights += group.weight
    return np.asarray(total / weights, dtype=np.float64)


def published_table(rows: Iterable[Row]) -> dict[str, dict[str, float]]:
    """Task scores of published rows in percent, by system."""
    return {
        row.system: {n: v.quantity.percent(v.value) for n, v in row.values.items() if v.quantity.group == "metrics"}
        for row in rows
    }


def score_published(how: Weighting, rows: Iterable[Row]) -> dict[str, Score]:
    """The scores of published rows, by system.

    Raises:
        SlimbenchError: the weighting is for measured values.
    """
    _check_data(how, "published")
    return scores(how, published_table(rows))


def score_records(how: Weighting, records: Iterable[Record]) -> dict[str, Score]:
    """The scores of measured upstreams, by name; the records are those of one board.

    Raises:
        SlimbenchError: the weighting is for published values (as superb_s is), or records of one upstream and task
            occur twice, or suites are mixed.
    """
    _check_data(how, "measured")
    listed = list(records)
    suites = sorted({record.suite for record in listed})
    if len(suites) > 1:
        raise SlimbenchError(f"Records of several suites ({', '.join(suites)}) have no common score; give one.")
    table: dict[str, dict[str, float]] = {}
    for record in listed:
        row = table.setdefault(record.upstream["name"], {})
        for metric, value in [(record.metric, record.value), *((n, e["value"]) for n, e in record.secondary.items())]:
            name = f"{record.task}.{metric}"
            if name in row:
                raise SlimbenchError(f"{record.upstream['name']} has two records of {record.task}; give one of them.")
            row[name] = value
    return scores(how, table)


def higher_is_better(name: str) -> bool:
    """The direction of a metric ``<task>.<metric>``."""
    known = published().quantities
    return known[name].higher_is_better if name in known else harness_metric(name.rpartition(".")[2]).higher_is_better


def _check_data(how: Weighting, given: str) -> None:
    if how.data not in (given, "any"):
        raise SlimbenchError(
            f"{how.title} is a score of {how.data} values, these are {given}: use another weighting, for instance "
            f"{', '.join(n for n in names() if weighting(n).data in (given, 'any'))}."
        )


def _line(how: Weighting, name: str, points: tuple[float, float] | None, table: Table) -> Line | str:
    """The scale of a metric, or why there is none."""
    if how.scale == "percent":
        return Line(0.0, 1.0) if higher_is_better(name) else Line(100.0, -1.0)
    if how.scale == "zscore":
        there = [values[name] for values in table.values() if name in values]
        spread = float(np.std(there)) if there else 0.0
        if spread == 0.0:
            return "all systems of the board score the same"
        return Line(float(np.mean(there)), (1.0 if higher_is_better(name) else -1.0) / spread)
    if how.reference is not None:
        ends = [table.get(system, {}).get(name) for system in (how.reference.zero, how.reference.full)]
        if ends[0] is None or ends[1] is None:
            return f"not measured for both {how.reference.zero} and {how.reference.full}"
        gap = (ends[1] - ends[0]) * (1.0 if higher_is_better(name) else -1.0)
        if gap < how.reference.least_gap:
            least = f"{how.reference.least_gap:g}"
            return f"{how.reference.full} is not at least {least} points better than {how.reference.zero}"
        points = (ends[0], ends[1])
    if points is None:
        raise SlimbenchError(f"The weighting {how.name} has no reference points for {name}; add them.")
    return Line(points[0], FULL / (points[1] - points[0]))


def _score(how: Weighting, values: Mapping[str, float], found: Mapping[str, Line], closed: Mapping[str, str]) -> Score:
    missing = {
        name: closed.get(name, "not there") for name in how.metrics() if name in closed or values.get(name) is None
    }
    used = tuple(name for name in how.metrics() if name not in missing)
    if not used or (missing and how.missing == "refuse"):
        return Score(how.title, None, used, MappingProxyType(missing), how.digits)
    given = {name: np.asarray([values[name]], dtype=np.float64) for name in used}
    title = how.title
    if missing and how.missing == "zero":
        title = f"{how.title} ({len(missing)} of {len(how.metrics())} metrics missing, counted 0)"
        given |= {name: np.asarray([found[name].offset]) for name in missing if name in found}
        if set(missing) & set(closed):
            return Score(how.title, None, used, MappingProxyType(missing), how.digits)
    elif missing:
        title = f"{how.title} over {len(used)} of {len(how.metrics())} metrics"
    value = float(combine(how, given, found)[0])
    return Score(title, value, used, MappingProxyType(missing), how.digits)


_REQUIRED = ("name", "title", "about", "source", "data", "scale", "unit", "digits", "missing", "groups")


def read(file: Path) -> Weighting:
    """Read and check a weighting.

    Raises:
        SlimbenchError: a field is unknown, missing or wrong; the message says which.
    """
    entry = strict.fields(strict.load(file), str(file), _REQUIRED, ("reference", "unused"))
    words = {name: strict.text(entry[name], f"{file}: {name}") for name in ("name", "title", "about", "source", "unit")}
    data = strict.choice(entry["data"], f"{file}: data", ("published", "measured", "any"))
    scale = strict.choice(entry["scale"], f"{file}: scale", SCALES)
    missing = strict.choice(entry["missing"], f"{file}: missing", MISSING)
    if words["name"] != file.stem:
        raise SlimbenchError(f"{file}: the name {words['name']!r} is not that of the file; make them equal.")
    if data != "published" and any("superb" in words[name].lower() for name in ("name", "title")):
        raise SlimbenchError(f"{file}: only a score of published values may have superb in its name; rename it.")
    if missing == "zero" and scale == "zscore":
        raise SlimbenchError(f"{file}: 0 is the mean of the board on the scale zscore; let missing be refuse or omit.")
    digits = strict.number(entry["digits"], f"{file}: digits", 0, 9)
    reference = _reference(entry["reference"], str(file)) if "reference" in entry else None
    if reference is not None and scale != "points":
        raise SlimbenchError(f"{file}: reference systems belong to the scale points; remove them.")
    numbers = scale == "points" and reference is None
    groups = {
        name: _group(value, f"{file}: {name}", numbers)
        for name, value in strict.mapping(entry["groups"], f"{file}: groups").items()
    }
    listed = [metric for group in groups.values() for metric in group.metrics]
    if not listed or len(set(listed)) < len(listed):
        raise SlimbenchError(f"{file}: a weighting has metrics, and each of them once; correct the groups.")
    unused = {n: _points(v, f"{file}: {n}") for n, v in strict.mapping(entry.get("unused", {}), str(file)).items()}
    return Weighting(
        **words,
        data=data,
        scale=scale,
        digits=int(digits),
        missing=missing,
        groups=MappingProxyType(groups),
        reference=reference,
        unused=MappingProxyType(unused),
    )


def _reference(value: Any, where: str) -> Reference:
    entry = strict.fields(value, f"{where}: reference", ("zero", "full", "least_gap"))
    ends = [strict.text(entry[name], f"{where}: reference: {name}") for name in ("zero", "full")]
    gap = strict.number(entry["least_gap"], f"{where}: least_gap", low=math.ulp(0.0))
    return Reference(ends[0], ends[1], gap)


def _group(value: Any, where: str, numbers: bool) -> Group:
    entry = strict.fields(value, where, ("weight", "metrics"))
    weight = strict.number(entry["weight"], f"{where}: weight", low=math.ulp(0.0))
    metrics: dict[str, tuple[float, float] | None] = {}
    for name, points in strict.mapping(entry["metrics"], f"{where}: metrics").items():
        if numbers:
            zero, full = metrics[name] = _points(points, f"{where}: {name}")
            if (full > zero) != higher_is_better(name):
                raise SlimbenchError(f"{where}: the full point of {name} must be better than its zero; correct them.")
        else:
            strict.fields(points, f"{where}: {name}", ())
            higher_is_better(name)
            metrics[name] = None
    return Group(weight, MappingProxyType(metrics))


def _points(value: Any, where: str) -> tuple[float, float]:
    entry = strict.fields(value, where, ("zero", "full"))
    zero, full = (strict.number(entry[name], f"{where}: {name}") for name in ("zero", "full"))
    if zero == full:
        raise SlimbenchError(f"{where}: zero and full are equal; correct them.")
    return zero, full
