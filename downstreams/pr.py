"""PR: phones by CTC from a linear head (protocol section 4.2, s3prl ``downstream/ctc`` with ``libriphone.yaml``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from downstreams.common import build, string_rows
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

SPECIAL = ("<pad>", "<eos>", "<unk>")
"""``<pad>`` is the CTC blank; every target ends with ``<eos>``."""
END = 1


class PhonemeRecognition(PlainTask):
    """Phone CTC, scored by phone error rate. Phones come from the manifest's ``label`` column, space separated."""

    name = "pr"
    title = "Phoneme recognition"
    metric = "per"
    secondary: tuple[str, ...] = ("per_2021",)
    need: Need = "frames"
    protocol = TrainingProtocol(
        steps=100_000,
        batch=16,
        accumulate=2,
        batching="windows",
        optimizer="Adam",
        learning_rates=(1e-4, 1e-3, 3e-3, 1e-2, 3e-2),
        clip=1.0,
        eval_every=1_000,
    )
    superb_labels = 74
    croppable = False

    def labels(self, manifest: Manifest) -> Labels:
        """The special symbols, then SUPERB's 71 phones where stress is marked, or else the sorted phones of train."""
        from downstreams.corpora.lexicon import PHONES

        phones = {phone for utterance in manifest.split("train") for phone in utterance.label.split()}
        if any(phone[-1].isdigit() for phone in phones) and phones <= set(PHONES):
            return Labels(((*SPECIAL, *PHONES),))
        return Labels(((*SPECIAL, *sorted(phones - set(SPECIAL))),))

    def head(self, width: int, classes: int, sizes: Mapping[str, int]) -> Head:
        """:class:`downstreams.heads.FrameHead`; size ``project``."""
        return build("FrameHead", width, classes, sizes)

    def target(self, utterance: Utterance, labels: Labels) -> list[int]:
        """Phones and ``<eos>``.

        Raises:
            SlimbenchError: there are no phones, or one that no training utterance has.
        """
        phones = utterance.label.split()
        if not phones:
            raise SlimbenchError("the label is empty; PR needs the phones, separated by spaces.")
        table = {phone: index for index, phone in enumerate(labels.slots[0]) if index >= len(SPECIAL)}
        unknown = sorted({phone for phone in phones if phone not in table})
        if unknown:
            raise SlimbenchError(
                f"the train split has no phone {', '.join(unknown)}; add an utterance with it to train, or respell."
            )
        return [table[phone] for phone in phones] + [END]

    def loss(self, output: Tensor, lengths: Tensor, targets: Sequence[Sequence[int]], labels: Labels) -> Tensor:
        """CTC loss per item (N,) of logits (N, T, C)."""
        from downstreams import ctc

        return ctc.loss(output, lengths, targets)

    def predict(self, output: Tensor, lengths: Tensor, labels: Labels) -> list[Prediction]:
        """Greedy phones without ``<eos>``, separated by spaces; ``<unk>``, in no target, counts as one, as in s3prl."""
        from downstreams import ctc

        symbols = labels.slots[0]
        decoded = ctc.greedy(output, lengths)
        return [" ".join(symbols[i] for i in best if i > END) for best in decoded]

    def rows(
        self, manifest: Manifest, split: Split, predictions: Mapping[str, Prediction], labels: Labels
    ) -> list[Row]:
        """One row per utterance: phones against greedy phones."""
        return string_rows(manifest, split, predictions, lambda utterance: " ".join(utterance.label.split()))

    def remarks(self, targets: Sequence[Sequence[int]], frames: Sequence[int]) -> list[str]:
        """Says how many training utterances are too short for their phones."""
        from downstreams import ctc

        return ctc.remarks(targets, frames)


PR = PhonemeRecognition()
