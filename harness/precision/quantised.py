"""Linear layers in 8 bits by torch's own kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

LARGEST = 127


class Int8Linear(nn.Module):
    """A linear layer with weights in 8 bits, one scale per output; inputs are rounded to 8 bits per call.

    The range of the inputs is taken over the whole tensor of a call and uses 7 of the 8 bits, as torch does on x86, so
    that sums of two products do not overflow the 16 bits of older processors.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        bias = None if linear.bias is None else linear.bias.detach().float()
        self._packed = torch.ops.quantized.linear_prepack(_rounded(linear.weight), bias)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) to (…, out), both float32."""
        product: Tensor = torch.ops.quantized.linear_dynamic(x, self._packed, reduce_range=True)
        return product


class Int8Weights(nn.Module):
    """The weights of a linear layer in 8 bits, for code that takes them out and multiplies with them itself.

    Such products are in float32, with what 8 bits keep of the weights. It cannot be called.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        rounded = _rounded(linear.weight)
        self.rounded = nn.Parameter(rounded.int_repr(), requires_grad=False)
        self.register_buffer("scales", rounded.q_per_channel_scales().float()[:, None])
        self.bias = linear.bias

    @property
    def weight(self) -> Tensor:
        """(out, in) in float32."""
        return self.rounded * self.get_buffer("scales")


def _rounded(weight: Tensor) -> Tensor:
    """A weight (out, in) in 8 bits with one scale per output, symmetric."""
    values = weight.detach().float()
    scales = (values.abs().amax(1) / LARGEST).clamp(min=torch.finfo(torch.float32).eps).double()
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    return torch.quantize_per_channel(values, scales, zeros, 0, torch.qint8)


def _linear_layers(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Linear layers inside a module with the modules that hold them, at all their places; no derived classes."""
    for path, child in list(module.named_modules(remove_duplicate=False)):
        if path and type(child) is nn.Linear:
            parent, _, name = path.rpartition(".")
            yield module.get_submodule(parent), name, child


@contextmanager
def called_linear_layers(module: nn.Module) -> Iterator[set[nn.Module]]:
    """Collects the linear layers inside a module that are called while this lasts."""
    called: set[nn.Module] = set()
    handles = [child.register_forward_hook(_collect(called)) for _, _, child in _linear_layers(module)]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()


def _collect(called: set[nn.Module]) -> Callable[..., None]:
    return lambda layer, *_: called.add(layer)


def quantise_linear(module: nn.Module, called: set[nn.Module]) -> int:
    """Replace all linear layers inside a module by 8-bit ones, shared ones by shared ones; returns how many there were.

    The module itself is not replaced. Layers of derived classes stay: what they do with their weights is their own.

    Args:
        module: what is changed.
        called: the layers that are called; from the others code takes the weights.
    """
    made: dict[nn.Module, nn.Module] = {}
    for part, name, child in list(_linear_layers(module)):
        if child not in made:
            made[child] = Int8Linear(child) if child in called else Int8Weights(child)
        setattr(part, name, made[child])
    return len(made)
