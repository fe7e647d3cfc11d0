"""Locks between processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness.locks import lock

HOLD = """
import sys
from pathlib import Path
from harness.locks import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(file: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock until its input ends."""
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    return other


def test_a_lock_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.lock"
    other = hold(file)
    with lock(file, wait=False) as mine:
        assert not mine
    other.communicate()
    with lock(file, wait=False) as mine:
        assert mine
    with lock(file) as mine:
        assert mine


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    other = hold(tmp_path / "a.lock")
    other.kill()
    other.wait()
    with lock(tmp_path / "a.lock") as mine:
        assert mine
