"""What the task files share: building a head, rows of strings, and the base of the four classification tasks.

torch is imported inside of functions, so that listing the tasks does not load it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from harness.interface import (
    Labels,
    Manifest,
    Need,
    PlainTask,
    Prediction,
    Row,
    SlimbenchError,
    Split,
    TrainingProtocol,
    Utterance,
)

if TYPE_CHECKING:
    from torch import Tensor

    from harness.head import Head

SEPARATOR = "|"
"""Between the slots of a label."""


def build(head: str, width: int, classes: int, sizes: Mapping[str, int]) -> Head:
    """The head called ``head`` of :mod:`downstreams.heads`, SUPERB's sizes changed by ``sizes``.

    Raises:
        SlimbenchError: a size that this head does not have.
    """
    from downstreams import heads

    kind = getattr(heads, head)
    known = set(inspect.signature(kind).parameters) - {"width", "classes"}
    unknown = sorted(set(sizes) - known)
    if unknown:
        raise SlimbenchError(f"Head size '{unknown[0]}' in the suite file is unknown; use {', '.join(sorted(known))}.")
    module: Head = kind(width, classes, **sizes)
    return module


def string_rows(
    manifest: Manifest, split: Split, predictions: Mapping[str, Prediction], reference: Callable[[Utterance], str]
) -> list[Row]:
    """One row per utterance of ``split``, in file order.

    Raises:
        SlimbenchError: an utterance has no prediction.
    """
    rows: list[Row] = []
    for utterance in manifest.split(split):
        if utterance.id not in predictions:
            raise SlimbenchError(f"{manifest.file}, row {utterance.row}: there is no prediction for {utterance.id}.")
        hypothesis = predictions[utterance.id]
        rows.append({"id": utterance.id, "speaker": utterance.speaker, "ref": reference(utterance), "hyp": hypothesis})
    return rows


def distinct(values: Sequence[str]) -> tuple[str, ...]:
    """The values in order of first appearance."""
    return tuple(dict.fromkeys(values))


@lru_cache(maxsize=16)
def places(values: tuple[str, ...]) -> dict[str, int]:
    """Index of each value."""
    return {value: index for index, value in enumerate(values)}


class Classifier(PlainTask):
    """Linear → mean → Linear with cross entropy, one group of logits per slot, scored by accuracy.

    An utterance is right if all of its slots are. The value indices follow the first appearance in train.
    """

    metric = "accuracy"
    secondary: tuple[str, ...] = ()
    need: Need = "pooled"
    slots = 1

    def __init__(self, name: str, title: str, superb_labels: int, protocol: TrainingProtocol) -> None:
        self.name = name
        self.title = title
        self.superb_labels = superb_labels
        self.protocol = protocol

    def values(self, utterance: Utterance) -> list[str]:
        """The value of each slot.

        Raises:
            SlimbenchError: the label is empty or has another number of slots.
        """
        values = [utterance.label] if self.slots == 1 else utterance.label.split(SEPARATOR)
        if len(values) != self.slots or not all(values):
            wanted = "one value" if self.slots == 1 else f"{self.slots} values separated by '{SEPARATOR}'"
            raise SlimbenchError(f"the label '{utterance.label}' is not {wanted}, as {self.name} needs it.")
        return values

    def labels(self, manifest: Manifest) -> Labels:
        """The values of each slot in the train split.

        Raises:
            SlimbenchError: a train label is malformed.
        """
        rows: list[list[str]] = []
        for utterance in manifest.split("train"):
            try:
                rows.append(self.values(utterance))
            except SlimbenchError as error:
                raise SlimbenchError(f"{manifest.file}, row {utterance.row}: {error}") from error
        return Labels(tuple(self.order([row[slot] for row in rows]) for slot in range(self.slots)))

    def order(self, values: Sequence[str]) -> tuple[str, ...]:
        """The values of a slot in the order of their logits."""
        return distinct(values)

    def head(self, width: int, classes: int, sizes: Mapping[str, int]) -> Head:
        """:class:`downstreams.heads.UtteranceHead`; size ``project``."""
        return build("UtteranceHead", width, classes, sizes)

    def target(self, utterance: Utterance, labels: Labels) -> list[int]:
        """Index of each slot's value within its slot.

        Raises:
            SlimbenchError: a value that no training utterance has.
        """
        result = []
        for value, known in zip(self.values(utterance), labels.slots, strict=True):
            place = places(known).get(value)
            if place is None:
                raise SlimbenchError(f"the train split has no label '{value}'; add it to train or correct the row.")
            result.append(place)
        return result

    def loss(self, output: Tensor, lengths: Tensor, targets: Sequence[Sequence[int]], labels: Labels) -> Tensor:
        """Sum over slots of the cross entropy, per item (N,), of logits (N, C)."""
        import torch
        import torch.nn.functional as F

        index = torch.as_tensor(targets, device=output.device)
        groups = torch.split(output, [len(values) for values in labels.slots], dim=-1)
        losses = [F.cross_entropy(group, index[:, slot], reduction="none") for slot, group in enumerate(groups)]
        return torch.stack(losses).sum(0)

    def predict(self, output: Tensor, lengths: Tensor, labels: Labels) -> list[Prediction]:
        """The best value of each slot, slots joined by ``|``."""
        import torch

        groups = torch.split(output, [len(values) for values in labels.slots], dim=-1)
        best = [group.argmax(-1).tolist() for group in groups]
        return [
            SEPARATOR.join(values[i] for values, i in zip(labels.slots, indices, strict=True))
            for indices in zip(*best, strict=True)
        ]

    def rows(
        self, manifest: Manifest, split: Split, predictions: Mapping[str, Prediction], labels: Labels
    ) -> list[Row]:
        """One row per utterance: label against best label."""
        return string_rows(manifest, split, predictions, lambda utterance: utterance.label)
