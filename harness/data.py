"""The data of a suite: made on this machine once and kept, or the user's own folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import kept, registry
from harness.identity import digest_json
from harness.interface import SlimbenchError
from harness.processes import alive
from harness.progress import Progress, say
from harness.suite import NOISE as NOISE_SETTINGS
from harness.suite import Suite

_SEAL = ".built.json"
NOTES = "notes.json"
"""Beside a manifest: a list of sentences for the readers of its records."""
NOISE = "noise.json"
"""In a data folder whose audio carries added noise: which noise, and what it was made from."""
_LISTS = (".txt", ".yaml", ".csv", ".json", ".lst")


def folder(suite: Suite, data: Path | None, cache: Path) -> Path:
    """Where the data of a suite lie, or will lie once they are made.

    Raises:
        SlimbenchError: the suite has no builder and no folder was named, or the folder is not there.
    """
    if data is not None:
        if not data.is_dir():
            raise SlimbenchError(f"{data}: no such data folder; correct DATA (slimbench: --data).")
        return data
    if suite.builder is None:
        raise SlimbenchError(
            f"suite {suite.name} runs on data that you bring: name their folder with DATA=folder (slimbench: --data); "
            "docs/data.md describes its layout."
        )
    recipe = digest_json({"builder": suite.builder, "seed": suite.seed, "digest": suite.digest})
    return cache / "data" / f"{suite.name}-{recipe[:12]}"


@dataclass(frozen=True)
class Data:
    """The data of a suite, ready to be read.

    Attributes:
        manifests: folder of the manifests, one sub-folder per task.
        root: folder that their paths are relative to.
        digest: of the data that a builder made; ``None`` for data that the user brings, which every record digests.
        notes: what a reader of the records must know of them.
        unavailable: tasks whose corpus is not there, with the reason.
        official: whether the manifests are of corpora as they were published, with whatever is wrong in them.
    """

    manifests: Path
    root: Path
    digest: str | None = None
    notes: tuple[str, ...] = ()
    unavailable: Mapping[str, str] = field(default_factory=dict)
    official: bool = False

    def task_notes(self, task: str) -> list[str]:
        """What the index of a corpus says to readers of this task's record."""
        return list(kept.read(self.manifests / task / NOTES) or [])


def prepare(suite: Suite, data: Path | None, cache: Path, workers: int, tasks: Sequence[str]) -> Data:
    """Make the data of a suite, or the manifests of the user's corpora, unless they are there.

    They appear whole or not at all.

    Args:
        suite: the suite.
        data: the user's folder.
        cache: where what is made is kept.
        workers: processes for making it.
        tasks: tasks whose manifests are wanted.

    Raises:
        SlimbenchError: the data cannot be made, were changed after they were made, or carry other noise than the suite
            is for.
    """
    target = folder(suite, data, cache)
    if data is not None:
        _check_noise(suite, data)
    if suite.corpora is not None:
        return _index(suite, suite.corpora, target, cache, tasks)
    if suite.builder is None:
        return Data(target, target)
    if data is not None:
        note = f"the data are the user's own, not those that suite {suite.name} makes"
        return Data(target, target, notes=(note,))
    if not target.exists():
        _build(suite, suite.builder, target, workers)
    digest = _digest_of(suite.builder)(target)
    if kept.read(target / _SEAL) != {"digest": digest}:
        raise SlimbenchError(
            f"{target}: the data were changed after they were made; delete the folder, it is made again."
        )
    if suite.digest is not None and digest != suite.digest:
        note = (
            f"the data of suite {suite.name} made here have digest {digest[:12]}, those of the published tables "
            f"{suite.digest[:12]}: compare scores from this machine only with each other"
        )
        return Data(target, target, digest, (note,))
    return Data(target, target, digest)


def _check_noise(suite: Suite, data: Path) -> None:
    """Noisy and clean data are never benched under one suite's name, nor two kinds of noise."""
    carried = _carried(data / NOISE)
    if carried == suite.noise:
        return
    if carried is None:
        raise SlimbenchError(
            f"{data}: has no {NOISE}, but suite {suite.name} is for noisy data; make them with `slimbench data noisy "
            "--data FOLDER --out FOLDER` and name that folder."
        )
    raise SlimbenchError(
        f"{data / NOISE}: says noise {carried}, but suite {suite.name} is for "
        f"{'data without noise' if suite.noise is None else dict(suite.noise)}; name a suite for this noise, such as a "
        "copy of the suite file under a name of its own with that `noise`."
    )


def _carried(file: Path) -> dict[str, Any] | None:
    """The noise that a folder's note of origin states; ``None`` where there is no note."""
    note = kept.read(file)
    if note is None:
        return None
    try:
        carried, whole = {name: note["recipe"][name] for name in NOISE_SETTINGS}, note["complete"]
    except (KeyError, TypeError) as error:
        raise SlimbenchError(
            f"{file}: is no note of `slimbench data noisy`, which alone writes a file of this name; rename it."
        ) from error
    if not whole:
        raise SlimbenchError(f"{file}: the folder is not whole yet; repeat the `slimbench data noisy` that makes it.")
    return carried


def _index(suite: Suite, corpora: str, root: Path, cache: Path, tasks: Sequence[str]) -> Data:
    """Manifests of the official corpora below ``root``, written once per folder and task.

    An index is made again when a list, transcript, label file or lexicon anywhere in the folder changes, or when it is
    deleted; audio that goes missing later is an error when the manifest is read.
    """
    index: Callable[[Path, Path, Sequence[str], Progress], Mapping[str, str]] = registry.resolve(corpora)
    version = registry.resolve(f"{corpora.partition(':')[0]}:INDEX_VERSION")
    state = digest_json({"root": str(root.resolve()), "corpora": corpora, "version": version, "lists": _lists(root)})
    target = cache / "data" / f"{suite.name}-{state[:12]}"
    wanted = [task for task in tasks if not (target / task / "manifest.csv").is_file()]
    unavailable: Mapping[str, str] = {}
    if wanted:
        target.mkdir(parents=True, exist_ok=True)
        with Progress(f"index corpora of suite {suite.name}", 1, "files") as progress:
            unavailable = index(root, target, wanted, progress)
    return Data(target, root, unavailable=unavailable, official=True)


def _lists(root: Path) -> list[tuple[str, int, int]]:
    """Folders at the top, and path, size and time of every file of text below, which is what an index is made of."""
    found = [(entry.name, 0, 0) for entry in root.iterdir() if entry.is_dir()]
    for folder, _, names in os.walk(root, followlinks=True):
        for name in names:
            if name.endswith(_LISTS):
                path = Path(folder, name)
                stat = path.stat()
                found.append((path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns))
    return sorted(found)


def _build(suite: Suite, builder: str, target: Path, workers: int) -> None:
    build = registry.resolve(builder)
    target.parent.mkdir(parents=True, exist_ok=True)
    for stale in target.parent.glob(f"{target.name}.partial-*"):
        if not alive(int(stale.name.rpartition("-")[2])):
            shutil.rmtree(stale)
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        with Progress(f"make suite {suite.name}", 1, "utterances") as progress:
            build(partial, suite.seed, workers, progress)
        kept.write(partial / _SEAL, {"digest": _digest_of(builder)(partial)})
        partial.rename(target)
    except OSError:
        if not target.exists():  # another run made it in the meantime otherwise
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(f"made suite {suite.name} in {target}")


def _digest_of(builder: str) -> Callable[[Path], str]:
    digest: Callable[[Path], str] = registry.resolve(f"{builder.partition(':')[0]}:digest")
    return digest
