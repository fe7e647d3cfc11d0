"""The card: one YAML file that describes one upstream, read with a strict schema, and its weights, checked."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import hub, plain_yaml
from harness.identity import digest_weights, weight_files
from harness.interface import SlimbenchError

_CARD_TYPES: Mapping[str, type] = {
    **dict.fromkeys(("name", "title", "adapter", "weights", "sha256", "family", "teacher", "method"), str),
    **dict.fromkeys(("licence", "source", "exposes", "precision"), str),
    **dict.fromkeys(("depth", "width"), int),
    **dict.fromkeys(("options", "variants"), dict),
}
_CARD_REQUIRED = ("name", "title", "adapter", "licence", "source", "exposes")
_VARIANT_TYPES = {key: _CARD_TYPES[key] for key in ("title", "exposes", "precision", "depth", "width", "options")}
PRECISIONS = ("float32", "float16", "bfloat16", "int8")
"""What a card's ``precision`` may say; see :mod:`harness.precision`."""
MAX_BYTES = 2**16
"""Largest card that is read."""


@dataclass(frozen=True)
class Card:
    """One upstream, as its YAML file describes it.

    Attributes:
        name: what the user types; letters, digits, ``_``, ``-`` and ``.``.
        title: what tables show.
        adapter: ``"package.module:attribute"``, called as ``adapter(card, device)``.
        licence: of the weights.
        source: where the weights come from.
        exposes: which states, taken at which point of a layer.
        weights: weight file or model folder; relative paths start at the card's folder, ``${VARIABLES}`` are
            replaced; ``None`` where the upstream has no weights.
        sha256: digest of the weights, see :func:`harness.identity.digest_weights`.
        family: kind of model, for example ``hubert``.
        depth: number of layers, ``None`` where there are none.
        width: dimension of the exposed states.
        teacher: name of the upstream that this one was distilled from.
        method: a short word for how, where students of equal shape were made in different ways.
        options: settings of the adapter.
        precision: number format of the weights when the upstream runs, one of :data:`PRECISIONS`.
        variants: names of variants, each with the fields in which it differs; ``options`` are added to the card's.
            ``name@variant`` is an upstream of its own, see :func:`variants_of`.
        file: the YAML file.
        packaged: the card came with an installed package, so that its weights must be pinned.
    """

    name: str
    title: str
    adapter: str
    licence: str
    source: str
    exposes: str
    weights: Path | None = None
    sha256: str | None = None
    family: str | None = None
    depth: int | None = None
    width: int | None = None
    teacher: str | None = None
    method: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    precision: str = "float32"
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    file: Path = Path()
    packaged: bool = False

    def settings(self, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """The card's options over an adapter's defaults.

        Args:
            defaults: what each option is where the card does not set it. An option has the type of its default (a
                whole number is a number as well); one whose default is ``None`` is for the adapter to check.

        Raises:
            SlimbenchError: the card sets an option that the adapter does not have, or to a value of another type.
        """
        for key, value in self.options.items():
            if key not in defaults:
                raise SlimbenchError(
                    f"{self.file}: unknown option {key!r}{hint(str(key), defaults)}; remove or correct it."
                )
            if defaults[key] is not None and not _alike(value, defaults[key]):
                raise SlimbenchError(f"{self.file}: option {key} is {value!r}; write {_to_write(defaults[key])}.")
        return {**defaults, **self.options}


def _alike(value: object, default: object) -> bool:
    """Whether an option has the type of its default; a whole number may stand for a number, true and false do not."""
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    return isinstance(value, int | float if isinstance(default, float) else type(default))


def _to_write(default: object) -> str:
    """What to write for an option that has this default."""
    if isinstance(default, bool):
        return "true or false, without quotes"
    if isinstance(default, int | float):
        return f"a {'whole ' if isinstance(default, int) else ''}number, without quotes"
    return "text" if isinstance(default, str) else "a list" if isinstance(default, list) else "a mapping"


def unknown(kind: str, name: str, known: Iterable[str]) -> SlimbenchError:
    """The error for a name that nobody has registered, with the nearest known name."""
    names = sorted(known)
    return SlimbenchError(f"No {kind} is called {name!r}{hint(name, names)}; known: {', '.join(names) or 'none'}.")


def hint(name: str, known: Iterable[str]) -> str:
    """``, did you mean 'x'?`` for the nearest known name, or nothing where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""


def read_card(file: Path, packaged: bool = False) -> Card:
    """Read and check one card.

    Raises:
        SlimbenchError: the file is missing or not plain YAML, or a field is unknown, missing or of the wrong type.
    """
    values = plain_yaml.load(file, "the card", MAX_BYTES)
    if not isinstance(values, dict):
        raise SlimbenchError(f"{file}: a card is a mapping of fields to values; see the built-in cards.")
    _check_fields(file, values)
    values = {key: value for key, value in values.items() if value is not None}
    if "weights" in values:
        values["weights"] = _weights_path(file.parent, values["weights"])
    return Card(**values, file=file, packaged=packaged)


def variants_of(card: Card) -> list[Card]:
    """The upstreams ``name@variant`` that a card describes besides itself, in its order."""
    found = []
    for name, changes in card.variants.items():
        changes = {key: value for key, value in changes.items() if value is not None}
        changes["options"] = {**card.options, **changes.get("options", {})}
        changes.setdefault("title", f"{card.title} {name}")
        found.append(replace(card, name=f"{card.name}@{name}", variants={}, **changes))
    return found


def _weights_path(folder: Path, text: str) -> Path:
    expanded = os.path.expandvars(text)
    if "$" in expanded:  # the variable is not set: nothing can be there
        return Path(text)
    try:
        return Path(os.path.normpath(folder / Path(expanded).expanduser()))
    except RuntimeError as error:
        raise SlimbenchError(f"The weights {text!r} of a card in {folder}: {error}; write the whole path.") from error


def _check_fields(file: Path, values: Mapping[Any, Any]) -> None:
    for key, value in values.items():
        if key not in _CARD_TYPES:
            raise SlimbenchError(f"{file}: unknown field {key!r}{hint(str(key), _CARD_TYPES)}; remove or correct it.")
        if value is not None and (not isinstance(value, _CARD_TYPES[key]) or isinstance(value, bool)):
            kind = {str: "text", int: "a whole number", dict: "a mapping"}[_CARD_TYPES[key]]
            raise SlimbenchError(f"{file}: field {key!r} must be {kind}, not {value!r}; correct it.")
    _check_variants(file, values.get("variants") or {})
    for precision in [values.get("precision"), *(v.get("precision") for v in (values.get("variants") or {}).values())]:
        if precision is not None and precision not in PRECISIONS:
            raise SlimbenchError(f"{file}: precision {precision!r} is not known; write one of {', '.join(PRECISIONS)}.")
    for key in _CARD_REQUIRED:
        if not values.get(key):
            raise SlimbenchError(f"{file}: field {key!r} is missing; add it.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", values["name"]):
        raise SlimbenchError(
            f"{file}: the name {values['name']!r} must be of letters, digits, '_', '-', '.'; correct it."
        )
    if values.get("sha256") and not re.fullmatch(r"[0-9a-f]{64}", values["sha256"]):
        raise SlimbenchError(f"{file}: field 'sha256' must be 64 hexadecimal digits; correct it.")


def _check_variants(file: Path, variants: Mapping[Any, Any]) -> None:
    for name, changes in variants.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise SlimbenchError(
                f"{file}: the variant name {name!r} must be text of letters, digits, '_', '-', '.'; correct it."
            )
        if not isinstance(changes, dict):
            raise SlimbenchError(f"{file}: variant {name} must be a mapping of fields to values; correct it.")
        for key, value in changes.items():
            if key not in _VARIANT_TYPES:
                raise SlimbenchError(
                    f"{file}: variant {name} sets {key!r}; a variant may set {', '.join(_VARIANT_TYPES)}."
                )
            if value is not None and (not isinstance(value, _VARIANT_TYPES[key]) or isinstance(value, bool)):
                kind = {str: "text", int: "a whole number", dict: "a mapping"}[_VARIANT_TYPES[key]]
                raise SlimbenchError(
                    f"{file}: field {key!r} of variant {name} must be {kind}, not {value!r}; correct it."
                )


def weights_of(card: Card) -> Path | None:
    """Where the upstream's weights belong on this machine; ``None`` where it needs none.

    The card's ``weights``, or the place in the Hugging Face cache of what its options ``hub`` and ``revision`` name.
    """
    return hub.folder(card.options) if card.weights is None else card.weights


def available(card: Card) -> bool:
    """Whether the upstream's weights are on this machine, or it needs none."""
    place = weights_of(card)
    try:
        return place is None or any(file.is_file() for file in weight_files(place))
    except OSError as error:  # such as a path that is too long
        raise SlimbenchError(f"{card.file}: weights cannot be looked for: {error}; correct the path.") from error


def missing(card: Card) -> str | None:
    """What to do for an upstream whose weights are not on this machine, as one clause; ``None`` where they are here."""
    if available(card):
        return None
    if card.weights is None:
        return (
            f"the Hugging Face cache {hub.cache()} does not have them; fetch them with '{hub.fetching(card.options)}', "
            f"or copy the model's files to a folder and name that in 'weights' of {card.file}"
        )
    variable = " and set that variable" if "$" in str(card.weights) else ""
    return f"put them at {card.weights}{variable} (source: {card.source})"


def pin(card_file: Path) -> str:
    """Write the digest of a card's weights into its ``sha256`` line and return it. The rest of the file stays.

    Raises:
        SlimbenchError: the card has no weights, or they are not here.
    """
    pinned = read_card(card_file)
    if pinned.weights is None:
        raise SlimbenchError(f"{card_file} has no weights, so that there is nothing to pin.")
    digest = digest_weights(pinned.weights)
    lines = [line for line in card_file.read_text(encoding="utf-8").splitlines() if not line.startswith("sha256:")]
    place = next(index for index, line in enumerate(lines) if line.startswith("weights:"))
    lines.insert(place + 1, f"sha256: {digest}")
    card_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return digest


def check_weights(card: Card) -> None:
    """Check that a card's weights are here and are the ones that it names.

    Raises:
        SlimbenchError: they are missing, they have another SHA-256, or a packaged card has none for weights beside it.
    """
    place = weights_of(card)
    if place is None:
        return
    if lacking := missing(card):
        raise SlimbenchError(f"The weights of {card.name} are not here: {lacking}.")
    if card.sha256 is None:
        if card.packaged and place.resolve().is_relative_to(card.file.resolve().parent.parent):
            raise SlimbenchError(
                f"{card.file}: the weights beside this card are not pinned; fill in sha256 with harness.registry.pin."
            )
        return
    digest = digest_weights(place)
    if digest != card.sha256:
        raise SlimbenchError(
            f"{place} has SHA-256 {digest}, but its card {card.file} says {card.sha256}; "
            "restore the file, or give changed weights a card of their own."
        )
