"""YAML that is data and nothing else: safe, without references, without repeated or unknown fields."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.cards import hint
from harness.interface import SlimbenchError


class _Plain(yaml.SafeLoader):
    """A SafeLoader that refuses references (which can stand for more than memory holds) and repeated fields."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("values are repeated in full, not referred to with '*'")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep=deep)
        if len(found) < len(node.value):
            raise yaml.YAMLError(f"a field occurs twice in the mapping{node.start_mark}")
        return found


def load(file: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        SlimbenchError: the file cannot be read, is not plain YAML, or holds no mapping with text keys.
    """
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Plain)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise SlimbenchError(f"{file} cannot be read ({error.strerror}): check path and permissions.") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise SlimbenchError(f"{file} is not plain YAML: {reason}; correct it.") from error
    return mapping(content, str(file))


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
