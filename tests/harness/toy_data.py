"""A tiny data folder of tones: four words, spoken by tone, and six speakers, told apart by their overtones.

All tasks use the same files, so that encoding each of them once is something to be proven.
"""

from __future__ import annotations

import csv
from itertools import combinations
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
WORDS = {"la": 200.0, "mi": 330.0, "so": 470.0, "ti": 640.0}
COUNTS = {"train": 8, "dev": 4, "test": 4}
SPEAKERS = ("a", "b")

SUITE = """\
name: tiny
title: Tones
builder: null
bootstrap: 50
seeds: 2
tasks:
  ks: {steps: 24, batch: 8, eval_every: 6, learning_rates: [1.0e-2, 3.0e-2], effects: [], crops: 0, max_seconds: null,
       drop_last: false, balanced_dev: false}
  sid: {steps: 24, batch: 8, eval_every: 6, learning_rates: [1.0e-2, 3.0e-2], accumulate: 1, crops: 0}
  pr: {steps: 24, batch: 8, eval_every: 6, learning_rates: [1.0e-2, 3.0e-2], accumulate: 1, batching: by_length}
  asv: {steps: 8, batch: 8, eval_every: 4, learning_rates: [1.0e-3, 1.0e-2], max_seconds: 0.6, min_seconds: null,
        accumulate: 1, batching: by_length, effects: [], looks_on_test: false,
        head: {project: 8, channels: 8, pool: 16, embed: 8}}
"""

AS_SUPERB = """\
name: published
title: Tones, trained as SUPERB trains
builder: null
bootstrap: 50
seeds: 2
protocols:
  superb:
    ks: {steps: 24, batch: 4, eval_every: 12, learning_rates: [3.0e-2], max_seconds: 0.5, crops: 3}
    pr: {steps: 12, batch: 4, eval_every: 6, learning_rates: [3.0e-2]}
    asr: {steps: 8, batch: 4, eval_every: 4, learning_rates: [1.0e-2], head: {project: 8, hidden: 8, layers: 1}}
    er: {steps: 12, batch: 4, accumulate: 2, eval_every: 6, learning_rates: [1.0e-2, 3.0e-2]}
    asv: {steps: 8, batch: 4, accumulate: 2, eval_every: 4, learning_rates: [1.0e-2], max_seconds: 0.5,
          min_seconds: 0.59, train_on_dev: true, choose: last, effects: [gain -3],
          head: {project: 8, channels: 8, pool: 16, embed: 8}}
  fast:
    ks: {steps: 6, batch: 4, eval_every: 3, learning_rates: [3.0e-2], max_seconds: 0.5, crops: 3}
"""


def tone(words, speaker, seed, rate=RATE):
    """Each word lasts 0.2 s; a speaker adds an overtone of his own."""
    noise = np.random.default_rng(seed)
    time = np.arange(int(0.2 * rate)) / rate
    overtone = 2.0 + SPEAKERS.index(speaker[0])
    parts = [np.sin(2 * np.pi * WORDS[w] * time) + 0.4 * np.sin(2 * np.pi * overtone * WORDS[w] * time) for w in words]
    wave = 0.3 * np.concatenate(parts)
    return (wave + 0.01 * noise.standard_normal(len(wave))).astype(np.float32)


def write(folder: Path) -> Path:
    """Write the data folder and the suite file beside it; returns the suite file."""
    rows = []
    for split, count in COUNTS.items():
        for number, speaker in ((n, s) for n in range(count) for s in SPEAKERS):
            seed = 1000 * list(COUNTS).index(split) + 10 * number + SPEAKERS.index(speaker)
            words = [str(w) for w in np.random.default_rng(seed).choice(list(WORDS), 3)]
            words[:2] = [list(WORDS)[number % 4]] * 2
            name = f"audio/{split}-{speaker}{number}.wav"
            (folder / "audio").mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / name, tone(words, speaker, seed), RATE)
            rows.append({"split": split, "path": name, "speaker": speaker, "text": " ".join(words), "seconds": 0.6})
    for task in ("ks", "sid", "pr", "asv"):
        labels = {"ks": lambda r: r["text"].split()[0], "pr": lambda r: r["text"]}.get(task, lambda r: r["speaker"])
        write_manifest(folder, task, [{**row, "label": labels(row)} for row in rows])
    for split in ("dev", "test"):
        mine = [row for row in rows if row["split"] == split]
        pairs = [f"{int(a['speaker'] == b['speaker'])} {a['path']} {b['path']}" for a, b in combinations(mine, 2)]
        (folder / "asv" / f"trials_{split}.txt").write_text("\n".join(pairs) + "\n")
    suite = folder.parent / "tiny.yaml"
    suite.write_text(SUITE)
    return suite


def write_manifest(folder: Path, task: str, rows) -> Path:
    columns = ["split", "path", "speaker", "text", "label", "seconds", *(["start"] if "start" in rows[0] else [])]
    file = folder / task / "manifest.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return file


def read_manifest(folder: Path, task: str):
    with (folder / task / "manifest.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))
