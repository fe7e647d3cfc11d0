"""Fields of plain YAML (:mod:`harness.plain_yaml`), each checked: none unknown, none missing, none of another kind."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from harness import plain_yaml
from harness.cards import hint
from harness.interface import SlimbenchError


def load(file: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        SlimbenchError: the file cannot be read, is not plain YAML, or holds no mapping with text keys.
    """
    return mapping(plain_yaml.load(file), str(file))


def mapping(value: Any, where: str) -> dict[str, Any]:
    """``value`` as a mapping with text keys.

    Raises:
        SlimbenchError: it is none.
    """
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise SlimbenchError(f"{where} must be a mapping of names to values; correct it.")
    return value


def fields(value: Any, where: str, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Any]:
    """``value`` as a mapping with exactly these fields.

    Raises:
        SlimbenchError: a field is unknown or missing.
    """
    found = mapping(value, where)
    known = [*required, *optional]
    for name in found:
        if name not in known:
            raise SlimbenchError(f"{where}: unknown field {name!r}{hint(name, known)}; correct or remove it.")
    for name in required:
        if name not in found:
            raise SlimbenchError(f"{where}: the field {name!r} is missing; add it.")
    return found


def text(value: Any, where: str) -> str:
    """``value`` as text that is not empty.

    Raises:
        SlimbenchError: it is none.
    """
    if not isinstance(value, str) or not value.strip():
        raise SlimbenchError(f"{where} must be a text, it is {value!r}; correct it.")
    return value


def number(value: Any, where: str, low: float = -math.inf, high: float = math.inf) -> float:
    """``value`` as a finite number from ``low`` to ``high``.

    Raises:
        SlimbenchError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SlimbenchError(f"{where} must be a finite number, it is {value!r}; correct it.")
    if not low <= value <= high:
        raise SlimbenchError(f"{where} must lie from {low:g} to {high:g}, it is {value!r}; correct it.")
    return float(value)


def whole(value: Any, where: str) -> int:
    """``value`` as a whole number above 0.

    Raises:
        SlimbenchError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise SlimbenchError(f"{where} must be a whole number above 0, it is {value!r}; correct it.")
    return value


def choice(value: Any, where: str, known: Collection[str] | Mapping[str, Any]) -> str:
    """``value`` as one of the known names.

    Raises:
        SlimbenchError: it is none.
    """
    if not isinstance(value, str) or value not in known:
        near = hint(value, known) if isinstance(value, str) else ""
        raise SlimbenchError(f"{where} is {value!r}{near}; use one of {', '.join(known)}.")
    return value


def items(value: Any, where: str) -> list[Any]:
    """``value`` as a list.

    Raises:
        SlimbenchError: it is none.
    """
    if not isinstance(value, list):
        raise SlimbenchError(f"{where} must be a list, it is {value!r}; correct it.")
    return value
