"""The figures that the page on depth and width states by hand are those of the records that come with the project."""

from __future__ import annotations

import re
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


def test_what_is_said_of_deep_heads_is_what_the_records_say():
    found = verification.accepted(verification.LAB)
    values = {(r.upstream["name"], r.task): r.value for r in found if r.suite == "embedded"}
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    (said,) = re.findall(r"\*\*Where the head is deep.*?(?=What the exchange is worth)", text)
    stated = [tuple(map(float, pair)) for pair in re.findall(r"\((\d+\.\d) to (\d+\.\d)[,)]", said)]
    wanted = [
        tuple(mean(values[f"dvw_1.0m_d{depth}_{method}_s{seed}", task] for seed in seeds) for depth in (1, 12))
        for task in ("asr", "asv")
        for method, seeds in (("l2l", (0, 1)), ("pred", (0,)))
    ]
    assert len(stated) == len(wanted) + 2  # the scale of both tasks, untrained network to teacher, is of the board
    for pair, true in zip(stated, wanted, strict=False):
        assert pair == pytest.approx(true, abs=0.051)
    board = {(r.upstream["name"], r.task): r.value for r in verification.accepted() if r.suite == "embedded"}
    for pair, task in zip(stated[len(wanted) :], ("asr", "pr"), strict=True):
        assert pair == pytest.approx((board["random_mini", task], board["wavlm_mini", task]), abs=0.051)
