"""The verb ``cache``: list, verify and prune the feature stores of a cache."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.arguments import new_verb
from harness.interface import SlimbenchError

if TYPE_CHECKING:
    from harness.store.cache import Held, Store

_ABOUT = "list, verify or prune the stored features; what is deleted is made again when it is needed"
_PRUNE = """\
What was used longest ago goes first. Without --yes it is only said what would go. Stores that another process has open
are left alone; so are records, data and everything else in the cache."""


def add_verb(verbs: Any) -> None:
    """Add the verb to the command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--cache", type=Path, default=Path("cache"), metavar="DIR", help="the cache (default: cache)")
    verb = new_verb(verbs, "cache", _ABOUT)
    actions = verb.add_subparsers(dest="action", metavar="ACTION", required=True)

    text = "one row per feature store, last used first"
    listed = new_verb(actions, "list", text, parents=(common,))
    listed.add_argument("--json", action="store_true", help="one object per store")
    listed.set_defaults(run=_list)

    text = "read every shard and compare its checksums; exit status 1 if one is damaged"
    verify = new_verb(actions, "verify", text, parents=(common,))
    verify.add_argument("--repair", action="store_true", help="delete what is damaged, so that it is made again")
    verify.add_argument(
        "--audio",
        action="store_true",
        help="also read all remembered audio files again, against changes that kept size, times and inode",
    )
    verify.set_defaults(run=_verify)

    text = "delete features by size, age or upstream"
    prune = new_verb(actions, "prune", text, _PRUNE, (common,))
    prune.add_argument("--to", type=_number, metavar="GB", help="until all stores together take at most this")
    prune.add_argument(
        "--upstream", metavar="NAME", help="only of this upstream: a name, or how its fingerprint begins"
    )
    prune.add_argument("--unused-for", type=_number, metavar="DAYS", help="only what was not used for so long")
    prune.add_argument("--yes", action="store_true", help="do it")
    prune.set_defaults(run=_prune)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return number


def _list(options: argparse.Namespace) -> None:
    from harness.store import cache

    found, most = cache.stores(options.cache), cache.limit()
    if options.json:
        print(json.dumps([_plain(store) for store in found], indent=2, ensure_ascii=False))
        return
    if not found:
        print(f"{options.cache / 'features'}: no features are stored.")
        return
    columns: dict[str, Callable[[Store], str]] = {
        "store": lambda store: store.folder.name,
        "upstream": _name,
        "fingerprint": lambda store: store.fingerprint[:12] or "?",
        "dtype": lambda store: store.dtype or "?",
        "hours": lambda store: f"{store.hours:.2f}",
        "GB": lambda store: _gb(store.bytes),
        "frames": lambda store: str(store.frames),
        "means only": lambda store: str(store.means),
        "last used": lambda store: _when(store.used),
        "": lambda store: "in use" if store.in_use else "",
    }
    print(_table([list(columns), *([say(store) for say in columns.values()] for store in found)]))
    total = f"{_gb(sum(store.bytes for store in found))} GB in {len(found)} stores"
    print(total + ("" if most is None else f", limit {_gb(most)} GB ({cache.LIMIT})"))


def _verify(options: argparse.Namespace) -> int:
    from harness.store import cache

    whole, unchecked, broken = cache.verify(options.cache)
    print(f"{len(whole)} shards are whole" + (f", {len(broken)} are damaged:" if broken else ""))
    if unchecked:
        print(f"{unchecked} of these were written by an early version without checksums: only their layout was checked")
    for _, said in broken:
        print(said)
    changed = _changed_audio(options) if options.audio else False
    if broken and options.repair:
        cache.repair([file for file, _ in broken])
        print(f"{len(broken)} shards were deleted; the next bench makes them again")
    return 1 if (broken or changed) and not options.repair else 0


def _changed_audio(options: argparse.Namespace) -> bool:
    """Read the remembered audio files again and say which have changed; with ``--repair`` forget their digests."""
    from harness import audio
    from harness.identity import digest_file
    from harness.store import digests

    memo = digests.Digests(options.cache / audio.MEMO)
    changed = memo.changed(digest_file)
    print(f"{len(memo) - len(changed)} of {len(memo)} remembered audio files are as they were")
    for path in changed:
        print(f"{path}: its bytes have changed though size and times have not; --repair forgets its digest")
    if changed and options.repair:
        memo.forget(changed)
    return bool(changed)


def _prune(options: argparse.Namespace) -> None:
    from harness.store import cache

    most = options.to * 1e9 if options.to is not None else None
    if most is None and options.upstream is None and options.unused_for is None:
        most = cache.limit()
        if most is None:
            raise SlimbenchError(
                f"cache prune: say what may go: --to GB (or set {cache.LIMIT}), --upstream or --unused-for."
            )
    before = None if options.unused_for is None else time.time_ns() - int(options.unused_for * 86_400e9)
    gone = cache.prune(options.cache, most, options.upstream, before)
    if not gone:
        print("nothing to delete")
        return
    by_folder: dict[Path, list[Held]] = {}
    for shard in gone:
        by_folder.setdefault(shard.file.parent, []).append(shard)
    names = {store.folder: _name(store) for store in cache.stores(options.cache)}
    rows = [["store", "upstream", "shards", "GB", "last used"]]
    for folder, those in by_folder.items():
        used = _when(max(shard.used for shard in those))
        rows.append([folder.name, names[folder], str(len(those)), _gb(sum(shard.size for shard in those)), used])
    print(_table(rows))
    if options.yes:
        print(f"deleted {_gb(cache.delete(gone))} GB")
    else:
        print(f"would delete {_gb(sum(shard.size for shard in gone))} GB; nothing is deleted without --yes")


def _plain(store: Store) -> dict[str, Any]:
    return {
        "store": store.folder.name,
        "upstreams": list(store.names),
        "fingerprint": store.fingerprint,
        "dtype": store.dtype,
        "hours": round(store.hours, 6),
        "bytes": store.bytes,
        "shards": len(store.held),
        "frames": store.frames,
        "means_only": store.means,
        "last_used": _when(store.used),
        "in_use": store.in_use,
    }


def _name(store: Store) -> str:
    return ", ".join(store.names) or "?"


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f}" if size >= 1e10 else f"{size / 1e9:.3f}"


def _when(nanoseconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(nanoseconds / 1e9)) if nanoseconds else "never"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns; numbers to the right."""
    from harness.show import printable

    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [all(cell.replace(".", "").isdigit() for cell in column[1:]) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    )
