"""Test predictions in the files that s3prl's evaluation writes and the SUPERB leaderboard takes, and scores from such.

Facts: reference protocol section 2.4; names within the files as ``s3prl/downstream/<task>`` writes them: the stem of
the file (ASR, PR, IC, ER), folder and file (KS), the last three parts of the path (SID, both sides of an ASV trial).
Where such names are not unique in a test set, the whole id stands there with ``-`` for ``/``.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import metrics, registry, stats
from harness.interface import Row, SlimbenchError
from harness.records import Record
from leaderboards.submissions.archive import MAX_FILE
from leaderboards.submissions.exchange.scores import Score
from leaderboards.submissions.strict import MAX_BYTES, MAX_TEXT
from leaderboards.submissions.testsets import TestSet

ARCHIVE = "predict.zip"
_FOLDS = 5


@dataclass(frozen=True)
class Layout:
    """Where predictions stand: ``<folder>/<file>`` of an experiment, ``predict/<member>`` of the leaderboard's archive.

    ``field`` is where a row holds them, ``fold`` which rows they are of.
    """

    task: str
    folder: str
    file: str
    member: str
    field: str = "hyp"
    fold: int | None = None


LAYOUTS: tuple[Layout, ...] = (
    Layout("pr", "pr", "test-hyp.ark", "pr_public/predict.ark"),
    Layout("sid", "sid", "test_predict.txt", "sid_public/predict.txt"),
    Layout("ks", "ks", "test_predict.txt", "ks_public/predict.txt"),
    Layout("ic", "ic", "test_predict.csv", "ic_public/predict.csv"),
    *(
        Layout("er", f"er_fold{n}", f"test_fold{n}_predict.txt", f"er_fold{n}_public/predict.txt", fold=n)
        for n in range(1, _FOLDS + 1)
    ),
    Layout("er", "er", "test_predict.txt", "er_public/predict.txt"),  # suites without folds; not s3prl's
    Layout("asr", "asr", "test-clean-noLM-hyp.ark", "asr_public/predict.ark"),
    Layout("asr", "asr", "test-clean-LM-hyp.ark", "asr_lm_public/predict.ark", field="hyp_wer_lm"),
    Layout("asv", "sv", "test_predict.txt", "sv_public/predict.txt", field="score"),
)


def _last(count: int, ending: str = "") -> Callable[[str], str]:
    return lambda name: "-".join(name.split("/")[-count:]) + ending


_NAMES: Mapping[str, Callable[[str], str]] = {"ks": _last(2, ".wav"), "sid": _last(3), "asv": _last(3)}


def names(task: str, rows: Sequence[Row]) -> list[str]:
    """What each test row is called in such a file.

    Raises:
        SlimbenchError: names are not unique, or have spaces or commas.
    """
    made: list[str] = []
    for make in (_NAMES.get(task, _last(1)), _last(99)):
        made = [
            f"{make(row['enrol']).split('.')[0]}_{make(row['test']).split('.')[0]}"
            if task == "asv"
            else make(row["id"])
            for row in rows
        ]
        if len(set(made)) == len({_item(row) for row in rows}):
            break
    else:
        raise SlimbenchError(f"The utterances of {task} have no distinct names; s3prl's files cannot hold them.")
    if bad := next((name for name in made if any(c.isspace() or c == "," for c in name)), None):
        raise SlimbenchError(f"The utterance {bad!r} of {task} has a space or a comma; s3prl's files cannot hold it.")
    return made


def _item(row: Row) -> tuple[str, ...]:
    return (row["id"],) if "id" in row else (row["enrol"], row["test"])


def write(records: Sequence[Record], seed: int | None = None) -> dict[str, bytes]:
    """The files of an experiment folder per task, by relative path, and the members of the archive under ``predict/``.

    Args:
        records: of one upstream and one suite.
        seed: whose predictions; s3prl has one run, by default each record's first.

    Raises:
        SlimbenchError: two records are of one task, or a record has no such seed.
    """
    files: dict[str, bytes] = {}
    if len({record.task for record in records}) < len(records):
        raise SlimbenchError("Two records are of one task: name one suite, and clear older records away.")
    for record in records:
        which = record.seeds[0] if seed is None else seed
        if which not in record.seeds:
            raise SlimbenchError(f"The record of {record.task} has no seed {which}; it has {record.seeds}.")
        for layout in LAYOUTS:
            rows = record.predictions[str(which)]
            if (
                layout.task != record.task
                or layout.field not in rows[0]
                or (layout.fold is None) == ("fold" in rows[0])
            ):
                continue
            rows = [row for row in rows if row.get("fold") == layout.fold]
            if not rows:
                continue
            lines = [
                _line(record.task, name, row[layout.field])
                for name, row in zip(names(record.task, rows), rows, strict=True)
            ]
            files[f"{layout.folder}/{layout.file}"] = files[f"predict/{layout.member}"] = "".join(lines).encode()
    return files


def _line(task: str, name: str, said: str | float) -> str:
    if task == "ic":
        slots = str(said).split("|")
        if any("," in slot for slot in slots):
            raise SlimbenchError(f"The intent {said!r} has a comma; s3prl's file cannot hold it.")
        return ",".join([name, *slots]) + "\n"
    return f"{name} {said!r}\n" if isinstance(said, float) else f"{name} {said}\n"


def read(path: Path) -> dict[Layout, dict[str, list[str]]]:
    """What such a folder or archive predicts: per file, by name, in order.

    Args:
        path: a folder of experiment folders, an unpacked archive, or the archive.

    Raises:
        SlimbenchError: there is nothing of the kind, or a file is broken.
    """
    found: dict[Layout, dict[str, list[str]]] = {}
    for layout in LAYOUTS:
        text = _text(path, layout)
        if text is None:
            continue
        said: dict[str, list[str]] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            name, cut, rest = line.partition("," if layout.task == "ic" else " ")
            if (layout.task == "ic" and not cut) or len(line) > MAX_TEXT:
                raise SlimbenchError(
                    f"{path}: {layout.file} of {layout.task}: line {number} is no prediction; correct it."
                )
            said.setdefault(name, []).append(rest.strip())
        found[layout] = said
    if not found:
        raise SlimbenchError(
            f"{path} holds none of s3prl's prediction files, such as pr/test-hyp.ark; correct the path."
        )
    return found


def _text(path: Path, layout: Layout) -> str | None:
    """The text of one file, wherever it lies; ``None`` where it is not there."""
    members = (f"predict/{layout.member}", layout.member, f"{layout.folder}/{layout.file}")
    try:
        if not path.is_dir():
            if path.stat().st_size > MAX_FILE:
                raise SlimbenchError(f"{path} has more than {MAX_FILE:,} bytes; predictions have less.")
            with zipfile.ZipFile(path) as bundle:
                there = [name for name in bundle.namelist() if name in members]
                if len(there) > 1:
                    raise SlimbenchError(f"{path} holds the predictions of {layout.task} twice; keep one.")
                if not there:
                    return None
                with bundle.open(there[0]) as stream:
                    data = stream.read(MAX_BYTES + 1)
        else:
            place = next((path / name for name in members if (path / name).is_file()), None)
            if place is None:
                return None
            with place.open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise SlimbenchError(f"{path}: {layout.file} of {layout.task} has more than {MAX_BYTES:,} bytes.")
        return data.decode("utf-8")
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError) as error:
        raise SlimbenchError(
            f"{path}: the predictions of {layout.task} cannot be read ({error}); pack them anew."
        ) from error


def scores(
    path: Path, suite: str, protocol: str, sets: Mapping[str, TestSet], upstream: str, bootstrap: int
) -> list[Score]:
    """Scores of predictions in s3prl's files against a suite's test sets, with intervals; one run, so one seed.

    Raises:
        SlimbenchError: a task is not the suite's, or predictions are missing, too many, or not of its test set.
    """
    rows: dict[str, list[Row]] = {}
    for layout, said in read(path).items():
        if layout.task not in sets:
            raise SlimbenchError(f"{path}: suite {suite} has no task {layout.task}; leave its predictions out.")
        items = [dict(item) for item in sets[layout.task].items if item.get("fold") == layout.fold]
        if not items:
            raise SlimbenchError(f"{path}: suite {suite} has no {layout.file} of {layout.task}; leave it out.")
        values = _aligned(path, layout, names(layout.task, items), said)
        there = rows.get(layout.task)
        if there is not None and layout.fold is None:  # a second decoding of the same utterances
            items = there
        for item, value in zip(items, values, strict=True):
            item[layout.field] = _value(path, layout, value)
        if there is None or layout.fold is not None:
            rows[layout.task] = [*(there or ()), *items]
    found = []
    for task, scored in rows.items():
        if "fold" in scored[0] and len({row["fold"] for row in scored}) != len({r["fold"] for r in sets[task].items}):
            raise SlimbenchError(f"{path}: {task} needs the predictions of all folds; add the missing ones.")
        known = registry.task(task)
        extra = ("wer_lm",) if "hyp_wer_lm" in scored[0] else ()
        main = () if known.metric == "wer" and "hyp" not in scored[0] else (known.metric, *known.secondary)
        for metric in (*main, *extra):
            low, high = stats.interval(metric, [scored], repeats=bootstrap)
            total = metrics.score(metric, scored)
            found.append(Score(suite, protocol, upstream, task, metric, total, low, high, len(scored), 1))
    return found


def _aligned(path: Path, layout: Layout, wanted: Sequence[str], said: Mapping[str, list[str]]) -> list[str]:
    """What is said of each wanted name; a name that stands there several times is used up in order."""
    left = {name: list(reversed(values)) for name, values in said.items()}
    values, missing = [], []
    for name in wanted:
        if left.get(name):
            values.append(left[name].pop())
        else:
            missing.append(name)
    where = f"{path}: {layout.file} of {layout.task}"
    if missing:
        raise SlimbenchError(f"{where} says nothing of {len(missing)} test items, such as {missing[0]}; add them.")
    if further := [name for name, rest in left.items() if rest]:
        raise SlimbenchError(
            f"{where} has lines on {len(further)} items that are not in the test set, or twice, such as "
            f"{further[0][:80]!r}; take them out."
        )
    return values


def _value(path: Path, layout: Layout, text: str) -> str | float:
    if layout.task == "ic":
        return text.replace(",", "|")
    if layout.task != "asv":
        return text
    try:
        return float(text)
    except ValueError:
        raise SlimbenchError(f"{path}: {layout.file} of asv holds the score {text[:40]!r}; write a number.") from None
