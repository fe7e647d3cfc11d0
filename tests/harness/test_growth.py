"""Memory of training does not grow with the corpus, once that exceeds what may be held."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import toy_growth

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
ONE = 100
FREE = 8e6


def memory(folder, utterances, free):
    """Bytes by which training on means, and training on frames, has grown a fresh process."""
    command = [sys.executable, toy_growth.__file__, str(folder), str(utterances), str(free)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": ":".join(sys.path)}
    )
    assert done.returncode == 0, done.stderr
    means, frames = map(int, done.stdout.split())
    return means, frames


def test_memory_is_that_of_one_corpus_at_four_times_its_size(tmp_path):
    once, fourfold, loaded = (
        memory(tmp_path / str(n), size, free)
        for n, (size, free) in enumerate([(ONE, FREE), (4 * ONE, FREE), (4 * ONE, 1e12)])
    )
    for kind, size in enumerate((16 * toy_growth.MEAN_BYTES, toy_growth.FRAME_BYTES)):
        more = 3 * ONE * size
        assert more > 15e6
        assert fourfold[kind] - once[kind] < 0.15 * more
        assert loaded[kind] - once[kind] > 0.8 * more  # held in memory it would show
