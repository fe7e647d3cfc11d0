"""What probes are to say and what they say: targets of utterances, and predictions of all trials at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.head import Head
from harness.interface import Labels, Manifest, Prediction, SlimbenchError, Task, Utterance
from harness.probes.batches import Table, evaluation_batches
from harness.probes.stacked import Bank
from harness.threads import side_by_side


def evaluate(
    task: Task, labels: Labels, bank: Bank, table: Table, most: int
) -> tuple[list[dict[str, Prediction]], list[bool]]:
    """Predictions per trial and utterance, and per trial whether all of its outputs were finite."""
    bank.head.eval()
    predictions: list[dict[str, Prediction]] = [{} for _ in range(bank.trials)]
    finite = [True] * bank.trials
    for indices in evaluation_batches(table.lengths, max(most, 32)):
        x, lengths = table.gather(indices)
        output = _outputs(bank, x, lengths)
        for r, good in enumerate(torch.isfinite(output).flatten(1).all(1).tolist()):
            finite[r] &= good
        decoded = task.predict(output.flatten(0, 1), lengths.repeat(bank.trials), labels)
        for place, value in enumerate(decoded):
            predictions[place // len(indices)][table.ids[indices[place % len(indices)]]] = value
    return predictions, finite


def _outputs(bank: Bank, x: Tensor, lengths: Tensor) -> Tensor:
    """Outputs of all trials, without gradients."""

    @torch.no_grad()  # a setting of the thread
    def outputs(trials: range) -> Tensor:
        return bank.part(trials)(x, lengths)

    return torch.cat(side_by_side(outputs, bank.parts()))


def targets_of(task: Task, manifest: Manifest, rows: Sequence[Utterance], labels: Labels) -> list[list[int]]:
    """Targets of ``rows``; errors are given the manifest's file and row."""
    targets = []
    for row in rows:
        try:
            targets.append(task.target(row, labels))
        except SlimbenchError as error:
            raise SlimbenchError(f"{manifest.file}, row {row.row}: {error}") from error
    return targets


def classes_of(targets: Sequence[Sequence[int]]) -> list[int]:
    """A class number per distinct target."""
    known: dict[tuple[int, ...], int] = {}
    return [known.setdefault(tuple(target), len(known)) for target in targets]


def check_frames(manifest: Manifest, rows: Sequence[Utterance], lengths: Sequence[int], head: Head) -> None:
    """Raise for the first utterance that is shorter than the head can take."""
    least = head.min_frames
    for row, length in zip(rows, lengths, strict=True):
        if length < least:
            raise SlimbenchError(
                f"{manifest.file}, row {row.row}: {row.id} has {length} frames, the head of {manifest.task} needs "
                f"{least}; take it out or use a longer utterance."
            )
