"""The card in a submission: the YAML of the upstream, without paths of the machine that it comes from."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from harness import plain_yaml, registry
from harness.cards import Card, available, read_card, variants_of
from harness.identity import digest_weights
from harness.interface import SlimbenchError
from harness.records import Record
from leaderboards.submissions import strict
from leaderboards.submissions.findings import Finding, RefusedError, remark

MAX_BYTES = 64 * 2**10
"""Largest card that is read."""
_STATED = ("title", "depth", "width", "teacher", "method", "licence", "exposes")
_OPEN_LICENCES = re.compile(r"(?i)\b(mit|apache|bsd|cc|mpl|gpl|lgpl|agpl|isc|unlicense|openrail|public domain)\b")


def pack(card: Card) -> tuple[bytes, str | None]:
    """A card as it goes into a submission, and the digest of its weights.

    Relative paths stay; the path of weights elsewhere becomes ``${SLIMBENCH_WEIGHTS}/<name>``.

    Raises:
        SlimbenchError: neither the weights nor their digest are known, or an option is a path of this machine.
    """
    fields: dict[str, Any] = plain_yaml.load(card.file, "the card", MAX_BYTES)
    digest = None
    if card.weights is not None:
        digest = digest_weights(card.weights) if available(card) else card.sha256
        if digest is None:
            raise SlimbenchError(
                f"The weights of {card.name} are not here and {card.file} has no sha256: put them at {card.weights}, "
                "so that the submission can name their digest."
            )
        if card.sha256 not in (None, digest):
            raise SlimbenchError(
                f"{card.weights} has SHA-256 {digest}, but its card {card.file} says {card.sha256}; restore the file."
            )
        written = str(fields["weights"])
        if _is_absolute(written):
            fields["weights"] = "${SLIMBENCH_WEIGHTS}/" + PurePosixPath(written).name
        fields["sha256"] = digest
    for name, value in _texts(fields):
        if _is_absolute(value):
            raise SlimbenchError(
                f"{card.file}: {name} is {value!r}, a path of this machine; write it relative to the card."
            )
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=120).encode(), digest


def read(data: bytes, upstream: str, where: str) -> Card:
    """The card of ``upstream`` (a name, or ``name@variant``) from the bytes of a submission's card.

    Nothing that the card names is opened or imported.

    Raises:
        RefusedError: it is no card, names a path of some machine, or is of another upstream.
    """
    if len(data) > MAX_BYTES:
        raise RefusedError(where, "", f"it has {len(data):,} bytes and at most {MAX_BYTES:,} are read")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "card.yaml")
        file.write_bytes(data)
        try:
            card = read_card(file)
        except SlimbenchError as error:
            said = str(error).replace(str(file), "it").replace("it: ", "").rstrip(".")
            raise RefusedError(where, "", said) from error
    for name, value in _texts(plain_yaml.parse(data, where)):
        if len(value) > strict.MAX_TEXT or any(ord(c) < 32 or 127 <= ord(c) < 160 for c in value.replace("\n", " ")):
            raise RefusedError(where, name, "its text is too long or holds control characters")
        if _is_absolute(value):
            raise RefusedError(where, name, f"{value!r} is a path of some machine")
    for found in (card, *variants_of(card)):
        if found.name == upstream:
            return found
    raise RefusedError(where, "name", f"it is {card.name!r} and the submission is of {upstream!r}")


def findings(card: Card, digest: str | None, records: Sequence[Record], where: str) -> Iterator[Finding]:
    """Whether card, weights' digest and records speak of one upstream."""
    if card.sha256 != digest:
        yield Finding(where, "sha256", f"it is {card.sha256} and the manifest says {digest}")
    if (card.weights is None) != (digest is None):
        yield Finding(where, "weights", "a card with weights needs their sha256, one without must have none")
    own = registry.cards().get(card.name)
    if own is not None and own.sha256 is not None and own.sha256 != digest:
        yield Finding(where, "name", f"{card.name!r} is the name of other weights, {own.sha256}; choose another name")
    if not _OPEN_LICENCES.search(card.licence):
        yield remark(where, "licence", f"{card.licence!r} is no licence that is known here")
    for record in records:
        stated = {**{name: getattr(card, name) for name in _STATED}, "family": card.family or "", "name": card.name}
        for name, value in stated.items():
            if record.upstream.get(name) != value:
                yield Finding(
                    where, name, f"it is {value!r} and the record of {record.task} says {record.upstream.get(name)!r}"
                )
                return
        if card.width not in (None, record.upstream["state_width"]):
            yield Finding(
                where, "width", f"it is {card.width} and the states are {record.upstream['state_width']} wide"
            )
            return


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a card with the field that it stands in; a card's own checks have bounded its depth."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, name)


def _is_absolute(text: str) -> bool:
    return text.startswith("~") or (
        "\n" not in text and (PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute())
    )
