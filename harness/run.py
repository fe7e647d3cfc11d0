"""Doing a bench: data → plan → extract → probe → select → score → record, each step resumable.

What is done stands on disk under keys of contents: features in the cache, checkpoints of the probes in
``<results>/.work``, records in ``<results>``. So the same command after an interruption goes on where it stopped.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from harness import cost, data, extract, kept, metrics, plan, probe, provenance, records, registry, select, stats, suite
from harness.features import TaskFeatures
from harness.identity import digest_json
from harness.interface import SPLITS, Row, SlimbenchError
from harness.plan import Plan, TaskPlan
from harness.probe import TrialResult
from harness.progress import Progress, say
from harness.records import Record
from harness.registry import Card
from harness.select import Choice


@dataclass(frozen=True)
class Options:
    """What the caller asks for; the fields are the options of the command line."""

    upstream: str
    suite: str
    results: Path
    cache: Path
    data: Path | None = None
    tasks: tuple[str, ...] = ()
    seeds: int | None = None
    device: str = "auto"
    threads: int | None = None


@dataclass
class Bench:
    """A prepared bench: the plan, where things are kept, and what is known so far for the records."""

    plan: Plan
    card: Card
    results: Path
    cache: Path
    device: str
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note the wall time of a stage that all tasks share."""
        began = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - began, 3)


def prepare(options: Options) -> Bench:
    """Check all names first, then the data, then the weights; nothing is encoded yet.

    Raises:
        SlimbenchError: with what is wrong and how to mend it.
    """
    chosen = suite.load(options.suite)
    card = registry.card(options.upstream)
    names = plan.choose_tasks(chosen, options.tasks)
    device = resolve_device(options.device)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    upstream = registry.load_upstream(options.upstream, device)
    began = time.perf_counter()
    folder, notes = data.prepare(chosen, options.data, options.cache, options.threads or os.cpu_count() or 1)
    seconds = {"suite": round(time.perf_counter() - began, 3)}
    seeds = range(options.seeds or chosen.seeds)
    made = plan.make(upstream, chosen, folder, names, seeds, options.results, options.cache)
    return Bench(made, card, options.results, options.cache, device, notes, seconds)


def bench(options: Options) -> tuple[list[Record], int]:
    """Run what has no record yet.

    Returns:
        The records of all tasks that were asked for, and how many of them are new.

    Raises:
        SlimbenchError: bad input; what is finished by then stays.
    """
    run = prepare(options)
    todo = run.plan.todo
    if todo:
        say(plan.describe(run.plan))
        features = _extract(run)
        price = _cost(run)
        done = {item.task.name: _task(run, item, features, price) for item in todo}
    else:
        say(f"nothing to do: {len(run.plan.tasks)} records are there")
        done = {}
    return [item.record or done[item.task.name] for item in run.plan.tasks], len(done)


def resolve_device(name: str) -> str:
    """The torch device that ``name`` means; ``auto`` is CUDA where there is one.

    Raises:
        SlimbenchError: torch does not know the device, or it is not on this machine.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise SlimbenchError(f"device {name!r} cannot be used here ({first}); use auto, cpu or cuda.") from error
    return name


def _extract(run: Bench) -> Mapping[str, float]:
    """Check all audio, then the disk, then encode what is missing; returns the ledger for the records."""
    store, wanted = run.plan.store, run.plan.pieces
    with run.timed("check"):
        samples, converted = extract.survey(wanted, run.cache / "audio.json")
    extract.check_lengths(wanted, samples, run.plan.upstream)
    extract.check_space(store, wanted.values())
    for note in converted:
        say(f"note: {note}")
    run.notes += converted
    with run.timed("extract"):
        extract.extract(run.plan.upstream, store, wanted, samples, run.device)
    ledger = store.ledger({key for item in run.plan.tasks for key in item.audio.values()})
    return {
        "encoded_seconds": ledger.encoded_seconds,
        "distinct_seconds": ledger.distinct_seconds,
        "encoded_over_distinct": round(ledger.ratio, 6),
    }


def _cost(run: Bench) -> dict[str, Any]:
    """Cost of the upstream on this device, measured once and kept in the cache."""
    threads = torch.get_num_threads()
    identity = digest_json([run.plan.upstream.fingerprint, run.device, threads])[:16]
    file = run.cache / "cost" / f"{identity}.json"
    known: dict[str, Any] | None = kept.read(file)
    if known is not None:
        return known
    upstream = run.plan.upstream
    say(f"measure the cost of {upstream.name} on {run.device}")
    with run.timed("cost"):
        measured = {
            "params": cost.count_parameters(upstream.module()),
            "macs_per_second": cost.count_macs(upstream),
            "bytes_on_disk": cost.bytes_on_disk(run.card),
            "real_time_factor": cost.real_time_factor(upstream),
            "peak_memory_mb": cost.peak_memory_mb(),
            "device": run.device,
            "threads": threads,
        }
    kept.write(file, measured)
    return measured


def _task(run: Bench, item: TaskPlan, features: Mapping[str, float], price: Mapping[str, Any]) -> Record:
    """Train all probes of a task, choose on dev, open test once, and keep the record."""
    name, protocol = item.task.name, item.protocol
    source = TaskFeatures(run.plan.store, item.audio)
    work = run.results / ".work" / item.key
    work.mkdir(parents=True, exist_ok=True)
    trials = [probe.ProbeTrial(rate, seed) for rate in protocol.learning_rates for seed in run.plan.seeds]
    stages = {"extract": round(run.plan.store.ledger(set(item.audio.values())).wall_seconds, 3)}
    clock = time.perf_counter()
    with Progress(f"{name}: train {len(trials)} probes", protocol.steps, "updates") as progress:
        trained = probe.train(
            item.task, item.labels, item.manifest, source, protocol, trials, run.device, work / "probe.pt", progress
        )
    stages["train"] = round(time.perf_counter() - clock, 3)
    choice = select.choose(trained, item.task.metric)
    clock = time.perf_counter()
    rows = {}
    for result in choice.results:
        said = probe.predict(item.task, item.labels, item.manifest, source, protocol, result, "test", run.device)
        rows[result.seed] = item.task.rows(item.manifest, "test", said, item.labels)
    stages["test"] = round(time.perf_counter() - clock, 3)
    clock = time.perf_counter()
    scores = {
        metric: _score(metric, rows, run.plan.suite.bootstrap) for metric in (item.task.metric, *item.task.secondary)
    }
    stages["interval"] = round(time.perf_counter() - clock, 3)
    record = _record(run, item, trained, choice, rows, scores, features, price, stages)
    records.save(record, run.results)
    shutil.rmtree(work)
    main = scores[item.task.metric]
    interval = "[{:.2f}, {:.2f}]".format(*main["ci95"])
    say(f"{name}: {item.task.metric} {main['value']:.2f} {interval} at learning rate {choice.learning_rate:g}")
    return record


def _score(metric: str, rows: Mapping[int, list[Row]], repeats: int) -> dict[str, Any]:
    per_seed = [metrics.score(metric, seed_rows) for seed_rows in rows.values()]
    low, high = stats.interval(metric, list(rows.values()), repeats=repeats)
    return {"value": select.mean(per_seed), "ci95": [low, high], "per_seed": per_seed}


def _record(
    run: Bench,
    item: TaskPlan,
    trained: Sequence[TrialResult],
    choice: Choice,
    rows: Mapping[int, list[Row]],
    scores: Mapping[str, dict[str, Any]],
    features: Mapping[str, float],
    price: Mapping[str, Any],
    stages: Mapping[str, float],
) -> Record:
    """All that is known of one result, in one place."""
    upstream, task = run.plan.upstream, item.task
    head = cost.count_parameters(task.head(upstream.width, item.labels.size, item.protocol.head))
    main = scores[task.metric]
    return Record(
        key=item.key,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        suite=run.plan.suite.name,
        suite_digest=run.plan.suite.digest,
        upstream=_identity(run),
        task=task.name,
        metric=task.metric,
        value=main["value"],
        ci95=main["ci95"],
        n_test=len(rows[run.plan.seeds[0]]),
        values_per_seed=main["per_seed"],
        secondary={name: {"value": scores[name]["value"], "ci95": scores[name]["ci95"]} for name in task.secondary},
        learning_rate=choice.learning_rate,
        seeds=list(run.plan.seeds),
        trials=[_trial(result) for result in trained],
        layer_weights=[list(result.layer_weights) for result in choice.results],
        protocol=asdict(item.protocol),
        data={**{s: len(item.manifest.split(s)) for s in SPLITS}, "manifest_digest": item.manifest.digest},
        predictions={str(seed): rows[seed] for seed in run.plan.seeds},
        cost={**price, "head_params": head, "params_with_head": price["params"] + head + upstream.num_states},
        features=features,
        seconds=stages,
        provenance={**provenance.gather(), "shared_seconds": run.seconds},
        notes=list(run.notes),
    )


def _identity(run: Bench) -> dict[str, Any]:
    """What the record says of its upstream: the card's words, and what was measured."""
    upstream, card = run.plan.upstream, run.card
    return {
        **{name: getattr(card, name) for name in ("title", "depth", "width", "teacher", "licence", "exposes")},
        "name": upstream.name,
        "family": card.family or "",
        "fingerprint": upstream.fingerprint,
        "num_states": upstream.num_states,
        "state_width": upstream.width,
        "frame_ms": upstream.frame_ms,
    }


def _trial(result: TrialResult) -> dict[str, Any]:
    return {
        "learning_rate": result.learning_rate,
        "seed": result.seed,
        "dev": result.dev,
        "best_step": result.best_step,
        "curve": [list(point) for point in result.curve],
        "diverged": not math.isfinite(result.dev),
    }
