"""A bench in miniature: tones, a toy upstream, and the real line from the card to the record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

HELPERS = Path(__file__).parent.parent / "harness"
sys.path.insert(0, str(HELPERS))

import toy_data  # noqa: E402
import toy_upstream  # noqa: E402


@dataclass
class Place:
    """A folder with data, suite and card, and benches run on them."""

    folder: Path
    suite: Path
    card: Path
    said: str = ""

    @property
    def data(self):
        return self.folder / "data"

    @property
    def log(self):
        """Where the toy upstream writes what it encodes."""
        return self.folder / "encoded.log"

    def options(self, *more):
        own = ["--upstream", str(self.card), "--suite", str(self.suite), "--data", str(self.data), "--device", "cpu"]
        own += ["--results", str(self.folder / "results"), "--cache", str(self.folder / "cache"), "--threads", "1"]
        return [*own, *more]

    def process(self, *arguments, program=("-m", "harness")):
        """The command line in a process of its own."""
        paths = os.pathsep.join([str(HELPERS), str(HELPERS.parent.parent), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": paths, "TOY_LOG": str(self.log)}
        command = [sys.executable, *program, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)

    def killed(self, stage, amount, *more):
        """A bench in a process that is killed with signal 9 once ``stage`` has come to ``amount``."""
        killer = (str(Path(__file__).with_name("killer.py")), stage, str(amount))
        return self.process("bench", *self.options(*more), program=killer)

    def bench(self, *tasks):
        """A bench in this process, without the report; returns the records by task."""
        from harness.preparing import Options
        from harness.run import bench

        where = {"results": self.folder / "results", "cache": self.folder / "cache", "data": self.data}
        options = Options(str(self.card), str(self.suite), **where, tasks=tasks, device="cpu", threads=1)
        return {record.task: record for record in bench(options)}

    def records(self):
        """The records as they stand on disk, by task."""
        found = [json.loads(p.read_text()) for p in (self.folder / "results").glob("tiny/*/*.json")]
        return {record["task"]: record for record in found}

    def encoded(self):
        """How many utterances went through the upstream so far, by its own account."""
        return len(self.log.read_text().split()) if self.log.exists() else 0


def make(folder: Path) -> Place:
    return Place(folder, toy_data.write(folder / "data"), toy_upstream.write_card(folder / "cards"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    made, threads = make(tmp_path), torch.get_num_threads()
    monkeypatch.setenv("TOY_LOG", str(made.log))
    yield made
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A place in which an undisturbed bench has run as a user runs it; tests must leave it as it is."""
    done = make(tmp_path_factory.mktemp("undisturbed"))
    time.sleep(2.5)  # digests of files that are younger than 2 s are not remembered (harness/store/digests.py)
    outcome = done.process("bench", *done.options())
    assert outcome.returncode == 0, outcome.stderr
    done.said = outcome.stdout
    return done


@pytest.fixture
def call(capsys):
    """The command line in this process: its exit status, what it printed, and its sentences on errors."""
    from harness import cli

    threads = torch.get_num_threads()

    def run(*arguments):
        status = cli.main(arguments)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    yield run
    torch.set_num_threads(threads)
