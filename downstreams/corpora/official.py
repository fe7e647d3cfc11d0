"""What the readers of the official SUPERB corpora share: finding a corpus, checking it, and its rows.

A reader turns one folder into a :class:`Reading`: rows, counts, and one sentence for everything that is not as it
should be. Nothing is repaired: with a problem, or with counts other than the official ones, no rows are given out.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from harness import plain_yaml, registry
from harness.interface import SlimbenchError, Split, Trial

Counts = Mapping[str, int]
"""Number of items by what is counted, e.g. ``{"train": 28539, "dev": 2703, "test": 2620}``."""

Expected = Mapping[str, Counts]
"""Counts that must come out, by corpus name; a corpus that is not named is held to the official ones."""

Progress = Callable[[float, float], None]
"""Called as (files done, files in all)."""

_DEPTH = 8
"""Levels of folders that are searched: more than any corpus has, and an end for links that lead back."""


@dataclass(frozen=True)
class CorpusRow:
    """One utterance of an official corpus.

    Attributes:
        split: where SUPERB uses it.
        path: its file, with ``/``, relative to the folder that was read: a reader gives it relative to the corpus'
            folder, :func:`rows` relative to DATA.
        speaker: who speaks, as the corpus names them; empty for noise.
        text: what is said, where the corpus says so.
        label: the target of the task; empty where that is the text.
        seconds: length of the utterance; 0 until :func:`measure` has read the file's header.
        start: where it begins in the file, in seconds; ``None`` for the whole file.
        fold: number of the fold, from 1, that the row belongs to, where a task has folds.
        shared: stands in several splits on purpose (the noise of Speech Commands).
    """

    split: Split
    path: str
    speaker: str
    text: str
    label: str
    seconds: float = 0.0
    start: float | None = None
    fold: int | None = None
    shared: bool = False


@dataclass
class Reading:
    """What is in a corpus' folder.

    Attributes:
        rows: utterances, paths relative to the corpus' folder.
        counts: what was counted.
        problems: one sentence each for what must not be so; the first differing file is named in the first.
        hints: what else may explain counts that differ; no errors by themselves.
        notes: what the user should know.
        trials: pairs of paths for speaker verification, by split.
    """

    rows: list[CorpusRow] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    trials: dict[Split, list[Trial]] = field(default_factory=dict)


@dataclass(frozen=True)
class Corpus:
    """An official corpus and how it is read.

    Attributes:
        name: short name, the key of ``--expect``.
        title: for people.
        licence: under which terms it may be used.
        source: where to get it.
        size_gb: size of the download in gigabytes.
        tree: the folders and files that are read, as text.
        tasks: tasks that use it.
        folders: usual names of its folder below DATA; upper and lower case are the same.
        sign: paths of which any shows that a folder is the corpus, for a DATA that is the corpus itself.
        expected: the official counts.
        read: reads a folder; the flag says whether it must be the whole official corpus (false for a subset).
        finish: makes the rows of a task out of those that were read; ``None`` where they are the same.
    """

    name: str
    title: str
    licence: str
    source: str
    size_gb: float
    tree: str
    tasks: tuple[str, ...]
    folders: tuple[str, ...]
    sign: tuple[str, ...]
    expected: Counts
    read: Callable[[Path, bool], Reading]
    finish: Callable[[list[CorpusRow], str, Path, list[str]], list[CorpusRow]] | None = None

    def check(self, data: Path, expected: Expected | None = None) -> Finding:
        """Look for the corpus below ``data`` and count; no audio is opened."""
        return check(self, data, expected)[0]

    def rows(self, data: Path, task: str, expected: Expected | None = None) -> list[CorpusRow]:
        """The rows of ``task``, paths relative to ``data``, lengths not yet measured.

        Raises:
            SlimbenchError: the corpus is missing or not as it should be.
        """
        finding, reading = check(self, data, expected)
        return rows(self, finding, reading, task, data, [])


@dataclass(frozen=True)
class Finding:
    """What a check found of one corpus.

    Attributes:
        corpus: the corpus.
        status: ``found`` only if all counts are right and there is no problem.
        root: its folder; ``None`` if missing.
        counts: what was counted.
        expected: what must be counted.
        problems: sentences, the first differing file first.
        notes: sentences that are no errors.
    """

    corpus: Corpus
    status: Literal["found", "missing", "incomplete"]
    root: Path | None
    counts: Counts
    expected: Counts
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def official(self) -> bool:
        """Whether it was held to the official counts, not to those of a subset."""
        return self.expected is self.corpus.expected


def check(corpus: Corpus, data: Path, expected: Expected | None = None) -> tuple[Finding, Reading]:
    """Find ``corpus`` below ``data``, read its lists and count.

    Args:
        corpus: which one.
        data: the folder with the corpora, or that of this corpus itself.
        expected: other counts than the official ones, for subsets and tests. Counts that it does not name are not
            checked.
    """
    must = corpus.expected
    if expected is not None and corpus.name in expected:
        must = {name: expected[corpus.name][name] for name in must if name in expected[corpus.name]}
    root, others = find_root(data, corpus.folders, corpus.sign)
    if root is None:
        looked = f"below {data}, no folder {' or '.join(corpus.folders)}"
        return Finding(corpus, "missing", None, {}, must, (looked,)), Reading()
    reading = corpus.read(root, must is corpus.expected)
    wrong = [
        f"{name} {reading.counts.get(name, 0):,} of {number:,}"
        for name, number in must.items()
        if reading.counts.get(name, 0) != number
    ]
    problems = list(reading.problems)
    if wrong and not problems:
        problems += reading.hints
    if wrong:
        problems.append(f"{root}: the counts differ: {', '.join(wrong)}; unpack the corpus again from its archives.")
    notes = [f"{other} is there as well and not used" for other in others]
    status: Literal["found", "incomplete"] = "incomplete" if problems else "found"
    return Finding(corpus, status, root, reading.counts, must, tuple(problems), (*notes, *reading.notes)), reading


def rows(
    corpus: Corpus, finding: Finding, reading: Reading, task: str, data: Path, notes: list[str]
) -> list[CorpusRow]:
    """The rows of ``task`` in a checked corpus, paths relative to ``data``, lengths not yet measured.

    Args:
        corpus: the corpus.
        finding: what :func:`check` says of it.
        reading: what :func:`check` read.
        task: one of its tasks.
        data: the folder that was checked.
        notes: filled with what a reader of the results should know.

    Raises:
        SlimbenchError: the corpus is missing or not as it should be.
    """
    if finding.root is None:
        raise SlimbenchError(f"{corpus.title}: {finding.problems[0]}; get it from {corpus.source}.")
    if finding.problems:
        more = f" ({len(finding.problems) - 1} more: slimbench data check superb)" if len(finding.problems) > 1 else ""
        raise SlimbenchError(f"{corpus.title} is not complete: {finding.problems[0]}{more}")
    place = finding.root.relative_to(data).as_posix()
    found = [replace(row, path=posixpath.normpath(f"{place}/{row.path}")) for row in reading.rows]
    return found if corpus.finish is None else corpus.finish(found, task, data, notes)


def find_root(data: Path, folders: Sequence[str], sign: Sequence[str]) -> tuple[Path | None, list[Path]]:
    """The folder of a corpus below ``data``, and further folders that might be it.

    ``folders`` are tried in order, upper and lower case alike. A folder that holds one of ``sign`` goes before one
    that does not; if none of the folders is there, ``data`` itself is taken if it does.
    """
    found = list(dict.fromkeys(path for name in folders for path in _named(data, PurePosixPath(name).parts)))
    found.sort(key=lambda path: not _signed(path, sign))
    if not found and _signed(data, sign):
        found = [data]
    return (found[0] if found else None), [path for path in found[1:] if _signed(path, sign)]


def _signed(folder: Path, sign: Sequence[str]) -> bool:
    return any((folder / name).exists() for name in sign)


def _named(folder: Path, parts: tuple[str, ...]) -> list[Path]:
    if not parts:
        return [folder]
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if e.name.casefold() == parts[0].casefold() and e.is_dir())
    except NotADirectoryError:
        return []
    names.sort(key=lambda name: name != parts[0])  # the exact name first
    return [path for name in names for path in _named(folder / name, parts[1:])]


def scan(folder: Path, suffix: str) -> tuple[list[str], int]:
    """All files below ``folder`` that end in ``suffix``, in whatever case.

    Returns:
        Their names relative to ``folder``, with ``/``, sorted; and how many hidden ones were left out (names that begin
        with a dot, such as the ``._`` files of macOS archives).
    """
    found: list[str] = []
    hidden = 0
    todo = [("", 0)] if folder.is_dir() else []
    while todo:
        place, depth = todo.pop()
        with os.scandir(folder / place) as entries:
            for entry in entries:
                if entry.is_dir():
                    if depth < _DEPTH and not entry.name.startswith("."):
                        todo.append((f"{place}{entry.name}/", depth + 1))
                elif entry.name.casefold().endswith(suffix):
                    if entry.name.startswith("."):
                        hidden += 1
                    else:
                        found.append(place + entry.name)
    return sorted(found), hidden


def inside(path: str) -> bool:
    """Whether a path out of a list stays in its folder."""
    where = PurePosixPath(path)
    return bool(where.parts) and not where.is_absolute() and ".." not in where.parts and "\\" not in path


class Names:
    """File names, and what else a missing one may be called."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._folded: dict[str, str] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def missing(self, root: Path, name: str) -> str:
        """A sentence on a file that should be there."""
        if self._folded is None:
            self._folded = {known.casefold(): known for known in sorted(self._names)}
        other = self._folded.get(name.casefold())
        if other is not None:
            return f"{root / name} is missing, but {other} is there; correct upper and lower case."
        return f"{root / name} is missing; copy or unpack it again."


def text_lines(file: Path, problems: list[str]) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers, from 1; a file that is missing or no UTF-8 is a problem."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        problems.append(f"{file} is missing; copy or unpack it again.")
        return
    except UnicodeDecodeError as error:
        problems.append(f"{file} is not UTF-8 (byte {error.start}); copy or unpack it again.")
        return
    yield from enumerate(text.splitlines(), start=1)


def load_expected(file: Path, corpora: Sequence[Corpus]) -> Expected:
    """Read the file of ``--expect``: a YAML mapping of corpus names to counts.

    Raises:
        SlimbenchError: it is missing or broken, or names a corpus or a count that there is not.
    """
    if not file.is_file():
        raise SlimbenchError(f"{file}: no such file of expected counts; correct --expect.")
    content: Any = plain_yaml.load(file, "the file of expected counts")
    if not isinstance(content, dict):
        raise SlimbenchError(f"{file}: must map names of corpora to counts, such as librispeech: {{train: 60}}.")
    known = {corpus.name: corpus for corpus in corpora}
    for name, counts in content.items():
        if name not in known:
            raise SlimbenchError(f"{file}: {registry.unknown('corpus', str(name), known)}")
        if not isinstance(counts, dict):
            raise SlimbenchError(f"{file}: {name} must map counts to whole numbers, such as {{train: 60}}.")
        for key, value in counts.items():
            if key not in known[name].expected:
                raise SlimbenchError(f"{file}: {name}: {registry.unknown('count', str(key), known[name].expected)}")
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise SlimbenchError(f"{file}: {name}.{key} is {value!r}; it must be a whole number, 0 or more.")
    return {str(name): dict(counts) for name, counts in content.items()}


def measure(data: Path, paths: Iterable[str], progress: Progress | None = None) -> dict[str, float]:
    """Length in seconds of each distinct file, from its header.

    Args:
        data: folder that the paths are relative to.
        paths: files, with ``/``.
        progress: told how far it is.

    Raises:
        SlimbenchError: a file is missing, empty, no audio or truncated.
    """
    distinct = list(dict.fromkeys(paths))
    lengths: dict[str, float] = {}
    # More threads than cores: on a disk or a network share the time goes into waiting for the header.
    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool:
        try:
            for name, length in zip(distinct, pool.map(lambda name: seconds(data / name), distinct), strict=True):
                lengths[name] = length
                if progress is not None:
                    progress(len(lengths), len(distinct))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return lengths


def seconds(path: Path) -> float:
    """Length of an audio file in seconds.

    Raises:
        SlimbenchError: it is missing, empty, no audio, or ends before its header says so.
    """
    import soundfile

    from harness import audio

    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError:
        audio.load(path)  # says what is wrong
        raise
    # Reading the last sample tells a whole file from one that was cut off: FLAC states its length at the beginning.
    audio.load(path, start=max(0, info.frames - 1) / info.samplerate)
    return float(info.frames / info.samplerate)
