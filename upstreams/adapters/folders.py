"""Model folders in Hugging Face's form: found here or in the local cache, never downloaded, and read safely.

Weights come from ``*.safetensors`` or ``pytorch_model*.bin``, read without unpickling code. No code of a folder is run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import hub
from harness.cards import Card, missing
from harness.identity import digest_json, digest_weights, weight_files
from harness.interface import SAMPLE_RATE, SlimbenchError
from upstreams.adapters.weights import read_tensors, settle

PREPROCESSOR = "preprocessor_config.json"
"""The file of a model folder that describes what computes the model's input."""
HUB_OPTIONS: Mapping[str, Any] = {"hub": "", "revision": ""}
"""Card options that name a folder in the Hugging Face cache in place of ``weights``."""


def model_folder(card: Card, options: Mapping[str, Any]) -> Path:
    """The folder that a card names, by ``weights`` or by the options ``hub`` and ``revision``.

    Raises:
        SlimbenchError: neither or both are set, the revision is not a commit, or the model is not in the local cache.
    """
    name = options["hub"]
    if not name:
        if card.weights is None:
            raise SlimbenchError(
                f"{card.file}: field 'weights' is missing; name the folder of the model, or set options hub and "
                "revision."
            )
        return card.weights
    if card.weights is not None:
        raise SlimbenchError(f"{card.file} sets both 'weights' and option hub; remove one.")
    if not hub.is_name(name):
        raise SlimbenchError(f"{card.file}: option hub is {name!r}; write owner/name.")
    folder = hub.folder(options)
    if folder is None:
        raise SlimbenchError(
            f"{card.file}: option revision is {options['revision']!r}; write the commit of {name}, 40 hexadecimal "
            "digits in quotes, so that the model cannot change."
        )
    if lacking := missing(card):
        raise SlimbenchError(f"The weights of {card.name} are not here: {lacking}.")
    return folder


def read_json(file: Path, what: str) -> dict[str, Any]:
    """A JSON object from a file; ``what`` says in the message what the file is for.

    Raises:
        SlimbenchError: the file is missing, not JSON, or not an object.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SlimbenchError(f"{file} ({what}) cannot be read; copy it from the model's source.") from error
    except (ValueError, RecursionError) as error:
        raise SlimbenchError(f"{file} ({what}) is not valid JSON: {error}; copy it again.") from error
    if not isinstance(values, dict):
        raise SlimbenchError(f"{file} ({what}) is not a JSON object; copy it again.")
    return values


def read_config(card: Card, folder: Path, classes: Mapping[str, Any], elsewhere: Mapping[str, str]) -> Any:
    """The Transformers configuration in ``config.json``, checked against the card.

    Args:
        card: whose ``family`` and ``depth`` must be those of the folder, where it says them.
        folder: the model folder.
        classes: model classes by ``model_type``; the type is added to the returned object by Transformers itself.
        elsewhere: types that another adapter takes, with its name.

    Raises:
        SlimbenchError: the type is not known, the card says another family, or Transformers refuses the values.
    """
    values = read_json(folder / "config.json", "the model's configuration")
    family = str(values.get("model_type"))
    if family in elsewhere:
        raise SlimbenchError(
            f"{folder / 'config.json'} has model_type {family!r}; set 'adapter: {elsewhere[family]}' in {card.file}."
        )
    if family not in classes:
        raise SlimbenchError(f"{folder / 'config.json'} has model_type {family!r}; known are {', '.join(classes)}.")
    if card.family is not None and card.family != family:
        raise SlimbenchError(
            f"{card.file} says family {card.family}, but {folder} holds a {family} model; correct the card."
        )
    return _accepted(folder, classes[family].config_class.from_dict, values)


def front_end_sizes(folder: Path, what: str, names: Sequence[str]) -> dict[str, int]:
    """Whole numbers in :data:`PREPROCESSOR`, whose sampling rate must be :data:`SAMPLE_RATE`.

    Args:
        folder: the model folder.
        what: what the file says, for messages.
        names: the keys of the numbers.

    Raises:
        SlimbenchError: the file cannot be read, a number is missing or below 1, or the rate is another.
    """
    file = folder / PREPROCESSOR
    values = read_json(file, what)
    for name in names:
        if type(values.get(name)) is not int or values[name] < 1:
            raise SlimbenchError(
                f"{file} has {name} {values.get(name)!r}, not a whole number; copy it again from the model's source."
            )
    if values.get("sampling_rate") != SAMPLE_RATE:
        raise SlimbenchError(
            f"{file} has sampling_rate {values.get('sampling_rate')!r}; only models for {SAMPLE_RATE} are supported."
        )
    return {name: int(values[name]) for name in names}


def fingerprint(adapter: str, version: int, folder: Path, **further: Any) -> str:
    """Content key of a model folder: its weights, its configuration, and what the adapter adds.

    Args:
        adapter: name of the adapter.
        version: of the adapter, raised when it gives other states.
        folder: the model folder.
        further: what else decides the states, JSON-able.
    """
    config = read_json(folder / "config.json", "the model's configuration")
    return digest_json(
        {"adapter": adapter, "version": version, "weights": digest_weights(folder), "config": config, **further}
    )


def load(folder: Path, build: Callable[[Any], Any], config: Any, rename: Callable[[str], str | None]) -> Any:
    """The model that ``build`` makes of ``config``, with the weights of the folder.

    Args:
        folder: the model folder.
        build: the model class.
        config: its configuration.
        rename: the name of a stored weight in the model; ``None`` for weights that no hidden state depends on.

    Raises:
        SlimbenchError: Transformers refuses the configuration, a file cannot be read, two weights have one name, or a
            weight is missing, unexpected or of another shape.
    """
    with torch.random.fork_rng(devices=[]):  # the random start is overwritten; leave the caller's generator alone
        model = _accepted(folder, build, config)
    state: dict[str, Tensor] = {}
    origin: dict[str, Path] = {}
    for file in weight_files(folder):
        for stored, tensor in read_tensors(file).items():
            name = rename(stored)
            if name is None:
                continue
            if name in state:
                raise SlimbenchError(
                    f"{origin[name]} and {file} both hold the weight {name}; keep the files of one model in the folder."
                )
            state[name], origin[name] = tensor, file
    return settle(model, state, folder)


def _accepted(folder: Path, build: Callable[[Any], Any], values: Any) -> Any:
    """What Transformers builds of ``config.json``; its refusals have no class in common."""
    try:
        return build(values)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(".")
        raise SlimbenchError(
            f"{folder / 'config.json'} does not describe a model that Transformers can build ({reason}); copy it again "
            "from the model's source."
        ) from error
