"""Foreign training checkpoints as plain data, without running any code of theirs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from harness.interface import SlimbenchError


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A checkpoint that ``torch.save`` wrote, as nested plain data and tensors (CPU).

    Raises:
        SlimbenchError: the file is missing, damaged, or needs classes that are not allowed.
    """
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise SlimbenchError(f"{file} cannot be read as a checkpoint ({reason}); copy it again.") from error
    if not isinstance(found, dict):
        raise SlimbenchError(f"{file} holds no dictionary; it is not a checkpoint that is known here.")
    return found
