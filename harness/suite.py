"""Suites: which data serve which task, and at which budget the probes are trained.

A suite is one YAML file. It names the builder of its data (or none, then the user brings a folder), and per task
only what differs from SUPERB's protocol, so that a reader sees every deviation in one place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args

from harness import plain_yaml, registry
from harness.interface import Batching, SlimbenchError, Task, TrainingProtocol

DTYPES = ("float16", "bfloat16", "float32")
OWN = "own"
"""Name of the protocol of a suite that has only one."""
NOISE = ("kind", "snr_db", "seed", "splits")
"""What a suite says of the noise that its data carry."""
_TEXTS = {"name", "title", "about", "builder", "corpora", "digest", "dtype"}
_TOP = _TEXTS | {"seed", "bootstrap", "seeds", "tasks", "protocols", "sizes", "noise"}


@dataclass(frozen=True)
class Suite:
    """A suite file, checked.

    Attributes:
        name: its name, the stem of the file.
        title: one line for people.
        about: what the suite is good for, and what it is not.
        builder: "package.module:function" that makes the data, or ``None`` where the user brings a folder.
        corpora: "package.module:function" that writes manifests of official corpora in the user's folder, or ``None``
            where the folder holds manifests.
        seed: seed of the builder.
        digest: what the builder's ``digest`` says of the data that were measured for the published tables, if known.
        bootstrap: resamples of the 95 % interval.
        seeds: how many seeds each learning rate is trained with, unless the caller says otherwise.
        dtype: stored precision of frames.
        protocol: name of the chosen protocol.
        tasks: per task what that protocol changes of SUPERB's, in the order in which they run.
        file: where it stands.
        protocols: all of its protocols, the default first.
        sizes: per task, for plans without the data: [utterances, hours] of each split, hours to encode, and which
            audio and how many folds where that is not its own and one.
        noise: what the data must carry, as the ``noise.json`` of ``slimbench data noisy`` says it (kind, snr_db, seed,
            splits); ``None`` for data as they were recorded or made.
    """

    name: str
    title: str
    about: str
    builder: str | None
    corpora: str | None
    seed: int
    digest: str | None
    bootstrap: int
    seeds: int
    dtype: str
    protocol: str
    tasks: Mapping[str, Mapping[str, Any]]
    file: Path
    protocols: tuple[str, ...] = (OWN,)
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    noise: Mapping[str, Any] | None = None


def load(name: str, protocol: str | None = None) -> Suite:
    """Read a suite by name, or from the path of a YAML file.

    Args:
        name: of the suite.
        protocol: one of the suite's protocols; by default its first.

    Raises:
        SlimbenchError: there is no such suite or protocol, or its file breaks the schema.
    """
    if name.endswith((".yaml", ".yml")):
        file = Path(name)
        if not file.is_file():
            raise SlimbenchError(
                f"{file}: no such suite file; correct the path or name a suite (slimbench list suites)."
            )
        return _read(file, protocol)
    files = registry.suite_files()
    if name not in files:
        raise registry.unknown("suite", name, files)
    return _read(files[name], protocol)


def protocol(suite: Suite, task: Task) -> TrainingProtocol:
    """SUPERB's protocol of ``task`` with the changes of the suite.

    Raises:
        SlimbenchError: the suite lacks the task, or changes something that is no part of a protocol.
    """
    if task.name not in suite.tasks:
        raise SlimbenchError(f"{suite.file}: {registry.unknown('task', task.name, suite.tasks)}")
    place = "tasks" if suite.protocol == OWN else f"protocols.{suite.protocol}"
    where = f"{suite.file}: {place}.{task.name}"
    changes = {key: _value(where, key, value) for key, value in suite.tasks[task.name].items()}
    changed = replace(task.protocol, **changes)
    if min(changed.steps, changed.batch, changed.eval_every, changed.accumulate) < 1 or not changed.learning_rates:
        raise SlimbenchError(
            f"{where}: steps, batch, accumulate, eval_every and learning_rates must not be empty or below 1."
        )
    if min(changed.learning_rates) <= 0 or len(set(changed.learning_rates)) < len(changed.learning_rates):
        raise SlimbenchError(f"{where}: learning_rates must be positive and different from each other.")
    if changed.looks_on_test and task.metric != "eer":
        raise SlimbenchError(f"{where}: looks_on_test is for verification only; take it out.")
    if not set(changed.crop_splits) <= {"train", "dev"}:
        raise SlimbenchError(f"{where}.crop_splits: may hold train and dev; test is never cropped.")
    _known_effects(where, changed.effects)
    if changed.crops and (changed.max_seconds is None or any(e.startswith("silence") for e in changed.effects)):
        raise SlimbenchError(f"{where}: crops need max_seconds, and cannot be had after the effect silence.")
    return changed


def _known_effects(where: str, words: Sequence[str]) -> None:
    from harness import effects

    try:
        effects.parse(words)
    except SlimbenchError as error:
        raise SlimbenchError(f"{where}.effects: {error}") from error


def _read(file: Path, protocol: str | None) -> Suite:
    content = plain_yaml.load(file, "the suite")
    if not isinstance(content, dict):
        raise SlimbenchError(f"{file}: a suite file is a mapping with name, title and tasks; this one is not.")
    _only(str(file), content, _TOP)
    for key in ("name", "title"):
        if not content.get(key):
            raise SlimbenchError(f"{file}: `{key}` is missing; add it.")
    if bool(content.get("tasks")) == bool(content.get("protocols")):
        raise SlimbenchError(f"{file}: give either `tasks`, or `protocols` with the tasks of each.")
    if content["name"] != file.stem:
        raise SlimbenchError(f"{file}: `name` is {content['name']!r}; it must be the name of the file, {file.stem!r}.")
    chosen, tasks = _tasks(file, content, protocol)
    values = {
        "about": str(content.get("about") or "").strip(),
        "builder": _text(file, content, "builder", "text like package.module:function"),
        "corpora": _text(file, content, "corpora", "text like package.module:function"),
        "digest": _text(file, content, "digest", "text (put quotes around it)"),
        "dtype": content.get("dtype", "float16"),
        **{
            key: _whole(file, content, key, default)
            for key, default in {"seed": 0, "bootstrap": 1000, "seeds": 3}.items()
        },
    }
    if values["dtype"] not in DTYPES:
        raise SlimbenchError(f"{file}: `dtype` is {values['dtype']!r}; it must be one of {', '.join(DTYPES)}.")
    return Suite(
        name=str(content["name"]),
        title=str(content["title"]),
        protocol=chosen,
        tasks=tasks,
        file=file,
        protocols=tuple(map(str, content.get("protocols") or (OWN,))),
        sizes=_sizes(file, content.get("sizes") or {}, tasks),
        noise=_noise(file, content.get("noise")),
        **values,
    )


def _noise(file: Path, given: Any) -> Mapping[str, Any] | None:
    if given is not None and (not isinstance(given, dict) or set(given) != set(NOISE)):
        raise SlimbenchError(f"{file}: `noise` must give {', '.join(NOISE)}; or leave it out.")
    return given


def _sizes(file: Path, given: Any, tasks: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    needed = {"train", "dev", "test", "encode"}
    if not isinstance(given, dict) or (given and set(given) < set(tasks)):
        raise SlimbenchError(f"{file}: `sizes` must name every task.")
    for name, size in given.items():
        if not isinstance(size, dict) or not needed <= set(size):
            raise SlimbenchError(f"{file}: sizes.{name} must give {', '.join(sorted(needed))}.")
    return given


def _tasks(file: Path, content: Mapping[str, Any], protocol: str | None) -> tuple[str, dict[str, dict[str, Any]]]:
    """The chosen protocol and its changes per task."""
    known = content.get("protocols") or {OWN: content.get("tasks")}
    if not isinstance(known, dict):
        raise SlimbenchError(f"{file}: `protocols` maps the name of each protocol to its tasks.")
    chosen = next(iter(known)) if protocol is None else protocol
    if chosen not in known:
        raise SlimbenchError(f"{file}: {registry.unknown('protocol', chosen, known)}")
    given = known[chosen]
    if not isinstance(given, dict) or not all(isinstance(changes, dict | None) for changes in given.values()):
        raise SlimbenchError(f"{file}: `tasks` maps each task's name to its changes ({{}} for none).")
    tasks = {str(name): dict(changes or {}) for name, changes in given.items()}
    for name, changes in tasks.items():
        _only(f"{file}: tasks.{name}", changes, {f.name for f in fields(TrainingProtocol)})
    return chosen, tasks


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
    if key == "learning_rates":
        return _rates(where, value)
    if key == "head":
        if isinstance(value, dict) and all(isinstance(v, int) and v > 0 for v in value.values()):
            return {str(name): size for name, size in value.items()}
        raise SlimbenchError(f"{where}.{key}: must map names of head sizes to whole numbers above 0.")
    if key in ("effects", "crop_splits"):
        if isinstance(value, list) and all(isinstance(v, str) for v in value):
            return tuple(value)
        raise SlimbenchError(f"{where}.{key}: must be a list of texts.")
    good, wanted = _fits(key, value)
    if not good:
        raise SlimbenchError(f"{where}.{key}: is {value!r}; it must be {wanted}.")
    return float(value) if key in _FLOATS and value is not None else value


_FLOATS = ("clip", "layer_lr", "max_seconds", "min_seconds")
_WORDS = {"optimizer": ("Adam", "AdamW"), "batching": get_args(Batching), "choose": ("best", "last")}


def _fits(key: str, value: Any) -> tuple[bool, str]:
    """Whether a value suits a setting, and what would."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if key in _WORDS:
        return value in _WORDS[key], " or ".join(_WORDS[key])
    if key in ("steps", "batch", "eval_every", "accumulate", "crops"):
        return number and isinstance(value, int) and value >= 0, "a whole number"
    if key in ("specaugment", "balanced", "drop_last", "balanced_dev", "train_on_dev", "looks_on_test"):
        return isinstance(value, bool), "true or false"
    if key in ("max_seconds", "min_seconds"):
        return value is None or (number and value > 0), "a number above 0, or null"
    if key == "clip":
        return number and value > 0, "a number above 0"
    return number and value >= 0, "a number, not below 0"
