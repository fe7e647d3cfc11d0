"""Fluent Speech Commands for IC (protocol section 4.4)."""

from __future__ import annotations

import csv
from pathlib import Path

from downstreams.common import SEPARATOR
from downstreams.corpora.official import Corpus, CorpusRow, Names, Reading, inside, scan
from harness.interface import Split

TABLES: dict[Split, str] = {"train": "train_data.csv", "dev": "valid_data.csv", "test": "test_data.csv"}
SLOTS = ("action", "object", "location")
COLUMNS = ("path", "speakerId", "transcription", *SLOTS)


def read(root: Path, official: bool) -> Reading:
    """Read the three tables in their order, on which the numbering of the labels rests.

    Args:
        root: the folder with ``data`` and ``wavs``.
        official: makes no difference here; the tables name every file.
    """
    reading = Reading()
    files, hidden = scan(root / "wavs", ".wav")
    if hidden:
        reading.notes.append(f"{hidden} hidden files in wavs are no part of the corpus and were left out")
    on_disk = Names(f"wavs/{name}" for name in files)
    where: dict[str, str] = {}
    for split, table in TABLES.items():
        _table(reading, root, split, root / "data" / table, on_disk, where)
        reading.counts[split] = sum(row.split == split for row in reading.rows)
    if not reading.problems:
        folded = {path.casefold() for path in where}
        for name in files:
            if f"wavs/{name}".casefold() not in folded:
                reading.problems.append(f"{root / 'wavs' / name} is in none of the three tables; take it out.")
    return reading


def _table(reading: Reading, root: Path, split: Split, file: Path, on_disk: Names, where: dict[str, str]) -> None:
    line = 1
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            table = csv.DictReader(handle, strict=True)
            absent = [name for name in COLUMNS if name not in (table.fieldnames or [])]
            if absent:
                reading.problems.append(f"{file}: column {', '.join(absent)} is missing; unpack the file again.")
                return
            for row in table:
                line = table.line_num
                problem = _problem(root, row, on_disk, where)
                if problem:
                    reading.problems.append(f"{file}: line {line}: {problem}")
                    continue
                where[row["path"]] = f"{file.name}, line {line}"
                label = SEPARATOR.join(row[slot] for slot in SLOTS)
                reading.rows.append(CorpusRow(split, row["path"], row["speakerId"], row["transcription"], label))
    except FileNotFoundError:
        reading.problems.append(f"{file} is missing; copy or unpack it again.")
    except UnicodeDecodeError as error:
        reading.problems.append(f"{file} is not UTF-8 (byte {error.start}); copy or unpack it again.")
    except csv.Error as error:
        reading.problems.append(f"{file}: after line {line}: {error}; unpack the file again.")


def _problem(root: Path, row: dict[str, str], on_disk: Names, where: dict[str, str]) -> str:
    """What is wrong with a row; empty if nothing is."""
    if None in row or None in row.values():
        return "has another number of fields than the header; unpack the file again."
    path = row["path"]
    if not inside(path):
        return f"path {path!r} leads out of the corpus; correct it."
    if path in where:
        return f"{path} stands already in {where[path]}; take one of them out."
    if path not in on_disk:
        return on_disk.missing(root, path)
    for slot in SLOTS:
        if not row[slot].strip() or SEPARATOR in row[slot]:
            return f"{slot} is {row[slot]!r}; unpack the file again."
    return ""


FLUENT = Corpus(
    name="fluent_speech_commands",
    title="Fluent Speech Commands",
    licence="Fluent Speech Commands Public License (academic research)",
    source="https://fluent.ai/fluent-speech-commands-a-dataset-for-spoken-language-understanding-research/",
    size_gb=1.5,
    tree="""\
fluent_speech_commands_dataset/
  data/train_data.csv        columns path, speakerId, transcription, action, object, location
  data/valid_data.csv
  data/test_data.csv
  wavs/speakers/<speaker>/<id>.wav""",
    tasks=("ic",),
    folders=("fluent_speech_commands_dataset", "fluent_speech_commands", "FluentSpeechCommands", "fluent"),
    sign=("data/train_data.csv",),
    expected={"train": 23_132, "dev": 3_118, "test": 3_793},
    read=read,
)
