"""Pickles as plain data: a reader that imports nothing and calls nothing but the functions that it is given.

``torch.load(weights_only=True)`` keeps foreign code out, but not foreign sizes: it calls ``bytearray(n)`` and
``torch.Tensor(n)`` with any ``n``, hashes tuples of any depth, and lets a tensor grow its storage. Here a class is its
name, an object is what was stored of it, and the caller decides which names may occur and which of them stand for
plain values. The opcodes are those of :mod:`pickletools` in protocols 2 to 5, as far as ``torch.save`` writes them.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

MAX_OPERATIONS = 1_000_000
"""Most instructions of one pickle; a state dictionary needs about 40 for a tensor."""
MAX_COPIED = 64 << 20
"""Most memory, in bytes, that calls may take for copies of their arguments, which a pickle can name again and again."""

_MARK = object()
_IMPORTS = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # Python 2's names, which protocol 2 writes
_VALUES = frozenset(
    "BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINSTRING SHORT_BINSTRING "
    "BINBYTES SHORT_BINBYTES BINBYTES8".split()
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
    "MARK": lambda: _MARK,
}
_COLLECTING = {  # how many values each takes from the stack; None: all since the mark
    **{"TUPLE": None, "APPENDS": None, "ADDITEMS": None, "FROZENSET": None, "SETITEMS": None},
    **{"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2},
}
_PLAIN_KEYS = (str, bytes, int, float, type(None))


class DamagedError(Exception):
    """The file is not what it was when it was written; the text is the reason."""


class ForbiddenError(Exception):
    """The file asks for something that no checkpoint needs; the text is the reason."""


@dataclass(frozen=True)
class Name:
    """The dotted name of a class or function, which is never imported."""

    text: str


@dataclass(eq=False)
class Foreign:
    """What was stored of an object: its class, the arguments that would make it, and what would be put into it."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    entries: list[Any] = field(default_factory=list)


def interpret(
    stream: BinaryIO,
    call: Callable[[str, tuple[Any, ...]], Any],
    allowed: Callable[[str], bool],
    stored: Callable[[Any], Any],
) -> Any:
    """Read one pickle from ``stream`` and leave the position behind it. Sets become lists.

    Args:
        stream: the pickle; what follows it is not touched.
        call: gives the value of a class or function, by name, for arguments; often a :class:`Foreign`.
        allowed: whether a name may occur at all.
        stored: gives the value of a persistent id, that is of a reference to something outside of the pickle.

    Raises:
        DamagedError: the pickle is cut off or makes no sense.
        ForbiddenError: it holds a name that is not allowed, an odd instruction or key, or too many instructions.
    """
    machine = _Machine(call, allowed, stored)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count == MAX_OPERATIONS:
                raise ForbiddenError(f"its pickle has more than {MAX_OPERATIONS} instructions")
            machine.step(opcode.name, argument)
        return machine.pop()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise DamagedError("its pickle is damaged or cut off") from error


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(
        self,
        call: Callable[[str, tuple[Any, ...]], Any],
        allowed: Callable[[str], bool],
        stored: Callable[[Any], Any],
    ) -> None:
        self.call, self.allowed, self.stored = call, allowed, stored
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value should be")
        return value

    def top(self) -> Any:
        if self.stack[-1] is _MARK:
            raise ValueError("a mark where a value should be")
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def step(self, code: str, argument: Any) -> None:
        """One instruction."""
        if code in _VALUES:
            self.stack.append(argument)
        elif code in _CONSTANTS:
            self.stack.append(_CONSTANTS[code]())
        elif code in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if code == "MEMOIZE" else argument] = self.top()
        elif code in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif code in _COLLECTING:
            self._collect(code)
        elif code in ("GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD"):
            self._object(code, argument)
        elif code == "BINPERSID":
            self.stack.append(self.stored(self.pop()))
        elif code not in ("PROTO", "FRAME", "STOP"):
            raise ForbiddenError(f"its pickle has the instruction {code}, which torch.save does not write")

    def _collect(self, code: str) -> None:
        """Make a tuple, or put values into a list or a dictionary."""
        count = _COLLECTING[code]
        values = self.since_mark() if count is None else [self.pop() for _ in range(count)][::-1]
        if code.startswith("TUPLE"):
            self.stack.append(tuple(values))
        elif code == "FROZENSET":
            self.stack.append(values)
        elif code.startswith("SETITEM"):
            fill(self.top(), zip(values[::2], values[1::2], strict=True))
        else:
            into = self.top()
            into = into.entries if isinstance(into, Foreign) else into
            if not isinstance(into, list):
                raise ValueError("no list to append to")
            into.extend(values)

    def _object(self, code: str, argument: Any) -> None:
        if code in ("GLOBAL", "STACK_GLOBAL"):
            parts = argument.split(" ", 1) if code == "GLOBAL" else [self.pop(), self.pop()][::-1]
            self.stack.append(self._name(*parts))
        elif code == "BUILD":
            state = self.pop()
            into = self.top()
            if isinstance(into, Foreign):
                into.state = state
            elif not isinstance(into, dict):  # attributes of an OrderedDict (its "_metadata") carry no weights
                raise ForbiddenError("it sets attributes of something that has none")
        else:
            if code == "NEWOBJ_EX" and self.pop():
                raise ForbiddenError("it makes an object with named arguments")
            arguments, name = self.pop(), self.pop()
            if not isinstance(name, Name) or not isinstance(arguments, tuple):
                raise ForbiddenError("it calls something that is no class")
            for value in arguments:
                self.copied += len(value) * (1 if isinstance(value, str | bytes) else 64) if _has_length(value) else 0
            if self.copied > MAX_COPIED:
                raise ForbiddenError("it makes too many copies of its own parts")
            self.stack.append(self.call(name.text, arguments))

    def _name(self, module: Any, name: Any) -> Name:
        text = f"{_IMPORTS.get(module, module)}.{name}"
        if len(text) > 300 or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+", text):
            raise DamagedError("its pickle is damaged: it names a class that cannot exist")
        if not self.allowed(text):
            raise ForbiddenError(f"it asks for {text}, which is not on the list of harmless classes")
        return Name(text)


def _has_length(value: Any) -> bool:
    return isinstance(value, str | bytes | list | tuple | dict)


def fill(into: Any, pairs: Iterable[tuple[Any, Any]]) -> None:
    """Set items of a dictionary, or of an object of a foreign class that is one.

    Raises:
        ForbiddenError: a key is no text or number, or occurs twice.
        ValueError: there is no dictionary to fill.
    """
    target = into.items if isinstance(into, Foreign) else into
    if not isinstance(target, dict):
        raise ValueError("no dictionary to fill")  # noqa: TRY004
    for key, value in pairs:
        key = key.text if isinstance(key, Name) else key
        if not isinstance(key, _PLAIN_KEYS):
            raise ForbiddenError("a dictionary in it has a key that is neither text nor a number")
        if key in target:
            raise ForbiddenError(f"a dictionary in it has the key {str(key)[:80]!r} twice")
        target[key] = value
