"""Content keys: SHA-256 digests of bytes, files, JSON-able objects and tensors. A name is never a key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.interface import SlimbenchError

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT_PATTERNS = ("*.safetensors", "pytorch_model*.bin")
"""What counts as a weight file in a model folder; the first pattern that matches anything is taken."""


def digest_bytes(data: bytes) -> str:
    """SHA-256 of ``data`` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes as 64 hexadecimal digits.

    Raises:
        SlimbenchError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise SlimbenchError(f"Cannot read {path}: {error.strerror or error}; check the path.") from error


def digest_json(value: Any) -> str:
    """SHA-256 of a JSON-able value in canonical form: sorted keys, no spaces, UTF-8, no NaN.

    >>> digest_json({"a": 1, "b": [2, 3]}) == digest_json({"b": (2, 3), "a": 1})
    True

    Raises:
        TypeError: a part of the value has no JSON form.
        ValueError: a number is NaN or infinite.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return digest_bytes(text.encode())


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors: names, dtypes, shapes and bytes, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].detach().cpu().contiguous().numpy()
        total.update(json.dumps([name, str(array.dtype), list(array.shape)]).encode())
        total.update(array.tobytes())
    return total.hexdigest()


def weight_files(weights: Path) -> list[Path]:
    """The files that hold a model's weights: ``weights`` itself, or the weight files of a model folder."""
    if not weights.is_dir():
        return [weights]
    for pattern in WEIGHT_PATTERNS:
        if found := sorted(weights.glob(pattern)):
            return found
    return []


def digest_weights(weights: Path) -> str:
    """SHA-256 of a weight file; of a model folder, that of its weight file, or of the list of its shards' digests.

    Raises:
        SlimbenchError: there is no weight file in the folder, or a file cannot be read.
    """
    files = weight_files(weights)
    if not files:
        raise SlimbenchError(
            f"No weight file ({' or '.join(WEIGHT_PATTERNS)}) in {weights}; copy the model's files there."
        )
    if len(files) == 1:
        return digest_file(files[0])
    return digest_json({file.name: digest_file(file) for file in files})
