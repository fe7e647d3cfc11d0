"""Composing the record of one finished task: all that is known of the result, in one place."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from harness import adapt, cost, provenance
from harness.identity import digest_json
from harness.interface import SPLITS, Manifest
from harness.plan import PROTOCOL_VERSION, TaskPlan
from harness.records import Record
from harness.store.features import settings

if TYPE_CHECKING:
    from harness.outcome import Outcome
    from harness.preparing import Bench

FEW_SPEAKERS = 10
"""With fewer test speakers than this a bootstrap over speakers is no 95 % interval; the record says so."""


def make(run: Bench, item: TaskPlan, outcome: Outcome) -> Record:
    """All that is known of one result, in one place."""
    upstream, task = run.plan.upstream, item.task
    head = cost.count_parameters(task.head(upstream.width, item.labels.size, item.protocol.head))
    scores, main = outcome.scores, outcome.scores[task.metric]
    return Record(
        key=item.key,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        suite=run.plan.suite.name,
        suite_digest=run.suite_digest,
        upstream=_identity(run),
        task=task.name,
        metric=task.metric,
        value=main["value"],
        ci95=main["ci95"],
        n_test=len(outcome.rows[run.plan.seeds[0]]),
        values_per_seed=main["per_seed"],
        secondary={
            name: {"value": found["value"], "ci95": found["ci95"]}
            for name, found in scores.items()
            if name != task.metric
        },
        learning_rate=outcome.choice.learning_rate,
        seeds=list(run.plan.seeds),
        trials=[result.as_row() for result in outcome.trained],
        layer_weights=[list(result.layer_weights) for result in outcome.choice.results],
        protocol=asdict(item.protocol),
        data=_data(run, item),
        predictions={str(seed): outcome.rows[seed] for seed in run.plan.seeds},
        cost={**run.price, "head_params": head, "params_with_head": run.price["params"] + head + upstream.num_states},
        features={**run.features, **_streamed(outcome)},
        seconds=outcome.seconds,
        provenance={**provenance.gather(), "shared_seconds": run.watch.seconds, "resumed": outcome.resumed},
        notes=_notes(run, item, outcome),
    )


def _streamed(outcome: Outcome) -> dict[str, float]:
    """Seconds of audio that were encoded on demand, where that was the way."""
    return {} if outcome.streamed is None else {"streamed_seconds": round(outcome.streamed, 3)}


def _identity(run: Bench) -> dict[str, Any]:
    """What the record says of its upstream: the card's words, and what was measured."""
    upstream, card = run.plan.upstream, run.card
    return {
        **{name: getattr(card, name) for name in ("title", "depth", "width", "teacher", "licence", "exposes")},
        "name": upstream.name,
        "family": card.family or "",
        **({"method": card.method} if card.method else {}),
        "fingerprint": upstream.fingerprint,
        "num_states": upstream.num_states,
        "state_width": upstream.width,
        "frame_ms": upstream.frame_ms,
    }


def _data(run: Bench, item: TaskPlan) -> dict[str, Any]:
    """What the result was measured on and under which rules; records that differ here are not compared."""
    return {
        **_counts(item.manifest),
        **({"folds": [_counts(fold) for fold in item.manifest.folds]} if item.manifest.folds else {}),
        **({} if item.second is None else {item.second.metric: dict(item.second.identity)}),
        "test_speakers": _test_speakers(item),
        "manifest_digest": item.manifest.digest,
        "audio_digest": digest_json(sorted(item.audio.items())),
        "protocol": run.plan.suite.protocol,
        "protocol_version": PROTOCOL_VERSION,
        **settings(run.plan.suite.dtype, run.plan.store.compute),
    }


def _counts(table: Manifest) -> dict[str, int]:
    return {split: len(adapt.groups(table.split(split))) for split in SPLITS}


def _test_speakers(item: TaskPlan) -> int:
    """Fewest in any fold, since speakers are resampled within a fold."""
    return min(len({row.speaker for row in fold.split("test") if row.speaker}) for fold in item.folds)


def _notes(run: Bench, item: TaskPlan, outcome: Outcome) -> list[str]:
    """What a reader of this record must know: of the data, the training and the interval."""
    notes = [*run.notes, *item.notes, *(note for result in outcome.trained for note in result.notes)]
    speakers = _test_speakers(item)
    if 0 < speakers < FEW_SPEAKERS:
        where = " in a fold" if item.manifest.folds else ""
        notes.append(f"the interval rests on {speakers} test speakers{where}: read it as a range, not as 95 %")
    return list(dict.fromkeys(notes))
