"""Where a record comes from: versions of the code, of Python and of the packages that touch numbers."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "scipy", "scikit-learn", "jiwer", "soundfile", "soxr", "safetensors", "transformers", "torchaudio")
"""Packages besides torch whose version a record names."""


def gather() -> dict[str, Any]:
    """The provenance of a result that is made now.

    ``git_commit`` is ``None`` where the code does not run from a checkout; ``dirty`` tells of uncommitted changes.
    """
    commit = _git("rev-parse", "HEAD")
    return {
        "slimbench": _version("slimbench"),
        "git_commit": commit,
        "dirty": None if commit is None else bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "torch": _version("torch"),
        "platform": platform.platform(),
        "processor": _processor(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    """The processor's model, which timings depend on."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
