"""Doing a bench: data → plan → extract → probe → select → score → record, each step resumable.

What is done stands on disk under keys of contents: features in the cache, checkpoints of the probes in
``<results>/.work``, records in ``<results>``. So the same command after an interruption goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

import torch

from harness import outcome, performing, plan, registry, suite
from harness.estimation import budget as budgets
from harness.estimation import estimate
from harness.extraction import extract
from harness.interface import SlimbenchError
from harness.jobs import Executor, InProcess, Job
from harness.plan import TaskPlan
from harness.preparing import Bench, Options, prepare, resolve_device, survey
from harness.processes import since_start
from harness.progress import say
from harness.records import Record
from harness.store import cache


def describe(options: Options, again: bool = False, budget: float | None = None) -> str:
    """The plan as text, with minutes and GB on this machine; without data from the sizes that the suite states.

    Args:
        options: of the bench.
        again: time this machine anew.
        budget: in seconds; then also which tasks fit into it.
    """
    chosen = suite.load(options.suite, options.protocol)
    if options.data is None and chosen.sizes:
        names = plan.choose_tasks(chosen, options.tasks)
        device = resolve_device(options.device)
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        upstream = registry.load_upstream(options.upstream, device)
        compute = extract.compute_type(upstream, device, options.compute)
        machine = estimate.Machine(upstream, device, chosen.dtype, chosen.bootstrap, options.cache, compute)
        limit = cache.limit(options.cache_limit)
        sized = estimate.of_sizes(machine, chosen, names, options.seeds or chosen.seeds, again, options.frames, limit)
        said = (
            f"no DATA: sizes of suite {chosen.name} (protocol {chosen.protocol}) as published, nothing is encoded yet"
        )
        return "\n".join([said, *plan.said_of_frames(sized.frames, names), sized.table(budget)])
    made, found = expected(options, again)
    parts = [plan.describe(made.plan)]
    if found.loads:
        parts.append(found.table(budget))
    return "\n".join(parts)


def expected(options: Options, again: bool = False) -> tuple[Bench, estimate.Expected]:
    """A prepared bench and what it is expected to take; the cost of the upstream is then known and kept.

    Args:
        options: of the bench.
        again: time this machine anew.
    """
    made = prepare(options)
    if made.plan.todo:
        performing.price(made)
    spent = sum(made.watch.seconds.get(stage, 0.0) for stage in ("suite", "cost"))
    return made, estimate.of_bench(made.plan, made.device, made.cache, spent, again)


def bench(options: Options) -> list[Record]:
    """Run what has no record yet; returns the records of all tasks that were asked for.

    Raises:
        SlimbenchError: bad input; what is finished by then stays.
    """
    if options.executor == "inprocess":
        run = prepare(options)
        return _bench(run, nullcontext(InProcess(partial(performing.perform, run))))
    from harness import ray_executor

    ray = ray_executor.package()
    run = prepare(replace(options, device="cpu"))  # the GPUs are the workers'; this process encodes nothing
    return _bench(run, ray_executor.on_cluster(ray, options, run))


def bench_within(options: Options, seconds: float, again: bool = False) -> list[Record]:
    """Do the tasks that fit, one after the other; none is begun once the budget is used up.

    What the tasks before have encoded, and all records, stay: the same command goes on with the rest.

    Args:
        options: of the bench.
        seconds: the budget, counted from the start of this process.
        again: time the machine anew.

    Returns:
        The records that are there now, of the tasks that were asked for.
    """
    prepared, price = expected(options, again)
    there = [item.task.name for item in prepared.plan.tasks if item.record is not None]
    spent = max(0.0, since_start() - price.once.start)  # of which the start is counted as such
    names, others = budgets.choose(price.loads, price.found, price.once, seconds, spent)
    say(budgets.said(names, others, seconds))
    done: list[str] = []
    for place, name in enumerate(names):
        if since_start() >= seconds:
            say(f"the budget is used up; left for another call: {', '.join([*names[place:], *others])}")
            break
        bench(replace(options, tasks=(name,)))
        done.append(name)
    asked = tuple(there + done)
    return bench(replace(options, tasks=asked)) if asked else []


def _bench(run: Bench, place: AbstractContextManager[Executor]) -> list[Record]:
    """Do what is to be done; the executor is there only while there is something."""
    if not run.plan.todo:
        say(f"nothing to do: {len(run.plan.tasks)} records are there")
        return [item.record for item in run.plan.tasks if item.record is not None]
    say(plan.describe(run.plan))
    with place as executor:
        survey(run)
        _carry_out(run, executor)
    return [item.record or _found(run, item) for item in run.plan.tasks]


def _carry_out(run: Bench, executor: Executor) -> None:
    with run.watch("extract"):
        executor.run([Job("encode", part=part, parts=executor.workers) for part in range(executor.workers)])
    store = run.plan.store
    store.refresh()
    cache.keep_within(cache.limit(run.cache_limit), store, run.plan.pieces.keys())
    run.features = _ledger(run)
    todo = run.plan.todo
    together = [[item.task.name for item in group] for group in run.plan.in_step]
    jobs = [Job("train", first, others=tuple(others)) for first, *others in together]
    if executor.workers > 1:  # else training and scoring share what they have read
        alone = [item for item in todo if not any(item.task.name in group for group in together)]
        jobs += [Job("train", item.task.name, fold) for item in alone for fold, _ in outcome.folds_of(item)]
    executor.run(jobs)
    executor.run([Job("score", item.task.name) for item in todo])


def _found(run: Bench, item: TaskPlan) -> Record:
    record = performing.recorded(run, item)
    if record is None:
        raise SlimbenchError(f"{run.results}: the record of {item.task.name} is gone again; repeat the command.")
    return record


def _ledger(run: Bench) -> Mapping[str, float]:
    """What extraction has cost, for the records."""
    ledger = run.plan.store.ledger({key for item in run.plan.tasks for key in item.audio.values()})
    return {
        "encoded_seconds": ledger.encoded_seconds,
        "distinct_seconds": ledger.distinct_seconds,
        "encoded_over_distinct": round(ledger.ratio, 6),
    }
