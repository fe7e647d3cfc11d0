"""VoxCeleb1 for SID (protocol section 4.5) and ASV (section 4.7).

ASV has no dev split in SUPERB. Ours holds out 40 speakers of ``dev/wav`` and makes trials of them, by hash: the same
on every machine, and disjoint from the speakers of the test trials.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path, PurePosixPath

from downstreams.corpora.official import Corpus, CorpusRow, Names, Reading, inside, scan, text_lines
from harness.interface import Split, Trial

SPLIT_FILES = ("veri_test_class.txt", "iden_split.txt")
"""s3prl's name and VGG's for the list of the identification split."""
SPLITS: dict[str, Split] = {"1": "train", "2": "dev", "3": "test"}

TRIAL_FILES = ("voxceleb1_test_v2.txt", "veri_test.txt", "veri_test2.txt")
"""The first two are the 37,720 trials of SUPERB under two names; the third is VGG's cleaned list of 37,611."""
TRIAL_SHA1 = "aa1a2055fc2c"
"""How the SHA-1 of s3prl's copy begins (0.4.18, ``downstream/sv_voxceleb1/voxceleb1_test_v2.txt``)."""

HELD_OUT = 40
"""Speakers of ``dev/wav`` that make the dev split of ASV; a fifth of them, at least two, where there are fewer than
200 (subsets)."""
PAIRS = 50
"""Dev trials per held-out speaker of each kind, so 4,000 in all."""


def read_sid(root: Path, official: bool) -> Reading:
    """Read the identification split.

    Args:
        root: the folder with ``dev/wav`` and ``test/wav``.
        official: makes no difference here; the list names every file.
    """
    reading = Reading()
    file = _list_file(root, SPLIT_FILES, reading)
    where = _on_disk(root, reading)
    if file is None:
        return reading
    known = Names(where)
    seen: dict[str, int] = {}
    for number, line in text_lines(file, reading.problems):
        fields = line.split()
        path = fields[1] if len(fields) == 2 else ""
        problem = f"{line[:80]!r} is no entry; it must be 1, 2 or 3 and id/video/file.wav."
        if len(fields) == 2 and not inside(path):
            problem = f"path {path!r} leads out of the corpus; correct it."
        elif len(fields) != 2 or fields[0] not in SPLITS or len(PurePosixPath(path).parts) != 3:
            pass
        elif path in seen:
            problem = f"{path} stands already in line {seen[path]}; take one of them out."
        elif path not in known:
            problem = known.missing(root / "*" / "wav", path)
        elif len(where[path]) > 1:
            problem = f"{path} is in {' and in '.join(where[path])}; keep one of them."
        else:
            seen[path] = number
            speaker = PurePosixPath(path).parts[0]
            reading.rows.append(CorpusRow(SPLITS[fields[0]], f"{where[path][0]}/{path}", speaker, "", speaker))
            continue
        seen.setdefault(path, number)
        reading.problems.append(f"{file}: line {number}: {problem}")
    if not reading.problems:
        reading.problems += [
            f"{root / where[path][0] / path} is in no line of {file.name}; take it out."
            for path in sorted(where)
            if path not in seen
        ]
    reading.counts.update({split: sum(row.split == split for row in reading.rows) for split in SPLITS.values()})
    return reading


def read_asv(root: Path, official: bool) -> Reading:
    """Read ``dev/wav`` for training and dev, and the files of the trial list for test; make the dev trials.

    Args:
        root: the folder with ``dev/wav`` and ``test/wav``.
        official: makes no difference here.
    """
    reading = Reading()
    file = _list_file(root, TRIAL_FILES, reading)
    where = _on_disk(root, reading)
    train = sorted(path for path, places in where.items() if "dev/wav" in places)
    speakers = sorted({_speaker(path) for path in train})
    chosen = frozenset(held_out(speakers))
    for path in train:
        split: Split = "dev" if _speaker(path) in chosen else "train"
        reading.rows.append(CorpusRow(split, f"dev/wav/{path}", _speaker(path), "", _speaker(path)))
    if len(speakers) < 4:
        reading.problems.append(f"{root / 'dev' / 'wav'} has {len(speakers)} speakers; unpack the dev archives there.")
    else:
        dev = dev_trials([path for path in train if _speaker(path) in chosen])
        reading.trials["dev"] = [_prefixed("dev/wav", trial) for trial in dev]
    if file is not None:
        digest = hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()[:12]
        if digest == TRIAL_SHA1:
            reading.notes.append(f"{file.name} is s3prl's copy, byte by byte")
        else:
            reading.notes.append(f"{file.name} has SHA-1 {digest}..., s3prl's copy {TRIAL_SHA1}...")
        tests = {path for path, places in where.items() if "test/wav" in places}
        trials = _read_trials(file, root, tests, reading.problems)
        reading.trials["test"] = [_prefixed("test/wav", trial) for trial in trials]
        used = sorted({name for trial in trials for name in (trial.enrol, trial.test)})
        both = sorted({_speaker(path) for path in used} & set(speakers))
        if both:
            reading.problems.append(f"{root}: speaker {both[0]} is in dev/wav and in the test trials; take it out.")
        reading.rows += [CorpusRow("test", f"test/wav/{path}", _speaker(path), "", _speaker(path)) for path in used]
        reading.counts.update(test=len(used), trials=len(trials))
    reading.counts.update(dev_wav=len(train), speakers=len(speakers))
    return reading


def held_out(speakers: Sequence[str]) -> list[str]:
    """The speakers whose trials choose ASV's weights: those with the smallest SHA-1 of their id."""
    number = HELD_OUT if len(speakers) >= 5 * HELD_OUT else max(2, len(speakers) // 5)
    return sorted(speakers, key=_sha1)[:number]


def dev_trials(paths: Sequence[str]) -> list[Trial]:
    """Trials of the held-out speakers, as many of one speaker as of two.

    Of every speaker the :data:`PAIRS` pairs from different videos (any pairs, where there is one video only) with the
    smallest SHA-1 of ``"a b"``; for each, a second trial pairs ``a`` with a file of another held-out speaker, number
    SHA-1 of ``"a k"`` modulo their number, with the first k from 0 on that makes a new trial.

    Args:
        paths: all files of these speakers, as ``id/video/file.wav``.
    """
    by_speaker: dict[str, list[str]] = defaultdict(list)
    for path in sorted(paths):
        by_speaker[_speaker(path)].append(path)
    trials: list[Trial] = []
    for speaker, own in sorted(by_speaker.items()):
        others = [path for name, theirs in sorted(by_speaker.items()) if name != speaker for path in theirs]
        pairs = [(a, b) for a, b in combinations(own, 2) if a.rpartition("/")[0] != b.rpartition("/")[0]]
        pairs = sorted(pairs or combinations(own, 2), key=lambda pair: _sha1(" ".join(pair)))[:PAIRS]
        seen: set[tuple[str, str]] = set()
        for a, b in pairs if others else []:
            candidates = (others[int(_sha1(f"{a} {k}"), 16) % len(others)] for k in range(1000))
            other = next((c for c in candidates if (a, c) not in seen), None)
            if other is not None:
                seen.add((a, other))
                trials += [Trial(True, a, b), Trial(False, a, other)]
    return trials


def _read_trials(file: Path, root: Path, tests: set[str], problems: list[str]) -> list[Trial]:
    trials = []
    known = Names(tests)
    for number, line in text_lines(file, problems):
        fields = line.split()
        wrong = ""
        if len(fields) != 3 or fields[0] not in ("0", "1"):
            wrong = f"{line[:80]!r} is no trial; it must be 0 or 1 and two paths."
        else:
            for path in fields[1:]:
                if not inside(path):
                    wrong = f"path {path!r} leads out of the corpus; correct it."
                elif path not in known:
                    wrong = known.missing(root / "test" / "wav", path)
            if not wrong and (fields[0] == "1") != (_speaker(fields[1]) == _speaker(fields[2])):
                wrong = f"says {fields[0]} of speakers {_speaker(fields[1])} and {_speaker(fields[2])}; correct it."
        if wrong:
            problems.append(f"{file}: line {number}: {wrong}")
        else:
            trials.append(Trial(fields[0] == "1", fields[1], fields[2]))
    return trials


def _list_file(root: Path, names: Sequence[str], reading: Reading) -> Path | None:
    found = [path for name in names for path in (root / name, root / "meta" / name) if path.is_file()]
    if not found:
        reading.problems.append(f"{root / names[0]} is missing (or {', '.join(names[1:])}); put the list there.")
        return None
    if len(found) > 1:
        reading.notes.append(f"{found[0].name} is read, {', '.join(path.name for path in found[1:])} is not")
    return found[0]


def _on_disk(root: Path, reading: Reading) -> dict[str, list[str]]:
    """All ``id/video/file.wav`` and in which of the ``*/wav`` folders they are."""
    where: dict[str, list[str]] = defaultdict(list)
    for part in ("dev/wav", "test/wav"):
        if not (root / part).is_dir():
            reading.problems.append(f"{root / part} is missing; unpack the {part[:-4]} archive there.")
    for place in sorted(path for path in root.glob("*/wav") if path.is_dir()):
        part = place.relative_to(root).as_posix()
        files, hidden = scan(place, ".wav")
        if hidden:
            reading.notes.append(f"{hidden} hidden files in {part} are no part of the corpus and were left out")
        for path in files:
            if len(PurePosixPath(path).parts) == 3:
                where[path].append(part)
            else:
                reading.problems.append(f"{place / path} is not in a folder id/video; take it out.")
    return dict(where)


def _speaker(path: str) -> str:
    return path.partition("/")[0]


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _prefixed(place: str, trial: Trial) -> Trial:
    return Trial(trial.same, f"{place}/{trial.enrol}", f"{place}/{trial.test}")


_FOLDERS = ("VoxCeleb1", "VoxCeleb", "vox1", "VoxCeleb/VoxCeleb1", "VoxCeleb/vox1")
_LICENCE = "by agreement with VGG; metadata CC BY 4.0"
_SOURCE = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html"

VOXCELEB_SID = Corpus(
    name="voxceleb1_sid",
    title="VoxCeleb1, identification",
    licence=_LICENCE,
    source=_SOURCE,
    size_gb=36.0,
    tree="""\
VoxCeleb1/
  dev/wav/id10001/<video>/00001.wav
  test/wav/id10270/<video>/00001.wav
  veri_test_class.txt (or iden_split.txt)      lines: 1|2|3 id10001/<video>/00001.wav""",
    tasks=("sid",),
    folders=_FOLDERS,
    sign=("dev/wav", "test/wav"),
    expected={"train": 138_361, "dev": 6_904, "test": 8_251},
    read=read_sid,
)

VOXCELEB_ASV = Corpus(
    name="voxceleb1_asv",
    title="VoxCeleb1, verification",
    licence=_LICENCE,
    source=_SOURCE,
    size_gb=36.0,
    tree="""\
VoxCeleb1/
  dev/wav/..., test/wav/...                    the same files as for identification
  voxceleb1_test_v2.txt (or veri_test.txt)     lines: 0|1 id10270/<video>/00001.wav id10271/...""",
    tasks=("asv",),
    folders=_FOLDERS,
    sign=("dev/wav", "test/wav"),
    expected={"dev_wav": 148_642, "speakers": 1_211, "test": 4_715, "trials": 37_720},
    read=read_asv,
)
