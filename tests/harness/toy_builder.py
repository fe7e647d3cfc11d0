"""A builder of a suite for tests."""

from __future__ import annotations

from harness.identity import digest_json


def build(folder, seed, workers, progress):
    for number in range(3):
        (folder / f"{number}.txt").write_text(f"{seed} {number}")
        progress(number + 1, 3)


def digest(folder):
    return digest_json({p.name: p.read_text() for p in sorted(folder.glob("*.txt"))})


def broken(folder, seed, workers, progress):
    build(folder, seed, workers, progress)
    raise KeyboardInterrupt
