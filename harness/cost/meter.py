"""Counting the multiply-accumulates of a forward pass, operator by operator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from harness.cost.formulas import Formula, formula_of
from harness.cost.packed import packed_modules
from harness.interface import SlimbenchError


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts every operator that runs inside it and notes which weights were read.

    Attributes:
        macs: multiply-accumulates so far.
        refusal: why the pass cannot be counted; the error itself may have been caught or reworded on its way.
    """

    def __init__(self, name: str, weights: Weights) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.name, self.weights = name, weights
        self.macs = 0
        self.refusal: SlimbenchError | None = None
        self._formulas: dict[Any, Formula | None] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator and add its MACs; what has no formula is taken apart, or refused."""
        kwargs = kwargs or {}
        if func not in self._formulas:
            self._formulas[func] = formula_of(func)
        formula = self._formulas[func]
        if formula is None:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is NotImplemented:
                raise self._refuse(func, args, kwargs)
            return result
        if not func.is_view:
            self.weights.note(tensors((args, kwargs)))
        result = self.run(func, args, kwargs)
        self.macs += formula(args, result)
        return result

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Carry out one operator."""
        return func(*args, **kwargs)

    def _refuse(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SlimbenchError:
        read = self.weights.among(tensors((args, kwargs)))
        self.refusal = SlimbenchError(
            f"The MACs of {self.name} cannot be counted: operator {func}{f' on {min(read)}' if read else ''} has no "
            "known cost; give it a formula in harness/cost/formulas.py, or list it there as free."
        )
        return self.refusal


class Weights:
    """The weight matrices of a module by their place in memory, and which of them were read; views of them count.

    Vectors (biases, scales, the embedding of masks) cost nothing by themselves, so they need not be read.
    Weights packed by torch's quantisation have no tensor of their own: the call of their module stands for reading.
    """

    def __init__(self, module: nn.Module | None) -> None:
        self.names: set[str] = set()
        self.read: set[str] = set()
        self._spans: dict[int, list[tuple[int, int, str]]] = {}
        self._packed = {} if module is None else packed_modules(module)
        for name, parameter in [] if module is None else module.named_parameters():
            if parameter.dim() > 1 and parameter.numel():
                self.names.add(name)
                start, stop = _span(parameter)
                self._spans.setdefault(memory(parameter), []).append((start, stop, name))
        self.names |= set(self._packed)

    def among(self, found: Iterator[Tensor]) -> set[str]:
        """Names of the parameters that share memory with any of these tensors."""
        names: set[str] = set()
        for tensor in found if self._spans else ():
            if spans := self._spans.get(memory(tensor)):
                start, stop = _span(tensor)
                names |= {name for first, last, name in spans if first < stop and start < last}
        return names

    def note(self, found: Iterator[Tensor]) -> None:
        """Take these tensors as read."""
        self.read |= self.among(found)

    @contextmanager
    def watch_packed(self) -> Iterator[None]:
        """Note which modules with packed weights are called."""
        handles = [
            module.register_forward_hook(lambda *_, name=name: self.read.add(name))
            for name, module in self._packed.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)


def memory(tensor: Tensor) -> int:
    """Where a tensor's memory begins; its views begin at the same place."""
    return tensor.untyped_storage().data_ptr()


def _span(tensor: Tensor) -> tuple[int, int]:
    """First byte of a tensor within its memory, and the one after its last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    start = int(tensor.storage_offset()) * tensor.element_size()
    return start, start + (int(last) + 1) * tensor.element_size()


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Attention and transformer layers as matrix products, not as fused kernels that hide them."""
    with plain_layers(), sdpa_kernel(SDPBackend.MATH):
        yield


@contextmanager
def plain_layers() -> Iterator[None]:
    """Torch's transformer layers as the modules that they are made of, each called by itself."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
