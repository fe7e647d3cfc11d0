"""Small JSON files in the cache: written whole or not at all, and said to be damaged where they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness import atomic
from harness.interface import SlimbenchError


def read(file: Path) -> Any:
    """The content of a file, or ``None`` where there is none.

    Raises:
        SlimbenchError: it is no JSON.
    """
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SlimbenchError(f"{file}: this cache file is damaged ({error}); delete it, it is made again.") from error


def write(file: Path, content: Any) -> None:
    """Put ``content`` into a file, atomically."""
    atomic.write(file, json.dumps(content).encode())
