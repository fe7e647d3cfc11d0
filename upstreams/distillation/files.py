"""Files of a run: written whole or not at all, and checkpoints that know which run they belong to."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from harness.interface import SlimbenchError
from harness.provenance import gather


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A temporary name to write to; it becomes ``file`` when the block ends, and goes when writing fails.

    Raises:
        SlimbenchError: writing failed, as on a full disk (``torch.save`` raises ``RuntimeError`` there).
    """
    temporary = file.with_name(f"{file.stem}.tmp{file.suffix}")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(file)
    except (OSError, RuntimeError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SlimbenchError(f"Cannot write {file} ({reason}); free disk space there and run again.") from error


def _flush(file: Path) -> None:
    """Have what is in a file on the disk, so that its new name never stands for less after a power failure."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(file: Path, text: str) -> None:
    """Write ``file`` atomically."""
    with whole(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save(file: Path, state: dict[str, Any], identity: str) -> None:
    """Write a checkpoint atomically, with the ``identity`` of the run that it belongs to."""
    with whole(file) as temporary:
        torch.save(state | {"identity": identity}, temporary)


def load(file: Path, identity: str) -> dict[str, Any]:
    """Read a checkpoint of the run called ``identity``.

    Raises:
        SlimbenchError: it is of a run with other settings, data or weights to start from, or does not say of which.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (EOFError, KeyError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SlimbenchError(f"{file} is damaged ({reason}); delete {file.parent} to start anew.") from error
    if not isinstance(state, dict) or state.get("identity") != identity:
        raise SlimbenchError(
            f"{file} in {file.parent} is of a run with other settings, data, teacher or previous model; "
            f"give another --work folder, or delete {file.parent} to start anew."
        )
    return state


def note_start(folder: Path) -> None:
    """Leave ``started.json``, the code that a run began with; one that is there already is kept."""
    if not (folder / "started.json").is_file():
        write_text(folder / "started.json", json.dumps(gather(), indent=1) + "\n")


def read_rows(file: Path, remedy: str) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; half a line, as a kill may leave at its end, is no row.

    Raises:
        SlimbenchError: it is damaged; the message ends with the remedy.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        return [dict(json.loads(line)) for line in lines if line.endswith("\n")]
    except (ValueError, TypeError) as error:
        raise SlimbenchError(f"{file} is damaged ({error}); {remedy}.") from error


def read_json(file: Path, remedy: str) -> Any:
    """The content of a JSON file.

    Raises:
        SlimbenchError: it is damaged; the message ends with the remedy.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SlimbenchError(f"{file} is damaged ({error}); {remedy}.") from error
