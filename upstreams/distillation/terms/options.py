"""Options of terms: what each takes, its default, and how a wrong one is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.cards import hint
from harness.interface import SlimbenchError


@dataclass(frozen=True)
class Option:
    """An option of a term.

    Attributes:
        default: its value where a recipe does not say; its type is what a recipe may write (a whole number counts as a
            number). ``None`` leaves the check to the term.
        choices: the values allowed; empty for any of the type.
        least: the smallest number allowed.
    """

    default: Any
    choices: tuple[Any, ...] = ()
    least: float | None = None

    def accepts(self, value: Any) -> bool:
        """Whether a recipe may write ``value``."""
        if self.choices:
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        if isinstance(self.default, bool) or isinstance(value, bool):
            return self.default is None or (isinstance(value, bool) and isinstance(self.default, bool))
        if isinstance(self.default, int | float):
            kind = int if isinstance(self.default, int) else (int, float)
            return isinstance(value, kind) and (self.least is None or value >= self.least)
        return self.default is None or isinstance(value, type(self.default))

    def wanted(self) -> str:
        """What may be written, in words."""
        if self.choices:
            return "one of " + ", ".join(str(choice) for choice in self.choices)
        if isinstance(self.default, bool):
            return "true or false"
        least = "" if self.least is None else f" of at least {self.least:g}"
        return f"a {'whole ' if isinstance(self.default, int) else ''}number{least}"


def check(where: str, given: Mapping[str, Any], known: Mapping[str, Option]) -> None:
    """Refuse options that a term does not know or cannot use.

    Raises:
        SlimbenchError: an option is unknown or of the wrong type; it is named with what is known.
    """
    for name, value in given.items():
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise SlimbenchError(f"{where}: unknown option {name!r}{hint(name, known)}; known: {listed}.")
        if not known[name].accepts(value):
            raise SlimbenchError(f"{where}: option {name!r} is {value!r}; write {known[name].wanted()}.")
