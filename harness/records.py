"""Records: the only durable output of a bench. Immutable JSON files, written atomically, checked when read.

A record lies at ``<results>/<suite>/<upstream>/<task>-<first 12 of its key>.json``. The file holds, besides the
record's fields, a ``digest``: SHA-256 over the canonical JSON of all other fields, so that an edited digit is noticed.
Top-level fields and predictions stand on lines of their own, so that the file can be read and searched as text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from harness import atomic
from harness.identity import digest_json
from harness.interface import Row, SlimbenchError
from harness.record_schema import SCHEMA, problems

_NAME = re.compile(r"[^\s./\\:*?\"<>|\x00-\x1f][^/\\:*?\"<>|\x00-\x1f]*")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One upstream on one task of one suite under one protocol.

    Attributes:
        key: content key of the run (what it depends on, not what came out).
        created: time of creation, ISO 8601 in UTC.
        suite: name of the suite, and digest of its content where it declares one.
        upstream: identity of the upstream: name, title, fingerprint, family, depth, width, teacher, licence,
            method (where the card states one), num_states, state_width, frame_ms, exposes.
        metric: main metric; ``value`` is its mean over seeds in percent, ``ci95`` the bootstrap interval of that.
        n_test: scored test rows per seed (utterances, or trials in verification).
        secondary: further metrics by name, each ``{"value", "ci95"}``.
        learning_rate: the rate that dev chose; ``seeds`` those scored on test.
        trials: each ``{learning_rate, seed, dev, best_step, curve, diverged}``; ``dev`` is null where it diverged.
        layer_weights: softmaxed weights per seed of the chosen rate, (seeds, L).
        protocol: the training protocol as used.
        data: number of utterances per split, and the digest of the manifest.
        predictions: rows as scored, by seed.
        cost: params (of the exposed module), head_params, params_with_head; parameter_bytes (of the exposed module, in
            the precision that it runs in), bytes_on_disk (of the weight files); macs_per_second (of audio, at 10 s),
            macs_superb (G over SUPERB's 32 utterances) and its buckets macs_superb_short, _medium, _long, _longer,
            macs_counted (on ``shapes``, or in ``passes`` over noise); real_time_factor (seconds of compute per second
            of audio, median of 5 after a warm-up, 10 s); peak_memory_mb (of a process that loads the card and encodes
            10 s) and idle_memory_mb (of that process before); device, threads. Records without idle_memory_mb have the
            high-water mark of the whole bench as peak_memory_mb, and none of the other newer fields.
        features: encoded_seconds, distinct_seconds and their ratio.
        seconds: wall time per stage.
        provenance: versions of code and packages, platform.
        notes: what a reader must know, e.g. of converted audio.
    """

    schema: int = SCHEMA
    key: str
    created: str
    suite: str
    suite_digest: str | None
    upstream: Mapping[str, Any]
    task: str
    metric: str
    value: float
    ci95: list[float]
    n_test: int
    values_per_seed: list[float]
    secondary: Mapping[str, Mapping[str, Any]]
    learning_rate: float
    seeds: list[int]
    trials: list[dict[str, Any]]
    layer_weights: list[list[float]]
    protocol: Mapping[str, Any]
    data: Mapping[str, Any]
    predictions: Mapping[str, list[Row]]
    cost: Mapping[str, Any]
    features: Mapping[str, float]
    seconds: Mapping[str, float]
    provenance: Mapping[str, Any]
    notes: list[str]


def payload(record: Record) -> dict[str, Any]:
    """The record as plain JSON values, in field order. A diverged trial's non-finite scores become null.

    Raises:
        SlimbenchError: where a value is not JSON or does not fit the schema.
    """
    content = {field.name: getattr(record, field.name) for field in fields(Record)}
    content["trials"] = [_finite_trial(trial) for trial in record.trials]
    try:
        plain: dict[str, Any] = json.loads(json.dumps(content, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise SlimbenchError(
            f"The record of {_what(record)} cannot be written as JSON ({error}): report it."
        ) from error
    for problem in problems(plain):
        raise SlimbenchError(f"The record of {_what(record)} cannot be saved: {problem}; report it.")
    return plain


def digest(record: Record) -> str:
    """SHA-256 of the record's canonical JSON, as it stands in the file."""
    return digest_json(payload(record))


def path_of(results: Path, suite: str, upstream: str, task: str, key: str) -> Path:
    """Where a record lies under ``results``.

    Raises:
        SlimbenchError: where a name cannot be a folder's name.
    """
    for what, name in (("suite", suite), ("upstream", upstream), ("task", task), ("key", key)):
        if not _NAME.fullmatch(name):
            raise SlimbenchError(f"The {what} name {name!r} cannot name a file: use letters, digits, _ and - only.")
    return results / suite / upstream / f"{task}-{key[:12]}.json"


def save(record: Record, results: Path) -> Path:
    """Write a record once; it is never changed afterwards. Saving the same content again does nothing.

    The file appears whole or not at all: it is written beside its place, flushed to disk, then renamed.

    Raises:
        SlimbenchError: where another content already lies under the record's key.
    """
    path = path_of(results, record.suite, record.upstream["name"], record.task, record.key)
    whole = text(record)
    if path.exists():
        if digest(load(path)) == digest(record):
            return path
        raise SlimbenchError(f"{path} holds another result under this key and records never change: delete it first.")
    atomic.write(path, whole.encode(), read_only=True)
    return path


def text(record: Record) -> str:
    """The content of a record's file: its fields as JSON, sealed with their digest."""
    plain = payload(record)
    return _text({**plain, "digest": digest_json(plain)})


def load(path: Path) -> Record:
    """Read and check one record.

    Raises:
        SlimbenchError: where the file is missing, broken, edited, or of another schema.
    """
    try:
        plain = json.loads(
            path.read_text(encoding="utf-8"), parse_constant=_number, parse_float=_number, object_pairs_hook=_once
        )
        seal = plain.pop("digest", None) if isinstance(plain, dict) else None
        derived = digest_json(plain)  # here, because a text with half of a character has none
    except OSError as error:
        raise SlimbenchError(f"{path} cannot be read ({error.strerror}): check path and permissions.") from error
    except (ValueError, RecursionError) as error:
        raise SlimbenchError(f"{path} is not whole JSON ({error}): {_REMEDY}") from error
    for problem in problems(plain):
        raise SlimbenchError(f"{path} is not a record: {problem}; {_REMEDY}")
    if seal != derived:
        raise SlimbenchError(f"{path} was changed after it was written (its digest does not match): {_REMEDY}")
    return Record(**plain)


def load_all(results: Path) -> list[Record]:
    """All records under a results folder, in the order of their paths; an absent folder holds none.

    Raises:
        SlimbenchError: for the first broken or misplaced file.
    """
    records = []
    for path in sorted(results.glob("*/*/*.json")):
        if any(part.startswith(".") for part in path.relative_to(results).parts):
            continue
        record = load(path)
        home = path_of(results, record.suite, record.upstream["name"], record.task, record.key)
        if path != home:
            raise SlimbenchError(f"{path} holds the record that belongs at {home}: move it there or delete the copy.")
        records.append(record)
    return records


def find(results: Path, suite: str, upstream: str, task: str, key: str) -> Record | None:
    """The record of a run that is already done, or ``None``.

    Raises:
        SlimbenchError: where the file is broken, or holds another key.
    """
    path = path_of(results, suite, upstream, task, key)
    if not path.exists():
        return None
    record = load(path)
    if record.key != key:
        raise SlimbenchError(f"{path} holds the key {record.key}, not {key}: delete it and run again.")
    return record


def verify(record: Record) -> None:
    """Score the stored predictions again and compare with what the record says.

    Raises:
        SlimbenchError: where a value cannot be re-derived, saying which, what stands there and what comes out.
    """
    from harness.metrics import score

    rows = [record.predictions[str(seed)] for seed in record.seeds]
    again = [score(record.metric, items) for items in rows]
    pairs: list[tuple[str, float, float]] = [("n_test", record.n_test, len(items)) for items in rows]
    pairs += [(f"value of seed {s}", v, a) for s, v, a in zip(record.seeds, record.values_per_seed, again, strict=True)]
    pairs += [("value", record.value, _mean(again))]
    pairs += [
        (f"secondary {name}", entry["value"], _mean([score(name, items) for items in rows]))
        for name, entry in record.secondary.items()
    ]
    for what, stated, derived in pairs:
        if not math.isclose(stated, derived, rel_tol=1e-9, abs_tol=1e-9):
            raise SlimbenchError(
                f"The record of {_what(record)} states {what} = {stated}, but its predictions give {derived}: "
                "delete it and run the bench again."
            )


def summary(record: Record) -> dict[str, Any]:
    """The record without its bulk, as ``results --json`` lists it. ``seconds`` leaves shared extraction out."""
    return {
        "key": record.key,
        "created": record.created,
        "suite": record.suite,
        "upstream": record.upstream["name"],
        "task": record.task,
        "metric": record.metric,
        "value": record.value,
        "ci95": list(record.ci95),
        "values_per_seed": list(record.values_per_seed),
        "secondary": {name: dict(entry) for name, entry in record.secondary.items()},
        "n_test": record.n_test,
        "learning_rate": record.learning_rate,
        "seeds": list(record.seeds),
        "params_m": record.cost["params"] / 1e6,
        "encoded_over_distinct": record.features["encoded_over_distinct"],
        "seconds": own_seconds(record),
        "seconds_per_stage": dict(record.seconds),
        "notes": list(record.notes),
    }


def own_seconds(record: Record) -> float:
    """Seconds that this record took by itself; extraction is shared with other tasks and left out."""
    return sum(seconds for stage, seconds in record.seconds.items() if stage != "extract")


_REMEDY = "restore the file, or delete it and run the bench again."


def _what(record: Record) -> str:
    return f"{record.upstream.get('name')} on {record.task} ({record.suite})"


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)


def _finite_trial(trial: Mapping[str, Any]) -> dict[str, Any]:
    """A trial with null for non-finite dev scores, if it is marked as diverged."""
    if not trial.get("diverged"):
        return dict(trial)
    curve = [[step, _finite(value)] for step, value in trial["curve"]]
    return {**trial, "dev": _finite(trial["dev"]), "curve": curve}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _number(text: str) -> float:
    """A number of a file, which must be finite: ``NaN`` and ``1e999`` are none."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a finite number")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a file; of two fields of one name only the last would be seen and sealed."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field occurs twice in one object")
    return found


def _text(plain: Mapping[str, Any]) -> str:
    """JSON with one top-level field, one trial and one prediction per line."""
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {_lines(value)}" for name, value in plain.items()) + "\n}\n"


def _lines(value: Any) -> str:
    compact = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(_lines(item) for item in value) + "\n]"
    if isinstance(value, dict) and value and all(isinstance(item, list) for item in value.values()):
        return "{\n" + ",\n".join(f"{json.dumps(name)}: {_lines(item)}" for name, item in value.items()) + "\n}"
    return compact
