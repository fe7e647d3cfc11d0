"""Drafting a card from a checkpoint (the verb ``new-upstream``).

Which checkpoints are known is up to plug-ins: each entry point of the group ``slimbench.formats`` names a function that
gets a path and answers with the fields of a card, or with ``None`` where the checkpoint is not of its kind.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harness import registry
from harness.cards import Card, read_card
from harness.identity import digest_weights
from harness.interface import SlimbenchError

TO_FILL_IN = "TODO"
"""How text begins that the submitter has to write."""

_OPEN = {
    "licence": f"{TO_FILL_IN} licence of the weights, for example MIT",
    "source": f"{TO_FILL_IN} where the weights come from",
    "exposes": f"{TO_FILL_IN} which states, taken at which point of a layer, how far apart",
}
_ORDER = ("name", "title", "adapter", "weights", "sha256", "family", "depth", "width", "teacher", "licence", "source")
_LINES = 20
_COMMON = frozenset({"model", "pytorch_model", "checkpoint", "checkpoint_best", "checkpoint_last", "best", "last"})
"""File names that say nothing; the folder's name is taken."""


def draft(path: Path, name: str | None = None, out: Path = Path("cards"), kind: str | None = None) -> Path:
    """Write a card for a checkpoint: what can be read from it is filled in, the rest is marked with ``TODO``.

    Args:
        path: checkpoint file or model folder.
        name: of the upstream; by default that of the file or folder.
        out: folder for the card; it is made if it is not there.
        kind: the format to read it as, where several recognise it.

    Returns:
        The card's file, ``out / name.yaml``.

    Raises:
        SlimbenchError: there is no such path, nobody or more than one knows the checkpoint, the name is taken, or a
            plug-in gives what is no card.
    """
    if not path.exists():
        raise SlimbenchError(f"There is no {path}; name a checkpoint file or a model folder.")
    fields = dict(recognise(path, kind))
    weights = Path(fields.pop("weights", None) or path).resolve()
    chosen = name or _name_of(weights)
    file = out / f"{chosen}.yaml"
    others = registry.cards()
    if file.exists() or chosen in others:
        taken = file if file.exists() else others[chosen].file
        raise SlimbenchError(f"The name {chosen} is taken by {taken}; choose another with --name.")
    values = {"name": chosen, "title": chosen.replace("_", " "), "weights": _shown(weights, out), **_OPEN}
    text = _text({**values, "sha256": digest_weights(weights), **fields})
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    try:
        read_card(file)
    except SlimbenchError:
        file.unlink()
        raise
    return file


def left_open(card: Card) -> list[str]:
    """Names of the fields and options of a card that still say ``TODO``."""
    texts = {**vars(card), **{f"options.{key}": value for key, value in card.options.items()}}
    return [name for name, value in texts.items() if isinstance(value, str) and value.startswith(TO_FILL_IN)]


def next_steps(file: Path) -> str:
    """What the submitter does with a drafted card, as one clause."""
    left = left_open(read_card(file))
    fill = f"fill in {', '.join(left)}, then " if left else ""
    return f"{fill}check it: make check UPSTREAM={file}"


def recognise(path: Path, kind: str | None = None) -> Mapping[str, Any]:
    """The fields of a card that a plug-in reads from a checkpoint; ``weights`` where it is not ``path`` itself.

    Raises:
        SlimbenchError: nobody or more than one knows it.
    """
    known = registry.formats()
    if kind is not None and kind not in known:
        raise registry.unknown("format", kind, known)
    found: dict[str, Mapping[str, Any]] = {}
    broken: list[SlimbenchError] = []
    for name, read in known.items():
        if kind in (None, name):
            try:
                fields = read(path)
            except SlimbenchError as error:  # it may still be of another kind
                broken.append(error)
                continue
            if fields is not None:
                found[name] = fields
    if len(found) > 1:
        raise SlimbenchError(f"{path} is recognised as {' and as '.join(sorted(found))}; choose one with --format.")
    if found:
        return next(iter(found.values()))
    if broken:
        raise broken[0]
    raise SlimbenchError(
        f"{path} is no checkpoint that is known here; known are {', '.join(sorted(known)) or 'none'}. For another kind "
        "write a card and an adapter as docs/upstreams.md shows."
    )


def _name_of(weights: Path) -> str:
    stem = weights.name if weights.is_dir() else weights.stem
    if stem.lower() in _COMMON:
        stem = weights.parent.name
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", stem).lstrip("_.-") or "my_upstream"


def _shown(weights: Path, out: Path) -> str:
    """A path from the card's folder where the weights lie beside it or below, else the whole path."""
    folder = out.resolve()
    return os.path.relpath(weights, folder) if weights.is_relative_to(folder.parent) else str(weights)


def _text(values: Mapping[str, Any]) -> str:
    """A card as text, one line per field.

    Raises:
        SlimbenchError: it would be longer than a card may be.
    """
    order = [*(key for key in _ORDER if key in values), *(key for key in values if key not in _ORDER)]
    lines = [_line(key, values[key]) for key in order if values[key] is not None]
    if len(lines) > _LINES:
        raise SlimbenchError(f"The draft of {values['name']} has {len(lines)} lines, a card at most {_LINES}.")
    return "\n".join(lines) + "\n"


def _line(key: str, value: Any) -> str:
    """One field on one line; lists and mappings in brackets."""
    if isinstance(value, Mapping | list):
        return f"{key}: {yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).rstrip()}"
    return yaml.safe_dump({key: value}, default_flow_style=False, width=10_000, allow_unicode=True).rstrip()
