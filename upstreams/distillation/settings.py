"""Typed settings from parsed YAML: nested dataclasses, every mistake named with its place and key."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar

from harness.cards import hint
from harness.interface import SlimbenchError

T = TypeVar("T")


def typed(kind: type[T], values: Any, where: str) -> T:
    """A dataclass from parsed YAML.

    Raises:
        SlimbenchError: a key is unknown or missing, or a value of the wrong kind; the message names it.
    """
    if not isinstance(values, Mapping):
        raise SlimbenchError(f"{where}: expected a mapping, not {values!r}; see a built-in recipe.")
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in known:
            raise SlimbenchError(f"{where}: unknown key {key!r}{hint(str(key), known)}; known are {', '.join(known)}.")
    for name, item in known.items():
        if name not in values and item.default is MISSING and item.default_factory is MISSING:
            raise SlimbenchError(f"{where}: {name!r} is missing; add it as in a built-in recipe.")
    try:
        return kind(**{key: value_of(hints[key], value, f"{where}: {key}") for key, value in values.items()})
    except (TypeError, ValueError) as error:
        raise SlimbenchError(f"{where}: {error}; correct the recipe.") from error


def read(form: Any, values: Mapping[str, Any], where: str) -> Any:
    """A dataclass that reads itself, its complaint told with the place."""
    try:
        return form.from_dict(values)
    except SlimbenchError as error:
        raise SlimbenchError(f"{where}: {error}") from error


def said(values: Any) -> Any:
    """Settings as plain values without what has its default, so that a setting added later changes no digest."""
    if is_dataclass(values) and not isinstance(values, type):
        kept = {}
        for item in fields(values):
            value = getattr(values, item.name)
            default = item.default_factory() if item.default_factory is not MISSING else item.default
            if value != default:
                kept[item.name] = said(value)
        return kept
    if isinstance(values, Mapping):
        return {key: said(value) for key, value in values.items()}
    return [said(value) for value in values] if isinstance(values, tuple | list) else values


def value_of(form: Any, value: Any, where: str) -> Any:
    """A value as its annotation wants it: nested dataclasses, tuples from lists, numbers as they are."""
    origin = typing.get_origin(form)
    if origin in (types.UnionType, typing.Union):
        return _union(typing.get_args(form), value, where)
    if form is Any:
        return value
    if is_dataclass(form) and hasattr(form, "from_dict"):
        return read(form, _expect(value, dict, "a mapping", where), where)
    if is_dataclass(form):
        return typed(typing.cast(type[Any], form), value, where)
    if origin is tuple:
        inner = typing.get_args(form)
        items = _expect(value, list | tuple, "a list", where)
        kinds = [inner[0]] * len(items) if len(inner) == 2 and inner[1] is Ellipsis else list(inner)
        if len(kinds) != len(items):
            raise SlimbenchError(f"{where}: write {len(kinds)} values, not {len(items)}.")
        return tuple(value_of(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, items, strict=True)))
    if origin is not None and issubclass(origin, Mapping):
        return dict(_expect(value, Mapping, "a mapping", where))
    if form is float:
        return float(_expect(value, int | float, "a number", where))
    return _expect(value, form, {int: "a whole number", str: "text", bool: "true or false"}.get(form, str(form)), where)


def _union(forms: tuple[Any, ...], value: Any, where: str) -> Any:
    """The first form of a union that takes the value."""
    if value is None and type(None) in forms:
        return None
    problem: SlimbenchError | None = None
    for form in forms:
        if form is type(None):
            continue
        try:
            return value_of(form, value, where)
        except SlimbenchError as error:
            problem = error
    raise problem or SlimbenchError(f"{where}: {value!r} cannot be read; correct the recipe.")


def _expect(value: Any, form: Any, words: str, where: str) -> Any:
    if not isinstance(value, form) or (isinstance(value, bool) and form is not bool):
        dot = " with a dot (YAML takes 1e-3 for text, 1.0e-3 for a number)"
        more = dot if isinstance(value, str) and re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", value) else ""
        raise SlimbenchError(f"{where} is {value!r}; write {words}{more}.")
    return value


def one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a value that is no known word.

    Raises:
        ValueError: it is none.
    """
    if value not in known:
        raise ValueError(f"{key} {value!r} is none of {', '.join(known)}")


def within(key: str, value: float, least: float, most: float) -> None:
    """Refuse a number outside a range.

    Raises:
        ValueError: it is.
    """
    if not least <= value <= most:
        raise ValueError(f"{key} is {value}; write a number within {least:g} to {most:g}")


def at_least(key: str, value: float, least: float) -> None:
    """Refuse a number that is too small.

    Raises:
        ValueError: it is.
    """
    if not value >= least:
        raise ValueError(f"{key} is {value}; write at least {least:g}")
