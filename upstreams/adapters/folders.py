"""Model folders in Hugging Face's form: found here or in the local cache, never downloaded, and read safely.

Weights come from ``*.safetensors`` or ``pytorch_model*.bin``, read without unpickling code. No code of a folder is run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from torch import Tensor

from harness.cards import Card
from harness.identity import digest_weights, weight_files
from harness.interface import SlimbenchError
from upstreams.adapters.weights import check_fit, read_tensors

HUB_OPTIONS: Mapping[str, Any] = {"hub": "", "revision": ""}
"""Card options that name a folder in the Hugging Face cache in place of ``weights``."""


def model_folder(card: Card, options: Mapping[str, Any]) -> Path:
    """The folder that a card names, by ``weights`` or by the options ``hub`` and ``revision``.

    Raises:
        SlimbenchError: neither or both are set, the revision is not a commit, the model is not in the local cache, or
            its weights are not those that the card pins.
    """
    hub, revision = str(options["hub"]), str(options["revision"])
    if not hub:
        if card.weights is None:
            raise SlimbenchError(
                f"{card.file}: field 'weights' is missing; name the folder of the model, or set options hub and "
                "revision."
            )
        return card.weights
    if card.weights is not None:
        raise SlimbenchError(f"{card.file} sets both 'weights' and option hub; remove one.")
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise SlimbenchError(
            f"{card.file}: option revision is {revision!r}; write the commit of {hub}, 40 hexadecimal digits in "
            "quotes, so that the model cannot change."
        )
    try:
        folder = Path(snapshot_download(hub, revision=revision, local_files_only=True))
    except HFValidationError as error:
        raise SlimbenchError(f"{card.file}: option hub is {hub!r}; write owner/name.") from error
    except LocalEntryNotFoundError as error:
        raise SlimbenchError(
            f"The model {hub} is not in the Hugging Face cache {constants.HF_HUB_CACHE}: fetch it with 'hf download "
            f"{hub} --revision {revision}', or copy its files to a folder and name that in 'weights' of {card.file}."
        ) from error
    if card.sha256 is not None and (digest := digest_weights(folder)) != card.sha256:
        raise SlimbenchError(
            f"{folder} has SHA-256 {digest}, but its card {card.file} says {card.sha256}; "
            "restore the file, or give changed weights a card of their own."
        )
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


def check_depth(card: Card, folder: Path, depth: int) -> None:
    """Raises :class:`SlimbenchError` where the card says another depth than the model has."""
    if card.depth is not None and card.depth != depth:
        raise SlimbenchError(f"{card.file} says depth {card.depth}, but {folder} has {depth}; correct the card.")


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
    check_fit(folder, state, model.state_dict())
    model.load_state_dict(state)
    return model.float().eval().requires_grad_(False)


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
