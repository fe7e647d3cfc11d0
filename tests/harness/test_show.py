"""The terminal table and the number formats."""

import dataclasses
import subprocess
import sys

import pytest
from test_records import make

from harness import show


@pytest.mark.parametrize(
    ("value", "text"), [(12.34, "12.3"), (0.0, "0.0"), (-0.04, "0.0"), (-3.26, "-3.3"), (100.0, "100.0")]
)
def test_number(value, text):
    assert show.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1e-3, "1e-3"), (3.2e-4, "3.2e-4"), (0.1, "1e-1"), (1.0, "1e0"), (0.0, "0")]
)
def test_rate(value, text):
    assert show.rate(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(7.25, "7.2 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"), (125.4, "2 min 05 s"), (3725, "1 h 02 min")],
)
def test_duration(value, text):
    assert show.duration(value) == text


def test_console_of_one_upstream():
    second = make(task="ks", metric="accuracy", value=9.04, ci95=[8.0, 10.06], n_test=312)
    lines = show.console([make(), second]).splitlines()
    assert lines[0] == "suite tiny · upstream model"
    assert lines[2].split() == ["task", "metric", "value", "95", "%", "CI", "rate", "n", "test", "time"]
    assert lines[4].split() == ["asr", "WER", "↓", "50.0", "[0.3,", "99.0]", "1e-3", "2", "2.0", "s"]
    assert lines[5].split() == ["ks", "accuracy", "↑", "9.0", "[8.0,", "10.1]", "1e-3", "312", "2.0", "s"]
    assert len({len(line) for line in lines[2:]}) == 1


def test_console_names_what_differs():
    other = dataclasses.replace(make(), upstream=make().upstream | {"name": "other"})
    lines = show.console([make(), other]).splitlines()
    assert lines[0] == "suite tiny"
    assert [line.split()[0] for line in lines[4:]] == ["model", "other"]


def test_console_of_nothing():
    assert show.console([]) == "No records."


def test_names_cannot_steer_the_terminal():
    evil = dataclasses.replace(make(), upstream=make().upstream | {"name": "a\x1b[31mb\u202ec\nd"})
    text = show.console([evil, make()])
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert len(text.splitlines()) == 6


def test_no_pandas_and_no_matplotlib_for_the_terminal():
    code = "import sys, harness.show; print([m for m in ('pandas', 'matplotlib', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
