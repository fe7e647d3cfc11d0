"""IEMOCAP for ER: four emotions, five folds (protocol section 4.6).

The order of the utterances decides which of them SUPERB's seeded split puts into dev. It came from a directory
listing, so it is shipped here (``splits/iemocap_order.txt``); labels come from the corpus itself.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from downstreams.corpora.official import Corpus, CorpusRow, Names, Reading, scan, text_lines

ORDER = Path(__file__).parent / "splits" / "iemocap_order.txt"
SESSIONS = range(1, 6)
LABELS = {"neu": "neu", "hap": "hap", "exc": "hap", "ang": "ang", "sad": "sad"}
"""Label of each tag that SUPERB uses; excited counts as happy."""

DEV_SHARE = 0.2
SPLIT_SEED = 0

_LINE = re.compile(r"\[[^\]]*\]\t(\S+)\t(\S+)\t")


@lru_cache(maxsize=1)
def order() -> dict[str, str]:
    """File below the corpus' folder of each of SUPERB's utterances, by name, sessions 1 to 5 in SUPERB's order."""
    found = {}
    for line in ORDER.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        dialog, *names = line.split()
        for name in names:
            found[f"{dialog}_{name}"] = _file(dialog, f"{dialog}_{name}")
    return found


def read(root: Path, official: bool) -> Reading:
    """Read labels and files of the five sessions.

    Every row is the test row of the fold of its own session; :func:`finish` adds train and dev.

    Args:
        root: the folder with ``Session1`` to ``Session5``.
        official: whether all of SUPERB's utterances must be there; a subset may lack some altogether.
    """
    reading = Reading()
    tags: dict[str, str] = {}
    waves: set[str] = set()
    for session in SESSIONS:
        tags |= _tags(reading, root / f"Session{session}")
        place = root / f"Session{session}" / "sentences" / "wav"
        if not place.is_dir():
            reading.problems.append(f"{place} is missing; unpack the release again.")
        files, hidden = scan(place, ".wav")
        if hidden:
            reading.notes.append(f"{hidden} hidden files in {place} are no part of the corpus and were left out")
        waves |= {f"Session{session}/sentences/wav/{name}" for name in files}
    known = Names(waves)
    for name, path in order().items():
        if name not in tags and path not in known and not official:
            continue
        if path not in known:
            reading.problems.append(known.missing(root, path))
        elif tags.get(name) not in LABELS:
            said = f"is tagged {tags[name]!r}" if name in tags else "has no line"
            reading.problems.append(f"{root / path} {said} in dialog/EmoEvaluation; unpack that folder again.")
        else:
            session, speaker = int(name[4]), name[:5] + name.rpartition("_")[2][0]
            reading.rows.append(CorpusRow("test", path, speaker, "", LABELS[tags[name]], fold=session))
    if not reading.problems:
        reading.problems += [
            f"{root / _file(name.rpartition('_')[0], name)} is tagged {tag!r} but none of SUPERB's 5,531 utterances; "
            "take it out."
            for name, tag in tags.items()
            if tag in LABELS and name not in order() and _file(name.rpartition("_")[0], name) in known
        ]
    _count(reading)
    return reading


def _file(dialog: str, name: str) -> str:
    return f"Session{int(dialog[3:5])}/sentences/wav/{dialog}/{name}.wav"


def _tags(reading: Reading, session: Path) -> dict[str, str]:
    """The tag of each utterance of a session."""
    place = session / "dialog" / "EmoEvaluation"
    if not place.is_dir():
        reading.problems.append(f"{place} is missing; unpack the release again.")
        return {}
    tags: dict[str, str] = {}
    for file in sorted(place.glob("*.txt")):
        if file.name.startswith("."):
            continue  # the release holds "._" files of macOS, which are no text
        for number, line in text_lines(file, reading.problems):
            match = _LINE.match(line)
            if not line.startswith("["):
                continue
            if match is None:
                reading.problems.append(f"{file}: line {number}: {line[:60]!r} is no label; unpack the file again.")
            elif match[1] in tags:
                reading.problems.append(f"{file}: line {number}: {match[1]} has a label already; keep one of them.")
            else:
                tags[match[1]] = match[2]
    return tags


def _count(reading: Reading) -> None:
    sizes = {session: sum(row.fold == session for row in reading.rows) for session in SESSIONS}
    reading.counts["utterances"] = len(reading.rows)
    for fold, size in sizes.items():
        train = _train_size(len(reading.rows) - size)
        reading.counts[f"fold{fold}_train"] = train
        reading.counts[f"fold{fold}_dev"] = len(reading.rows) - size - train
        reading.counts[f"fold{fold}_test"] = size


def _train_size(number: int) -> int:
    return int((1 - DEV_SHARE) * number)


def train_and_dev(number: int) -> tuple[list[int], list[int]]:
    """Indices of train and dev, in the order in which SUPERB's datasets have them.

    What ``torch.manual_seed(0)`` and ``random_split`` draw, without touching torch's global generator.

    Args:
        number: utterances in the four training sessions of a fold.
    """
    import torch

    drawn: list[int] = torch.randperm(number, generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
    return drawn[: _train_size(number)], drawn[_train_size(number) :]


def finish(rows: list[CorpusRow], task: str, data: Path, notes: list[str]) -> list[CorpusRow]:
    """The rows of all five folds one after the other, each as train, dev, test."""
    result = []
    for fold in SESSIONS:
        rest = [row for row in rows if row.fold != fold]
        train, dev = train_and_dev(len(rest))
        result += [replace(rest[index], split="train", fold=fold) for index in train]
        result += [replace(rest[index], split="dev", fold=fold) for index in dev]
        result += [row for row in rows if row.fold == fold]
    return result


_FOLDS = (
    (3_556, 890, 1_085),
    (3_606, 902, 1_023),
    (3_504, 876, 1_151),
    (3_600, 900, 1_031),
    (3_432, 858, 1_241),
)
"""Train, dev and test of each fold."""

IEMOCAP = Corpus(
    name="iemocap",
    title="IEMOCAP",
    licence="by signed form, research only",
    source="https://sail.usc.edu/iemocap/iemocap_release.htm",
    size_gb=12.0,
    tree="""\
IEMOCAP_full_release/
  Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav
  Session1/dialog/EmoEvaluation/Ses01F_impro01.txt     labels
  Session2/ ... Session5/""",
    tasks=("er",),
    folders=("IEMOCAP_full_release", "IEMOCAP", "IEMOCAP/IEMOCAP_full_release"),
    sign=("Session1/dialog/EmoEvaluation",),
    expected={
        "utterances": 5_531,
        **{
            f"fold{fold}_{split}": size
            for fold, sizes in enumerate(_FOLDS, start=1)
            for split, size in zip(("train", "dev", "test"), sizes, strict=True)
        },
    },
    read=read,
    finish=finish,
)
