"""Writes the tables of docs/upstreams.md about compressed families: equality with public code, printed sizes.

``REAL_SPEECH=folder python tests/upstreams/students/parity_table.py`` measures everything and writes the tables between
their markers; a few minutes on one core. Without REAL_SPEECH the differences are those of the synthetic utterances.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import torch
from student_cases import Case, Size, real_utterances, utterances
from test_equality import CASES, SIZES, difference
from torch import Tensor, nn

from harness.cost.macs import count_superb_macs
from harness.interface import HiddenStates, SlimbenchError

DOCUMENT = Path(__file__).parents[3] / "docs" / "upstreams.md"
BEGIN, END = "<!-- tables of compressed families: begin -->", "<!-- tables of compressed families: end -->"


class Sized:
    """A full-size model as an upstream, as far as counting needs one."""

    num_states = width = min_samples = 0
    frame_ms, variable_rate, batch_invariant = 20.0, False, True

    def __init__(self, size: Size) -> None:
        self.name, self.fingerprint = size.name, ""
        self.model = size.model().eval().requires_grad_(False)

    def module(self) -> nn.Module:
        """The model."""
        return self.model

    def encode(self, waves: Tensor, lengths: Tensor) -> HiddenStates:
        """The model's states."""
        states, frames = self.model(waves, lengths)
        return HiddenStates(states, frames, self.frame_ms)


def equality_row(case: Case, sets: list[list[Tensor]], notes: list[str]) -> str:
    """One line: family, kind, states, largest difference, number of the note on the reference."""
    worst, states = 0.0, 0
    for waves in sets:
        with tempfile.TemporaryDirectory() as folder:
            found = difference(case, Path(folder), waves)
            worst, states = max(worst, found.worst), found.states
    if case.how not in notes:
        notes.append(case.how)
    return f"| {case.family} | {case.name} | {states} | {worst:.1e} | {notes.index(case.how) + 1} |"


def parameters(size: Size) -> str:
    """Millions of parameters of our model, with the decimals that are printed."""
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in size.model().parameters())
    return f"{count / 1e6:.{size.digits}f}"


def size_row(size: Size) -> str:
    """One line: family, model, parameters and MACs here and as printed, source."""
    try:
        macs = f"{count_superb_macs(Sized(size)).total / 1e9:.1f}"
    except SlimbenchError:  # a count as printed may hold modules that no state needs
        macs = "–"
    printed = "" if size.params is None else f"{size.params:.{size.digits}f}"
    shown = "" if size.macs is None else f"{size.macs:g}"
    return f"| {size.family} | {size.name} | {parameters(size)} | {printed} | {macs} | {shown} | {size.source} |"


def main() -> int:
    """Write both tables."""
    sets = [utterances()]
    if "REAL_SPEECH" in os.environ:
        sets.append(real_utterances(Path(os.environ["REAL_SPEECH"])))
    notes: list[str] = []
    equality = [equality_row(case, sets, notes) for case in CASES]
    lines = [
        BEGIN,
        "| family | kind | states | largest difference | reference |",
        "|---|---|---:|---:|---|",
        *equality,
        "",
        "References:",
        "",
        *(f"{number}. {note.rstrip('.')}." for number, note in enumerate(notes, start=1)),
        "",
        "| family | model | parameters, M | printed | MACs of 32 utterances, G | printed | source of the print |",
        "|---|---|---:|---:|---:|---:|---|",
        *(size_row(size) for size in SIZES),
        END,
    ]
    text = DOCUMENT.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    DOCUMENT.write_text(head + "\n".join(lines) + tail, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
