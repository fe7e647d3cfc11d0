"""Where the miniature corpora take their audio from: real recordings where there are some, tones otherwise."""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
KEYWORDS = tuple("yes no up down left right on off stop go".split())
OTHER_WORDS = tuple("bed cat five happy house marvin sheila three tree wow".split())
EMOTIONS = ("neutral", "happiness", "anger", "sadness", "boredom")
SENTENCES = (
    "THE MEDICAL MAN HAS TWO DUTIES TO PERFORM",
    "HE SHOULD NOTICE THE POSITION OF THE BODY",
    "I COULD NOT HELP WATCHING YOUR FACE",
    "WE CALL IT BEAR",
    "MARK IS GOING TO SEE ELEPHANT",
    "SHE DID NOT KNOW WHAT TO SAY",
    "IT WAS A COLD AND RAINY MORNING",
)


@dataclass(frozen=True)
class Clip:
    """One utterance: where it comes from and what is known of it. Tones have no path."""

    split: str
    path: Path | None
    speaker: str
    text: str
    label: str
    gender: str
    start: float | None
    seconds: float
    name: str


def order(clips: list[Clip]) -> list[Clip]:
    """Mixed, but always in the same way."""
    return sorted(clips, key=lambda clip: hashlib.sha256(clip.name.encode()).hexdigest())


def by_speaker(clips: list[Clip]) -> dict[str, list[Clip]]:
    """The clips of every speaker, speakers sorted."""
    found: dict[str, list[Clip]] = {}
    for clip in clips:
        found.setdefault(clip.speaker, []).append(clip)
    return dict(sorted(found.items()))


def clips(speech: Path | None, task: str) -> list[Clip]:
    """All clips for a task: those of ``<speech>/<task>/manifest.csv``, or made-up ones."""
    if speech is None:
        return list(_made_up(task))
    found = []
    with (speech / task / "manifest.csv").open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            start = float(row["start"]) if row.get("start") else None
            name = f"{row['path']}@{row.get('start', '')}"
            label = row["text"] if row["label"] == "_unknown_" else row["label"]
            found.append(
                Clip(row["split"], speech / row["path"], row["speaker"], row["text"], label, row.get("gender", ""),
                     start, float(row["seconds"]), name)
            )  # fmt: skip
    return found


def samples(clip: Clip) -> np.ndarray:
    """(S,) int16 at 16 kHz."""
    if clip.path is None:
        seed = int.from_bytes(hashlib.sha256(clip.name.encode()).digest()[:4], "big")
        rng = np.random.default_rng(seed)
        time = np.arange(int(clip.seconds * RATE)) / RATE
        pitch = 80 + int.from_bytes(hashlib.sha256((clip.speaker + clip.label).encode()).digest()[:1], "big")
        wave = 0.3 * np.sin(2 * np.pi * pitch * time) + 0.02 * rng.standard_normal(len(time))
        return (wave * 32767).astype(np.int16)
    first = 0 if clip.start is None else round(clip.start * RATE)
    count = -1 if clip.start is None else round(clip.seconds * RATE)
    data, rate = soundfile.read(clip.path, frames=count, start=first, dtype="int16")
    assert rate == RATE
    return data


def write(path: Path, data: np.ndarray) -> None:
    """16 bit, mono; WAV or FLAC by the suffix."""
    content = io.BytesIO()  # soundfile syncs files to disk one by one, which takes most of the time
    soundfile.write(content, data, RATE, subtype="PCM_16", format=path.suffix[1:])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getvalue())


def _made_up(task: str):
    """Tones in the numbers that the trees need."""
    numbers = {"train": 12, "dev": 3, "test": 5}
    if task == "ks":
        for label in (*KEYWORDS, *OTHER_WORDS, "_silence_"):
            for split, count in numbers.items():
                for index in range(count):
                    speaker = "" if label == "_silence_" else f"{hash8(f'{split}{index}')}"
                    yield Clip(split, None, speaker, label, label, "", None, 1.0, f"ks{label}{split}{index}")
    elif task == "er":
        for person in range(10):
            for index in range(30):
                label = EMOTIONS[index % 5]
                yield Clip("train", None, f"{person}", "", label, "mf"[person % 2], None, 0.4, f"er{person}-{index}")
    else:
        for person in range(30):
            split = ("train", "train", "train", "dev", "test")[person % 5]
            for index in range(10):
                text = SENTENCES[(person + index) % len(SENTENCES)]
                yield Clip(split, None, f"s{person}", text, f"s{person}", "", None, 0.4, f"{task}{person}-{index}")


def hash8(text: str) -> str:
    """Eight hex digits, like the speaker part of a name in Speech Commands."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]
