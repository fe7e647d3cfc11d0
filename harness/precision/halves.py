"""Modules in 16 bits.

All weights are in 16 bits, and so are the inputs of what computes with them. Torch's layer and group norms sum in
float32 inside; batch norms keep weights and running statistics in float32. Tables that are no weights (windows, mel
filters, positions) stay as they are, so that waveforms are normalised and analysed in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

COMPUTING = (nn.Linear, nn.Bilinear, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase, _ConvNd)
"""Modules of torch that compute with their weights, whatever they are made of."""

PRODUCTS = frozenset(
    {functional.linear, functional.multi_head_attention_forward, functional.scaled_dot_product_attention}
    | {functional.conv1d, functional.conv2d, functional.conv_transpose1d, functional.conv_transpose2d}
    | {functional.layer_norm, functional.group_norm, functional.rms_norm, functional.bilinear}
    | {torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.einsum}
    | {Tensor.matmul, Tensor.__matmul__, Tensor.mm, Tensor.bmm, Tensor.addmm, Tensor.baddbmm}
)
"""Functions whose inputs must be of one type."""


def halve(module: nn.Module, dtype: torch.dtype) -> None:
    """Bring the weights of a module to 16 bits, in place, and the inputs of what computes with them on every call."""
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            continue  # its running variances may lie beyond float16; it takes 16-bit inputs as it is
        for parameter in part.parameters(recurse=False):
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
        if isinstance(part, nn.RNNBase):
            part.flatten_parameters()
        alone = bool(list(part.parameters(recurse=False))) and not any(part.children())
        if alone or isinstance(part, COMPUTING):
            part.register_forward_pre_hook(_cast_inputs(dtype), with_kwargs=True)


def _cast_inputs(dtype: torch.dtype) -> Any:
    """A hook that brings float32 inputs to the type of the weights."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
        return _cast(args, dtype), _cast(kwargs, dtype)

    return hook


class Meeting(TorchFunctionMode):
    """Where float32 meets 16 bits in a product, the product is in 16 bits; what is all in float32 stays so.

    For models that multiply with weights past the modules that own them. It takes a microsecond or two per function.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, with inputs of one type where it is a product."""
        kwargs = kwargs or {}
        if func in PRODUCTS and (_has(args, self.dtype) or _has(kwargs, self.dtype)):
            args, kwargs = _cast(args, self.dtype), _cast(kwargs, self.dtype)
        return func(*args, **kwargs)


def _has(value: Any, dtype: torch.dtype) -> bool:
    """Whether a tensor of this type is among the arguments."""
    if isinstance(value, Tensor):
        return value.dtype == dtype
    if isinstance(value, list | tuple):
        return any(_has(item, dtype) for item in value)
    return isinstance(value, Mapping) and any(_has(item, dtype) for item in value.values())


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Arguments with float32 tensors brought to another type."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.dtype == torch.float32 else value
    if type(value) in (list, tuple):
        return type(value)(_cast(item, dtype) for item in value)
    return {key: _cast(item, dtype) for key, item in value.items()} if type(value) is dict else value
