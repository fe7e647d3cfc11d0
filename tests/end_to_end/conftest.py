"""A bench in miniature: tones, a toy upstream and the real command line in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

HELPERS = Path(__file__).parent.parent / "harness"
sys.path.insert(0, str(HELPERS))

import toy_data  # noqa: E402
import toy_upstream  # noqa: E402


@dataclass
class Place:
    """A folder with data, suite and card, and the command line run in it."""

    folder: Path
    suite: Path
    card: Path

    @property
    def data(self):
        return self.folder / "data"

    def environment(self, **extra):
        paths = os.pathsep.join([str(HELPERS), str(HELPERS.parent.parent), os.environ.get("PYTHONPATH", "")])
        own = {"PYTHONPATH": paths, "SLIMBENCH_CARDS": str(self.card.parent), "OMP_NUM_THREADS": "1"}
        return {**os.environ, **own, "TOY_LOG": str(self.folder / "encoded.log"), **extra}

    def options(self, *more):
        own = ["--upstream", "toy", "--suite", str(self.suite), "--data", str(self.data), "--device", "cpu"]
        return [*own, "--results", str(self.folder / "results"), "--cache", str(self.folder / "cache"), *more]

    def run(self, *arguments, program=("-m", "harness")):
        command = [sys.executable, *program, *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment(), capture_output=True, text=True, timeout=300
        )

    def bench(self, *more):
        return self.run("bench", *self.options(*more))

    def killed(self, stage, amount):
        killer = (str(Path(__file__).with_name("killer.py")), stage, str(amount))
        return self.run("bench", *self.options(), program=killer)

    def records(self):
        """The records as they stand on disk, by task."""
        found = [json.loads(p.read_text()) for p in (self.folder / "results").glob("tiny/*/*.json")]
        return {record["task"]: record for record in found}

    def encoded(self):
        """How many utterances went through the upstream so far, by its own account."""
        log = self.folder / "encoded.log"
        return len(log.read_text().split()) if log.exists() else 0


def make(folder: Path) -> Place:
    return Place(folder, toy_data.write(folder / "data"), toy_upstream.write_card(folder / "cards"))


@pytest.fixture
def place(tmp_path):
    return make(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A place in which an undisturbed bench has run; tests must leave it as it is."""
    done = make(tmp_path_factory.mktemp("undisturbed"))
    outcome = done.bench()
    assert outcome.returncode == 0, outcome.stderr
    done.outcome = outcome
    return done
