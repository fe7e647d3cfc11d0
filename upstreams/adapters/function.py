"""A function of an installed package that makes a model, as an upstream: the way in for code that nothing else fits.

``options: {entry: "package.module:function"}``. The function is called as ``function(card, device)`` and gives what can
be called as ``model(waves, lengths)``, with waves (B, S) float32 at 16 kHz and lengths (B,) int64 valid samples; it
returns a list of states (B, T, D), or ``(states, frames)`` with valid frames (B,). Like ``adapter``, the entry names
code that runs with all rights of the user. It is imported by name from installed packages; a file beside the card is
refused.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.cards import Card
from harness.identity import digest_json, digest_tensors, digest_weights
from harness.interface import SlimbenchError
from harness.registry import resolve
from upstreams.adapters.called import OPTIONS, Called

VERSION = 1


class Function(Called):
    """What an entry point makes, as an upstream.

    Card options: ``entry``; ``arguments``, a mapping for the function's own use (``card.options["arguments"]``);
    ``version``, to be raised when the code gives other states (weights of a module and the version of its package are
    noticed, other changes of code are not); ``frame_ms`` (default: measured); ``padded`` (default false: the model is
    called with one utterance at a time; true: with zero-padded batches, and it must return valid frames and states
    that do not depend on the padding).

    Raises:
        SlimbenchError: the entry cannot be imported, lies beside the card or makes nothing that can be called, or the
            model gives no states.
    """

    def __init__(self, card: Card, device: str = "cpu") -> None:
        options = card.settings({"entry": "", "arguments": {}, "version": 1, **OPTIONS})
        entry = str(options["entry"])
        _check_installed(card, entry)
        with torch.random.fork_rng(devices=[]):
            model = resolve(entry)(card, device)
        if not callable(model):
            raise SlimbenchError(f"{card.file}: {entry} gives {type(model).__name__}, which cannot be called.")
        module = model.eval().to(device) if isinstance(model, nn.Module) else None
        super().__init__(card, device, model, module, _fingerprint(card, options, module), options)


def _check_installed(card: Card, entry: str) -> None:
    """Refuse an entry whose top package is a file or folder beside the card; nothing is imported for that."""
    package = entry.partition(":")[0].partition(".")[0]
    if not package or ":" not in entry:
        raise SlimbenchError(f"{card.file}: option entry is {entry!r}; write 'package.module:function'.")
    spec = importlib.util.find_spec(package)
    places = [] if spec is None else [*(spec.submodule_search_locations or []), *([spec.origin] if spec.origin else [])]
    here = card.file.absolute().parent.resolve()
    if any(place in {here / package, here / f"{package}.py"} for place in (Path(item).resolve() for item in places)):
        raise SlimbenchError(f"{card.file}: {package} lies beside the card; install it as a package.")


def _fingerprint(card: Card, options: Mapping[str, Any], module: nn.Module | None) -> str:
    names = packages_distributions().get(str(options["entry"]).partition(":")[0].partition(".")[0], [])
    return digest_json(
        {
            "adapter": "function",
            "version": VERSION,
            "packages": {name: version(name) for name in sorted(set(names))},
            "weights": None if card.weights is None else digest_weights(card.weights),
            "tensors": None if module is None else digest_tensors(module.float().state_dict()),
            "options": dict(options),
        }
    )
