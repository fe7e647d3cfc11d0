"""A sweep's steps in processes of their own: why they failed, that they end with the sweep, one training at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness import claims
from harness.interface import SlimbenchError
from upstreams.distillation.families import sweep_child


def test_a_child_says_why_it_failed(tmp_path):
    request = {"recipes": ["no-such-recipe.yaml"], "data": None, "device": "cpu"}
    with pytest.raises(SlimbenchError, match=r"no-such-recipe\.yaml is missing"):
        sweep_child.ask("train", request | {"work": str(tmp_path), "out": str(tmp_path)})
    with pytest.raises(SlimbenchError, match="its process ended with 1"):
        sweep_child.ask("nonsense", {})


def test_a_child_that_is_killed_is_an_error_with_the_signal(monkeypatch):
    plain = sweep_child._wait
    monkeypatch.setattr(sweep_child, "_wait", lambda command, given: plain(["/bin/sh", "-c", "kill -9 $$"], given))
    with pytest.raises(SlimbenchError, match="signal 9 ended its process"):
        sweep_child.ask("train", {})


def test_a_child_dies_with_its_sweep():
    """The sweep is killed while its child sleeps; the child must not outlive it by more than a moment."""
    sleeps = "import os, sys, time; from upstreams.distillation.families.sweep_child import watch; "
    sleeps += "watch(sys.stdin.fileno(), lambda: os._exit(137)); print(os.getpid(), flush=True); time.sleep(600)"
    starts = "import os, sys; from upstreams.distillation.families.sweep_child import _wait; "
    starts += f"_wait([sys.executable, '-c', {sleeps!r}], os.environ)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, "-c", starts], env=environment, stdout=subprocess.PIPE) as sweep:
        assert int(sweep.stdout.readline())
        os.kill(sweep.pid, signal.SIGKILL)
        assert sweep.stdout.read() == b""  # ends only when the child, which holds the other end, is gone too


def test_two_sweeps_do_not_train_one_student_at_once(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr("upstreams.distillation.train.cohort", lambda files, place: trained.append(files))
    request = {"recipes": ["a.yaml", "b.yaml"], "work": str(tmp_path), "out": "", "data": None, "device": "cpu"}
    other = claims.claim(tmp_path / "sweeps" / "b.lock", wait=False)
    with other, pytest.raises(SlimbenchError, match="Another sweep trains b"):
        sweep_child._train(request)
    assert not trained
    sweep_child._train(request)
    assert trained == [[Path("a.yaml"), Path("b.yaml")]]
