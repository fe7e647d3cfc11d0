"""Reading stored weights without running foreign code, and checking that they fit a model."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from harness.interface import SlimbenchError


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a ``safetensors`` file, or of a torch file that holds nothing but tensors.

    Raises:
        SlimbenchError: the file is missing, damaged, or would need the unpickling of arbitrary objects.
    """
    try:
        if file.suffix == ".safetensors":
            found = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise SlimbenchError(f"{file} cannot be read as a file of weights ({reason}); copy it again.") from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise SlimbenchError(f"{file} holds more than named tensors; convert it to safetensors.")
    return found


def check_fit(file: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Compare the names and shapes of stored weights with those of the model.

    Raises:
        SlimbenchError: a weight is missing, unexpected or of another shape; the message names the first of each.
    """
    problems = []
    for kind, names in (("missing", wanted.keys() - found.keys()), ("unexpected", found.keys() - wanted.keys())):
        if names:
            problems.append(f"{len(names)} {kind} (such as {min(names)})")
    for name in sorted(wanted.keys() & found.keys()):
        if wanted[name].shape != found[name].shape:
            problems.append(f"{name} is {tuple(found[name].shape)} where the model has {tuple(wanted[name].shape)}")
            break
    if problems:
        raise SlimbenchError(
            f"The weights in {file} do not fit the model that config.json beside them describes: "
            f"{'; '.join(problems)}; take both files from one source."
        )
