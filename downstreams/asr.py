"""ASR: characters by CTC from two bidirectional LSTM layers (protocol section 4.1, s3prl ``downstream/asr``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from downstreams.common import build, string_rows
from downstreams.letters import BORDER, END, SYMBOLS
from harness.interface import (
    Labels,
    Manifest,
    Need,
    PlainTask,
    Prediction,
    Row,
    SecondDecode,
    SlimbenchError,
    Split,
    TrainingProtocol,
    Utterance,
)

if TYPE_CHECKING:
    from torch import Tensor

    from downstreams.lm import LanguageModel
    from harness.head import Head


class AutomaticSpeechRecognition(PlainTask):
    """Character CTC, scored by word error rate, greedy and without a language model."""

    name = "asr"
    title = "Automatic speech recognition"
    metric = "wer"
    secondary: tuple[str, ...] = ("cer",)
    need: Need = "frames"
    protocol = TrainingProtocol(
        steps=200_000,
        batch=16,  # nominally 32, which s3prl halves
        batching="halved_buckets",
        optimizer="Adam",
        learning_rates=(1e-5, 3e-5, 1e-4, 3e-4, 1e-3),
        clip=1.0,
        eval_every=2_000,
        specaugment=True,
    )
    superb_labels = 32
    croppable = False

    def labels(self, manifest: Manifest) -> Labels:
        """The fixed 32 symbols."""
        return Labels((SYMBOLS,))

    def head(self, width: int, classes: int, sizes: Mapping[str, int]) -> Head:
        """:class:`downstreams.heads.RecurrentHead`; sizes ``project``, ``hidden`` and ``layers``."""
        return build("RecurrentHead", width, classes, sizes)

    def target(self, utterance: Utterance, labels: Labels) -> list[int]:
        """Characters of the text with ``|`` for each space, a last ``|`` and ``</s>``.

        Raises:
            SlimbenchError: the text is empty or has a character outside of SUPERB's table.
        """
        text = normal(utterance.text)
        if not text:
            raise SlimbenchError("the text is empty; ASR needs the words that were said.")
        table = {symbol: index for index, symbol in enumerate(labels.slots[0])}
        unknown = sorted({repr(c) for c in text if c == BORDER or (c != " " and c not in table)})
        if unknown:
            raise SlimbenchError(f"the text has {', '.join(unknown)}; spell it with A-Z, ' and spaces only.")
        return [table[c] for c in text.replace(" ", BORDER) + BORDER] + [END]

    def loss(self, output: Tensor, lengths: Tensor, targets: Sequence[Sequence[int]], labels: Labels) -> Tensor:
        """CTC loss per item (N,) of logits (N, T, 32)."""
        from downstreams import ctc

        return ctc.loss(output, lengths, targets)

    def predict(self, output: Tensor, lengths: Tensor, labels: Labels) -> list[Prediction]:
        """Greedy texts without ``</s>``; ``<pad>`` and ``<unk>``, which no target has, are spelled out as in s3prl."""
        from downstreams import ctc

        symbols = labels.slots[0]
        paths = ctc.greedy(output, lengths)
        spelled = ("".join(symbols[i] for i in best if i not in (ctc.BLANK, END)) for best in paths)
        return [" ".join(text.replace(BORDER, " ").split()) for text in spelled]

    def rows(
        self, manifest: Manifest, split: Split, predictions: Mapping[str, Prediction], labels: Labels
    ) -> list[Row]:
        """One row per utterance: normalised text against greedy text."""
        return string_rows(manifest, split, predictions, lambda utterance: normal(utterance.text))

    def second_decode(self, data: Path) -> SecondDecode | None:
        """SUPERB's decoder with a language model, where ``data/lm`` has one.

        Raises:
            SlimbenchError: there is a language model without a lexicon, or the other way round.
        """
        from downstreams import lm

        files = lm.find(data)
        if files is None:
            return None
        return SecondDecode(_WithLanguageModel(files), "wer_lm", lm.identity(*files))

    def remarks(self, targets: Sequence[Sequence[int]], frames: Sequence[int]) -> list[str]:
        """Says how many training utterances are too short for their text."""
        from downstreams import ctc

        return ctc.remarks(targets, frames)


class _WithLanguageModel(AutomaticSpeechRecognition):
    """The same task, decoded with a language model."""

    def __init__(self, files: tuple[Path, Path]) -> None:
        self.files = files

    @cached_property
    def model(self) -> LanguageModel:
        """Loaded when it is first used: the official one takes seconds and gigabytes."""
        from downstreams import lm

        return lm.LanguageModel(*self.files)

    def predict(self, output: Tensor, lengths: Tensor, labels: Labels) -> list[Prediction]:
        """Texts of the decoder; it does not batch."""
        logits = output.float().cpu().numpy()
        return [self.model.decode(row[:length]) for row, length in zip(logits, lengths.tolist(), strict=True)]


def normal(text: str) -> str:
    """Upper case, single spaces."""
    return " ".join(text.upper().split())


ASR = AutomaticSpeechRecognition()
