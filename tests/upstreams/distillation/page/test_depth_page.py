"""The figures that the page on depth and width states by hand are those of the records that come with the project."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest

from leaderboards.submissions import verification

PAGE = Path(__file__).parents[4] / "docs" / "depth-vs-width.md"
MODELS = {
    "untrained": ("untrained_1.0m_d{}",),
    "800 updates": ("dvw_1.0m_d{}_l2l_s0", "dvw_1.0m_d{}_l2l_s1"),
    "2,400 updates": ("long_1.0m_d{}_l2l",),
}


@pytest.mark.parametrize("control", MODELS)
def test_the_controls_are_what_the_records_say(control):
    found = verification.accepted(verification.LAB)
    values = {(r.upstream["name"], r.task): r.value for r in found if r.suite == "embedded"}
    (line,) = (x for x in PAGE.read_text(encoding="utf-8").splitlines() if x.startswith(f"| {control}"))
    stated = [float(cell) for cell in line.strip("|").split("|")[1:]]
    wanted = [
        mean(values[name.format(depth), task] for name in MODELS[control])
        for task in ("pr", "ks", "ic", "sid", "er")
        for depth in (1, 3, 12)
    ]
    assert stated == pytest.approx(wanted, abs=0.051)
