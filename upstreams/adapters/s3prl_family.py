"""A local checkpoint in one of s3prl's families as an upstream, run by the installed s3prl.

One family module is imported, never s3prl's hub. Nothing is downloaded: s3prl's downloader is switched off while the
model is built, and only the card's file can be read by ``torch.load``. s3prl unpickles whole objects; here the file
goes through :func:`upstreams.adapters.checkpoints.read_checkpoint` instead, so that nothing in it runs and s3prl finds
plain data. Every weight must be there and fit, also where s3prl itself would not mind.

Utterances are encoded one at a time, so their states do not depend on each other. States are what s3prl's expert
returns under ``selection``.
"""

from __future__ import annotations

import importlib.util
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import partial
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.cards import Card
from harness.identity import digest_json, digest_weights
from harness.interface import SAMPLE_RATE, SlimbenchError
from upstreams.adapters.called import OPTIONS, Called
from upstreams.adapters.checkpoints import read_checkpoint

VERSION = 1


class S3prl(Called):
    """An s3prl expert as an upstream.

    Card options: ``family``, a folder of ``s3prl/upstream`` such as ``wavlm`` (default: the card's ``family``);
    ``entry``, a function of its ``hubconf`` that takes a local checkpoint, ``…_local`` or ``…_custom`` (default: the
    family's expert itself); ``selection``, the key of the states (default ``hidden_states``; for example ``paper``);
    ``arguments``, further numbers and words for the expert; ``left_over``, beginnings of weight names that the
    checkpoint may hold beyond the model's, such as heads of pre-training.

    Raises:
        SlimbenchError: s3prl lacks the family or the entry, the file is missing, not safe or of another family, or the
            expert has no such states.
    """

    def __init__(self, card: Card, device: str = "cpu") -> None:
        options = card.settings(
            {"family": "", "entry": "", "selection": "hidden_states", "arguments": {}, "left_over": [], **OPTIONS}
        )
        if card.weights is None:
            raise SlimbenchError(f"{card.file}: field 'weights' is missing; name the checkpoint.")
        if options["padded"]:
            raise SlimbenchError(f"{card.file}: option padded is not for s3prl models, which are encoded one by one.")
        expert = _build(card, card.weights, options).float().eval().to(device)
        selection = str(options["selection"])
        _set_aside_unused(expert, torch.device(device))
        if not options["frame_ms"]:
            options["frame_ms"] = 1000.0 * float(expert.get_downsample_rates(selection)) / SAMPLE_RATE
        identity = {"adapter": "s3prl", "version": VERSION, "weights": digest_weights(card.weights), "options": options}
        super().__init__(
            card, device, partial(_call, card.file, expert, selection), expert, digest_json(identity), options
        )


def _call(file: Path, expert: Any, selection: str, waves: Tensor, _lengths: Tensor) -> list[Tensor]:
    """The states of one utterance (1, S); s3prl takes a list of waveforms (S,)."""
    with _random_numbers_kept():
        result = expert(list(waves))
    found = result.get(selection)
    if isinstance(found, Mapping):
        found = list(found.values())
    if found is None:
        known = ", ".join(sorted(key for key in result if not key.startswith("_")))
        raise SlimbenchError(
            f"{file}: the model has no states under {selection!r}; set option selection to one of {known}."
        )
    return [found] if isinstance(found, Tensor) else list(found)


@contextmanager
def _random_numbers_kept() -> Iterator[None]:
    """Some experts draw random numbers for layers that they never drop; the caller's generators stay as they are."""
    numpy_state, python_state = numpy.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            numpy.random.set_state(numpy_state)
            random.setstate(python_state)


def _set_aside_unused(expert: Any, device: torch.device) -> None:
    """Take parameters that a pass never reads out of the parameter count: mask embeddings, heads of pre-training.

    They stay as plain tensors, so that code that looks at them still finds them.
    """
    noise = 0.1 * torch.randn(SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), _random_numbers_kept(), _Read() as read:
        expert([noise.to(device)])
    for part in expert.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            if parameter.untyped_storage().data_ptr() not in read.storages:
                delattr(part, name)
                setattr(part, name, parameter.data)


class _Read(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the memory of every tensor that an operator reads."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storages: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator."""
        leaves = tree_leaves((args, kwargs or {}))
        self.storages |= {item.untyped_storage().data_ptr() for item in leaves if isinstance(item, Tensor)}
        return func(*args, **(kwargs or {}))


def _build(card: Card, file: Path, options: Mapping[str, Any]) -> Any:
    """The expert of a family with the card's weights, built without network and foreign pickles."""
    if importlib.util.find_spec("s3prl") is None:
        raise SlimbenchError(f"{card.file} needs the package s3prl, which is not installed; install s3prl 0.4.18.")
    family, entry = str(options["family"] or card.family or ""), str(options["entry"])
    if not re.fullmatch(r"[a-z][a-z0-9_]*", family) or family.startswith("hf_"):
        raise SlimbenchError(
            f"{card.file}: option family is {family!r}; name a folder of s3prl/upstream (for Hugging Face folders set "
            "'adapter: upstreams.adapters.huggingface:HuggingFace')."
        )
    if entry and not re.fullmatch(r"[a-z][a-z0-9_]*_(local|custom)", entry):
        raise SlimbenchError(f"{card.file}: option entry is {entry!r}; only …_local and …_custom take a local file.")
    arguments = dict(options["arguments"])
    for key, value in arguments.items():
        if not isinstance(value, str | int | float | bool) or (isinstance(value, str) and "://" in value):
            raise SlimbenchError(f"{card.file}: argument {key} is {value!r}; write a number, true, false or a word.")
    found = read_checkpoint(file)
    fit = _Fit(file, tuple(str(name) for name in options["left_over"]))
    try:
        make = _maker(family, entry)
        with _fenced(file, found, fit), torch.random.fork_rng(devices=[]), redirect_stdout(StringIO()):
            expert = make(ckpt=str(file), **arguments)
    except SlimbenchError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(".")
        raise SlimbenchError(
            f"{file} cannot be loaded as s3prl's family {family} ({reason}); name the family that wrote it in "
            f"{card.file}."
        ) from error
    if not fit.loaded:
        raise SlimbenchError(f"{card.file}: s3prl's family {family} loads no weights from {file}; use another adapter.")
    return expert


def _maker(family: str, entry: str) -> Any:
    """The expert's class, or a function of the family's ``hubconf``."""
    module = import_module(f"s3prl.upstream.{family}.{'hubconf' if entry else 'expert'}")
    return getattr(module, entry or "UpstreamExpert")


class _Fit:
    """Stands in for ``load_state_dict``: what does not fit is an error, whatever the caller would put up with."""

    def __init__(self, file: Path, left_over: tuple[str, ...]) -> None:
        self.file, self.left_over, self.loaded = file, left_over, False
        self._load = nn.Module.load_state_dict

    def load(self, module: nn.Module, state: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load ``state`` into ``module``."""
        result = self._load(module, state, strict=False, assign=assign)
        unexpected = [name for name in result.unexpected_keys if not name.startswith(self.left_over or ("\0",))]
        problems = [
            f"{len(names)} {kind} (such as {min(names)})"
            for kind, names in (("missing", result.missing_keys), ("unexpected", unexpected))
            if names
        ]
        if problems:
            raise SlimbenchError(
                f"The weights in {self.file} do not fit the model: {'; '.join(problems)}; name the family that wrote "
                "the file, or list weights that no state depends on in option left_over."
            )
        self.loaded = True
        return result


@contextmanager
def _fenced(file: Path, found: dict[str, Any], fit: _Fit) -> Iterator[None]:
    """While an expert is built: no download, no foreign pickle, no file but the card's, no weight that does not fit."""

    def read(source: Any, *_: Any, **__: Any) -> dict[str, Any]:
        if not isinstance(source, str | Path) or Path(source) != file:
            raise SlimbenchError(f"s3prl wants to load {source}, but only {file} may be read; use another entry.")
        return found

    def load(module: nn.Module, *arguments: Any, **settings: Any) -> Any:
        return fit.load(module, *arguments, **settings)

    def refuse(*_: Any, **__: Any) -> Any:
        raise SlimbenchError(f"s3prl wants to download a file beside {file}, which is never done; use another entry.")

    with (
        patch.object(torch, "load", read),
        patch.object(nn.Module, "load_state_dict", load),
        patch.object(torch.hub, "load_state_dict_from_url", refuse),
        patch.object(torch.hub, "download_url_to_file", refuse),
        patch.object(import_module("s3prl.util.download"), "_download", refuse),
    ):
        yield
