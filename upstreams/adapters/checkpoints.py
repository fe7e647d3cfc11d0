"""Foreign training checkpoints as plain data, without running any code of theirs.

Three steps, none of which imports or calls what a file names: :mod:`upstreams.adapters.torch_files` checks the
container, :mod:`upstreams.adapters.plain_pickle` reads the pickle against the list of names below, and here tensors
are cut out of their storages and all that is left becomes plain. A configuration of fairseq, omegaconf, argparse or
Lightning becomes a dictionary, an enum the value that it was made of, a set a list, a path its text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy
import torch
from torch import Tensor

from harness.interface import SlimbenchError
from upstreams.adapters.plain_pickle import DamagedError, ForbiddenError, Foreign, Name, fill, interpret
from upstreams.adapters.torch_files import STORAGES, Storage, TorchFile, open_torch

MAX_DEPTH = 100
"""Most levels of dictionaries and lists in one another."""
MAX_VALUES = 1_000_000
"""Most values after repeated references to one list or dictionary are written out."""
MAX_DIMENSIONS = 16
MAX_NUMBERS = 1 << 40
"""Largest product of the sizes of a tensor that are not 0: an empty tensor may not have an absurd shape either."""

_DATA = frozenset(
    "argparse.Namespace typing.Any typing.Dict typing.List typing.Tuple typing.Union typing.Optional numpy.ndarray "
    "builtins.dict builtins.list builtins.tuple builtins.str builtins.int builtins.long builtins.float "
    "builtins.bool builtins.unicode builtins.object".split()
)
"""Classes whose objects, or themselves, are nothing but settings."""
_DATA_PREFIXES = ("fairseq.", "omegaconf.", "pytorch_lightning.", "lightning.", "lightning_fabric.", "optimizers.")
"""Packages whose objects are settings or the state of a training; ``optimizers`` is s3prl's, under its old name."""
_TYPES = frozenset(str(value) for value in vars(torch).values() if isinstance(value, torch.dtype))


@dataclass(frozen=True)
class _Cut:
    """A tensor that is still to be cut out of its storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A checkpoint that ``torch.save`` wrote, in either of its formats, as nested plain data.

    Values are dictionaries (keys: text, numbers, ``None``), lists, tuples, text, bytes, numbers, truth values, ``None``
    and tensors on the CPU that need no gradient. Tensors that shared their numbers still do.

    Raises:
        SlimbenchError: the file is missing, damaged, no checkpoint, or asks for more than the known harmless classes.
    """
    return read_torch(file, "a checkpoint")


def read_torch(file: Path, what: str) -> dict[str, Any]:
    """As :func:`read_checkpoint`; errors say that the file cannot be read as ``what``."""
    with reading(file, what), file.open("rb") as stream:
        opened = open_torch(stream, _interpret)
        found = _Plain(opened).value(opened.content)
        if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
            raise ForbiddenError("it holds no dictionary of named values")
        return found


@contextmanager
def reading(file: Path, what: str) -> Iterator[None]:
    """Turn the errors of reading ``file`` as ``what`` into one sentence with the remedy; look at the file first.

    Raises:
        SlimbenchError: the file is missing or empty, a web page, a Git LFS pointer, damaged or not allowed.
    """
    start = f"{file} cannot be read as {what}"
    try:
        with file.open("rb") as stream:
            head = stream.read(200).lstrip().lower()
        if not head:
            raise SlimbenchError(f"{start} (it is empty); copy it again.")
        if head.startswith(b"version https://git-lfs"):
            raise SlimbenchError(
                f"{start} (it is only the pointer that Git LFS left); run `git lfs pull` at its source."
            )
        if head.startswith((b"<!doctype", b"<html", b"<?xml")):
            raise SlimbenchError(f"{start} (it is a web page, from a download that failed); download it again.")
        yield
    except OSError as error:
        raise SlimbenchError(f"{start} ({error.strerror or error}); check the path.") from error
    except DamagedError as error:
        raise SlimbenchError(f"{start} ({error}); copy it again.") from error
    except ForbiddenError as error:
        raise SlimbenchError(
            f"{start} ({error}); take it from its first source, or have its tensors saved as safetensors."
        ) from error


def _interpret(stream: BinaryIO, stored: Callable[[Any], Any]) -> Any:
    return interpret(stream, _call, _allowed, stored)


def _allowed(name: str) -> bool:
    return name in _CALLS or name in _DATA or name in STORAGES or name in _TYPES or name.startswith(_DATA_PREFIXES)


def _call(name: str, arguments: tuple[Any, ...]) -> Any:
    """What a class or function of a checkpoint gives for its arguments: plain data, or an inert object."""
    if name in _CALLS:
        try:
            return _CALLS[name](*arguments)
        except (TypeError, ValueError, LookupError) as error:
            raise DamagedError(f"it has a {name} that makes no sense") from error
    if name in STORAGES or name in _TYPES:
        raise ForbiddenError(f"it calls {name}, which is only a name in a checkpoint")
    return Foreign(name, arguments)


def _dictionary(pairs: Any = ()) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    fill(found, pairs.items() if isinstance(pairs, dict) else pairs)
    return found


def _list(values: Any = ()) -> list[Any]:
    if not isinstance(values, list | tuple):
        raise ValueError("no list")  # noqa: TRY004 (all nonsense is one kind of error)
    return list(values)


def _numbers(values: Any) -> tuple[int, ...]:
    """A size or stride; its members are counts."""
    if not isinstance(values, tuple) or len(values) > MAX_DIMENSIONS:
        raise ValueError("no size")
    if not all(type(value) is int and 0 <= value <= MAX_NUMBERS for value in values):
        raise ValueError("no size")
    return values


def _text(values: tuple[Any, ...]) -> list[str]:
    if not all(isinstance(value, str) for value in values):
        raise ValueError("no text")
    return list(values)


def _cut(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Cut:
    """A tensor as torch stores it; whether it needs gradients, and its hooks, are left out."""
    if not isinstance(storage, Storage):
        raise ValueError("no storage")  # noqa: TRY004
    (offset,) = _numbers((offset,))
    size, stride = _numbers(size), _numbers(stride)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # A tensor that repeats its numbers (stride 0) is refused as well: its copies would be larger than the file.
    count = math.prod(size)
    if count > storage.numel or (count and last >= storage.numel) or math.prod(n for n in size if n) > MAX_NUMBERS:
        raise ForbiddenError(f"it has a tensor of size {size} in a storage of {storage.numel} numbers")
    return _Cut(storage, offset, size, stride)


def _parameter(tensor: Any, *_: Any) -> _Cut:
    if not isinstance(tensor, _Cut):
        raise ValueError("no tensor")  # noqa: TRY004
    return tensor


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError("no bytes")
    return text.encode("latin-1")


def _subscript(base: Any, _: Any) -> Name:
    """``List[int]`` as ``List``: configurations store the types of their fields."""
    if not isinstance(base, Name) or not base.text.startswith("typing."):
        raise ForbiddenError("it calls operator.getitem")
    return base


def _none_type(value: None) -> Name:
    if value is not None:
        raise ForbiddenError("it calls builtins.type")
    return Name("builtins.None")


def _numpy_type(kind: Any) -> numpy.dtype[Any]:
    """The type that numpy stored as an object of ``numpy.dtype``: numbers and truth values only."""
    if not isinstance(kind, Foreign) or kind.name != "numpy.dtype" or kind.arguments[:1] not in _NUMPY_TYPES:
        raise ForbiddenError("it has a value of numpy that is no number")
    plain: numpy.dtype[Any] = numpy.dtype(kind.arguments[0])
    return plain.newbyteorder(">") if isinstance(kind.state, tuple) and kind.state[1] == ">" else plain


def _scalar(kind: Any, data: bytes) -> bool | int | float:
    (value,) = numpy.frombuffer(data, _numpy_type(kind)).tolist()
    number: bool | int | float = value
    return number


_NUMPY_TYPES = tuple((kind,) for kind in "b1 i1 i2 i4 i8 u1 f2 f4 f8".split())
_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dictionary,
    "collections.Counter": _dictionary,
    "collections.defaultdict": lambda *_: {},
    "builtins.set": _list,
    "builtins.frozenset": _list,
    "_codecs.encode": _encode,
    "builtins.bytes": lambda: b"",  # protocol 2 makes no bytes by making an empty object
    "_operator.getitem": _subscript,  # Python writes `typing.List[int]` so
    "builtins.type": _none_type,
    "torch.Size": _numbers,
    "torch.device": lambda *parts: ":".join(str(int(p)) if type(p) is int else _text((p,))[0] for p in parts),
    "torch._utils._rebuild_tensor": _cut,
    "torch._utils._rebuild_tensor_v2": _cut,
    "torch._utils._rebuild_parameter": _parameter,
    "numpy.dtype": lambda *arguments: Foreign("numpy.dtype", arguments),
    **dict.fromkeys(("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"), _scalar),
    **dict.fromkeys(
        ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
        lambda *arguments: Foreign("numpy.ndarray", arguments),
    ),
    **dict.fromkeys(
        (f"pathlib.{kind}Path" for kind in ("", "Posix", "Windows", "Pure", "PurePosix", "PureWindows")),
        lambda *parts: str(PurePosixPath(*_text(parts))),
    ),
}
"""Names that stand for a plain value; what they give is made here, whatever the name means elsewhere."""


class _Plain:
    """Writes the content of one file out as plain data with tensors."""

    def __init__(self, file: TorchFile) -> None:
        self.file, self.values = file, 0
        self.tensors: dict[_Cut, Tensor] = {}

    def value(self, value: Any, depth: int = 0) -> Any:
        """Plain form of a value that lies ``depth`` levels deep."""
        self.values += 1
        if depth > MAX_DEPTH:
            raise ForbiddenError(f"it is nested in itself or deeper than {MAX_DEPTH} levels")
        if self.values > MAX_VALUES:
            raise ForbiddenError(f"it refers to its own parts so often that it has more than {MAX_VALUES} values")
        if isinstance(value, _Cut):
            if value not in self.tensors:
                numbers = self.file.numbers(value.storage)
                self.tensors[value] = numbers.as_strided(value.size, value.stride, value.offset)
            return self.tensors[value]
        if isinstance(value, Storage):
            raise ForbiddenError("it holds numbers that are no tensor")
        if isinstance(value, Name):
            return value.text
        if isinstance(value, Foreign):
            return self._foreign(value, depth)
        inner = partial(self.value, depth=depth + 1)
        if isinstance(value, dict):
            return {key: inner(item) for key, item in value.items()}
        if isinstance(value, list):
            return [inner(item) for item in value]
        return tuple(inner(item) for item in value) if isinstance(value, tuple) else value

    def _foreign(self, found: Foreign, depth: int) -> Any:
        """An object as what it holds: settings by name, the members of a list, or the one value it was made of."""
        if found.name == "numpy.ndarray":
            array = _array(found.state)
            self.values += array.nbytes // 64  # a copy; a pickle can name the bytes of one array again and again
            return array
        state = found.state
        if isinstance(state, tuple) and len(state) == 2 and all(isinstance(part, dict | None) for part in state):
            state = {**(state[0] or {}), **(state[1] or {})}  # attributes, and those that have slots
        if found.name.startswith("omegaconf.") and isinstance(state, dict):
            # A node also knows its parent, which is no part of its value.
            for content in ("_content", "_val"):
                if content in state:
                    return self.value(state[content], depth + 1)
        if state is not None and not isinstance(state, dict):
            return self.value(state, depth + 1)
        if found.entries:
            return self.value(found.entries, depth + 1)
        if state or found.items or not found.arguments:
            return self.value({**(state or {}), **found.items}, depth + 1)
        return self.value(found.arguments[0] if len(found.arguments) == 1 else found.arguments, depth + 1)


def _array(state: Any) -> Tensor:
    """An array of numpy as a tensor."""
    try:
        _, size, kind, columns_first, data = state
        number = _numpy_type(kind)
        values = numpy.frombuffer(bytearray(memoryview(data)), number)
        values = values.reshape(_numbers(size), order="F" if columns_first else "C")
    except (TypeError, ValueError, LookupError) as error:
        raise DamagedError("it has an array of numpy that makes no sense") from error
    return torch.from_numpy(numpy.ascontiguousarray(values.astype(values.dtype.newbyteorder("="))))
