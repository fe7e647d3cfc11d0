"""TorchScript archives and ``torch.export`` files as upstreams. Both are programs: run only files that you trust.

The model takes ``(waves, lengths)``, waves (B, S) float32 at 16 kHz and lengths (B,) int64 valid samples, and returns a
list of states (B, T, D), or ``(states, frames)`` with valid frames (B,). It is called with one utterance at a time
(B = 1, any S) unless the card says ``padded: true``.

What a file can do, and why the card must pin it (``sha256``):

* **TorchScript** (any suffix but ``.pt2``). Its code runs in the TorchScript interpreter, when it is loaded and when it
  is called. That code reaches no Python, shell or network, but every registered operator: among them ``from_file``,
  which opens a path of its choosing with the user's rights and can create and overwrite files, and it can use up
  memory and time.
* **torch.export** (``.pt2``). ``torch.export.load`` unpickles parts of the file without restriction and evaluates
  expressions in it, so that a file can run any code as soon as it is loaded. PyTorch itself warns of that.

A pinned digest does not make a program harmless. It says that this very file, which somebody chose to trust, is run
and no other. The bytes that are checked are the bytes that are loaded.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.cards import Card
from harness.identity import digest_bytes, digest_json
from harness.interface import SlimbenchError
from upstreams.adapters.called import OPTIONS, Called

VERSION = 1


class Exported(Called):
    """A TorchScript or ``torch.export`` file as an upstream.

    Card options: ``frame_ms`` (default: measured) and ``padded`` (default false; true: the model is called with
    zero-padded batches, and it must return valid frames and states that do not depend on the padding).

    Raises:
        SlimbenchError: the file is missing, damaged, not pinned or not the pinned one, or it gives no states.
    """

    def __init__(self, card: Card, device: str = "cpu") -> None:
        options = card.settings(OPTIONS)
        data = _pinned(card)
        module = (_exported if _is_export(card) else _scripted)(card, data, device)
        identity = {"adapter": "exported", "version": VERSION, "weights": card.sha256, "options": options}
        super().__init__(card, device, module, module, digest_json(identity), options)


def _is_export(card: Card) -> bool:
    return card.weights is not None and card.weights.suffix == ".pt2"


def _pinned(card: Card) -> bytes:
    """The bytes of the card's file, which must be the ones that it pins."""
    file: Path | None = card.weights
    if file is None:
        raise SlimbenchError(f"{card.file}: field 'weights' is missing; name the file.")
    kind = (
        "a torch.export file, which can run any code when it is loaded" if _is_export(card) else "a TorchScript program"
    )
    if card.sha256 is None:
        raise SlimbenchError(
            f"{file} is {kind}: if you trust it, pin it by its SHA-256 in the field 'sha256' of {card.file} "
            "(harness.registry.pin does that)."
        )
    try:
        data = file.read_bytes()
    except OSError as error:
        raise SlimbenchError(f"Cannot read {file}: {error.strerror or error}; check the path.") from error
    if (digest := digest_bytes(data)) != card.sha256:
        raise SlimbenchError(
            f"{file} has SHA-256 {digest}, but its card {card.file} says {card.sha256}; it is not run."
        )
    return data


def _scripted(card: Card, data: bytes, device: str) -> nn.Module:
    try:
        module: nn.Module = torch.jit.load(io.BytesIO(data), map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, EOFError) as error:
        raise _damaged(card, "TorchScript", error) from error
    return module.eval()


def _exported(card: Card, data: bytes, device: str) -> nn.Module:
    try:
        program: Any = torch.export.load(io.BytesIO(data))
        if torch.device(device).type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        module: nn.Module = program.module()
    except Exception as error:  # a damaged archive fails in many ways
        raise _damaged(card, "torch.export", error) from error
    for part in module.modules():  # exported in eval mode or not, it cannot be switched; this is the flag alone
        part.training = False
    return module


def _damaged(card: Card, kind: str, error: Exception) -> SlimbenchError:
    reason = " ".join(str(error).split())[:200].rstrip(".")
    return SlimbenchError(f"{card.weights} cannot be read as a {kind} file ({reason}); export it again.")
