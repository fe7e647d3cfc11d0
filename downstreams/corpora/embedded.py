"""The embedded suite: synthetic speech for all seven tasks, made on this machine, the same for the same seed.

It is there to rank upstreams in minutes without a download. Voices are synthetic and emotions are acted by rule;
its scores are not SUPERB numbers. Layout: that of ``docs/data.md``; ASR, PR, SID and ASV share one pool of audio.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import combinations
from math import ceil
from pathlib import Path

import numpy as np

from downstreams.corpora import grammar
from downstreams.corpora.rendering import STYLES, Item, render_all
from harness import audio
from harness.identity import digest_json
from harness.interface import SPLITS, SlimbenchError, Split
from harness.synthesis import HELD_OUT_VARIANTS, TRAIN_VARIANTS, Synthesiser, Voice

COLUMNS = ("split", "path", "speaker", "text", "label", "start", "seconds", "note")
KEYWORDS = tuple("yes no up down left right on off stop go".split())
OTHER_WORDS = tuple(
    "bed bird cat dog happy house marvin sheila tree wow zero one two three four five six seven eight nine".split()
)
"""Words of Speech Commands that count as ``_unknown_``."""

VARIANTS: dict[Split, tuple[str, ...]] = {
    "train": TRAIN_VARIANTS,
    "dev": HELD_OUT_VARIANTS[::4],
    "test": tuple(v for v in HELD_OUT_VARIANTS if v not in HELD_OUT_VARIANTS[::4]),
}
"""Speaker variants per split: nobody in dev or test sounds like anybody in training or in the pre-training."""

POOL_VOICES: dict[Split, int] = {"train": 60, "dev": 12, "test": 40}
POOL_UTTERANCES = 8
SID_SPLITS: tuple[Split, ...] = ("train", "train", "train", "train", "dev", "test", "test", "test")
"""Split of each of a voice's utterances in speaker identification."""

KS_VOICES: dict[Split, int] = {"train": 40, "dev": 10, "test": 26}
IC_VOICES: dict[Split, tuple[int, int]] = {"train": (45, 10), "dev": (15, 7), "test": (40, 8)}
"""Voices, and commands per voice."""

ER_VOICES: dict[Split, tuple[int, int]] = {"train": (20, 4), "dev": (5, 5), "test": (20, 4)}
"""Voices, and sentences per voice; every sentence is acted in every style."""

ER_SPREAD = 0.5
"""Voices of the acted styles differ half as much as elsewhere: enough that pitch and rate alone do not tell."""

_SPARE_BYTES = 250_000_000


@dataclass(frozen=True)
class Line:
    """A line of a plan: a piece of audio and what a manifest says of it."""

    split: Split
    item: Item
    speaker: str
    text: str
    label: str
    note: str = ""


def build(
    folder: Path,
    seed: int,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
    scale: float = 1.0,
) -> None:
    """Make the suite in ``folder``.

    Args:
        folder: an existing, empty folder.
        seed: decides everything; the number of workers does not.
        workers: processes.
        progress: called as (files done, files in all).
        scale: factor on the number of voices, for tests.

    Raises:
        SlimbenchError: there is no room for it.
    """
    free = shutil.disk_usage(folder).free
    if free < _SPARE_BYTES * scale:
        raise SlimbenchError(
            f"{folder}: the embedded suite needs {_SPARE_BYTES * scale / 1e6:.0f} MB but {free / 1e6:.0f} MB are free; "
            "make room or name another CACHE folder."
        )
    plans = plan(seed, scale)
    with closing(Synthesiser()) as engine:
        lexicon = grammar.lexicon((w for words in grammar.WORDS.values() for w in words), engine)
    lines = [line for corpus in plans.values() for line in corpus]
    seconds = render_all([line.item for line in lines], folder, seed, workers, progress)
    pool = plans.pop("pool")
    for task, table in {**plans, **_pool_tasks(pool, lexicon)}.items():
        _write_manifest(folder / task, table, seconds)
    for split in ("dev", "test"):
        _write_trials(folder / "asv" / f"trials_{split}.txt", _trials(pool, split, seed))
    rows = [f"{word.upper()}\t{phones}\n" for word, phones in lexicon.items()]
    (folder / "pr" / "lexicon.txt").write_text("".join(rows), encoding="utf-8", newline="\n")


def plan(seed: int, scale: float = 1.0) -> dict[str, list[Line]]:
    """What will be made: the ``pool`` that ASR, PR, SID and ASV share, ``ks``, ``ic`` and ``er``."""
    return {
        "pool": list(_pool(seed, scale)),
        "ks": list(_keywords(seed, scale)),
        "ic": list(_commands(seed, scale)),
        "er": list(_acted(seed, scale)),
    }


def digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of all manifests, trials, lexicon and audio in ``folder``."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".csv", ".txt", ".wav"))
    digests = audio.file_digests(files)
    return digest_json({path.relative_to(folder).as_posix(): digests[path] for path in files})


def _voices(rng: np.random.Generator, split: Split, count: int, spread: float = 1.0) -> list[Voice]:
    """Draw different voices, each variant as often as the others; ``spread`` scales how far they lie apart."""
    order: list[str] = []
    while len(order) < count:
        order.extend(str(v) for v in rng.permutation(VARIANTS[split]))

    def around(middle: float, width: float) -> float:
        return middle + spread * float(rng.uniform(-width, width))

    return [
        Voice(
            variant,
            pitch=round(around(49, 29)),
            rate=round(around(193, 28)),
            pitch_range=round(around(42, 18)),
            tract=round(around(1.01, 0.13), 3),
        )
        for variant in order[:count]
    ]


def _scaled(count: int, scale: float) -> int:
    return max(2, ceil(count * scale))


def _note(voice: Voice) -> str:
    return f"synthetic: {voice.variant} pitch {voice.pitch} rate {voice.rate} tract {voice.tract}"


def _pool(seed: int, scale: float) -> Iterator[Line]:
    """Sentences for ASR, PR, SID and ASV; no sentence comes twice."""
    rng = np.random.default_rng([seed, 1])
    counts = {split: _scaled(POOL_VOICES[split], scale) for split in SPLITS}
    texts = iter(grammar.sentences(rng, POOL_UTTERANCES * sum(counts.values())))
    for split in SPLITS:
        for number, voice in enumerate(_voices(rng, split, counts[split])):
            speaker = f"pool-{split}-{number:02d}"
            for take in range(POOL_UTTERANCES):
                text = next(texts)
                item = Item(f"audio/pool/{speaker}/{take}.wav", text, voice)
                yield Line(split, item, speaker, text.upper(), "", _note(voice))


def _pool_tasks(pool: list[Line], lexicon: dict[str, str]) -> dict[str, list[Line]]:
    """The four tables over the pool."""

    def table(label: Callable[[Line], str], split: Callable[[Line], Split]) -> list[Line]:
        return [Line(split(x), x.item, x.speaker, x.text, label(x), x.note) for x in pool]

    def phones(line: Line) -> str:
        return " ".join(lexicon[word] for word in line.text.lower().split())

    def identification(line: Line) -> Split:
        return SID_SPLITS[int(Path(line.item.path).stem)]

    return {
        "asr": pool,
        "pr": table(phones, lambda x: x.split),
        "asv": table(lambda x: x.speaker, lambda x: x.split),
        "sid": table(lambda x: x.speaker, identification),
    }


def _trials(pool: list[Line], split: Split, seed: int) -> list[tuple[int, str, str]]:
    """All pairs of one voice, and as many pairs of two voices, drawn without repetition."""
    rng = np.random.default_rng([seed, 2, SPLITS.index(split)])
    lines = [line for line in pool if line.split == split]
    pairs = list(combinations(lines, 2))
    same = [(1, a, b) for a, b in pairs if a.speaker == b.speaker]
    other = [(0, a, b) for a, b in pairs if a.speaker != b.speaker]
    drawn = [other[int(i)] for i in sorted(rng.choice(len(other), len(same), replace=False))]
    return [(label, a.item.path, b.item.path) for label, a, b in same + drawn]


def _keywords(seed: int, scale: float) -> Iterator[Line]:
    """Clips of one second: each voice says the ten keywords and one other word; as many clips hold noise only."""
    rng = np.random.default_rng([seed, 3])
    for split in SPLITS:
        for number, voice in enumerate(_voices(rng, split, _scaled(KS_VOICES[split], scale))):
            speaker = f"ks-{split}-{number:02d}"
            other = OTHER_WORDS[number % len(OTHER_WORDS)]
            for word in (*KEYWORDS, other):
                item = Item(f"audio/ks/{speaker}/{word}.wav", word, voice, seconds=1.0)
                yield Line(split, item, speaker, word, word if word in KEYWORDS else "_unknown_", _note(voice))
            item = Item(f"audio/ks/_silence_/{split}-{number:02d}.wav", "", None, seconds=1.0)
            yield Line(split, item, "", "", "_silence_", "synthetic noise")


def _commands(seed: int, scale: float) -> Iterator[Line]:
    """Commands with three slots; every intent comes as often as the others."""
    rng = np.random.default_rng([seed, 4])
    for split in SPLITS:
        voices = _voices(rng, split, _scaled(IC_VOICES[split][0], scale))
        per_voice = IC_VOICES[split][1]
        intents: list[tuple[str, str, str]] = []
        while len(intents) < per_voice * len(voices):
            intents.extend(grammar.INTENTS[int(i)] for i in rng.permutation(len(grammar.INTENTS)))
        for number, voice in enumerate(voices):
            speaker = f"ic-{split}-{number:02d}"
            for take in range(per_voice):
                intent = intents[number * per_voice + take]
                text = grammar.command(rng, intent)
                item = Item(f"audio/ic/{speaker}/{take}.wav", text, voice)
                yield Line(split, item, speaker, text, "|".join(intent), _note(voice))


def _acted(seed: int, scale: float) -> Iterator[Line]:
    """Sentences in four styles; each voice says each of its sentences in every style, so that no text is a cue."""
    rng = np.random.default_rng([seed, 5])
    counts = {split: _scaled(voices, scale) for split, (voices, _) in ER_VOICES.items()}
    total = sum(counts[split] * ER_VOICES[split][1] for split in SPLITS)
    texts = iter(grammar.sentences(rng, total, grammar.STYLE_PATTERNS))
    for split in SPLITS:
        for number, voice in enumerate(_voices(rng, split, counts[split], ER_SPREAD)):
            speaker = f"er-{split}-{number:02d}"
            for take in range(ER_VOICES[split][1]):
                text = next(texts)
                for style in STYLES:
                    item = Item(f"audio/er/{speaker}/{take}-{style}.wav", text, voice, style)
                    yield Line(split, item, speaker, text, style, f"acted by rule; {_note(voice)}")


def _write_manifest(folder: Path, lines: list[Line], seconds: dict[str, float]) -> None:
    folder.mkdir()
    ordered = sorted(lines, key=lambda line: SPLITS.index(line.split))
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for x in ordered:
            length = f"{seconds[x.item.path]:.4f}"
            writer.writerow((x.split, x.item.path, x.speaker, x.text, x.label, "", length, x.note))


def _write_trials(file: Path, trials: list[tuple[int, str, str]]) -> None:
    text = "".join(f"{label} {enrol} {test}\n" for label, enrol, test in trials)
    file.write_text(text, encoding="utf-8", newline="\n")
