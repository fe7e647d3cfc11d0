"""The scores that the README shows are those of the records that come with the project."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from leaderboards.submissions import verification

README = Path(__file__).parents[2] / "README.md"
TASKS = ("asr", "pr", "ks", "ic", "sid", "asv", "er")


def _records(suite):
    return {(r.upstream["name"], r.task): r for r in verification.accepted() if r.suite == suite}


def _tables():
    """Rows of each table of scores: name, then (value, low, high) by task."""
    found = []
    for part in README.read_text(encoding="utf-8").split("| Upstream | ASR WER")[1:]:
        rows = part.splitlines()[2 : 2 + 5]
        cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
        found.append({name.replace("\\", ""): [_numbers(cell) for cell in rest] for name, *rest in cells})
    return found


def _numbers(cell):
    """Value and interval of ``**72.5** <sup>a</sup> <sub>\\[68.8, 76.6\\]</sub>``."""
    return [float(number) for number in re.findall(r"-?\d+\.\d", cell)]


@pytest.mark.parametrize(("place", "suite"), [(0, "embedded"), (1, "real-mini")])
def test_the_tables_are_what_the_records_say(place, suite):
    records, shown = _records(suite), _tables()[place]
    assert set(shown) == {"fbank", "logmel", "random_mini", "distilled_wavlm", "wavlm_mini"}
    for name, cells in shown.items():
        for task, cell in zip(TASKS, cells, strict=True):
            record = records[name, task]
            assert cell == pytest.approx([record.value, *record.ci95], abs=0.051), (name, task)


def test_the_bench_that_is_shown_is_the_one_recorded():
    records = _records("embedded")
    text = README.read_text(encoding="utf-8").split("suite embedded · upstream distilled_wavlm")[1].split("```")[0]
    lines = re.findall(r"^(\w+) +\w+ [↑↓] +(\S+) +\[(\S+), +(\S+)\] +(\S+) +(\d+) ", text, re.MULTILINE)
    assert {line[0] for line in lines} == set(TASKS)
    for task, value, low, high, rate, tested in lines:
        record = records["distilled_wavlm", task]
        wanted = [record.value, *record.ci95]
        assert [float(value), float(low), float(high)] == pytest.approx(wanted, abs=0.051), task
        assert float(rate) == pytest.approx(record.learning_rate)
        assert int(tested) == record.n_test
