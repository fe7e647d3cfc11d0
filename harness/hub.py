"""Models in the local Hugging Face cache, by name and commit. They are looked for; nothing is downloaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_name(hub: object) -> bool:
    """Whether it is ``name`` or ``owner/name``."""
    return isinstance(hub, str) and _NAME.fullmatch(hub) is not None


def is_commit(revision: object) -> bool:
    """Whether it is a commit, 40 hexadecimal digits, which cannot come to stand for something else."""
    return isinstance(revision, str) and _COMMIT.fullmatch(revision) is not None


def cache() -> Path:
    """The folder of the cache, as ``HF_HUB_CACHE`` and ``HF_HOME`` say."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def folder(options: Mapping[str, Any]) -> Path | None:
    """Where the cache keeps the model that the options ``hub`` and ``revision`` of a card name, whether it is there or
    not; ``None`` where they name none.
    """
    hub, revision = options.get("hub"), options.get("revision")
    if not is_name(hub) or not is_commit(revision):
        return None
    return cache() / f"models--{str(hub).replace('/', '--')}" / "snapshots" / str(revision)


def fetching(options: Mapping[str, Any]) -> str:
    """The command that fetches the model."""
    return f"hf download {options['hub']} --revision {options['revision']}"
