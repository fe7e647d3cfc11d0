"""YAML that is data and nothing else: text, numbers, truth values, null, lists and mappings, each written out once.

The files are written by hand or by strangers. So nothing in one names a class, no value stands for another (a few lines
of references can stand for more than memory holds), no field occurs twice, and size, depth and the length of a number
are bounded. What a message or a record could not quote afterwards (halves of characters, numbers that are none, dates
that JSON does not know) is refused here as well.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NoReturn

import yaml

from harness.interface import SlimbenchError

MAX_BYTES = 2**20
"""Largest file that is read, unless the caller says otherwise; the largest of this project has 10 kB."""
MAX_DEPTH = 40
"""Most lists and mappings in one another; PyYAML's time grows with the square of it, and its recursion with it."""
MAX_DIGITS = 100
"""Longest number, in characters."""
_TAG = "tag:yaml.org,2002:"
_KINDS = frozenset(f"{_TAG}{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map"))


def load(file: Path, called: str = "", max_bytes: int = MAX_BYTES) -> Any:
    """The value that a YAML file holds, ``None`` where it is empty.

    Args:
        file: the file, UTF-8.
        called: what it is, for the message where it cannot be read, such as ``the card``.
        max_bytes: largest size.

    Raises:
        SlimbenchError: the file cannot be read, is too large or is not plain YAML; one sentence with file and line.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SlimbenchError(f"Cannot read {called}{' ' if called else ''}{file}: {reason}; check the path.") from error
    if len(data) > max_bytes:
        raise SlimbenchError(f"{file} is not plain YAML: it is larger than {max_bytes:,} bytes; correct it.")
    return parse(data, str(file))


def parse(data: bytes, where: str) -> Any:
    """The value of a YAML text in UTF-8; its size is for the caller to bound.

    Args:
        data: the text.
        where: what it is called in messages.

    Raises:
        SlimbenchError: it is not plain YAML; one sentence with the line.
    """
    try:
        return yaml.load(data.decode("utf-8"), Loader=_Plain)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f" (line {mark.line + 1})"
        reason = ", ".join(part for part in (error.context, error.problem) if part)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line, reason = "", str(error)
    raise SlimbenchError(f"{where} is not plain YAML{line}: {' '.join(reason.split())[:300]}; correct it.")


class _Plain(yaml.SafeLoader):
    """A SafeLoader that takes less: see the head of this module."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            _refuse("a value is referred to with '*' instead of written out", self._here())
        self.depth += 1
        if self.depth > MAX_DEPTH:
            _refuse(f"it is nested more than {MAX_DEPTH} deep", self._here())
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None:
            _check(node)
        return node

    def _here(self) -> Any:
        """The place of what is read next."""
        return self.peek_event().start_mark  # type: ignore[no-untyped-call]

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError, TypeError) as error:  # as PyYAML lets nonsense pass through
            _refuse(f"{str(node.value)[:40]!r} makes no sense here ({error})", node.start_mark)
        if isinstance(value, float) and not math.isfinite(value):
            _refuse(f"{node.value} is not a finite number", node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep=deep)
        if len(found) < len(node.value):
            seen = set()
            for name, _ in node.value:
                key = self.construct_object(name, deep=True)
                if key in seen:
                    _refuse(f"the field {str(key)[:40]!r} occurs twice", name.start_mark)
                seen.add(key)
        return found


def _check(node: yaml.Node) -> None:
    """Refuse a node of another kind than the plain ones, and a scalar that nobody could quote."""
    if node.tag not in _KINDS:
        kind = node.tag.removeprefix(_TAG)
        known = {"timestamp": "a date", "merge": "'<<'", "value": "'='"}
        what = f"{known[kind]} stands there without quotes" if kind in known else f"the kind {kind[:60]!r} is not taken"
        _refuse(what, node.start_mark)
    if isinstance(node, yaml.ScalarNode):
        if any("\ud800" <= character <= "\udfff" for character in node.value):
            _refuse("a text holds half of a character", node.start_mark)
        if node.tag in (f"{_TAG}int", f"{_TAG}float") and len(node.value) > MAX_DIGITS:
            _refuse(f"a number has more than {MAX_DIGITS} characters", node.start_mark)


def _refuse(problem: str, mark: Any) -> NoReturn:
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
