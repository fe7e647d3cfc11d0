"""What a suite's test set is: ids, speakers, references, trials, and the content keys of its audio.

For suites whose data this project makes they are committed (``testsets/<suite>.json.gz``), so that a submission can be
checked without data and its record keys be worked out anew. For other suites they come from the data of whoever checks.
``python -m leaderboards.submissions.testsets SUITE --cache DIR`` writes the committed file from the data in a cache.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness import adapt, atomic, manifest, registry, suite
from harness.identity import digest_json
from harness.interface import SPLITS, Labels, Manifest, Row, SlimbenchError, Task
from harness.suite import Suite

FOLDER = Path(__file__).with_name("testsets")
_PREDICTED = ("hyp", "score")


@dataclass(frozen=True)
class TestSet:
    """One task's data as a record of it must have them.

    Attributes:
        manifest_digest: of the whole manifest.
        counts: utterances per split.
        items: test rows without what was predicted, in order.
        audio: content key per utterance id, of all splits.
    """

    __test__ = False  # no test of pytest's

    manifest_digest: str
    counts: Mapping[str, int]
    items: tuple[Row, ...]
    audio: Mapping[str, str]


def item(row: Row) -> Row:
    """A row without what was predicted."""
    return {name: value for name, value in row.items() if not name.startswith(_PREDICTED)}


@lru_cache(maxsize=8)
def known(name: str) -> Mapping[str, TestSet]:
    """The committed test sets of a suite by task; nothing where there are none."""
    file = FOLDER / f"{name}.json.gz"
    if not file.is_file():
        return {}
    content = json.loads(gzip.decompress(file.read_bytes()))
    return {
        task: TestSet(
            found["manifest_digest"], found["counts"], tuple(found["items"]), content["audio"][found["audio"]]
        )
        for task, found in content["tasks"].items()
    }


def from_data(chosen: Suite, data: Path | None, cache: Path, tasks: Sequence[str]) -> dict[str, TestSet]:
    """The test sets of a suite under its chosen protocol, from data on this machine.

    Raises:
        SlimbenchError: the data are not there, or are broken.
    """
    from harness import audio
    from harness import data as data_of
    from harness.extraction.extract import key_of

    found = data_of.prepare(chosen, data, cache, 1, tasks)
    made = {}
    for name in tasks:
        task = registry.task(name)
        protocol = suite.protocol(chosen, task)
        table = adapt.apply(manifest.read(found.manifests, name, found.root), protocol)
        digests = audio.file_digests(u.path for u in table.utterances)
        keys = {u.id: key_of(u, digests, protocol.effects) for u in table.utterances}
        counts: dict[str, int] = {split: len(adapt.groups(table.split(split))) for split in SPLITS}
        made[name] = TestSet(table.digest, counts, tuple(_items(task, table)), keys)
    return made


def _items(task: Task, table: Manifest) -> list[Row]:
    """The rows that the task makes of its test split, without predictions, those of all folds together."""
    rows: list[Row] = []
    for number, fold in enumerate(table.folds or (table,), start=1):
        guess = [1.0] if fold.trials else ""
        said = {utterance.id: guess for utterance in fold.split("test")}
        found = [item(row) for row in task.rows(fold, "test", said, Labels(()))]
        rows += [{**row, "fold": number} for row in found] if table.folds else found
    return rows


def write(sets: Mapping[str, TestSet], file: Path) -> None:
    """Write test sets to the file that :func:`known` reads."""
    audio: dict[str, Any] = {}
    tasks: dict[str, Any] = {}
    for name, found in sets.items():
        digest = digest_json(sorted(found.audio.items()))
        audio[digest] = dict(sorted(found.audio.items()))
        tasks[name] = {
            "manifest_digest": found.manifest_digest,
            "counts": dict(found.counts),
            "items": list(found.items),
            "audio": digest,
        }
    text = json.dumps({"audio": audio, "tasks": tasks}, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    atomic.write(file, gzip.compress(text.encode(), 9, mtime=0))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the committed file of a suite from the data in a cache."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("suite")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    chosen = suite.load(options.suite)
    if len(chosen.protocols) > 1:
        raise SlimbenchError(f"{chosen.file}: a suite with several protocols has no single test set to commit.")
    sets = from_data(chosen, options.data, options.cache, list(chosen.tasks))
    write(sets, options.out / f"{chosen.name}.json.gz")


if __name__ == "__main__":
    main()
