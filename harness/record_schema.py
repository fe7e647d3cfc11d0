"""What a record must hold, field by field, and the check of it. Plain data: no model, task or suite by name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.superb_lengths import BUCKETS

SCHEMA = 1
"""Version of the record layout; a reader refuses any other."""


_LARGEST = sys.float_info.max


@dataclass(frozen=True)
class Kind:
    """One kind of JSON value: how it is called in messages, and whether a value is one."""

    title: str
    holds: Callable[[Any], bool]


def _number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -_LARGEST <= value <= _LARGEST  # compared, since a whole number of 400 digits is no float


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_number, value)) and value[0] <= value[1]


def _optional(kind: Kind) -> Kind:
    return Kind(f"{kind.title} or null", lambda value: value is None or kind.holds(value))


def _list_of(kind: Kind, least: int = 0) -> Kind:
    title = f"a list of {kind.title}" + (f" with at least {least} item" if least else "")
    return Kind(
        title, lambda value: isinstance(value, list) and len(value) >= least and all(kind.holds(v) for v in value)
    )


STR = Kind("text", lambda value: isinstance(value, str))
NAME = Kind("a non-empty text", lambda value: isinstance(value, str) and bool(value))
INT = Kind("a whole number", _integer)
COUNT = Kind("a whole number ≥ 0", lambda value: _integer(value) and value >= 0)
BOOL = Kind("true or false", lambda value: isinstance(value, bool))
NUM = Kind("a finite number", _number)
DICT = Kind("an object", lambda value: isinstance(value, dict))
INTERVAL = Kind("two numbers, low then high", _interval)
CURVE = Kind(
    "a list of [step, dev score] pairs",
    lambda value: (
        isinstance(value, list)
        and all(
            isinstance(p, list) and len(p) == 2 and _integer(p[0]) and (p[1] is None or _number(p[1])) for p in value
        )
    ),
)

Spec = Kind | Mapping[str, Any]
"""A kind, or an object's required keys. Objects may hold further keys; the record itself may not."""


@dataclass(frozen=True)
class Later:
    """A key that records of this schema have had since some day only: checked where it is there."""

    kind: Kind


EACH = "*"
"""In an object's spec: every value of the object; ``[spec]`` is a list of it."""

RECORD: dict[str, Any] = {
    "schema": INT,
    "key": NAME,
    "created": NAME,
    "suite": NAME,
    "suite_digest": _optional(STR),
    "upstream": {
        "name": NAME,
        "title": STR,
        "fingerprint": NAME,
        "family": STR,
        "depth": _optional(INT),
        "width": _optional(INT),
        "teacher": _optional(STR),
        "method": Later(STR),
        "licence": STR,
        "num_states": COUNT,
        "state_width": COUNT,
        "frame_ms": NUM,
        "exposes": STR,
    },
    "task": NAME,
    "metric": NAME,
    "value": NUM,
    "ci95": INTERVAL,
    "n_test": COUNT,
    "values_per_seed": _list_of(NUM, least=1),
    "secondary": {EACH: {"value": NUM, "ci95": INTERVAL}},
    "learning_rate": NUM,
    "seeds": _list_of(INT, least=1),
    "trials": [
        {
            "learning_rate": NUM,
            "seed": INT,
            "dev": _optional(NUM),
            "best_step": _optional(INT),
            "curve": CURVE,
            "diverged": BOOL,
        }
    ],
    "layer_weights": _list_of(_list_of(NUM, least=1)),
    "protocol": DICT,
    "data": {"train": COUNT, "dev": COUNT, "test": COUNT, "manifest_digest": STR},
    "predictions": {EACH: [DICT]},
    "cost": {
        "params": COUNT,
        "head_params": COUNT,
        "params_with_head": COUNT,
        "parameter_bytes": Later(COUNT),
        "macs_per_second": _optional(NUM),
        **{name: Later(_optional(NUM)) for name in ("macs_superb", *(f"macs_superb_{bucket}" for bucket in BUCKETS))},
        "macs_counted": Later(_optional(STR)),
        "bytes_on_disk": _optional(NUM),
        "real_time_factor": _optional(NUM),
        "peak_memory_mb": _optional(NUM),
        "idle_memory_mb": Later(_optional(NUM)),
        "device": STR,
        "threads": _optional(INT),
    },
    "features": {
        "encoded_seconds": NUM,
        "distinct_seconds": NUM,
        "encoded_over_distinct": NUM,
        "streamed_seconds": Later(NUM),
    },
    "seconds": {EACH: NUM},
    "provenance": DICT,
    "notes": _list_of(STR),
}


def problems(payload: Any) -> Iterator[str]:
    """What is wrong with the JSON content of a record (without its digest), worst first; nothing if it is whole."""
    if not isinstance(payload, dict):
        yield "it is not an object"
        return
    version = payload.get("schema")
    if version != SCHEMA:
        yield f"its schema is {version!r}, this slimbench reads schema {SCHEMA}"
        return
    for name in payload:
        if name not in RECORD:
            yield f"it has an unknown field {name!r}"
    yield from _check(payload, RECORD, "")
    if not list(_check(payload, RECORD, "")):
        yield from _relations(payload)


def _check(value: Any, spec: Any, where: str) -> Iterator[str]:
    """Walk a value beside its spec and say where they part."""
    if isinstance(spec, Kind):
        if not spec.holds(value):
            yield f"field {where!r} is not {spec.title}"
    elif isinstance(spec, list):
        if not isinstance(value, list):
            yield f"field {where!r} is not a list"
            return
        for number, item in enumerate(value):
            yield from _check(item, spec[0], f"{where}[{number}]")
    elif not isinstance(value, dict):
        yield f"field {where!r} is not an object"
    else:
        wanted = {name: spec[EACH] for name in value} if EACH in spec else spec
        for name, inner in wanted.items():
            path = f"{where}.{name}" if where else name
            if name in value:
                yield from _check(value[name], inner.kind if isinstance(inner, Later) else inner, path)
            elif not isinstance(inner, Later):
                yield f"field {path!r} is missing"


def _relations(payload: Mapping[str, Any]) -> Iterator[str]:
    """What must hold between fields."""
    seeds = [str(seed) for seed in payload["seeds"]]
    if sorted(payload["predictions"]) != sorted(seeds):
        yield "its predictions are not those of its seeds"
    if len(payload["values_per_seed"]) != len(seeds):
        yield "it has not one value per seed"
    if payload["learning_rate"] not in [trial["learning_rate"] for trial in payload["trials"]]:
        yield "the chosen learning rate is not among its trials"
    for trial in payload["trials"]:
        if trial["dev"] is None and not trial["diverged"]:
            yield "a trial has no dev score and is not marked as diverged"
