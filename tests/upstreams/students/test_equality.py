"""Every compressed family against its public code: states alone and in a padded batch, and printed sizes."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from student_cases import Case, Size, card_file, real_utterances, utterances
from torch import Tensor

from harness.registry import load_upstream

MODULES = [importlib.import_module(file.stem) for file in sorted(Path(__file__).parent.glob("*_cases.py"))]
CASES = [case for module in MODULES for case in getattr(module, "CASES", ())]
SIZES = [size for module in MODULES for size in getattr(module, "SIZES", ())]
BOUND = 1e-4


class Difference(NamedTuple):
    """Largest absolute difference of any state, and how many states there are."""

    worst: float
    states: int


def difference(case: Case, folder: Path, waves: list[Tensor]) -> Difference:
    """Between our states, alone and in a padded batch, and the reference's."""
    upstream = load_upstream(str(card_file(case, folder)))
    expected = case.reference(folder, waves)
    lengths = torch.tensor([len(wave) for wave in waves])
    together = upstream.encode(torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), lengths)
    worst = 0.0
    for row, (wave, states) in enumerate(zip(waves, expected, strict=True)):
        alone = upstream.encode(wave[None], lengths[row : row + 1])
        assert len(alone.states) == len(together.states) == len(states) == upstream.num_states
        for ours, batched, theirs in zip(alone.states, together.states, states, strict=True):
            assert ours.shape[1:] == theirs.shape == (int(together.lengths[row]), upstream.width)
            assert theirs.std() > 1e-2, "a reference that says nothing"
            worst = max(worst, float((ours[0] - theirs).abs().max()))
            worst = max(worst, float((batched[row, : len(theirs)] - theirs).abs().max()))
    return Difference(worst, upstream.num_states)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.family}-{case.name}".replace(" ", "_"))
def test_states_are_those_of_the_public_code(case: Case, tmp_path: Path) -> None:
    assert difference(case, tmp_path, utterances()).worst <= BOUND


@pytest.mark.skipif("REAL_SPEECH" not in os.environ, reason="REAL_SPEECH names no folder of real speech")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.family}-{case.name}".replace(" ", "_"))
def test_states_of_real_speech_are_those_of_the_public_code(case: Case, tmp_path: Path) -> None:
    assert difference(case, tmp_path, real_utterances(Path(os.environ["REAL_SPEECH"]))).worst <= BOUND


@pytest.mark.parametrize(
    "size", [size for size in SIZES if size.params is not None], ids=lambda size: size.name.replace(" ", "_")
)
def test_parameters_are_those_printed(size: Size) -> None:
    with torch.device("meta"):
        model = size.model()
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert round(count, size.digits) == size.params
