"""The embedded suite with noise in the audio of its test split, made on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from downstreams.corpora import embedded
from downstreams.corpora.noisy import Recipe, fill
from downstreams.corpora.pieces import tables

RECIPE = Recipe()

digest = embedded.digest


def build(
    folder: Path,
    seed: int,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
    scale: float = 1.0,
) -> None:
    """Make the suite in ``folder``: the clean one first, of which train and dev stay.

    Args:
        folder: an existing, empty folder.
        seed: of the embedded suite.
        workers: processes that speak.
        progress: called as (files done, files in all), first for all speech, then for the noisy part.
        scale: factor on the number of voices, for tests.

    Raises:
        SlimbenchError: there is no room for it.
    """
    clean = folder / ".clean"
    clean.mkdir()
    embedded.build(clean, seed, workers, progress, scale)
    fill(clean, folder, RECIPE, tables(clean), {}, progress)
    shutil.rmtree(clean)
