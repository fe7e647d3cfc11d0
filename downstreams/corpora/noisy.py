"""Noisy copies of a data folder: the same tables, with noise or a second speaker in the audio of some splits.

A probe is trained on clean audio and scored on noisy audio, as RobustDistiller (arXiv 2302.09437) is measured. What an
utterance carries depends on its content and the seed alone: it is the same in every task, and at another ratio it is
the same noise, louder or softer. A second speaker comes from the train split of the same corpus, that is of the tables
that share audio with the utterance's.
"""

from __future__ import annotations

import csv
import io
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import soundfile

from downstreams.corpora.pieces import Corpus, Piece, Table, corpora, digests_of, piece_of, tables
from harness import atomic, kept
from harness.data import NOISE, NOTES
from harness.interface import SAMPLE_RATE, SlimbenchError, Split
from harness.locks import lock
from harness.manifest import TRIAL_SPLITS
from harness.noise import FLOOR, Wave, coloured_noise, gain, power
from harness.progress import say

VERSION = 1
"""Raised when the same recipe makes other samples."""

Kind = Literal["noise", "speaker", "mixed"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FOLDER = "noisy"
"""Sub-folder of the new audio."""

_WORDS = {
    "noise": "coloured noise",
    "speaker": "a second speaker",
    "mixed": "coloured noise and a second speaker, together",
}
_LOUDEST = 60.0
"""Decibels beyond which a ratio is surely a slip."""
_PEAK = 0.99
_TRIES = 4
"""Stretches of a longer second speaker, of which the loudest is taken: it should not be a pause."""
_UNTRUE = ("SHA256SUMS",)
"""Files of a source that would say what is not so of its copy."""

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Recipe:
    """What is added to which splits.

    Attributes:
        snr_db: power of an utterance as it is over that of all that is added, in dB, both over the whole utterance.
        kind: ``noise`` of a random colour, a second ``speaker``, or ``mixed``: both, at equal power.
        seed: of what is added.
        splits: whose audio is changed.
    """

    snr_db: float = 5.0
    kind: Kind = "noise"
    seed: int = 0
    splits: tuple[Split, ...] = ("test",)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            SlimbenchError: one is out of range.
        """
        if not math.isfinite(self.snr_db) or abs(self.snr_db) > _LOUDEST:
            raise SlimbenchError(f"a ratio of {self.snr_db:g} dB is beyond {_LOUDEST:g} dB; give --snr within it.")
        if self.kind not in KINDS:
            raise SlimbenchError(f"kind {self.kind!r} is not known; --kind is one of {', '.join(KINDS)}.")
        if self.seed < 0 or not self.splits:
            raise SlimbenchError("--seed must not be negative, and --splits must name a split.")

    def words(self) -> str:
        """For readers of records."""
        return f"the audio of {' and '.join(self.splits)} carries {_WORDS[self.kind]} at {self.snr_db:g} dB"

    def settings(self) -> dict[str, Any]:
        """As a suite file and the note of origin state it."""
        return asdict(self) | {"splits": list(self.splits)}


def disturb(wave: Wave, parts: Sequence[Wave], snr_db: float) -> Wave:
    """Add disturbances of equal power, together at a ratio; where the sum would clip, lower it as a whole.

    Args:
        wave: (S,) in [-1, 1].
        parts: (S,) each.
        snr_db: ratio of the power of ``wave`` to that of all that is added, in dB.

    Returns:
        (S,) in [-1, 1].
    """
    added: Wave = np.stack([part / math.sqrt(power(part)) for part in parts]).sum(axis=0, dtype=np.float32)
    mixed: Wave = wave + added * gain(power(wave), power(added), snr_db)
    peak = float(np.abs(mixed).max())
    return mixed if peak <= 1 else mixed * np.float32(_PEAK / peak)


def stretch(other: Wave, samples: int, rng: np.random.Generator) -> Wave:
    """So many samples of another utterance: the loudest of a few stretches, or all of it over and over."""
    if other.size <= samples:
        return np.resize(np.roll(other, -int(rng.integers(other.size))), samples)
    starts = rng.integers(other.size - samples + 1, size=_TRIES)
    return max((other[start : start + samples] for start in starts), key=power)


def make(source: Path, out: Path, recipe: Recipe, progress: Report | None = None) -> dict[str, Any]:
    """Make the noisy copy of a data folder; what an earlier run of the same recipe made is kept.

    Args:
        source: the data folder, which is only read.
        out: a new or empty folder, or one of the same recipe.
        recipe: what is added.
        progress: called as (utterances done, in all).

    Returns:
        The note of origin, which stands in ``out`` too.

    Raises:
        SlimbenchError: the source is broken or noisy already, or ``out`` holds something else or is being made.
    """
    if (source / NOISE).exists():
        raise SlimbenchError(f"{source / NOISE}: says that this folder carries noise already; name the one without.")
    given = tables(source)
    note = _admitted(source, out)
    with lock(out / ".lock", wait=False) as held:
        if not held:
            raise SlimbenchError(f"{out}: another process is making this folder; let it finish.")
        return fill(source, out, recipe, given, note, progress)


def _admitted(source: Path, out: Path) -> Mapping[str, Any]:
    """The note of an earlier run, empty where there was none; another content of ``out`` is an error."""
    one, other = source.resolve(), out.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise SlimbenchError(
            f"{out}: lies within --data {source}, or that within it; name a folder beside it as --out."
        )
    if out.exists() and not out.is_dir():
        raise SlimbenchError(f"{out}: is a file; name a folder as --out.")
    note = kept.read(out / NOISE)
    if isinstance(note, dict) and "recipe" in note:
        return note
    if out.exists() and any(file.name != ".lock" for file in out.iterdir()):
        raise SlimbenchError(f"{out}: holds other files; name an empty or a new folder as --out.")
    return {}


def fill(
    source: Path,
    out: Path,
    recipe: Recipe,
    given: Mapping[str, Table],
    note: Mapping[str, Any],
    progress: Report | None = None,
) -> dict[str, Any]:
    """Noisy audio first, then what stays as it is, last the tables: without these no bench begins.

    Args:
        source: the data folder.
        out: an existing folder.
        recipe: what is added.
        given: the tables of ``source``.
        note: that of an earlier run, or empty.
        progress: called as (utterances done, in all).

    Raises:
        SlimbenchError: the earlier run was one of another recipe or source, or audio is broken.
    """
    whole, digests = digests_of(source, given)
    origin = recipe.settings() | {"source": whole, "version": VERSION}
    if note:
        _same_recipe(out / NOISE, note["recipe"], origin)
        if note.get("complete"):
            return dict(note)
    todo = _todo(given, recipe)
    kept.write(out / NOISE, {"recipe": origin, "complete": False})
    for left in out.rglob(".*.tmp"):  # of a run that was killed
        left.unlink()
    for done, (piece, corpus) in enumerate(todo.items(), start=1):
        if not (file := out / _target(piece)).exists():
            atomic.write(file, _wav(_noisy(source, piece, corpus, recipe, digests)))
        if progress is not None:
            progress(done, len(todo))
    _carry(source, out, given, recipe)
    sentence = f"{recipe.words()} (seed {recipe.seed}, made from data {whole[:12]})"
    for task, table in given.items():
        _write_lists(source / task, out / task, table, recipe, sentence)
    speechless = sum(not corpus.spoken(piece) for piece, corpus in todo.items())
    made = {"recipe": origin, "complete": True, "utterances": len(todo), "without_speech": speechless}
    kept.write(out / NOISE, made)
    return made


def _same_recipe(file: Path, stated: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    changed = [
        f"{name} {stated.get(name)!r}, not {origin[name]!r}" for name in origin if stated.get(name) != origin[name]
    ]
    if changed:
        raise SlimbenchError(
            f"{file}: the folder was made with {', '.join(changed)}; name another one as --out, or delete this one."
        )


def _target(piece: Piece) -> str:
    return f"{FOLDER}/{piece.name}.wav"


def _todo(given: Mapping[str, Table], recipe: Recipe) -> dict[Piece, Corpus]:
    """The distinct audio that is to be changed, and the corpus of each."""
    found: dict[Piece, Corpus] = {}
    for corpus in corpora(given):
        pieces = {piece for task in corpus.tasks for piece, _ in given[task].pieces(recipe.splits)}
        found |= dict.fromkeys(sorted(pieces), corpus)
    names: dict[str, Piece] = {}
    for piece in found:
        first = names.setdefault(piece.name, piece)
        if first is not piece:
            raise SlimbenchError(f"{piece.path}: differs from {first.path} only in the suffix; rename one.")
    return found


def _noisy(source: Path, piece: Piece, corpus: Corpus, recipe: Recipe, digests: Mapping[str, str]) -> Wave:
    """A piece with what the recipe adds; where it holds no speech, noise takes the second speaker's place."""
    wave = piece.load(source)
    if power(wave) <= FLOOR:
        say(f"note: {piece.path} is silent and stays so: no ratio to silence can be had")
        return wave
    content = int(piece.key(digests), 16)
    parts = []
    if recipe.kind != "speaker" or not corpus.spoken(piece):
        parts.append(coloured_noise(np.random.default_rng([recipe.seed, 0, content]), wave.size))
    if recipe.kind != "noise" and corpus.spoken(piece):
        rng = np.random.default_rng([recipe.seed, 1, content])
        parts.append(stretch(corpus.second(piece, rng).load(source), wave.size, rng))
    return disturb(wave, parts, recipe.snr_db)


def _wav(wave: Wave) -> bytes:
    """A WAV file of 16 bits per sample."""
    rounded = np.clip(np.round(wave.astype(np.float64) * 32_768), -32_768, 32_767).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, rounded, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def _carry(source: Path, out: Path, given: Mapping[str, Table], recipe: Recipe) -> None:
    """Link or copy all that stays: audio of the other splits, lexicons, licences; not the originals of what changed."""
    named = [found for table in given.values() for found in table.pieces()]
    clean = {piece.path for piece, row in named if row["split"] not in recipe.splits}
    gone = {piece.path for piece, _ in named} - clean
    lists = {f"{task}/{name}" for task in given for name in ("manifest.csv", NOTES, *map(_trials, TRIAL_SPLITS))}
    for name in _files(source):
        if name not in gone and name not in lists:
            _link((source / name).resolve(), out / name)


def _files(folder: Path) -> Iterator[str]:
    """All files below a folder but hidden ones and sums of the original."""
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and name not in _UNTRUE:
                yield Path(place, name).relative_to(folder).as_posix()


def _link(file: Path, target: Path) -> None:
    """A hard link, or where none can be had a copy; what is there is whole and stays."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, target)
    except OSError:
        partial = target.with_name(f".{target.name}.tmp")
        shutil.copyfile(file, partial)
        partial.replace(target)


def _trials(split: str) -> str:
    return f"trials_{split}.txt"


def _write_lists(old: Path, new: Path, table: Table, recipe: Recipe, sentence: str) -> None:
    """The manifest and the trials of a task with the new paths, and what readers of its records must know."""
    kept.write(new / NOTES, [*(kept.read(old / NOTES) or []), sentence])
    for split in TRIAL_SPLITS:
        if (old / _trials(split)).is_file():
            content = (old / _trials(split)).read_text(encoding="utf-8-sig")
            if split in recipe.splits:
                names = _new_names(old.parent, table, split)
                fields = [line.split() for line in content.splitlines()]
                content = "".join(f"{same} {names[one]} {names[other]}\n" for same, one, other in fields)
            atomic.write(new / _trials(split), content.encode())
    atomic.write(new / "manifest.csv", _manifest(table, recipe).encode())


def _new_names(source: Path, table: Table, split: str) -> dict[str, str]:
    """What trials may call the utterances of a split, and the paths of their noisy versions."""
    names = {}
    for u in table.read.utterances:
        if u.split == split:
            path = u.path.relative_to(source).as_posix()
            piece = Piece(path) if u.start is None else Piece(path, u.start, u.seconds)
            names[path] = names[u.id] = _target(piece)
    return names


def _manifest(table: Table, recipe: Recipe) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, table.header, lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        moved = {"path": _target(piece_of(row)), **({"start": ""} if "start" in row else {})}
        writer.writerow(row | moved if row["split"] in recipe.splits else row)
    return text.getvalue()
