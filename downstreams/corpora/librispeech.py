"""LibriSpeech for ASR and PR: train-clean-100, dev-clean, test-clean (protocol sections 4.1 and 4.2)."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path, PurePosixPath

from downstreams.corpora.official import Corpus, CorpusRow, Names, Reading, scan, text_lines
from harness.interface import Split

PARTS: dict[Split, str] = {"train": "train-clean-100", "dev": "dev-clean", "test": "test-clean"}
"""Folder of each split."""

_NAME = re.compile(r"(\d+)-(\d+)-\d+")


def read(root: Path, official: bool) -> Reading:
    """Read the three folders of SUPERB.

    Args:
        root: the folder ``LibriSpeech``.
        official: whether it must be all of it; then CHAPTERS.TXT, where it is there, tells which chapters are missing.
    """
    reading = Reading()
    where: dict[str, str] = {}
    for split, part in PARTS.items():
        if not (root / part).is_dir():
            reading.problems.append(f"{root / part} is missing; unpack {part}.tar.gz there.")
        files, hidden = scan(root / part, ".flac")
        if hidden:
            reading.notes.append(f"{hidden} hidden files in {part} are no part of the corpus and were left out")
        chapters: dict[str, list[str]] = defaultdict(list)
        for name in files:
            chapters[str(PurePosixPath(name).parent)].append(PurePosixPath(name).name)
        for place in sorted(set(chapters) | _with_transcripts(root / part)):
            _chapter(reading, root, split, f"{part}/{place}", chapters[place], where)
        reading.counts[split] = sum(row.split == split for row in reading.rows)
    if official:
        reading.hints += _absent_chapters(root)
    return reading


def _with_transcripts(folder: Path) -> set[str]:
    names, _ = scan(folder, ".trans.txt")
    return {str(PurePosixPath(name).parent) for name in names}


def _chapter(reading: Reading, root: Path, split: Split, place: str, files: list[str], where: dict[str, str]) -> None:
    """Rows of one chapter: its FLAC files and its transcript must name the same utterances."""
    speaker, _, chapter = place.partition("/")[2].partition("/")
    transcript = root / place / f"{speaker}-{chapter}.trans.txt"
    texts: dict[str, str] = {}
    before = len(reading.problems)
    for number, line in text_lines(transcript, reading.problems):
        ident, *words = line.split() or [""]
        match = _NAME.fullmatch(ident)
        if match is None or match.groups() != (speaker, chapter) or not words:
            reading.problems.append(
                f"{transcript}: line {number}: {line[:60]!r} is no transcript of this chapter; unpack the file again."
            )
        elif ident in texts:
            reading.problems.append(f"{transcript}: line {number}: {ident} stands there twice; unpack the file again.")
        else:
            texts[ident] = " ".join(words)
    if len(reading.problems) > before and not texts:
        return
    known = Names(files)
    for ident, text in texts.items():
        name = f"{ident}.flac"
        if name not in known:
            reading.problems.append(known.missing(root / place, name))
        elif ident in where:
            reading.problems.append(f"{root / place / name}: {where[ident]} has the same id; keep one of them.")
        else:
            where[ident] = f"{place}/{name}"
            reading.rows.append(CorpusRow(split, f"{place}/{name}", speaker, text, ""))
    folded = {f"{ident}.flac".casefold() for ident in texts}
    for name in files:
        if name.casefold() not in folded:
            reading.problems.append(
                f"{root / place / name} has no line in {transcript.name}; unpack that file again or take the audio out."
            )


def _absent_chapters(root: Path) -> list[str]:
    """Chapters of the three parts that the corpus' own CHAPTERS.TXT names and the disk lacks."""
    file = root / "CHAPTERS.TXT"
    if not file.is_file():
        return []
    absent = []
    for _, line in text_lines(file, []):
        fields = [field.strip() for field in line.split("|")]
        if line.startswith(";") or len(fields) < 4 or fields[3] not in PARTS.values():
            continue
        place = root / fields[3] / fields[1] / fields[0]
        if fields[0].isdigit() and fields[1].isdigit() and not place.is_dir():
            absent.append(f"{place} is missing, which CHAPTERS.TXT names; unpack {fields[3]}.tar.gz again.")
    return absent


def finish(rows: list[CorpusRow], task: str, data: Path, notes: list[str]) -> list[CorpusRow]:
    """Rows with the target of the task: phones from the lexicon for PR, none for ASR, whose target is the text.

    Raises:
        SlimbenchError: a word that the lexicon has no phones for.
    """
    if task != "pr":
        return rows
    from downstreams.corpora import lexicon

    found = lexicon.find(data)
    result = [replace(row, label=found.phones(row.text)) for row in rows]
    notes.append(found.remark())
    return result


LIBRISPEECH = Corpus(
    name="librispeech",
    title="LibriSpeech (train-clean-100, dev-clean, test-clean)",
    licence="CC BY 4.0",
    source="https://www.openslr.org/12",
    size_gb=7.0,
    tree="""\
LibriSpeech/
  train-clean-100/19/198/19-198-0000.flac      <speaker>/<chapter>/<speaker>-<chapter>-<number>.flac
  train-clean-100/19/198/19-198.trans.txt      one line per file: 19-198-0000 WORDS
  dev-clean/...
  test-clean/...
lexicon/                                        for PR, see docs/data.md; without it CMUdict is used""",
    tasks=("asr", "pr"),
    folders=("LibriSpeech", "librispeech_asr", "LibriSpeech/LibriSpeech"),
    sign=tuple(PARTS.values()),
    expected={"train": 28_539, "dev": 2_703, "test": 2_620},
    read=read,
    finish=finish,
)
