"""A small pool of training speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from upstreams.distillation.data import pool


@pytest.fixture
def shards(tmp_path) -> Path:
    """A pool of noise: eight utterances of 1.5 to 5 s, half of them called real."""
    rng = np.random.default_rng(0)
    folder, root = tmp_path / "pool", tmp_path / "data"
    lines = ["path,start,seconds"]
    (root / "pretrain").mkdir(parents=True)
    for n in (24_000, 40_000, 60_000, 80_000):
        soundfile.write(root / "pretrain" / f"{n}.wav", rng.normal(0, 0.1, n), 16_000)
        lines.append(f"{n}.wav,,{n / 16_000}")
    (root / "pretrain" / "manifest.csv").write_text("\n".join(lines) + "\n")
    pool.Writer(folder, "real").write("all", pool.real(root), pool.rows_digest(root))
    pool.Writer(folder, "synthetic").write("000-0000", (rng.normal(0, 0.1, n) for n in range(24_000, 81_000, 18_000)))
    return folder
