"""Manifests of the official corpora: what suite ``superb`` runs on.

The layout is that of ``docs/data.md``, with paths relative to the folder of the corpora and two more columns:
``test_fold`` (1 to 5 for ER) and ``shared`` (1 for audio that stands in two splits on purpose).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from downstreams.corpora import official
from downstreams.corpora.fluent import FLUENT
from downstreams.corpora.iemocap import IEMOCAP
from downstreams.corpora.librispeech import LIBRISPEECH
from downstreams.corpora.official import Corpus, CorpusRow, Expected, Finding, Reading
from downstreams.corpora.speech_commands import SPEECH_COMMANDS, SPEECH_COMMANDS_V2
from downstreams.corpora.voxceleb import VOXCELEB_ASV, VOXCELEB_SID
from harness import atomic, registry
from harness.data import NOTES
from harness.interface import SlimbenchError, Trial
from harness.progress import say

CORPORA = (LIBRISPEECH, SPEECH_COMMANDS, FLUENT, VOXCELEB_SID, VOXCELEB_ASV, IEMOCAP)
"""SUPERB's; together they serve the seven tasks."""

OTHER_VERSIONS = (SPEECH_COMMANDS_V2,)
"""Checked where they are there, and used only by a suite that names them."""

COLUMNS = ("split", "path", "speaker", "text", "label", "seconds", "start", "test_fold", "shared")

EXPECTED_FILE = "expected.yaml"
"""Counts that must come out, in the folder of the corpora: for subsets and tests, never for SUPERB's own."""

INDEX_VERSION = 1
"""Raised when the readers make other rows of the same corpora, so that no old index is used."""


def index(
    data: Path,
    out: Path,
    tasks: Sequence[str],
    progress: Callable[[float, float], None] | None = None,
    *,
    expected: Expected | None = None,
    corpora: Sequence[Corpus] = CORPORA,
) -> dict[str, str]:
    """Write ``<out>/<task>/manifest.csv``, the trials of ASV, and notes.

    Each file appears whole or not at all, the manifest last.

    Args:
        data: folder with the corpora.
        out: folder of the manifests; their paths are relative to ``data``.
        tasks: which to write.
        progress: told how many headers of audio files are read.
        expected: counts that must come out; by default those of ``<data>/expected.yaml``, where that is there, else
            the official ones.
        corpora: which corpora serve the tasks.

    Returns:
        The tasks whose corpus is not there, with the reason.

    Raises:
        SlimbenchError: a corpus is there but not as it should be (the message names the first differing file), or its
            audio is broken, or there is no such task.
    """
    serving = {task: corpus for corpus in corpora for task in corpus.tasks}
    for task in tasks:
        if task not in serving:
            raise registry.unknown("task of SUPERB's corpora", task, serving)
    if not data.is_dir():
        raise SlimbenchError(f"{data}: no such data folder; correct DATA (slimbench: --data).")
    must = expected_counts(data) if expected is None else expected
    checked: dict[str, tuple[Finding, Reading]] = {}
    tables: dict[str, list[CorpusRow]] = {}
    notes: dict[str, list[str]] = {}
    unavailable: dict[str, str] = {}
    for task in tasks:
        corpus = serving[task]
        if corpus.name not in checked:
            checked[corpus.name] = official.check(corpus, data, must)
        finding, reading = checked[corpus.name]
        if finding.status == "missing":
            unavailable[task] = _why(corpus, finding, data)
            continue
        notes[task] = [f"{corpus.title}: {note}" for note in finding.notes]
        if not finding.official:
            notes[task].append(f"{corpus.title}: a subset, not the official corpus; its scores are not SUPERB's")
        tables[task] = official.rows(corpus, finding, reading, task, data, notes[task])
    lengths = official.measure(data, (row.path for table in tables.values() for row in table), progress)
    for task, table in tables.items():
        finding, reading = checked[serving[task].name]
        measured = [replace(row, seconds=lengths[row.path]) for row in table]
        _write_trials(out / task, measured, finding, reading, data)
        atomic.write(out / task / NOTES, (json.dumps(notes[task], indent=1, ensure_ascii=False) + "\n").encode())
        atomic.write(out / task / "manifest.csv", _table(measured))
    return unavailable


def index_with_v2(
    data: Path, out: Path, tasks: Sequence[str], progress: Callable[[float, float], None] | None = None
) -> dict[str, str]:
    """:func:`index` with Speech Commands v0.02 instead of v0.01, for a suite that says so."""
    others = tuple(corpus for corpus in CORPORA if corpus is not SPEECH_COMMANDS)
    return index(data, out, tasks, progress, corpora=(*others, SPEECH_COMMANDS_V2))


def expected_counts(data: Path) -> Expected | None:
    """The counts of ``<data>/expected.yaml``; ``None`` where there is no such file, so the official ones count.

    Raises:
        SlimbenchError: the file is broken.
    """
    file = data / EXPECTED_FILE
    if not file.is_file():
        return None
    say(f"{file}: counts are checked against this file instead of the official ones")
    return official.load_expected(file, (*CORPORA, *OTHER_VERSIONS))


def _why(corpus: Corpus, finding: Finding, data: Path) -> str:
    reason = f"{corpus.title} is missing ({finding.problems[0]}); get it from {corpus.source}"
    for other in OTHER_VERSIONS:
        if set(other.tasks) & set(corpus.tasks) and other is not corpus:
            root, _ = official.find_root(data, other.folders, other.sign)
            if root is not None:
                reason += f"; {root} is {other.title}, which SUPERB does not use"
    return reason


def _write_trials(folder: Path, rows: list[CorpusRow], finding: Finding, reading: Reading, data: Path) -> None:
    """The lists of trials, where the corpus has some."""
    if not reading.trials or finding.root is None:
        return
    place = finding.root.relative_to(data)
    known = {row.path for row in rows}
    for split, trials in reading.trials.items():
        named = [Trial(t.same, (place / t.enrol).as_posix(), (place / t.test).as_posix()) for t in trials]
        for trial in named:
            for path in (trial.enrol, trial.test):
                if path not in known or " " in path:
                    raise SlimbenchError(f"{data / path}: cannot stand in a trial; its name must have no spaces.")
        lines = [f"{int(trial.same)} {trial.enrol} {trial.test}\n" for trial in named]
        atomic.write(folder / f"trials_{split}.txt", "".join(lines).encode())


def _table(rows: Sequence[CorpusRow]) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for row in rows:
        start = "" if row.start is None else repr(row.start)
        fold = "" if row.fold is None else row.fold
        seconds = round(row.seconds, 6)
        shared = "1" if row.shared else ""
        table.writerow([row.split, row.path, row.speaker, row.text, row.label, seconds, start, fold, shared])
    return text.getvalue().encode()
