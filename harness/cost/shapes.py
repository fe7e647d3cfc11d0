"""A forward pass without values: only shapes go through the model, so that a long utterance costs next to nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from harness.cost.formulas import unpacked_shape
from harness.cost.meter import Meter, Weights, memory, tensors


class UntraceableError(Exception):
    """A pass on shapes came to a place where values decide."""


class Shape(Tensor):
    """A tensor without values. It has a shape, a type and the device that it would lie on.

    Attributes:
        meta: the same on torch's ``meta`` device, where operators compute shapes only.
    """

    meta: Tensor

    @staticmethod
    def __new__(cls: type[Shape], meta: Tensor, device: torch.device) -> Shape:
        """A tensor like ``meta`` that says it lies on ``device``."""
        made: Shape = Tensor._make_wrapper_subclass(
            cls,
            meta.shape,
            strides=meta.stride(),
            storage_offset=meta.storage_offset(),
            dtype=meta.dtype,
            layout=meta.layout,
            device=device,
        )
        made.meta = meta
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Only a :class:`ShapeMeter` knows what to do with these."""
        raise UntraceableError(f"{func} on a shape outside a pass on shapes")


class ShapeMeter(Meter):  # type: ignore[no-untyped-call]
    """Counts without computing: what depends on the audio is a :class:`Shape`, all else is computed as ever.

    An operator that would need the values of a shape (an item, a branch on it, a selection by a mask) raises, so that a
    pass that ends has counted what a real pass would have. A tensor with values into which a shape is written has none
    that can be trusted from then on, and neither have its views. Layers of one form ask for the same shapes again and
    again, so answers are kept.
    """

    def __init__(self, name: str, weights: Weights) -> None:
        super().__init__(name, weights)
        self._answers: dict[Any, Any] = {}
        self._overwritten: dict[int, torch.UntypedStorage] = {}
        self._guard = _ValueGuard(self)

    def __enter__(self) -> ShapeMeter:
        self._guard.__enter__()  # type: ignore[no-untyped-call]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *reason: Any) -> None:
        super().__exit__(*reason)  # type: ignore[no-untyped-call]
        self._guard.__exit__(*reason)  # type: ignore[no-untyped-call]

    def unknown(self, tensor: Tensor) -> bool:
        """Whether the values of a tensor depend on the audio."""
        return isinstance(tensor, Shape) or (bool(self._overwritten) and memory(tensor) in self._overwritten)

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Carry out one operator: for real where all inputs have values, else on the meta device."""
        given = [item for item in tensors((args, kwargs)) if self.unknown(item)]
        if not given:
            return func(*args, **kwargs)
        device = torch.device(kwargs.get("device") or given[0].device)
        if "device" in kwargs:
            kwargs = {**kwargs, "device": torch.device("meta")}
        if func._schema.is_mutable:
            return self._write(func, args, kwargs, device)
        if (shape := unpacked_shape(func, args)) is not None:
            return Shape(torch.empty(shape, dtype=args[0].dtype, device="meta"), device)
        question = (func, _signature(args), _signature(kwargs))
        if question not in self._answers:
            self._answers[question] = func(*_bare(args, {}), **_bare(kwargs, {}))
        return _wrapped(self._answers[question], device, {})

    def _write(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], device: torch.device) -> Any:
        """An in-place operator: its targets lose their values, and keep their form unless that is its purpose."""
        if torch.Tag.inplace_view in func.tags:
            with torch._C._DisableTorchDispatch():
                func(*args, **kwargs)
            if isinstance(args[0], Shape):
                args[0].meta = torch.empty_strided(args[0].shape, args[0].stride(), dtype=args[0].dtype, device="meta")
            return args[0]
        formal = func._schema.arguments
        given = {item.name: value for item, value in zip(formal, args, strict=False)} | kwargs
        written = [item for item in formal if item.alias_info is not None and item.alias_info.is_write]
        for target in tensors([given.get(item.name) for item in written]):
            if not isinstance(target, Shape):
                self._overwritten[memory(target)] = target.untyped_storage()
        returned = func._schema.returns
        if len(written) == len(returned) == 1 and returned[0].alias_info is not None:
            return given[written[0].name]
        known: dict[int, Tensor] = {}
        return _wrapped(func(*_bare(args, known), **_bare(kwargs, known)), device, known)


class _ValueGuard(TorchFunctionMode):
    """Refuses what takes values out of a tensor past torch's operators."""

    TAKERS = frozenset({Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__dlpack__, Tensor.data_ptr})

    def __init__(self, meter: ShapeMeter) -> None:
        super().__init__()
        self.meter = meter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, unless it takes values that are not there."""
        if func in self.TAKERS and self.meter.unknown(args[0]):
            raise UntraceableError(f"{func} takes the values of a shape")
        return func(*args, **(kwargs or {}))


def _bare(value: Any, known: dict[int, Tensor]) -> Any:
    """Arguments on the meta device, without values; ``known`` learns what they were."""
    if isinstance(value, Shape):
        known[id(value.meta)] = value
        return value.meta
    if isinstance(value, Tensor):
        bare = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
        known[id(bare)] = value
        return bare
    if isinstance(value, list | tuple):
        return type(value)(_bare(item, known) for item in value)
    if isinstance(value, Mapping):
        return {key: _bare(item, known) for key, item in value.items()}
    return value


def _signature(value: Any) -> Any:
    """What an operator's shapes depend on, as a key."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    if isinstance(value, list | tuple):
        return type(value), *map(_signature, value)
    if isinstance(value, Mapping):
        return tuple((key, _signature(item)) for key, item in value.items())
    return type(value), value


def _wrapped(value: Any, device: torch.device, known: Mapping[int, Tensor]) -> Any:
    """Results as shapes on ``device``; a target of an in-place operator is itself."""
    if isinstance(value, Tensor):
        return known[id(value)] if id(value) in known else Shape(value, device)
    if isinstance(value, list | tuple):
        return type(value)(_wrapped(item, device, known) for item in value)
    return value
