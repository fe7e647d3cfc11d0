"""Suites: which data serve which task, and at which budget the probes are trained.

A suite is one YAML file. It names the builder of its data (or none, then the user brings a folder), and per task
only what differs from SUPERB's protocol, so that a reader sees every deviation in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from harness import registry
from harness.interface import SlimbenchError, Task, TrainingProtocol

DTYPES = ("float16", "float32")
_TOP = {"name", "title", "about", "builder", "seed", "digest", "bootstrap", "seeds", "dtype", "tasks"}


@dataclass(frozen=True)
class Suite:
    """A suite file, checked.

    Attributes:
        name: its name, the stem of the file.
        title: one line for people.
        about: what the suite is good for, and what it is not.
        builder: "package.module:function" that makes the data, or ``None`` where the user brings a folder.
        seed: seed of the builder.
        digest: what the builder's ``digest`` says of the data that were measured for the published tables, if known.
        bootstrap: resamples of the 95 % interval.
        seeds: how many seeds each learning rate is trained with, unless the caller says otherwise.
        dtype: stored precision of frames.
        tasks: per task what differs from SUPERB's protocol, in the order in which they run.
        file: where it stands.
    """

    name: str
    title: str
    about: str
    builder: str | None
    seed: int
    digest: str | None
    bootstrap: int
    seeds: int
    dtype: str
    tasks: Mapping[str, Mapping[str, Any]]
    file: Path


def load(name: str) -> Suite:
    """Read a suite by name, or from the path of a YAML file.

    Raises:
        SlimbenchError: there is no such suite, or its file breaks the schema.
    """
    if name.endswith((".yaml", ".yml")):
        file = Path(name)
        if not file.is_file():
            raise SlimbenchError(
                f"{file}: no such suite file; correct the path or name a suite (slimbench list suites)."
            )
        return _read(file)
    files = registry.suite_files()
    if name not in files:
        raise registry.unknown("suite", name, files)
    return _read(files[name])


def protocol(suite: Suite, task: Task) -> TrainingProtocol:
    """SUPERB's protocol of ``task`` with the changes of the suite.

    Raises:
        SlimbenchError: the suite lacks the task, or changes something that is no part of a protocol.
    """
    if task.name not in suite.tasks:
        raise SlimbenchError(f"{suite.file}: {registry.unknown('task', task.name, suite.tasks)}")
    where = f"{suite.file}: tasks.{task.name}"
    changes = {key: _value(where, key, value) for key, value in suite.tasks[task.name].items()}
    changed = replace(task.protocol, **changes)
    if min(changed.steps, changed.batch, changed.eval_every) < 1 or not changed.learning_rates:
        raise SlimbenchError(f"{where}: steps, batch, eval_every and learning_rates must not be empty or below 1.")
    if min(changed.learning_rates) <= 0 or len(set(changed.learning_rates)) < len(changed.learning_rates):
        raise SlimbenchError(f"{where}: learning_rates must be positive and different from each other.")
    return changed


def _read(file: Path) -> Suite:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SlimbenchError(f"{file}: is no valid YAML ({' '.join(str(error).split())}); correct it.") from error
    if not isinstance(content, dict):
        raise SlimbenchError(f"{file}: a suite file is a mapping with name, title and tasks; this one is not.")
    _only(str(file), content, _TOP)
    for key in ("name", "title", "tasks"):
        if not content.get(key):
            raise SlimbenchError(f"{file}: `{key}` is missing; add it.")
    if content["name"] != file.stem:
        raise SlimbenchError(f"{file}: `name` is {content['name']!r}; it must be the name of the file, {file.stem!r}.")
    if not isinstance(content["tasks"], dict) or not all(isinstance(v, dict | None) for v in content["tasks"].values()):
        raise SlimbenchError(f"{file}: `tasks` maps each task's name to its changes ({{}} for none).")
    values = {
        "about": str(content.get("about") or "").strip(),
        "builder": _text(file, content, "builder", "text like package.module:function"),
        "digest": _text(file, content, "digest", "text (put quotes around it)"),
        "dtype": content.get("dtype", "float16"),
        **{
            key: _whole(file, content, key, default)
            for key, default in {"seed": 0, "bootstrap": 1000, "seeds": 3}.items()
        },
    }
    if values["dtype"] not in DTYPES:
        raise SlimbenchError(f"{file}: `dtype` is {values['dtype']!r}; it must be one of {', '.join(DTYPES)}.")
    tasks = {str(name): dict(changes or {}) for name, changes in content["tasks"].items()}
    for name, changes in tasks.items():
        _only(f"{file}: tasks.{name}", changes, {f.name for f in fields(TrainingProtocol)})
    return Suite(name=str(content["name"]), title=str(content["title"]), tasks=tasks, file=file, **values)


def _only(where: str, given: Mapping[str, Any], known: set[str]) -> None:
    for key in given:
        if key not in known:
            raise SlimbenchError(f"{where}: {registry.unknown('setting', str(key), known)}")


def _whole(file: Path, content: Mapping[str, Any], key: str, default: int) -> int:
    value = content.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < (0 if key == "seed" else 1):
        raise SlimbenchError(
            f"{file}: `{key}` is {value!r}; it must be a whole number above {'-1' if key == 'seed' else '0'}."
        )
    return value


def _text(file: Path, content: Mapping[str, Any], key: str, wanted: str) -> str | None:
    value = content.get(key)
    if value is not None and not isinstance(value, str):
        raise SlimbenchError(f"{file}: `{key}` is {value!r}; it must be {wanted}, or null.")
    return value


def _rates(where: str, value: Any) -> tuple[float, ...]:
    if isinstance(value, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        return tuple(float(v) for v in value)
    raise SlimbenchError(
        f"{where}.learning_rates: must be a list of numbers like [1.0e-3, 1.0e-2] (YAML reads 1e-3 as text)."
    )


def _value(where: str, key: str, value: Any) -> Any:
    """One changed value in the type that :class:`TrainingProtocol` has."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if key == "learning_rates":
        return _rates(where, value)
    if key == "head":
        if isinstance(value, dict) and all(isinstance(v, int) and v > 0 for v in value.values()):
            return {str(name): size for name, size in value.items()}
        raise SlimbenchError(f"{where}.{key}: must map names of head sizes to whole numbers above 0.")
    if key in ("steps", "batch", "eval_every"):
        good, wanted = number and isinstance(value, int), "a whole number"
    elif key in ("specaugment", "balanced"):
        good, wanted = isinstance(value, bool), "true or false"
    elif key == "optimizer":
        good, wanted = value in ("Adam", "AdamW"), "Adam or AdamW"
    elif key in ("max_seconds", "clip"):
        null = key == "max_seconds"
        good = (number and value > 0) or (null and value is None)
        wanted = "a number above 0, or null" if null else "a number above 0"
    else:
        good, wanted = number and value >= 0, "a number, not below 0"
    if not good:
        raise SlimbenchError(f"{where}.{key}: is {value!r}; it must be {wanted}.")
    return float(value) if key in ("clip", "layer_lr", "max_seconds") and value is not None else value
