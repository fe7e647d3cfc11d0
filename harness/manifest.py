"""The utterance table of one task, checked row by row.

Layout: ``<folder>/<task>/manifest.csv``, paths relative to ``<folder>``; for speaker verification two lists of
trials beside it. ``docs/data.md`` lists every column, every check and its message.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TypeGuard

from harness.identity import digest_json
from harness.interface import SPLITS, Manifest, SlimbenchError, Split, Trial, Utterance

COLUMNS = ("split", "path", "speaker", "text", "label", "seconds")
"""Columns that must be there; ``start``, ``test_fold`` and ``shared`` may be, and further columns are notes."""

TRIAL_SPLITS: tuple[Split, ...] = ("dev", "test")

_OVERLAP = 0.001
"""Seconds that two cuts may share (rounding) before they count as the same speech."""


def read(folder: Path, task: str, root: Path | None = None) -> Manifest:
    """Read and check ``<folder>/<task>/manifest.csv`` and its trials, where there are some.

    Args:
        folder: folder of the manifests.
        task: name of the task, which is the name of the sub-folder.
        root: folder that the paths in the manifest are relative to; by default ``folder``.

    Raises:
        SlimbenchError: anything in it is wrong; the message names file, line and remedy.
    """
    file = folder / task / "manifest.csv"
    if not file.is_file():
        raise SlimbenchError(
            f"{file}: no such manifest; DATA must be a folder with one {task}/manifest.csv per task (docs/data.md)."
        )
    folder = folder if root is None else root
    folds: dict[str, list[Utterance]] = {}
    for line, row in _rows(file):
        folds.setdefault(row.get("test_fold", ""), []).append(_utterance(folder, file, line, row))
    if len(folds) > 1:
        return _cross_validated(folder, file, task, folds)
    utterances = tuple(utterance for rows in folds.values() for utterance in rows)
    _check(file, utterances)
    trials = _trials(folder, file, utterances)
    return Manifest(task, file, utterances, trials, _digest(folder, utterances, trials))


def _cross_validated(folder: Path, file: Path, task: str, folds: Mapping[str, list[Utterance]]) -> Manifest:
    """One manifest per value of the column ``test_fold``, and all of their utterances once."""
    made: list[Manifest] = []
    every: dict[str, Utterance] = {}
    for name, rows in folds.items():
        if not name:
            raise SlimbenchError(
                f"{file}: line {rows[0].row}: test_fold is empty while other rows name one; fill it in."
            )
        _check(file, tuple(rows))
        made.append(Manifest(task, file, tuple(rows), {}, _digest(folder, tuple(rows), {})))
        for utterance in rows:
            every.setdefault(utterance.id, utterance)
    digest = digest_json({"folds": [[name, fold.digest] for name, fold in zip(folds, made, strict=True)]})
    return Manifest(task, file, tuple(every.values()), {}, digest, tuple(made))


def _check(file: Path, utterances: tuple[Utterance, ...]) -> None:
    _check_splits(file, utterances)
    _check_filled(file, utterances)
    _check_distinct(file, utterances)
    _check_disjoint(file, tuple(utterance for utterance in utterances if not utterance.shared))


def check_content(manifest: Manifest, keys: Mapping[str, str]) -> None:
    """Check that no piece of audio is in two splits, under whatever name.

    Args:
        manifest: a manifest from :func:`read`.
        keys: content key of the audio (:func:`harness.audio.audio_key`) per utterance id.

    Raises:
        SlimbenchError: two utterances of different splits hold the same audio.
    """
    for utterance, first in repeats(manifest, keys):
        raise SlimbenchError(
            f"{manifest.file}: line {utterance.row} ({utterance.split}) holds the same audio as line {first.row} "
            f"({first.split}) under another name; keep it in one split only."
        )


def repeats(manifest: Manifest, keys: Mapping[str, str]) -> list[tuple[Utterance, Utterance]]:
    """Utterances whose audio another split holds already, each with the first that does; declared ones left out."""
    seen: dict[str, Utterance] = {}
    found = []
    for utterance in manifest.utterances:
        first = utterance if utterance.shared else seen.setdefault(keys[utterance.id], utterance)
        if first.split != utterance.split:
            found.append((utterance, first))
    return found


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, row) with the line on which the row begins."""
    line = 1
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, strict=True)
            columns = reader.fieldnames or []
            _check_columns(file, list(columns))
            line = reader.line_num + 1
            for row in reader:
                if None in row or None in row.values():
                    raise SlimbenchError(
                        f"{file}: line {line} has {'more' if None in row else 'fewer'} fields than the header's "
                        f"{len(columns)}; put values with a comma in double quotes and write every comma."
                    )
                yield line, row
                line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise SlimbenchError(f"{file}: is not UTF-8 (byte {error.start}); save it as UTF-8.") from error
    except csv.Error as error:
        raise SlimbenchError(f"{file}: line {line}: {error}; close every double quote and save it as CSV.") from error


def _check_columns(file: Path, columns: list[str]) -> None:
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise SlimbenchError(
            f"{file}: line 1: column {', '.join(missing)} is missing; the header must name {', '.join(COLUMNS)}."
        )
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise SlimbenchError(f"{file}: line 1: column {', '.join(twice)} stands there twice; keep one.")


def _utterance(folder: Path, file: Path, line: int, row: Mapping[str, str]) -> Utterance:
    split = row["split"]
    if not _is_split(split):
        raise SlimbenchError(f"{file}: line {line}: split is {split!r}; it must be one of {', '.join(SPLITS)}.")
    name = row["path"]
    where = PurePosixPath(name)
    if not name:
        raise SlimbenchError(f"{file}: line {line}: path is empty; name the audio file relative to {folder}.")
    if where.is_absolute() or ".." in where.parts or Path(name).is_absolute():
        raise SlimbenchError(
            f"{file}: line {line}: path {name} leads out of the data folder; put the audio under {folder} and name it "
            "relative to that."
        )
    path = folder / where
    if not path.is_file():
        raise SlimbenchError(f"{file}: line {line}: audio file {path} is missing; put it there or correct the path.")
    seconds = _number(file, line, "seconds", row["seconds"])
    if seconds <= 0:
        raise SlimbenchError(f"{file}: line {line}: seconds is {row['seconds']}; it must be above 0.")
    text = row.get("start", "")
    start = _number(file, line, "start", text) if text else None
    if start is not None and start < 0:
        raise SlimbenchError(
            f"{file}: line {line}: start is {text}; it must be 0 or more, or empty for the whole file."
        )
    shared = _flag(file, line, row.get("shared", ""))
    ident = str(where.with_suffix("")) + ("" if start is None else f"@{start!r}") + (f"#{split}" if shared else "")
    return Utterance(ident, split, path, row["speaker"], row["text"], row["label"], start, seconds, line, shared=shared)


def _flag(file: Path, line: int, value: str) -> bool:
    if value not in ("", "0", "1"):
        raise SlimbenchError(f"{file}: line {line}: shared is {value!r}; write 1, or 0, or leave it empty.")
    return value == "1"


def _is_split(value: str) -> TypeGuard[Split]:
    return value in SPLITS


def _number(file: Path, line: int, column: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise SlimbenchError(f"{file}: line {line}: {column} is {value!r}; write a number of seconds such as 3.25.")
    return number


def _check_splits(file: Path, utterances: tuple[Utterance, ...]) -> None:
    present = {u.split for u in utterances}
    missing = [split for split in SPLITS if split not in present]
    if missing:
        raise SlimbenchError(f"{file}: has no rows for split {', '.join(missing)}; every split needs utterances.")


def _check_filled(file: Path, utterances: tuple[Utterance, ...]) -> None:
    """A table is labelled throughout, or it has no labels and a text in every row."""
    labelled = any(u.label for u in utterances)
    for u in utterances:
        if labelled and not u.label.strip():
            raise SlimbenchError(
                f"{file}: line {u.row}: label is empty while other rows have one; fill it in or take the row out."
            )
        if not labelled and not u.text.strip():
            raise SlimbenchError(
                f"{file}: line {u.row}: both label and text are empty; fill in the one that the task reads."
            )


def _check_distinct(file: Path, utterances: tuple[Utterance, ...]) -> None:
    seen: dict[str, Utterance] = {}
    for u in utterances:
        first = seen.setdefault(u.id, u)
        if first is u:
            continue
        if first.split != u.split:
            raise SlimbenchError(
                f"{file}: line {u.row}: utterance {u.id} is in {u.split} here and in {first.split} on line "
                f"{first.row}; keep it in one split only."
            )
        if first.path != u.path:
            raise SlimbenchError(
                f"{file}: line {u.row}: {u.path.name} and {first.path.name} (line {first.row}) differ only in the "
                "suffix; rename one."
            )
        raise SlimbenchError(f"{file}: line {u.row}: repeats the utterance of line {first.row}; take one of them out.")


def _check_disjoint(file: Path, utterances: tuple[Utterance, ...]) -> None:
    """No two splits share a stretch of one file."""

    def begin(u: Utterance) -> float:
        return -math.inf if u.start is None else u.start

    files: dict[Path, list[Utterance]] = {}
    for u in utterances:
        files.setdefault(u.path, []).append(u)
    for cuts in files.values():
        reach: dict[Split, tuple[float, Utterance]] = {}
        for u in sorted(cuts, key=begin):
            for split, (end, other) in reach.items():
                if split != u.split and begin(u) < end - _OVERLAP:
                    raise SlimbenchError(
                        f"{file}: line {u.row} ({u.split}) and line {other.row} ({split}) cut overlapping stretches "
                        f"out of {u.path.name}; keep each stretch in one split only."
                    )
            end = math.inf if u.start is None else u.start + u.seconds
            if u.split not in reach or end > reach[u.split][0]:
                reach[u.split] = (end, u)


def _trials(folder: Path, file: Path, utterances: tuple[Utterance, ...]) -> dict[Split, tuple[Trial, ...]]:
    """Trials beside the manifest: both lists or none."""
    lists = {split: file.parent / f"trials_{split}.txt" for split in TRIAL_SPLITS}
    present = [path for path in lists.values() if path.is_file()]
    if not present:
        return {}
    names: dict[str, list[Utterance]] = {}
    for u in utterances:
        for name in {u.path.relative_to(folder).as_posix(), u.id}:
            names.setdefault(name, []).append(u)
    for path in lists.values():
        if path not in present:
            raise SlimbenchError(f"{path}: no such list of trials, but there is {present[0].name}; give both.")
    return {split: _read_trials(path, split, names) for split, path in lists.items()}


def _read_trials(path: Path, split: Split, names: Mapping[str, list[Utterance]]) -> tuple[Trial, ...]:
    trials = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SlimbenchError(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8.") from error
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if len(fields) != 3 or fields[0] not in ("0", "1"):
            raise SlimbenchError(
                f"{path}: line {number}: {line!r} is no trial; write `1` (same speaker) or `0` and two paths without "
                "spaces."
            )
        enrol, test = (_named(path, number, split, name, names) for name in fields[1:])
        same = fields[0] == "1"
        if enrol.speaker and test.speaker and same != (enrol.speaker == test.speaker):
            raise SlimbenchError(
                f"{path}: line {number}: says {fields[0]}, but the manifest's speakers are {enrol.speaker} and "
                f"{test.speaker}; correct one of them."
            )
        trials.append(Trial(same, enrol.id, test.id))
    if len({trial.same for trial in trials}) < 2:
        raise SlimbenchError(f"{path}: needs trials of the same speaker (1) and of different ones (0).")
    return tuple(trials)


def _named(path: Path, line: int, split: Split, name: str, names: Mapping[str, list[Utterance]]) -> Utterance:
    found = names.get(name, [])
    if not found:
        raise SlimbenchError(f"{path}: line {line}: {name} is not in manifest.csv; add its row or drop the trial.")
    if len(found) > 1:
        raise SlimbenchError(
            f"{path}: line {line}: {name} holds {len(found)} utterances; name one, such as {found[0].id}."
        )
    if found[0].split != split:
        raise SlimbenchError(
            f"{path}: line {line}: {name} is in the {found[0].split} split of manifest.csv; only {split} may be here."
        )
    return found[0]


def _digest(folder: Path, utterances: tuple[Utterance, ...], trials: Mapping[Split, tuple[Trial, ...]]) -> str:
    """SHA-256 of what the rows and trials say, wherever the folder lies."""
    rows = [
        [u.id, u.split, u.path.relative_to(folder).as_posix(), u.speaker, u.text, u.label, u.start, u.seconds]
        for u in utterances
    ]
    lists = {split: [[t.same, t.enrol, t.test] for t in trials[split]] for split in trials}
    return digest_json({"rows": rows, "trials": lists})
