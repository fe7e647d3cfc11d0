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


INDEX_VERSION = 1


def index(root, out, tasks, progress):
    for task in tasks:
        if (root / task).is_dir():
            (out / task).mkdir(parents=True)
            (out / task / "manifest.csv").write_text(f"indexed {task}\n")
    return {task: f"no folder {task}" for task in tasks if not (root / task).is_dir()}
