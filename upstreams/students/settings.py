"""The configuration inside a checkpoint, read key by key with its types checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.interface import SlimbenchError
from upstreams.students.frontend import Convolution, parse_convolutions


class Settings:
    """One mapping of a checkpoint or of the YAML file beside it. Every reader raises :class:`SlimbenchError`, one
    sentence with file and key, for a value of another kind.

    Args:
        file: where it stands, for messages.
        values: the mapping.
        path: its name in the file, for messages.
    """

    def __init__(self, file: Path, values: object, path: str = "") -> None:
        if not isinstance(values, Mapping):
            raise SlimbenchError(f"{file}: {path or 'its content'} is no mapping; it is not the expected kind of file.")
        self.file, self.values, self.path = file, values, path

    def _name(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def _wrong(self, key: str, kind: str) -> SlimbenchError:
        return SlimbenchError(
            f"{self.file}: {self._name(key)} is {self.values[key]!r}, where {kind} is expected; "
            "take the file from its source again."
        )

    def _get(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            if default is None:
                raise SlimbenchError(f"{self.file} lacks {self._name(key)}; it is not the expected kind of checkpoint.")
            return default
        return value

    def part(self, key: str) -> Settings:
        """The mapping under a key."""
        if key not in self.values:
            raise SlimbenchError(f"{self.file} lacks {self._name(key)}; it is not the expected kind of checkpoint.")
        return Settings(self.file, self.values[key], self._name(key))

    def integer(self, key: str, default: int | None = None, least: int | None = None) -> int:
        """A whole number; ``default`` where the key is missing."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
            raise self._wrong(key, "a whole number" + ("" if least is None else f" of at least {least}"))
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, "a number")
        return float(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        """True or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def one_of(self, key: str, allowed: Sequence[str], default: str | None = None) -> str:
        """One of some words."""
        value = self._get(key, default)
        if value not in allowed:
            raise self._wrong(key, f"one of {', '.join(allowed)} (others are not supported)")
        return str(value)

    def convolutions(self, key: str, default: Sequence[Convolution] | None = None) -> tuple[Convolution, ...]:
        """The layers of a front end, as text or as a list; never evaluated."""
        value = self._get(key, default)
        try:
            return parse_convolutions(value)
        except ValueError as error:
            raise self._wrong(key, "'[(channels, kernel, stride)] * n + ...'") from error
