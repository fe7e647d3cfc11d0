"""A small data folder to be made noisy: tones with slow loudness, of which every speaker has his own."""

from __future__ import annotations

import csv
from itertools import combinations
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
SPLIT = {"a": "train", "b": "train", "c": "dev", "d": "test", "e": "test"}


def speech(seed, seconds, level=0.05):
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    return level * np.sin(2 * np.pi * (150 + 40 * seed) * time) * (1.2 + np.sin(9 * time)) + 1e-3 * rng.normal(
        size=time.size
    )


def table(folder, task, rows):
    (folder / task).mkdir(parents=True, exist_ok=True)
    with (folder / task / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, ["split", "path", "speaker", "text", "label", "start", "seconds", "note"], restval=""
        )
        writer.writeheader()
        writer.writerows(rows)


def rows_of(folder, task):
    with (folder / task / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(folder):
    """Verification and identification on the same files, of which one is cut; keywords with clips of noise."""
    (folder / "audio").mkdir(parents=True)
    said = []
    for speaker, split in SPLIT.items():
        for take in range(3):
            name = f"audio/{speaker}{take}.flac"
            soundfile.write(folder / name, speech(len(said), 0.5 + 0.1 * take), RATE, subtype="PCM_16")
            row = {"path": name, "speaker": speaker, "label": speaker, "text": "a, b", "seconds": 0.5 + 0.1 * take}
            said.append({**row, "split": split, "note": 'said "so", they say'})
    soundfile.write(folder / "audio/long.wav", speech(40, 2.0), RATE, subtype="PCM_16")
    cuts = [("train", "b", 0.0), ("test", "d", 0.5), ("test", "e", 1.25)]
    said += [
        {"split": split, "path": "audio/long.wav", "speaker": who, "label": who, "start": at, "seconds": 0.5}
        for split, who, at in cuts
    ]
    # One speaker in dev: unnamed there, so that a trial may say of two utterances that two people speak.
    table(folder, "asv", [{**r, "speaker": "" if r["split"] == "dev" else r["speaker"]} for r in said])
    for split in ("dev", "test"):
        mine = [(r, f"audio/long@{r['start']}" if "start" in r else r["path"]) for r in said if r["split"] == split]
        lines = [f"{int(a['speaker'] == b['speaker'])} {x} {y}\n" for (a, x), (b, y) in combinations(mine, 2)]
        lines += [f"0 {mine[0][1]} {mine[1][1]}\n"] if split == "dev" else []
        (folder / "asv" / f"trials_{split}.txt").write_text("".join(lines))
    takes = {"0": "train", "1": "dev", "2": "test"}
    table(folder, "sid", [{**r, "split": takes[Path(r["path"]).stem[-1]]} for r in said if "start" not in r])
    clips = []
    for number, split in enumerate(("train", "train", "dev", "test")):
        for word in ("yes", "_silence_"):
            name = f"audio/ks/{word}{number}.wav"
            (folder / "audio/ks").mkdir(exist_ok=True)
            soundfile.write(folder / name, speech(20 + number, 1.0, 0.3), RATE, subtype="PCM_16")
            who = "" if word == "_silence_" else f"k{number}"
            clips.append({"split": split, "path": name, "speaker": who, "label": word, "seconds": 1.0})
        soundfile.write(
            folder / f"audio/ks/_silence_{number}.wav", 0.01 * np.random.default_rng(number).normal(size=RATE), RATE
        )
    table(folder, "ks", clips)
    (folder / "ks" / "notes.json").write_text('["few"]')
    (folder / "LICENSE").write_text("free")
    (folder / "SHA256SUMS").write_text("of the original")
    return folder


def samples(folder, row):
    """What a reader who knows nothing of this code hears."""
    wave, rate = soundfile.read(folder / row["path"])
    assert rate == RATE
    start = round(float(row["start"] or 0) * RATE)
    return wave[start : start + round(float(row["seconds"]) * RATE)] if row["start"] else wave


def ratio(clean, mixed):
    return 10 * np.log10(np.mean(clean**2) / np.mean((mixed - clean) ** 2))


def pairs(source, out, task, split="test"):
    return [
        (samples(source, old), samples(out, new), old, new)
        for old, new in zip(rows_of(source, task), rows_of(out, task), strict=True)
        if old["split"] == split
    ]


def noisy_bytes(folder):
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted((folder / "noisy").rglob("*.wav"))}
