"""What must add up within a record: the choice on dev, layer weights, costs, ranges. Nothing here needs predictions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import pairwise, product
from typing import Any, TypeGuard

from harness.metrics import METRICS, Metric
from harness.records import Record
from leaderboards.submissions.findings import Finding, remark

_HEX = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(@[A-Za-z0-9][A-Za-z0-9_.-]*)?")
_BUCKETS = tuple(f"macs_superb_{bucket}" for bucket in ("short", "medium", "long", "longer"))


def findings(record: Record, where: str) -> Iterator[Finding]:
    """What cannot be, whatever the upstream, and what a reader should know."""
    for field, text in (*_names(record), *_choice(record), *_weights(record), *_costs(record), *_times(record)):
        yield Finding(where, field, text)
    if record.provenance.get("dirty"):
        yield remark(where, "provenance.dirty", "the code that made it had changes that no commit holds")


def _names(record: Record) -> Iterator[tuple[str, str]]:
    if not _HEX.fullmatch(record.key):
        yield "key", "it is not 64 hexadecimal digits"
    if not _HEX.fullmatch(record.upstream["fingerprint"]):
        yield "upstream.fingerprint", "it is not 64 hexadecimal digits"
    for field, name in (("upstream.name", record.upstream["name"]), ("suite", record.suite), ("task", record.task)):
        if not _NAME.fullmatch(name):
            yield field, f"{name!r} is not made of letters, digits, '_', '-' and '.'"
    try:
        aware = datetime.fromisoformat(record.created).tzinfo is not None
    except ValueError:
        aware = False
    if not aware:
        yield "created", f"{record.created!r} is no time in ISO 8601 with its zone"


def _choice(record: Record) -> Iterator[tuple[str, str]]:
    """The grid is whole, every dev score is one of its curve, and the chosen rate is the best on dev."""
    metric, rates = METRICS[record.metric], record.protocol.get("learning_rates")
    if not isinstance(rates, list) or not all(_number(rate) for rate in rates):
        yield "protocol.learning_rates", "it is no list of numbers"
        return
    for name in ("steps", "eval_every"):
        count = record.protocol.get(name)
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            yield f"protocol.{name}", f"it is {count!r}; it must be a whole number above 0"
            return
    folds = sorted({row["fold"] for rows in record.predictions.values() for row in rows if "fold" in row}) or [None]
    grid = sorted(product(map(float, rates), record.seeds, folds), key=repr)
    there = sorted(((t["learning_rate"], t["seed"], t.get("fold")) for t in record.trials), key=repr)
    if [tuple(trial) for trial in grid] != [(float(rate), seed, fold) for rate, seed, fold in there]:
        yield "trials", "they are not every learning rate with every seed once"
        return
    for number, trial in enumerate(record.trials):
        for field, text in _trial(trial, metric, record.protocol):
            yield f"trials[{number}].{field}", text
    best = _best_rate(record.trials, metric)
    if best != record.learning_rate:
        yield "learning_rate", f"it is {record.learning_rate:g}, but dev chooses {'none' if best is None else best}"


def _trial(trial: Mapping[str, Any], metric: Metric, protocol: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    steps = [step for step, _ in trial["curve"]]
    if any(a >= b for a, b in pairwise(steps)) or (steps and steps[0] < 1):
        yield "curve", "its updates do not rise"
    if any(value is not None and not _possible(metric, value) for _, value in trial["curve"]):
        yield "curve", f"it holds what cannot be a {metric.title}"
    if trial["diverged"] or trial["dev"] is None:
        return
    if not steps or steps[-1] != protocol["steps"]:
        yield "curve", f"it does not end after {protocol['steps']} updates"
    if any(step % protocol["eval_every"] for step in steps[:-1]):
        yield "curve", f"dev was not looked at every {protocol['eval_every']} updates"
    scores = [value for _, value in trial["curve"] if value is not None]
    if [trial["best_step"], trial["dev"]] not in trial["curve"]:
        yield "dev", "dev and best_step are no point of the curve"
    elif protocol.get("choose", "best") == "best":
        if any(metric.better(value, trial["dev"]) for value in scores):
            yield "dev", "it is not the best of its curve"
        if next(step for step, value in trial["curve"] if value == trial["dev"]) != trial["best_step"]:
            yield "best_step", "it is not the first with that score"


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _best_rate(trials: list[dict[str, Any]], metric: Metric) -> float | None:
    """The rate with the best mean on dev; of equal ones the lowest; one with a diverged seed cannot win."""
    rates: dict[float, list[float | None]] = {}
    for trial in sorted(trials, key=lambda t: (t["learning_rate"], t["seed"])):
        rates.setdefault(trial["learning_rate"], []).append(trial["dev"])
    sign = -1.0 if metric.higher_is_better else 1.0
    means = {
        rate: sign * math.fsum(x for x in scores if x is not None) / len(scores)
        for rate, scores in rates.items()
        if None not in scores
    }
    return min(means, key=lambda rate: (means[rate], rate)) if means else None


def _possible(metric: Metric, value: float) -> bool:
    """Accuracies and equal error rates are shares; other error rates may exceed 100."""
    bounded = metric.higher_is_better or metric.name.startswith("eer")
    return 0 <= value <= (100 if bounded else math.inf)


def _weights(record: Record) -> Iterator[tuple[str, str]]:
    for number, weights in enumerate(record.layer_weights):
        if len(weights) != record.upstream["num_states"]:
            yield f"layer_weights[{number}]", f"{len(weights)} for {record.upstream['num_states']} states"
        elif min(weights) < 0 or not math.isclose(math.fsum(weights), 1.0, abs_tol=1e-4):
            yield f"layer_weights[{number}]", "they are not shares that add up to 1"


def _costs(record: Record) -> Iterator[tuple[str, str]]:
    cost, upstream = record.cost, record.upstream
    for name, value in cost.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
            yield f"cost.{name}", f"it is {value}, below 0"
    whole = cost["params"] + cost["head_params"] + upstream["num_states"]
    if cost["params_with_head"] != whole:
        yield "cost.params_with_head", f"it is {cost['params_with_head']:,}, but its parts give {whole:,}"
    parts = [cost[name] for name in _BUCKETS if _number(cost.get(name))]
    total = cost.get("macs_superb")
    if _number(total) and len(parts) == len(_BUCKETS) and not math.isclose(total, math.fsum(parts), rel_tol=1e-6):
        yield "cost.macs_superb", f"it is {total}, but its four buckets give {math.fsum(parts)}"
    for name in ("frame_ms", "num_states", "state_width"):
        if upstream[name] <= 0:
            yield f"upstream.{name}", f"it is {upstream[name]}; it must be above 0"
    for name in ("depth", "width"):
        if upstream[name] is not None and upstream[name] < 0:
            yield f"upstream.{name}", f"it is {upstream[name]}, below 0"


def _times(record: Record) -> Iterator[tuple[str, str]]:
    for name, value in record.seconds.items():
        if value < 0:
            yield f"seconds.{name}", f"it is {value}, below 0"
    encoded, distinct = record.features["encoded_seconds"], record.features["distinct_seconds"]
    ratio = record.features["encoded_over_distinct"]
    if distinct <= 0 or not math.isclose(ratio, encoded / distinct, rel_tol=1e-3):
        yield "features.encoded_over_distinct", f"it is {ratio}, but {encoded} s of {distinct} s were encoded"
    speakers = {row["speaker"] for rows in record.predictions.values() for row in rows if row.get("speaker")}
    folds = any("fold" in row for rows in record.predictions.values() for row in rows)
    if speakers and not folds and record.data.get("test_speakers", len(speakers)) != len(speakers):
        yield "data.test_speakers", f"it is {record.data['test_speakers']}, but the rows have {len(speakers)}"
