"""Recognising checkpoints, so that a card can be drafted from one (entry points ``slimbench.formats``).

Each recogniser gets a path and gives the fields of a card that the checkpoint itself tells, or ``None`` where it is of
another kind. Only descriptions are read: no code of a checkpoint is run, and no model is built. Licence and source
stand in no checkpoint.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.identity import weight_files
from harness.interface import SAMPLE_RATE, SlimbenchError

Fields = dict[str, Any]

FAMILIES = ("distilhubert", "lighthubert", "dphubert", "fithubert", "armhubert", "melhubert", "ofa")
"""Modules of :mod:`upstreams.students` whose ``recognise(path, checkpoint)`` is asked first."""
ANCESTORS = "fairseq_models"
"""The module that is asked last: wav2vec 2.0, HuBERT, WavLM and others, in whose form some families store theirs."""
EVERY_LAYER = "input of the first layer and the output of every layer"


def huggingface(path: Path) -> Fields | None:
    """A model folder as Transformers saves it, or its weight file.

    Raises:
        SlimbenchError: it is one of a model type that no adapter takes.
    """
    from upstreams.adapters.folders import PREPROCESSOR, read_json
    from upstreams.adapters.huggingface import ELSEWHERE, MODELS

    folder = path if path.is_dir() else path.parent
    if not (folder / "config.json").is_file() or not (path.is_dir() or path in weight_files(folder)):
        return None
    values = read_json(folder / "config.json", "the model's configuration")
    kind = values.get("model_type")
    if kind is None:
        return None
    known = {**dict.fromkeys(MODELS, "upstreams.adapters.huggingface:HuggingFace"), **ELSEWHERE}
    if kind not in known:
        raise SlimbenchError(f"{folder / 'config.json'} has model_type {kind!r}; known are {', '.join(known)}.")
    config = _transformers_config(folder, values)
    fields = {
        "adapter": known[kind],
        "weights": folder,
        "family": kind,
        "depth": config.num_hidden_layers,
        "width": config.hidden_size,
        "exposes": f"{EVERY_LAYER}, {_frame_ms(config):g} ms",
    }
    if kind in MODELS and not (folder / PREPROCESSOR).is_file():
        fields["options"] = {"do_normalize": "TODO true or false, without quotes, as in pre-training"}
    return fields


def _transformers_config(folder: Path, values: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.for_model(**values)
    except Exception as error:  # what Transformers refuses has no class in common
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(".")
        raise SlimbenchError(
            f"{folder / 'config.json'} does not describe a model ({reason}); copy it again."
        ) from error


def _frame_ms(config: Any) -> float:
    """Time between frames: by the convolutions over the waveform; two shifts of 10 ms where log-mels are the input."""
    waveform = config.model_type not in ("whisper", "wav2vec2-bert")
    return 1000.0 * config.inputs_to_logits_ratio / SAMPLE_RATE if waveform else 20.0


def mini(path: Path) -> Fields | None:
    """A mini model of this project: a ``safetensors`` file with its ``config.json`` beside it, or their folder."""
    from upstreams.adapters.folders import read_json
    from upstreams.adapters.mini import card_fields
    from upstreams.students.mini import MiniConfig

    file = path / "model.safetensors" if path.is_dir() else path
    config_file = file.with_name("config.json")
    if file.suffix != ".safetensors" or not file.is_file() or not config_file.is_file():
        return None
    values = read_json(config_file, "the model's configuration")
    if not {"layers", "width", "ffn", "head_width"} <= values.keys():
        return None
    try:
        config = MiniConfig.from_dict(values)
    except (ValueError, TypeError) as error:
        raise SlimbenchError(f"{config_file} does not describe a mini model: {error}; restore it.") from error
    return {**card_fields(config), "weights": file}


def gendistiller(path: Path) -> Fields | None:
    """A GenDistiller of this project: a ``safetensors`` file with its ``config.json`` beside it, or their folder."""
    from upstreams.adapters.folders import read_json
    from upstreams.students.frontend import Convolution, frame_ms
    from upstreams.students.gendistiller import GenShape

    file = path / "model.safetensors" if path.is_dir() else path
    config_file = file.with_name("config.json")
    if file.suffix != ".safetensors" or not file.is_file() or not config_file.is_file():
        return None
    values = read_json(config_file, "the model's configuration")
    if "blocks" not in values:
        return None
    try:
        shape = GenShape.from_dict(values)
    except (ValueError, TypeError) as error:
        raise SlimbenchError(f"{config_file} does not describe a GenDistiller: {error}; correct it.") from error
    return {
        "adapter": "upstreams.students.gendistiller:adapter",
        "weights": file,
        "family": "gendistiller",
        "depth": shape.layers,
        "width": shape.width,
        "exposes": "front end and every generated layer, "
        f"{frame_ms([Convolution(*row) for row in shape.convolutions]):g} ms",
    }


def exported(path: Path) -> Fields | None:
    """A TorchScript or ``torch.export`` archive. It is a program, so that it is not opened here beyond its table."""
    names = _archive(path)
    scripted = any("/code/" in name for name in names) and any(name.endswith("/constants.pkl") for name in names)
    if not scripted and not (
        path.suffix == ".pt2" and any("/models/" in name or name.endswith(".json") for name in names)
    ):
        return None
    return {"adapter": "upstreams.adapters.exported:Exported", "family": "TorchScript" if scripted else "torch.export"}


def _archive(path: Path) -> list[str]:
    """Names in a zip archive; none where the file is no such archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return []


def checkpoint(path: Path) -> Fields | None:
    """A training checkpoint that ``torch.save`` wrote, of a compressed family or of one of their ancestors.

    Raises:
        SlimbenchError: it cannot be read safely, several families claim it, or it is of a kind that is not supported.
    """
    from upstreams.adapters.checkpoints import read_checkpoint

    if not path.is_file() or path.suffix == ".safetensors" or not _by_torch(path) or exported(path) is not None:
        return None
    content = read_checkpoint(path)
    found = {family: fields for family in FAMILIES if (fields := _asked(family, path, content)) is not None}
    if len(found) > 1:
        raise SlimbenchError(f"{path} is claimed by {' and '.join(found)}; write the card by hand, docs/upstreams.md.")
    return next(iter(found.values())) if found else _asked(ANCESTORS, path, content)


def _asked(family: str, path: Path, content: Mapping[str, Any]) -> Fields | None:
    fields: Fields | None = import_module(f"upstreams.students.{family}").recognise(path, content)
    return fields


def _by_torch(path: Path) -> bool:
    """Whether a file begins as ``torch.save`` begins: a zip archive, or a pickle of protocol 2 or later."""
    with path.open("rb") as stream:
        return stream.read(2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
