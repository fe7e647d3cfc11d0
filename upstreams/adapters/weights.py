"""Reading stored weights without running foreign code, and checking that they fit a model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from harness.cards import Card
from harness.interface import SlimbenchError
from upstreams.adapters.checkpoints import MAX_DIMENSIONS, MAX_NUMBERS, read_torch, reading
from upstreams.adapters.plain_pickle import DamagedError, ForbiddenError


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a ``safetensors`` file, or of a torch file that holds nothing but tensors.

    Torch files pass the checks of :func:`upstreams.adapters.checkpoints.read_checkpoint`.

    Raises:
        SlimbenchError: the file is missing, damaged, holds more than tensors, or would need foreign code.
    """
    if file.suffix == ".safetensors":
        with reading(file, "a file of weights"):
            return _read_safetensors(file)
    found = read_torch(file, "a file of weights")
    if not all(isinstance(value, Tensor) for value in found.values()):
        raise SlimbenchError(f"{file} holds more than named tensors; convert it to safetensors.")
    return found


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    """The library checks lengths and offsets; names that occur twice and absurd shapes are checked here."""
    try:
        found: dict[str, Tensor] = load_file(file)
    except (RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise DamagedError(str(error).partition("\n")[0]) from error
    with file.open("rb") as stream:
        json.loads(stream.read(int.from_bytes(stream.read(8), "little")), object_pairs_hook=_once)
    for tensor in found.values():
        if tensor.dim() > MAX_DIMENSIONS or math.prod(size for size in tensor.shape if size) > MAX_NUMBERS:
            raise ForbiddenError("it has a tensor of absurd shape")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ForbiddenError("a name occurs twice in it")
    return found


def settle(model: Any, state: Mapping[str, Tensor], file: Path, described: str = "config.json beside them") -> Any:
    """Give a model its stored weights and freeze it: float32, eval mode, no gradients. Returns the model.

    Args:
        model: the model, with any weights.
        state: its weights by name, all of them and no others.
        file: where they are stored, for messages.
        described: what the model was built from, for messages.

    Raises:
        SlimbenchError: as :func:`check_fit`.
    """
    check_fit(file, state, model.state_dict(), described)
    model.load_state_dict(state)
    return model.float().eval().requires_grad_(False)


def check_depth(card: Card, place: Path, depth: int) -> None:
    """Raises :class:`SlimbenchError` where the card says another depth than the model at ``place`` has."""
    if card.depth is not None and card.depth != depth:
        raise SlimbenchError(f"{card.file} says depth {card.depth}, but {place} has {depth}; correct the card.")


def check_fit(
    file: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], described: str = "config.json beside them"
) -> None:
    """Compare the names and shapes of stored weights with those of the model.

    Args:
        file: where the weights are stored, for messages.
        found: the stored weights.
        wanted: those of the model.
        described: what the model was built from, for messages.

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
            f"The weights in {file} do not fit the model that {described} describes: "
            f"{'; '.join(problems)}; take both files from one source."
        )
