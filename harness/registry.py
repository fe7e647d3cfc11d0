"""Who is there: upstream cards, tasks, suites and verbs, found through entry points and loaded only when asked for.

Built-in parts register exactly as a plug-in does. Nothing here imports torch or any adapter until
:func:`load_upstream` is called, so that listing is instant.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from harness.cards import Card, available, check_weights, missing, pin, read_card, unknown, variants_of
from harness.interface import SlimbenchError, Task, Upstream

__all__ = [
    "Card", "available", "card", "cards", "formats", "load_upstream", "missing", "pin", "read_card",
    "resolve", "suite_files", "task", "task_names", "unknown", "verbs",
]  # fmt: skip

CARD_FOLDERS_VARIABLE = "SLIMBENCH_CARDS"
"""Environment variable: further folders of cards, separated as in ``PATH``."""


def resolve(target: str) -> Any:
    """The attribute behind ``"package.module:attribute"``.

    Raises:
        SlimbenchError: the target has another form, or the module or the attribute cannot be imported.
    """
    module_name, separator, attribute = target.partition(":")
    if not (separator and module_name and attribute):
        raise SlimbenchError(f"{target!r} is not of the form 'package.module:attribute'; correct it.")
    try:
        found: Any = import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise SlimbenchError(f"Cannot load {target}: {error}; install what is missing or correct the name.") from error
    return found


def _points(group: str) -> dict[str, EntryPoint]:
    """Entry points of a group by name; two packages under one name are an error."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"slimbench.{group}"):
        if point.name in found and point.value != found[point.name].value:
            raise SlimbenchError(
                f"Two packages register {point.name!r} in slimbench.{group} "
                f"({found[point.name].value} and {point.value}); uninstall one."
            )
        found[point.name] = point
    return found


def _files(group: str) -> Iterator[Path]:
    """All YAML files in the folders that the packages register in a group; ``builtin`` is one of them."""
    for point in entry_points(group=f"slimbench.{group}"):
        yield from sorted(Path(resolve(point.value)).glob("*.yaml"))


def cards() -> dict[str, Card]:
    """All cards and their variants by name: those of installed packages, then those in ``SLIMBENCH_CARDS``.

    Raises:
        SlimbenchError: a card is broken, two cards have one name, or a folder does not exist.
    """
    found: dict[str, Card] = {}
    listed = [read_card(file, packaged=True) for file in _files("upstreams")]
    for folder in filter(None, os.environ.get(CARD_FOLDERS_VARIABLE, "").split(os.pathsep)):
        if not Path(folder).is_dir():
            raise SlimbenchError(f"{CARD_FOLDERS_VARIABLE} names {folder}, which is not a folder; correct it.")
        listed += [read_card(file) for file in sorted(Path(folder).glob("*.yaml"))]
    for item in (one for whole in listed for one in (whole, *variants_of(whole))):
        if item.name in found:
            raise SlimbenchError(f"{item.file} and {found[item.name].file} have one name, {item.name!r}; rename one.")
        found[item.name] = item
    return found


def card(name: str) -> Card:
    """The card called ``name`` or ``name@variant``, or in a file, ``path.yaml`` or ``path.yaml@variant``.

    Raises:
        SlimbenchError: there is none; the message names the nearest.
    """
    path, _, variant = name.rpartition("@") if not name.endswith((".yaml", ".yml")) else (name, "", "")
    if path.endswith((".yaml", ".yml")):
        whole = read_card(Path(path).absolute())
        known = {item.name.rpartition("@")[2]: item for item in variants_of(whole)} if variant else {"": whole}
        if variant not in known:
            raise unknown(f"variant of {path}", variant, known)
        return known[variant]
    known = cards()
    if name not in known:
        raise unknown("upstream", name, known)
    return known[name]


def load_upstream(name: str, device: str = "cpu") -> Upstream:
    """Load the upstream of that name (or card file) onto a device: weights checked, frozen, in eval mode.

    Raises:
        SlimbenchError: unknown name, missing or changed weights, weights that do not fit, or a card that says a
            width that the model does not have.
    """
    chosen = card(name)
    check_weights(chosen)
    upstream: Upstream = resolve(chosen.adapter)(chosen, device)
    if chosen.precision != "float32":
        upstream = resolve("harness.precision:Reduced")(upstream, chosen.precision, device)
    if chosen.width is not None and upstream.width != chosen.width:
        raise SlimbenchError(
            f"{chosen.file} says width {chosen.width}, but its states are {upstream.width} wide; correct the card."
        )
    return upstream


def task_names() -> list[str]:
    """Names of all registered tasks, sorted."""
    return sorted(_points("tasks"))


def task(name: str) -> Task:
    """The task of that name.

    Raises:
        SlimbenchError: there is none; the message names the nearest.
    """
    known = _points("tasks")
    if name not in known:
        raise unknown("task", name, known)
    found: Task = resolve(known[name].value)
    return found


def suite_files() -> dict[str, Path]:
    """The YAML files of all registered suites, by suite name (the file's stem)."""
    found: dict[str, Path] = {}
    for file in _files("suites"):
        if file.stem in found:
            raise SlimbenchError(f"{file} and {found[file.stem]} are suites of one name; rename one.")
        found[file.stem] = file
    return found


def verbs() -> dict[str, Callable[..., None]]:
    """Further verbs of the command line by name; each is imported when it is called with the subparsers."""
    return {name: partial(_call, point.value) for name, point in _points("verbs").items()}


def formats() -> dict[str, Callable[[Path], dict[str, Any] | None]]:
    """Kinds of checkpoints that cards can be drafted from, by name; each is imported when it is called with a path."""
    return {name: partial(_call, point.value) for name, point in sorted(_points("formats").items())}


def _call(target: str, *arguments: Any) -> Any:
    return resolve(target)(*arguments)
