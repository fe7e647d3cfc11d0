"""The feature stores of a cache as a whole: what is there, whether it is whole, and how it is kept within a limit.

The limit counts the feature stores, which are all but a few megabytes of a cache apart from the suites' data. What
was used longest ago goes first, shard by shard, over all stores; never what the present run needs, and nothing of a
store that another process has open.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import claims, kept
from harness.interface import SlimbenchError
from harness.store import shards
from harness.store.features import ABOUT, IN_USE, LOCKS, FeatureStore
from harness.store.journal import if_writable
from harness.store.shards import INDEX, Index, OpenShard

LIMIT = "SLIMBENCH_CACHE_GB"
"""Environment variable: gigabytes (1e9 bytes) that the feature stores of a cache may take."""


@dataclass(frozen=True)
class Held:
    """A shard on the disk: its file, bytes, and when it was last used, in nanoseconds since 1970."""

    file: Path
    size: int
    used: int


@dataclass(frozen=True)
class Store:
    """A feature store as people want to see it.

    Attributes:
        folder: where it lies.
        names: what its upstream has been called.
        fingerprint: of the upstream.
        dtype: stored precision of frames.
        held: its shards.
        hours: of distinct audio.
        frames: pieces of audio with frames.
        means: pieces of audio with time means only.
        in_use: whether another process has it open.
    """

    folder: Path
    names: tuple[str, ...]
    fingerprint: str
    dtype: str
    held: tuple[Held, ...]
    hours: float
    frames: int
    means: int
    in_use: bool

    @property
    def bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.size for shard in self.held)

    @property
    def used(self) -> int:
        """When one of its shards was last used, in nanoseconds since 1970; 0 where there are none."""
        return max((shard.used for shard in self.held), default=0)


def limit(given: float | None = None) -> float | None:
    """The limit in bytes: what is given in GB, else the environment's, else none.

    Raises:
        SlimbenchError: the environment's is no number above 0.
    """
    if given is not None:
        return given * 1e9
    text = os.environ.get(LIMIT, "").strip()
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise SlimbenchError(f"{LIMIT} is {text!r}; it must be a number of gigabytes above 0.")
    return number * 1e9


def folders(cache: Path) -> list[Path]:
    """The feature stores of a cache."""
    return sorted(path for path in (cache / "features").glob("*") if path.is_dir())


def held(folder: Path) -> list[Held]:
    """The shards of a store, as the file system sees them."""
    return [Held(folder / name, state.st_size, state.st_mtime_ns) for name, state in shards.states(folder).items()]


def stores(cache: Path) -> list[Store]:
    """All stores of a cache, last used first.

    Raises:
        SlimbenchError: a shard that no index knows is damaged.
    """
    return sorted((_look(folder) for folder in folders(cache)), key=lambda store: -store.used)


def keep_within(limit: float | None, store: FeatureStore, keys: Collection[str], coming: float = 0.0) -> int:
    """Make room for what a run will write, by deleting what was used longest ago.

    Args:
        limit: bytes that the stores of the cache may take; ``None`` for any number.
        store: that of the run.
        keys: the audio that the run needs.
        coming: bytes that it will write; 0 afterwards, when too much is deleted as far as it may be.

    Returns:
        Bytes that were deleted.

    Raises:
        SlimbenchError: what the run needs does not fit, and then nothing is deleted.
    """
    if limit is None:
        return 0
    with store.alone() as mine:
        staying, busy, idle = _shares(store, keys, mine)
        if coming and staying + busy + coming > limit:
            raise SlimbenchError(_too_small(limit, store.folder, staying, busy, coming))
        excess = staying + busy + coming + sum(shard.size for shard in idle) - limit
        return _delete(_oldest(idle, excess), store)


def growth(limit: float, store: FeatureStore, keys: Collection[str]) -> float:
    """Bytes that a run can write within a limit, once all that may be deleted for it is.

    Args:
        limit: bytes that the stores of the cache may take.
        store: that of the run.
        keys: the audio that the run needs.
    """
    with store.alone() as mine:
        staying, busy, _ = _shares(store, keys, mine)
    return max(0.0, limit - staying - busy)


def _shares(store: FeatureStore, keys: Collection[str], mine: bool) -> tuple[int, int, list[Held]]:
    """Bytes that a run needs, bytes that other runs may need, and the shards that may be deleted."""
    needed = store.shards_of(set(keys))
    own = held(store.folder)
    staying = sum(shard.size for shard in own if shard.file.name in needed)
    idle = [shard for shard in own if mine and shard.file.name not in needed]
    busy = sum(shard.size for shard in own) - staying - sum(shard.size for shard in idle)
    for folder in folders(store.folder.parent.parent):
        if folder == store.folder:
            continue
        theirs = held(folder)
        if in_use(folder):
            busy += sum(shard.size for shard in theirs)
        else:
            idle += theirs
    return staying, busy, idle


def _too_small(limit: float, folder: Path, staying: float, busy: float, coming: float) -> str:
    others = f", and {busy / 1e9:.3g} GB are in use by other runs" if busy else ""
    return (
        f"{folder.parent}: the features of this run take {(staying + coming) / 1e9:.3g} GB ({staying / 1e9:.3g} GB are "
        f"there, {coming / 1e9:.3g} GB are to come){others}, but the cache's limit is {limit / 1e9:.3g} GB; raise it "
        f"(--cache-limit or {LIMIT}) to {(staying + busy + coming) / 1e9 * 1.02:.3g}, free some with "
        "'slimbench cache prune', run fewer tasks at a time, or have frames encoded on demand (--frames stream)."
    )


def _oldest(idle: Sequence[Held], excess: float) -> list[Held]:
    """The shards that were used longest ago, as many as make up ``excess`` bytes."""
    gone: list[Held] = []
    for shard in sorted(idle, key=lambda shard: (shard.used, str(shard.file))):
        if excess <= 0:
            break
        gone.append(shard)
        excess -= shard.size
    return gone


def _delete(gone: Sequence[Held], own: FeatureStore | None = None) -> int:
    """Delete shards, store by store; a store that is in use by now is left alone. Returns the bytes."""
    freed = 0
    by_folder: dict[Path, list[Held]] = {}
    for shard in gone:
        by_folder.setdefault(shard.file.parent, []).append(shard)
    for folder, those in by_folder.items():
        names = [shard.file.name for shard in those]
        if own is not None and folder == own.folder:
            own.drop(names)
            freed += sum(shard.size for shard in those)
            continue
        with alone(folder) as mine:
            if mine:
                discard(folder, names)
                freed += sum(shard.size for shard in those)
    return freed


def discard(folder: Path, names: Sequence[str]) -> None:
    """Delete shards of a store that nobody uses; the store too, where none is left."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
    if shards.states(folder):
        Index(folder).drop(names)
        return
    for file in (folder / ABOUT, folder / INDEX):
        file.unlink(missing_ok=True)
    shutil.rmtree(folder / LOCKS, ignore_errors=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def in_use(folder: Path) -> bool:
    """Whether a process has the store open now."""
    with alone(folder) as mine:
        return not mine


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Keep everybody out of a store; yields whether nobody was in and we may write there."""
    handle = None
    with suppress(BlockingIOError, FileNotFoundError), if_writable():
        (folder / LOCKS).mkdir(exist_ok=True)
        handle = claims.hold(folder / LOCKS / IN_USE, wait=False)
    if handle is None:
        yield False
        return
    try:
        yield True
    finally:
        os.close(handle)


def prune(cache: Path, size: float | None, upstream: str | None, before: int | None) -> list[Held]:
    """What a clean-up would delete: of the stores that nobody uses, all that fits, the longest unused first.

    Args:
        cache: the cache folder.
        size: bytes that may stay in all stores; ``None`` takes all that the other arguments choose.
        upstream: only stores whose upstream has this name or a fingerprint that begins so.
        before: only shards that were last used before this time, in nanoseconds since 1970.

    Raises:
        SlimbenchError: no store is of that upstream.
    """
    found = stores(cache)
    chosen = [store for store in found if upstream is None or _is_of(store, upstream)]
    if upstream is not None and not chosen:
        names = sorted({name for store in found for name in store.names})
        raise SlimbenchError(
            f"{cache / 'features'}: no store is of upstream {upstream!r}; there are {', '.join(names) or 'none'}."
        )
    idle = [
        shard for store in chosen if not store.in_use for shard in store.held if before is None or shard.used < before
    ]
    excess = float("inf") if size is None else sum(store.bytes for store in found) - size
    return _oldest(idle, excess)


def delete(gone: Sequence[Held]) -> int:
    """Delete shards; returns the bytes that are free now. A store that has come into use meanwhile is left alone."""
    return _delete(gone)


def verify(cache: Path) -> tuple[list[Path], int, list[tuple[Path, str]]]:
    """Read every shard and compare every checksum.

    Returns:
        The shards that are whole; how many of them have no checksums, being of an early version; and the damaged
        ones, with what is wrong.
    """
    files = [shard.file for folder in folders(cache) for shard in held(folder)]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        found = dict(zip(files, pool.map(_verified, files), strict=True))
    whole = [file for file in files if isinstance(found[file], bool)]
    broken = [(file, said) for file, said in found.items() if isinstance(said, str)]
    return whole, sum(not found[file] for file in whole), broken


def repair(broken: Sequence[Path]) -> None:
    """Delete damaged shards, whoever uses the store: reading them would be an error."""
    for file in broken:
        file.unlink(missing_ok=True)
    for folder in {file.parent for file in broken}:
        Index(folder).drop([file.name for file in broken if file.parent == folder])


def _verified(file: Path) -> bool | str:
    """Whether a shard has checksums, or what is wrong with it."""
    try:
        opened = OpenShard(file)
        opened.verify()
    except SlimbenchError as error:
        return str(error)
    return opened.has_sums


def _look(folder: Path) -> Store:
    about: dict[str, Any] = kept.read(folder / ABOUT) or {}
    index = Index(folder)
    index.refresh()
    seconds: dict[str, float] = {}
    framed: set[str] = set()
    for shard in index.shards.values():
        for entry in shard.entries:
            seconds[entry.key] = entry.seconds
            if entry.frames:
                framed.add(entry.key)
    names = tuple(about.get("names", ()))
    fingerprint, dtype = str(about.get("upstream", "")), str(about.get("dtype", ""))
    hours = sum(seconds.values()) / 3600
    counts = len(framed), len(seconds) - len(framed)
    return Store(folder, names, fingerprint, dtype, tuple(held(folder)), hours, *counts, in_use(folder))


def _is_of(store: Store, upstream: str) -> bool:
    return upstream in store.names or (bool(store.fingerprint) and store.fingerprint.startswith(upstream))
