"""Training the probes of one task: all learning rates and seeds side by side, in one pass over stored features.

A probe is a softmax-weighted sum over the upstream's states and a head. All trials see the same batches; what differs
is the learning rate, the initial weights and the dropout, which follow the trial's seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from harness.interface import FeatureSource, Labels, Manifest, Prediction, Split, Task, TrainingProtocol
from harness.probes.batches import Table
from harness.probes.outputs import check_frames, evaluate
from harness.probes.stacked import Bank
from harness.probes.training import Run, look_file
from harness.probes.trials import ProbeTrial, TrialResult

__all__ = [
    "ProbeTrial",
    "Progress",
    "Setup",
    "TrialResult",
    "looks",
    "predict",
    "predict_all",
    "train",
    "train_together",
]

Progress = Callable[[int, int, str], None]


def train(
    task: Task,
    labels: Labels,
    manifest: Manifest,
    features: FeatureSource,
    protocol: TrainingProtocol,
    trials: Sequence[ProbeTrial],
    device: str = "cpu",
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> list[TrialResult]:
    """Train all trials and keep each one's best weights on dev.

    Args:
        task: labels, head, loss and decode.
        labels: output vocabulary, from ``task.labels``.
        manifest: utterances of the task.
        features: stored states of the upstream.
        protocol: how to train.
        trials: learning rates and seeds.
        device: torch device.
        checkpoint: file written at each look at dev; where it exists, training goes on from it.
        progress: called with (step, steps, text) after each look at dev and every few steps.

    Returns:
        One result per trial, in their order.

    Raises:
        SlimbenchError: a label that the train split lacks, an utterance too short for the head, a checkpoint of
            another run.
    """
    setup = Setup(task, labels, manifest, features, protocol, tuple(trials), device, checkpoint, progress)
    return train_together([setup])[0]


@dataclass(frozen=True)
class Setup:
    """What :func:`train` is told, for runs that are trained together."""

    task: Task
    labels: Labels
    manifest: Manifest
    features: FeatureSource
    protocol: TrainingProtocol
    trials: tuple[ProbeTrial, ...]
    device: str = "cpu"
    checkpoint: Path | None = None
    progress: Progress | None = None

    def begin(self) -> Run:
        """The run, as far as its checkpoint goes."""
        run = Run(self.task, self.labels, self.manifest, self.features, self.protocol, self.trials, self.device)
        if self.checkpoint is not None and self.checkpoint.exists():
            run.load(self.checkpoint)
        return run


def train_together(setups: Sequence[Setup]) -> list[list[TrialResult]]:
    """Train several runs in step, so that features of which they ask for at the same step are made once.

    One after the other makes its update of a step; a run that was interrupted earlier than the others first comes
    up to them. No run depends on the others.

    Args:
        setups: one per run, see :func:`train`.

    Returns:
        The results of each run.
    """
    runs = [setup.begin() for setup in setups]
    while any(not run.done for run in runs):
        behind = min(run.step for run in runs if not run.done)
        for run, setup in zip(runs, setups, strict=True):
            if run.done or run.step != behind:
                continue
            run.advance(setup.checkpoint)
            if setup.progress is not None:
                setup.progress(run.step, run.protocol.steps, run.status)
    return [run.results() for run in runs]


def looks(
    checkpoint: Path, steps: Sequence[int], results: Sequence[TrialResult], trials: Sequence[ProbeTrial]
) -> Iterator[list[TrialResult]]:
    """The trials ``results`` with the weights that they had at each look of a run with ``looks_on_test``.

    Args:
        checkpoint: of that run.
        steps: of the looks.
        results: some of the run's trials.
        trials: all of them, in their order.
    """
    places = [trials.index(ProbeTrial(result.learning_rate, result.seed)) for result in results]
    for step in steps:
        params = torch.load(look_file(checkpoint, step), map_location="cpu", weights_only=True)["params"]
        yield [
            replace(result, state={key: value[place].clone() for key, value in params.items()})
            for result, place in zip(results, places, strict=True)
        ]


def predict(
    task: Task,
    labels: Labels,
    manifest: Manifest,
    features: FeatureSource,
    protocol: TrainingProtocol,
    result: TrialResult,
    split: Split,
    device: str = "cpu",
) -> dict[str, Prediction]:
    """Predictions of one trained probe for each utterance of ``split``."""
    return predict_all(task, labels, manifest, features, protocol, [result], split, device)[0]


def predict_all(
    task: Task,
    labels: Labels,
    manifest: Manifest,
    features: FeatureSource,
    protocol: TrainingProtocol,
    results: Sequence[TrialResult],
    split: Split,
    device: str = "cpu",
) -> list[dict[str, Prediction]]:
    """Predictions of several probes, reading the features once."""
    head = task.head(features.width, labels.size, protocol.head).to(device)
    params = {key: torch.stack([result.state[key] for result in results]).to(device) for key in results[0].state}
    table = Table(features, [utterance.id for utterance in manifest.split(split)], task.need, device)
    check_frames(manifest, manifest.split(split), table.lengths, head)
    return evaluate(task, labels, Bank(head, params), table, protocol.batch)[0]
