"""Scores as the ``model-index`` block of a Hugging Face model card, and back.

One result per suite and task, one metric entry per number; ``args`` of a metric hold interval, seeds, rows and the key
of the record. Nothing is marked as verified: that mark is the hub's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from harness import plain_yaml
from harness.interface import SlimbenchError
from harness.metrics import METRICS
from harness.records import Record
from leaderboards.submissions.exchange.scores import Score, of_records

PREFIX = "slimbench/"
"""Begins the ``type`` of a data set that is a suite."""
MAX_BYTES = 2**20
_TYPES = {"asr": "automatic-speech-recognition", "pr": "automatic-speech-recognition"}
_CLASSIFICATION = "audio-classification"


def write(records: Sequence[Record]) -> str:
    """The front matter of a model card with the scores of one upstream's records.

    Raises:
        SlimbenchError: the records are of several upstreams, or there are none.
    """
    names = {record.upstream["name"] for record in records}
    if len(names) != 1:
        raise SlimbenchError("A model card is of one upstream: name one that has records.")
    results = []
    for record in records:
        metrics = [_metric(score) for score in of_records([record])]
        results.append(
            {
                "task": {"type": _TYPES.get(record.task, _CLASSIFICATION), "name": record.task},
                "dataset": {
                    "type": PREFIX + record.suite,
                    "name": f"slimbench {record.suite}",
                    "config": str(record.data.get("protocol", "own")),
                    "split": "test",
                    "revision": record.data["manifest_digest"],
                },
                "metrics": metrics,
            }
        )
    block = {"model-index": [{"name": names.pop(), "results": results}]}
    return f"---\n{yaml.safe_dump(block, sort_keys=False, allow_unicode=True, width=120)}---\n"


def _metric(score: Score) -> dict[str, Any]:
    args = {"low": score.low, "high": score.high, "n_test": score.n_test, "seeds": score.seeds, "record": score.key}
    return {"type": score.metric, "value": score.value, "name": METRICS[score.metric].title, "args": args}


def read(path: Path) -> tuple[list[Score], int]:
    """Scores on slimbench suites in a model card (``.md``) or a YAML file, and how many results were of other data.

    Raises:
        SlimbenchError: there is no such block, or it is not what it should be.
    """
    content = _load(path)
    index = content.get("model-index") if isinstance(content, dict) else None
    if not isinstance(index, list):
        raise SlimbenchError(f"{path}: there is no list called model-index in its front matter; add it.")
    found: list[Score] = []
    others = 0
    for model in index:
        for result in _listed(path, model, "results"):
            dataset, task = _part(path, result, "dataset"), _part(path, result, "task")
            kind = str(dataset.get("type", ""))
            if not kind.startswith(PREFIX):
                others += 1
                continue
            whose = (kind.removeprefix(PREFIX), str(dataset.get("config", "own")), str(model.get("name", "")))
            found += [_score(path, (*whose, str(task.get("name", ""))), m) for m in _listed(path, result, "metrics")]
    return found, others


def _load(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SlimbenchError(f"{path} has more than {MAX_BYTES:,} bytes: a model card is smaller.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SlimbenchError(f"{path} cannot be read ({error}); name a model card or a YAML file.") from error
    if path.suffix == ".md":
        parts = text.split("---\n", 2)
        if len(parts) < 3 or parts[0].strip():
            raise SlimbenchError(f"{path}: has no front matter between two lines of '---'; add it.")
        text = parts[1]
    text = "\n".join(line for line in text.splitlines() if line.rstrip() != "---")
    return plain_yaml.parse(text.encode(), str(path))


def _score(path: Path, whose: tuple[str, str, str, str], entry: Any) -> Score:
    metric, value = (entry.get("type"), entry.get("value")) if isinstance(entry, dict) else (None, None)
    if not isinstance(metric, str) or metric not in METRICS or not _number(value):
        raise SlimbenchError(
            f"{path}: a metric of {'/'.join(whose)} has type {metric!r} and value {value!r}; correct it."
        )
    args = entry.get("args")
    args = args if isinstance(args, dict) else {}
    ends = [float(args[name]) if _number(args.get(name)) else None for name in ("low", "high")]
    counts = [args[name] if isinstance(args.get(name), int) else None for name in ("n_test", "seeds")]
    return Score(*whose, metric, float(value), ends[0], ends[1], counts[0], counts[1], str(args.get("record", "")))


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _part(path: Path, holder: Any, name: str) -> Mapping[str, Any]:
    part = holder.get(name) if isinstance(holder, dict) else None
    if not isinstance(part, dict):
        raise SlimbenchError(f"{path}: a result in model-index has no {name}; add it.")
    return part


def _listed(path: Path, holder: Any, name: str) -> Iterable[Any]:
    part = holder.get(name) if isinstance(holder, dict) else None
    if not isinstance(part, list):
        raise SlimbenchError(f"{path}: an entry in model-index has no list of {name}; add it.")
    return part
