"""Speech Commands for KS (protocol section 4.3): v0.01, which SUPERB uses, and v0.02.

Train and dev come from the training archive by a hash of the speaker's part of the file name, test is the test
archive. The six noise files stand whole in train *and* dev; crops of a second are drawn from them later.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from functools import partial
from pathlib import Path

from downstreams.corpora.official import Corpus, CorpusRow, Names, Reading, find_root, inside, scan, text_lines
from harness.interface import Split

KEYWORDS = tuple("yes no up down left right on off stop go".split())
UNKNOWN, SILENCE = "_unknown_", "_silence_"
CLASSES = (*KEYWORDS, UNKNOWN, SILENCE)
"""In the order of s3prl's outputs."""

OTHERS = tuple(
    "bed bird cat dog eight five four happy house marvin nine one seven sheila six three tree two wow zero".split()
)
OTHERS_V2 = (*OTHERS, "backward", "follow", "forward", "learn", "visual")
"""The words that are ``_unknown_``: 20 in v0.01, 25 in v0.02."""

NOISE = "_background_noise_"
NOISES = tuple(
    f"{name}.wav" for name in "doing_the_dishes dude_miaowing exercise_bike pink_noise running_tap white_noise".split()
)

WORD_COUNTS = Path(__file__).parent / "splits" / "speech_commands_words.txt"

_BUCKETS = 2**27 - 1
_NAME = re.compile(r"([0-9a-f]{8})_nohash_\d+\.wav")
_TEST_NAME = re.compile(r"(?:([a-z]+)_)?([0-9a-f]{8})_nohash_\d+\.wav(?:\.wav)?")


def percent(name: str) -> float:
    """Where a file falls between 0 and 100, by the rule of the corpus' README.

    The SHA-1 of what stands before ``_nohash_``, modulo 2^27, in percent of 2^27 - 1: so a speaker is in one part only.
    """
    speaker = name.partition("_nohash_")[0]
    digest = int(hashlib.sha1(speaker.encode(), usedforsecurity=False).hexdigest(), 16)
    return (digest % (_BUCKETS + 1)) * (100.0 / _BUCKETS)


def split_of(name: str) -> Split | None:
    """The split of a file of the training archive; ``None`` for the tenth that SUPERB drops."""
    place = percent(name)
    if place < 10:
        return "dev"
    return None if place < 20 else "train"


def read(version: str, root: Path, official: bool) -> Reading:
    """Read the folders of both archives.

    Args:
        version: ``v0.01`` or ``v0.02``.
        root: the folder of the training archive; that of the test archive lies beside it.
        official: whether it must be all of it; then the number of files per word tells which folder is short.
    """
    reading = Reading()
    words = KEYWORDS + (OTHERS if version == "v0.01" else OTHERS_V2)
    files, hidden = scan(root, ".wav")
    if hidden:
        reading.notes.append(f"{hidden} hidden files in {root.name} are no part of the corpus and were left out")
    parts: dict[Split, list[CorpusRow]] = {"train": [], "dev": []}
    dropped = []
    for path in files:
        word, _, name = path.partition("/")
        match = _NAME.fullmatch(name)
        if word == NOISE:
            continue
        if word not in words or match is None:
            reading.problems.append(
                f"{root / path} is no file of Speech Commands {version} (word/8 hex digits_nohash_number.wav, lower "
                "case); rename it or take it out."
            )
            continue
        split = split_of(name)
        if split is None:
            dropped.append(path)
        else:
            label = word if word in KEYWORDS else UNKNOWN
            parts[split].append(CorpusRow(split, path, match[1], word, label))
    for split, rows in parts.items():
        reading.rows += [*rows, *_noise(reading, root, files, split)]
    for name, paths in (
        ("validation_list.txt", {row.path for row in parts["dev"]}),
        ("testing_list.txt", set(dropped)),
    ):
        _compare(reading, root, root / name, paths, Names(files))
    if official and version == "v0.01":
        reading.hints += _short_words(root, files)
    _test(reading, root, version)
    reading.counts = {split: sum(row.split == split for row in reading.rows) for split in ("train", "dev", "test")}
    return reading


def _noise(reading: Reading, root: Path, files: list[str], split: Split) -> list[CorpusRow]:
    found = [path.partition("/")[2] for path in files if path.startswith(f"{NOISE}/")]
    if split == "train":  # said once
        known = Names(found)
        reading.problems += [known.missing(root / NOISE, name) for name in NOISES if name not in known]
        folded = {name.casefold() for name in NOISES}
        reading.problems += [
            f"{root / NOISE / name} is none of the six noise files; take it out."
            for name in found
            if name.casefold() not in folded
        ]
    return [CorpusRow(split, f"{NOISE}/{name}", "", "", SILENCE, shared=True) for name in NOISES if name in found]


def _compare(reading: Reading, root: Path, file: Path, paths: set[str], on_disk: Names) -> None:
    """The corpus' own list must name exactly the files that the hash puts into its part."""
    if not file.is_file():
        reading.notes.append(f"{file.name} is not there, so single missing files cannot be named")
        return
    listed = set()
    for number, path in text_lines(file, reading.problems):
        if not inside(path):
            reading.problems.append(f"{file}: line {number}: path {path!r} leads out of the corpus; correct it.")
        elif path not in on_disk:
            reading.problems.append(f"{file}: line {number}: {on_disk.missing(root, path)}")
        elif path in listed:
            reading.problems.append(f"{file}: line {number}: {path} stands there twice; unpack the file again.")
        elif path not in paths:
            reading.problems.append(f"{file}: line {number}: {path} is in another part by its hash; unpack it again.")
        listed.add(path)
    reading.problems += [f"{root / path} is in no line of {file.name}; take it out." for path in sorted(paths - listed)]


def _short_words(root: Path, files: list[str]) -> list[str]:
    """Word folders whose number of files differs from the archive's."""
    found = Counter(path.partition("/")[0] for path in files)
    lines = [line.split() for line in WORD_COUNTS.read_text().splitlines() if not line.startswith("#")]
    return [
        f"{root / word}: holds {found[word]:,} files instead of {int(number):,}; unpack the archive again."
        for word, number in lines
        if found[word] != int(number)
    ]


def _test(reading: Reading, root: Path, version: str) -> None:
    names = test_folders(version)
    place, _ = find_root(root.parent, names, ())
    if place is None:
        reading.problems.append(
            f"{root.parent / names[0]} is missing; unpack {names[0]}.tar.gz, the test set, into a folder of that name."
        )
        return
    files, hidden = scan(place, ".wav")
    if hidden:
        reading.notes.append(f"{hidden} hidden files in {place.name} are no part of the corpus and were left out")
    for path in files:
        label, _, name = path.partition("/")
        if label not in CLASSES or "/" in name or not name:
            reading.problems.append(f"{place / path} is in none of the twelve folders of the test set; take it out.")
            continue
        match = _TEST_NAME.fullmatch(name)
        word, speaker = match.groups("") if match and label != SILENCE else ("", "")
        text = word if label == UNKNOWN else label if label in KEYWORDS else ""
        reading.rows.append(CorpusRow("test", f"../{place.name}/{path}", speaker, text, label))
    reading.problems += [
        f"{place / label} is missing; unpack the test set again." for label in CLASSES if not (place / label).is_dir()
    ]


def test_folders(version: str) -> tuple[str, ...]:
    """Usual names of the folder of the test archive."""
    return (
        f"speech_commands_test_set_{version}",
        f"speech_commands_{version}_test_set",
        f"speech_commands_{version}_test",
    )


def _corpus(version: str, name: str, size_gb: float, counts: tuple[int, int, int]) -> Corpus:
    return Corpus(
        name=name,
        title=f"Speech Commands {version}",
        licence="CC BY 4.0",
        source=f"http://download.tensorflow.org/data/speech_commands_{version}.tar.gz and "
        f"speech_commands_test_set_{version}.tar.gz",
        size_gb=size_gb,
        tree=f"""\
speech_commands_{version}/                       unpack each archive in a folder of its own
  yes/<8 hex digits>_nohash_<number>.wav         one folder per word
  _background_noise_/                            six noise files
  validation_list.txt, testing_list.txt
speech_commands_test_set_{version}/
  yes/, ..., _unknown_/, _silence_/              twelve folders of .wav""",
        tasks=("ks",),
        folders=(
            f"speech_commands_{version}",
            f"SpeechCommands/speech_commands_{version}",
            f"speech_commands/speech_commands_{version}",
        ),
        sign=(),
        expected=dict(zip(("train", "dev", "test"), counts, strict=True)),
        read=partial(read, version),
    )


SPEECH_COMMANDS = _corpus("v0.01", "speech_commands", 1.6, (51_094, 6_804, 3_081))
SPEECH_COMMANDS_V2 = _corpus("v0.02", "speech_commands_v0.02", 2.5, (84_849, 9_987, 4_890))
"""Not SUPERB's: more files, five more unknown words. Its counts are those of its own lists (9,981 and 11,005 of
105,829 files; six noise files more in train and dev) and of its test archive."""
