"""From features to scores: train all probes of a task, choose on dev, open test once.

Where a task has folds, the probes are trained on one fold after the other, one learning rate is chosen for all of
them, and the score is the mean over folds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from harness import metrics, select, stats
from harness.extraction.stream import OnDemand, Streamed
from harness.interface import SAMPLE_RATE, FeatureSource, Manifest, Row, SlimbenchError, Split, Utterance
from harness.plan import TaskPlan
from harness.probes import probe
from harness.probes.probe import ProbeTrial, TrialResult
from harness.probes.training import encoded_by
from harness.progress import Progress
from harness.select import Choice
from harness.store.features import FeatureStore, TaskFeatures

_TRAINED: tuple[tuple[Split, str], ...] = (("train", "training"), ("dev", "dev"))
LOWEST = "eer_test_min"
"""Metric of the look at which test came out best: s3prl's way to report verification."""
Rows = dict[int, list[Row]]
"""Scored rows per seed."""


class Stopwatch:
    """Wall time per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time what is done inside."""
        began = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - began, 3)


@dataclass(frozen=True)
class Outcome:
    """What came out of one task: all trials, the choice, test rows per seed, scores, and seconds per stage.

    ``streamed`` is the seconds of audio that were encoded on demand, ``None`` where all frames were stored.
    """

    trained: Sequence[TrialResult]
    choice: Choice
    rows: Mapping[int, list[Row]]
    scores: Mapping[str, dict[str, Any]]
    seconds: Mapping[str, float]
    resumed: bool
    streamed: float | None = None


def long_enough(item: TaskPlan, samples: Mapping[str, int]) -> tuple[TaskPlan, list[str]]:
    """The task without the utterances that its effects leave too short, and notes on how many those are.

    Training utterances are left out, and dev utterances with the trials that name them; test stays as it is.

    Args:
        item: the task.
        samples: samples at 16 kHz per piece of audio, after the effects.

    Raises:
        SlimbenchError: no training utterance is left.
    """
    least = item.protocol.min_seconds
    if least is None:
        return item, []

    def stays(utterance: Utterance) -> bool:
        return utterance.split == "test" or samples[item.audio[utterance.id]] > least * SAMPLE_RATE

    def left(table: Manifest) -> Manifest:
        rows = tuple(utterance for utterance in table.utterances if stays(utterance))
        names = {row.id for row in rows}
        trials = {
            split: tuple(trial for trial in those if {trial.enrol, trial.test} <= names)
            for split, those in table.trials.items()
        }
        return replace(table, utterances=rows, trials=trials, folds=tuple(left(fold) for fold in table.folds))

    table = left(item.manifest)
    if not table.split("train"):
        raise SlimbenchError(
            f"{item.manifest.file}: no training utterance is longer than {least:g} s after "
            f"'{', '.join(item.protocol.effects)}'; give longer ones or lower min_seconds in the suite file."
        )
    notes = []
    for split, name in _TRAINED:
        gone = len(item.manifest.split(split)) - len(table.split(split))
        if gone:
            notes.append(f"{gone} {name} utterances of at most {least:g} s were left out")
    gone = len(item.manifest.trials.get("dev", ())) - len(table.trials.get("dev", ()))
    if gone:
        notes.append(f"{gone} dev trials with them were left out")
    return replace(item, manifest=table), notes


def reach(
    item: TaskPlan,
    store: FeatureStore,
    seeds: Sequence[int],
    device: str,
    bootstrap: int,
    work: Path,
    encoder: OnDemand | None = None,
) -> Outcome:
    """Train, choose, test and score one task.

    Args:
        item: the task.
        store: features of its audio.
        seeds: seeds of every learning rate.
        device: torch device.
        bootstrap: resamples of the interval.
        work: folder of the checkpoints, from which an interrupted run goes on.
        encoder: encodes frames on demand; without it they are read from the store.
    """
    protocol, trials = item.protocol, trials_of(item, seeds)
    resumed = work.exists()
    watch = Stopwatch()
    watch.seconds["extract"] = round(store.ledger(set(item.audio.values())).wall_seconds, 3)
    features = features_of(item, store, encoder)
    trained: list[TrialResult] = []
    for fold, _ in folds_of(item):
        trained += train(item, store, seeds, device, work, fold, encoder)
    watch.seconds["train"] = round(training_seconds(trained), 3)
    choice = select.choose(trained, item.task.metric)
    before = encoded_by(features)
    with watch("test"):
        tested = _tested(item, features, choice.results, seeds, device)
    second = item.second
    if second is not None:
        with watch(second.metric):
            again = _tested(replace(item, task=second.task), features, choice.results, seeds, device)
        tested = _beside(tested, again, "hyp", second.metric)
    if protocol.looks_on_test:
        with watch("looks"):
            steps = [step for step, _ in choice.results[0].curve]
            looks = probe.looks(checkpoint(work, None), steps, choice.results, trials)
            every = [_tested(item, features, look, seeds, device) for look in looks]
        lowest = {seed: min((look[seed] for look in every), key=partial(metrics.score, "eer")) for seed in seeds}
        tested = _beside(tested, lowest, "score", LOWEST)
    with watch("interval"):
        scores = {name: _score(name, tested, bootstrap) for name in _metrics(item)}
    encoded = sum({result.fold: result.encoded for result in trained}.values()) + encoded_by(features) - before
    streamed = encoded if encoded or isinstance(features, Streamed) else None
    return Outcome(trained, choice, tested, scores, watch.seconds, resumed, streamed)


def training_seconds(results: Sequence[TrialResult]) -> float:
    """What training took, whichever processes did it: the trials of a fold are one run."""
    return sum({result.fold: result.seconds for result in results}.values())


def train(
    item: TaskPlan,
    store: FeatureStore,
    seeds: Sequence[int],
    device: str,
    work: Path,
    fold: int | None,
    encoder: OnDemand | None = None,
) -> list[TrialResult]:
    """Train all probes of one fold, or of a task without folds; what has been trained is only read again.

    Args:
        item: the task.
        store: features of its audio.
        seeds: seeds of every learning rate.
        device: torch device.
        work: folder of the checkpoints, from which an interrupted run goes on.
        fold: which one, ``None`` where there are none.
        encoder: encodes frames on demand; without it they are read from the store.
    """
    with _setup(item, store, seeds, device, work, fold, encoder) as setup:
        results = probe.train_together([setup])[0]
    return [replace(result, fold=fold) for result in results]


def train_together(
    items: Mapping[Path, TaskPlan], store: FeatureStore, seeds: Sequence[int], device: str, encoder: OnDemand
) -> None:
    """Train the probes of several tasks in step, so that they share the encodings of audio that is streamed.

    Their checkpoints keep the results, which :func:`reach` then takes up task by task.

    Args:
        items: the tasks by the folders of their checkpoints.
        store: features of their audio.
        seeds: seeds of every learning rate.
        device: torch device.
        encoder: encodes their frames.
    """
    with ExitStack() as stack:
        setups = [
            stack.enter_context(_setup(item, store, seeds, device, work, fold, encoder))
            for work, item in items.items()
            for fold, _ in folds_of(item)
        ]
        probe.train_together(setups)


@contextmanager
def _setup(
    item: TaskPlan,
    store: FeatureStore,
    seeds: Sequence[int],
    device: str,
    work: Path,
    fold: int | None,
    encoder: OnDemand | None,
) -> Iterator[probe.Setup]:
    """What the probe is told of one fold, with a line of progress while it lasts."""
    trials = tuple(trials_of(item, seeds))
    title = f"{item.task.name}: train {len(trials)} probes" + ("" if fold is None else f", fold {fold}")
    features = features_of(item, store, encoder)
    what = (item.task, item.labels, dict(folds_of(item))[fold], features, item.protocol, trials)
    with Progress(title, item.protocol.steps, "updates") as progress:
        yield probe.Setup(*what, device, checkpoint(work, fold), progress)


def features_of(item: TaskPlan, store: FeatureStore, encoder: OnDemand | None) -> FeatureSource:
    """What a task reads: the store, or frames on demand where there is an encoder for them."""
    if encoder is None or item.task.need == "pooled":
        return TaskFeatures(store, item.audio)
    return Streamed(encoder, item.audio)


def trials_of(item: TaskPlan, seeds: Sequence[int]) -> list[ProbeTrial]:
    """All learning rates with all seeds."""
    return [ProbeTrial(rate, seed) for rate in item.protocol.learning_rates for seed in seeds]


def _beside(rows: Rows, others: Rows, field: str, metric: str) -> Rows:
    """Rows that also hold what another way of predicting gives, in a field that names the metric it is for."""
    return {
        seed: [{**row, f"{field}_{metric}": other[field]} for row, other in zip(mine, others[seed], strict=True)]
        for seed, mine in rows.items()
    }


def checkpoint(work: Path, fold: int | None) -> Path:
    """Where the run of a fold keeps its state."""
    return work / ("probe.pt" if fold is None else f"probe-{fold}.pt")


def folds_of(item: TaskPlan) -> list[tuple[int | None, Manifest]]:
    """The manifests to train on, numbered where there are folds."""
    if not item.manifest.folds:
        return [(None, item.manifest)]
    return list(enumerate(item.manifest.folds, start=1))


def _tested(
    item: TaskPlan, features: FeatureSource, results: Sequence[TrialResult], seeds: Sequence[int], device: str
) -> Rows:
    """Test rows per seed of the chosen trials, those of all folds together."""
    rows: Rows = {seed: [] for seed in seeds}
    for fold, table in folds_of(item):
        mine = [result for result in results if result.fold == fold]
        what = (item.task, item.labels, table, features, item.protocol)
        for result, said in zip(mine, probe.predict_all(*what, mine, "test", device), strict=True):
            found = item.task.rows(table, "test", said, item.labels)
            rows[result.seed] += found if fold is None else [{**row, "fold": fold} for row in found]
    return rows


def _metrics(item: TaskPlan) -> tuple[str, ...]:
    more = [*item.task.secondary]
    if item.second is not None:
        more.append(item.second.metric)
    if item.protocol.looks_on_test:
        more.append(LOWEST)
    return (item.task.metric, *more)


def _score(metric: str, rows: Mapping[int, list[Row]], repeats: int) -> dict[str, Any]:
    per_seed = [metrics.score(metric, seed_rows) for seed_rows in rows.values()]
    low, high = stats.interval(metric, list(rows.values()), repeats=repeats)
    return {"value": select.mean(per_seed), "ci95": [low, high], "per_seed": per_seed}
