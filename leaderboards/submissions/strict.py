"""JSON from strangers: bounded, without repeated fields, without numbers or texts that only some readers accept."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, NoReturn

from leaderboards.submissions.findings import RefusedError

MAX_BYTES = 64 * 2**20
"""Largest file that is read; a record of SUPERB's 37,720 trials with three seeds has about a third of it."""
MAX_DEPTH = 16
"""Deepest nesting; a record has 5."""
MAX_TEXT = 20_000
"""Longest text, which bounds the time that an alignment takes."""
_DIGITS = 18
"""Most characters of a whole number, so that it fits into 64 bits."""


def read(data: bytes, where: str) -> Any:
    """The value of a JSON file.

    Args:
        data: the file.
        where: what it is called in messages.

    Raises:
        RefusedError: it is too large, too deep, not JSON, or holds what only some readers take (NaN, numbers beyond 64
            bits or not in their shortest form, a field twice, halves of characters, control characters).
    """

    def refuse(text: str) -> NoReturn:
        raise RefusedError(where, "", text)

    def real(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            refuse(f"the number {text[:40]} is too large")
        return value if repr(value) == text else refuse(f"the number {text[:40]} is not in its shortest form")

    def whole(text: str) -> int:
        return int(text) if len(text) <= _DIGITS else refuse(f"the number {text[:_DIGITS]}… has too many digits")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            twice = Counter(name for name, _ in items).most_common(1)[0][0]
            refuse(f"the field {twice[:40]!r} stands there twice in one object")
        return found

    if len(data) > MAX_BYTES:
        refuse(f"it has {len(data):,} bytes and at most {MAX_BYTES:,} are read")
    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_constant=lambda name: refuse(f"{name} is not a number"),
            parse_float=real,
            parse_int=whole,
            object_pairs_hook=pairs,
        )
    except RecursionError:
        refuse(f"it is nested more than {MAX_DEPTH} deep")
    except ValueError as error:
        refuse(f"it is not whole JSON ({error})")
    _walk(value, where)
    return value


def too_deep(text: str) -> bool:
    """Whether a YAML text nests brackets deeper than any card does; PyYAML's time grows with the square of that."""
    depth = deepest = 0
    for character in text:
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest > MAX_DEPTH


def _walk(value: Any, where: str) -> None:
    """Depth and texts of a parsed value, without recursion."""
    todo: list[tuple[Any, int]] = [(value, 1)]
    while todo:
        item, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise RefusedError(where, "", f"it is nested more than {MAX_DEPTH} deep")
        if isinstance(item, str):
            _check_text(item, where)
        elif isinstance(item, list):
            todo += [(inner, depth + 1) for inner in item]
        elif isinstance(item, dict):
            todo += [(inner, depth + 1) for pair in item.items() for inner in pair]


def _check_text(text: str, where: str) -> None:
    if len(text) > MAX_TEXT:
        raise RefusedError(where, "", f"a text of {len(text):,} characters is too long ({text[:20]!r}…)")
    if text.isascii() and text.isprintable():
        return
    if any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in text):
        raise RefusedError(where, "", f"the text {text[:40]!r} holds control characters or halves of characters")
