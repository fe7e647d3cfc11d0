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
PROMPT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Lets glibc give freed memory back at once; else what it keeps differs by several MB from run to run."""


def memory(folder, *cases):
    """Bytes by which training on means, and training on frames, has grown a fresh process, per (utterances, free)."""
    command = [sys.executable, toy_growth.__file__, str(folder), *(f"{count}:{free}" for count, free in cases)]
    environment = {**os.environ, **PROMPT, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    figures = list(map(int, done.stdout.split()))
    assert len(figures) == 2 * len(cases)
    return list(zip(figures[::2], figures[1::2], strict=True))


def test_memory_is_that_of_one_corpus_at_four_times_its_size(tmp_path):
    once, fourfold, loaded = memory(tmp_path, (ONE, FREE), (4 * ONE, FREE), (4 * ONE, 1e12))
    for kind, size in enumerate((16 * toy_growth.MEAN_BYTES, toy_growth.FRAME_BYTES)):
        more = 3 * ONE * size
        assert more > 15e6
        assert fourfold[kind] - once[kind] < 0.15 * more
        assert loaded[kind] - once[kind] > 0.8 * more  # held in memory it would show
