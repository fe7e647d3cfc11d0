"""One upstream's records and card in one file: ``manifest.json``, ``card.yaml``, ``records/<suite>/<upstream>/….json``.

The manifest lists SHA-256 and size of every other member, and the SHA-256 of the weights, which are never in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import registry
from harness.cards import Card
from harness.identity import digest_bytes, digest_json
from harness.interface import SlimbenchError
from harness.record_schema import problems
from harness.records import Record, load_all, path_of
from leaderboards.submissions import archive, cards, strict
from leaderboards.submissions.findings import RefusedError
from leaderboards.submissions.rules import protocol_name

FORMAT = "slimbench submission"
VERSION = 1
MANIFEST, CARD, RECORDS = "manifest.json", "card.yaml", "records"


@dataclass(frozen=True)
class Submission:
    """A submission that has been read; its seals and digests fit, nothing more is known of it yet.

    Attributes:
        path: the file.
        card: of the upstream (the variant, where it is one).
        weights: SHA-256 of its weights; ``None`` where it has none.
        records: by member name.
    """

    path: Path
    card: Card
    weights: str | None
    records: Mapping[str, Record]


def make(upstream: str, results: Path, suites: Sequence[str] = ()) -> tuple[bytes, list[str]]:
    """Pack an upstream's newest records.

    Args:
        upstream: name of a card, or path of a card file; ``@variant`` as everywhere.
        results: folder of records.
        suites: only these; empty: all that there are records of.

    Returns:
        The file's bytes, and sentences on what was left out.

    Raises:
        SlimbenchError: no such upstream, no records of it, or weights that are not known.
    """
    card = registry.card(upstream)
    found = [record for record in load_all(results) if record.upstream["name"] == card.name]
    for name in suites:
        if name not in {record.suite for record in found}:
            raise SlimbenchError(f"{results} holds no record of {card.name} on suite {name!r}: run the bench first.")
    found = [record for record in found if not suites or record.suite in suites]
    if not found:
        raise SlimbenchError(f"{results} holds no record of {card.name}: run 'slimbench bench' first.")
    chosen, notes = _newest(found)
    packed, digest = cards.pack(registry.card(str(card.file)))
    files = {CARD: packed}
    for record in chosen:
        file = path_of(results, record.suite, card.name, record.task, record.key)
        files[f"{RECORDS}/{file.relative_to(results).as_posix()}"] = file.read_bytes()
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "upstream": card.name,
        "weights_sha256": digest,
        "files": {name: {"sha256": digest_bytes(files[name]), "bytes": len(files[name])} for name in sorted(files)},
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    return archive.pack({**files, MANIFEST: text.encode()}), notes


def _newest(found: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Of the newest weights, the newest record per suite, protocol and task."""
    ordered = sorted(found, key=lambda record: (record.created, record.key))
    fingerprint = ordered[-1].upstream["fingerprint"]
    kept = [record for record in ordered if record.upstream["fingerprint"] == fingerprint]
    newest = {(record.suite, protocol_name(record), record.task): record for record in kept}
    notes = []
    if others := len(ordered) - len(kept):
        notes.append(f"{others} records of other weights under this name were left out")
    if older := len(kept) - len(newest):
        notes.append(f"{older} older records of the same suite, protocol and task were left out")
    return list(newest.values()), notes


def read(path: Path) -> Submission:
    """Read a submission and check that it is whole.

    Raises:
        RefusedError: it is not; the message names member and field.
    """
    files = archive.unpack(path)
    where = f"{path}: {MANIFEST}"
    if MANIFEST not in files:
        raise RefusedError(str(path), "", f"it is no submission: there is no {MANIFEST}")
    manifest = strict.read(files.pop(MANIFEST), where)
    _check_manifest(manifest, files, where)
    if CARD not in files:
        raise RefusedError(str(path), "", f"there is no {CARD}")
    card = cards.read(files.pop(CARD), manifest["upstream"], f"{path}: {CARD}")
    records: dict[str, Record] = {}
    for name, data in files.items():
        record = read_record(data, f"{path}: {name}")
        home = path_of(Path(RECORDS), record.suite, record.upstream["name"], record.task, record.key).as_posix()
        if name != home:
            raise RefusedError(f"{path}: {name}", "", f"it holds the record that belongs at {home}")
        records[name] = record
    if not records:
        raise RefusedError(str(path), "", "there are no records")
    return Submission(path, card, manifest["weights_sha256"], records)


def _check_manifest(manifest: Any, files: Mapping[str, bytes], where: str) -> None:
    wanted = {"format", "version", "upstream", "weights_sha256", "files"}
    if not isinstance(manifest, dict) or set(manifest) != wanted:
        raise RefusedError(where, "", f"it is not an object of {', '.join(sorted(wanted))}")
    if (manifest["format"], manifest["version"]) != (FORMAT, VERSION):
        raise RefusedError(where, "version", f"this slimbench reads {FORMAT!r}, version {VERSION}")
    if not isinstance(manifest["upstream"], str) or not isinstance(manifest["weights_sha256"], str | None):
        raise RefusedError(where, "upstream", "upstream and weights_sha256 must be text")
    listed = manifest["files"]
    if not isinstance(listed, dict) or set(listed) != set(files):
        raise RefusedError(where, "files", "it does not list the members that are there")
    for name, data in files.items():
        if listed[name] != {"sha256": digest_bytes(data), "bytes": len(data)}:
            raise RefusedError(where, f"files.{name}", "digest or size are not those of the member: it was changed")


def read_record(data: bytes, where: str) -> Record:
    """A record from its file's bytes, as strictly as a stranger's must be read.

    Raises:
        RefusedError: it breaks the schema, or was changed after it was written.
    """
    plain = strict.read(data, where)
    seal = plain.pop("digest", None) if isinstance(plain, dict) else None
    for problem in problems(plain):
        raise RefusedError(where, "", f"it is not a record: {problem}")
    if seal != digest_json(plain):
        raise RefusedError(where, "digest", "it was changed after it was written: its digest does not match")
    try:
        record = Record(**plain)
        path_of(Path(), record.suite, record.upstream["name"], record.task, record.key)
    except SlimbenchError as error:
        raise RefusedError(where, "upstream.name", str(error).rstrip(".")) from error
    return record
