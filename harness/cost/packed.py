"""Weights that torch's quantisation has packed: they are no parameters, but they are weights all the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def packed_modules(module: nn.Module) -> dict[str, nn.Module]:
    """The modules that hold weights packed by torch's quantisation, by name."""
    found: dict[str, nn.Module] = {}
    parts = dict(module.named_modules())
    for name, part in parts.items():
        if packed_weights(part):
            # torch keeps the packed weights of a linear layer in a module of its own, which is never called
            owner = name.rpartition(".")[0] if type(part).__name__ == "LinearPackedParams" else name
            found[owner] = parts[owner]
    return found


def packed_weights(module: nn.Module) -> list[Tensor]:
    """Weights and biases that this very module holds packed."""
    packed: list[Any] = [item for item in vars(module).values() if isinstance(item, torch.ScriptObject)]
    found = [tensor for item in packed if item._has_method("unpack") for tensor in item.unpack()]
    return [tensor for tensor in found if tensor is not None]
