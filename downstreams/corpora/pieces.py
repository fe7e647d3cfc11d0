"""The audio of a whole data folder: which stretches its tables name, and which tables share audio."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from harness import audio, manifest
from harness.identity import digest_file, digest_json
from harness.interface import SPLITS, Manifest, SlimbenchError
from harness.noise import Wave


@dataclass(frozen=True, order=True)
class Piece:
    """A stretch of audio.

    Attributes:
        path: the file, relative to the data folder.
        start: where in it the stretch begins, in seconds; negative for the whole file.
        seconds: its length; negative for the whole file.
    """

    path: str
    start: float = -1.0
    seconds: float = -1.0

    @property
    def name(self) -> str:
        """Its file's path without suffix and, where it is cut out, from where and how much."""
        stem = PurePosixPath(self.path).with_suffix("").as_posix()
        return stem if self.start < 0 else f"{stem}@{self.start!r}+{self.seconds!r}"

    def load(self, folder: Path) -> Wave:
        """Its samples (S,) at 16 kHz."""
        whole = self.start < 0
        return audio.load(folder / self.path, None if whole else self.start, None if whole else self.seconds)

    def key(self, digests: Mapping[str, str]) -> str:
        """Its content key, from the digests of files by path."""
        return audio.audio_key(digests[self.path], None if self.start < 0 else self.start, self.seconds)


@dataclass(frozen=True)
class Table:
    """One task's manifest, checked, and its rows as they stand in the file.

    Attributes:
        read: the manifest.
        header: its columns.
        rows: one value per column.
    """

    read: Manifest
    header: tuple[str, ...]
    rows: tuple[dict[str, str], ...]

    def pieces(self, splits: Sequence[str] = SPLITS) -> Iterator[tuple[Piece, dict[str, str]]]:
        """The audio of the rows of some splits."""
        for row in self.rows:
            if row["split"] in splits:
                yield piece_of(row), row


def piece_of(row: Mapping[str, str]) -> Piece:
    """The audio of a row; the stated length of a whole file plays no part."""
    path = PurePosixPath(row["path"]).as_posix()
    return Piece(path, float(row["start"]), float(row["seconds"])) if row.get("start") else Piece(path)


def tables(folder: Path) -> dict[str, Table]:
    """All tables of a data folder, by task.

    Raises:
        SlimbenchError: there are none, or one is broken.
    """
    if not folder.is_dir():
        raise SlimbenchError(f"{folder}: no such data folder; correct --data.")
    found = {}
    for file in sorted(folder.glob("*/manifest.csv")):
        read = manifest.read(folder, file.parent.name)
        with file.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            found[file.parent.name] = Table(read, tuple(reader.fieldnames or ()), tuple(reader))
    if not found:
        raise SlimbenchError(f"{folder}: holds no TASK/manifest.csv; name a data folder as docs/data.md describes it.")
    return found


def digests_of(folder: Path, given: Mapping[str, Table]) -> tuple[str, dict[str, str]]:
    """One digest of all tables, trials, lexicons and audio of a data folder, and those of its audio files by path."""
    paths = sorted({piece.path for table in given.values() for piece, _ in table.pieces()})
    found = audio.file_digests(folder / path for path in paths)
    sounds = {path: found[folder / path] for path in paths}
    lists = [file for task in given for file in (folder / task).iterdir() if file.suffix in (".csv", ".txt")]
    return digest_json({**sounds, **{file.relative_to(folder).as_posix(): digest_file(file) for file in lists}}), sounds


@dataclass(frozen=True)
class Corpus:
    """The tables that share audio, and who may speak a second time in them.

    Attributes:
        tasks: their names.
        speakers: of every piece of audio; empty where nobody is named.
        others: pieces that are in train splits only; where cross-validation leaves none, those of any train split.
    """

    tasks: tuple[str, ...]
    speakers: Mapping[Piece, str]
    others: tuple[Piece, ...]

    def spoken(self, piece: Piece) -> bool:
        """Whether it holds speech: where speakers are named, a piece without a speaker is a clip of noise."""
        return bool(self.speakers[piece]) or not any(self.speakers.values())

    def second(self, piece: Piece, rng: np.random.Generator) -> Piece:
        """Draw a piece of somebody else.

        Raises:
            SlimbenchError: there is nobody else.
        """
        mine = self.speakers[piece]
        others = [o for o in self.others if o != piece and self.spoken(o) and (not mine or self.speakers[o] != mine)]
        if not others:
            raise SlimbenchError(
                f"{piece.path}: the train splits of {', '.join(self.tasks)} have no other speaker for it; take --kind "
                "noise."
            )
        return others[int(rng.integers(len(others)))]


def corpora(given: Mapping[str, Table]) -> list[Corpus]:
    """Tables grouped by the audio that they share."""
    groups: list[tuple[list[str], set[str]]] = []
    for task, table in given.items():
        names, paths = [task], {piece.path for piece, _ in table.pieces()}
        for group in [group for group in groups if group[1] & paths]:
            groups.remove(group)
            names, paths = [*group[0], *names], paths | group[1]
        groups.append((names, paths))
    return [_corpus(tuple(names), [given[name] for name in names]) for names, _ in groups]


def _corpus(names: tuple[str, ...], group: Sequence[Table]) -> Corpus:
    speakers: dict[Piece, str] = {}
    splits: dict[Piece, set[str]] = {}
    for piece, row in (found for table in group for found in table.pieces()):
        speakers[piece] = speakers.get(piece) or row["speaker"]
        splits.setdefault(piece, set()).add(row["split"])
    only = sorted(piece for piece, where in splits.items() if where == {"train"})
    return Corpus(names, speakers, tuple(only or sorted(piece for piece, where in splits.items() if "train" in where)))
