"""ARMHuBERT, ARMWavLM, MaskHuBERT (arXiv 2305.11685) and STaRHuBERT (arXiv 2312.09040): thin and deep at 20 ms.

A thin front end, layers of which some take the attention map of an earlier one and have neither queries nor keys, and
on every layer a head, a linear map to the teacher's width. MaskHuBERT reuses no map; STaRHuBERT has no heads either.

The public code hands on the map after its softmax, and a layer that reuses it applies the softmax again. The values of
a map lie between 0 and 1, so that the weights of one query in such a layer differ at most by the factor e. Its
training runs the same code. In a padded batch the public code also mixes up the maps of utterances; ours never does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.cards import Card
from harness.interface import SlimbenchError
from upstreams.adapters.checkpoints import read_checkpoint
from upstreams.students.layerwise import Architecture, architecture, blueprint, drafted, read_config, read_student
from upstreams.students.settings import Settings
from upstreams.students.student import Blueprint, Family

_LIST = r"\[\s*(?:True|False)(?:\s*,\s*(?:True|False))*\s*\](?:\s*\*\s*\d{1,3})?"


def read(card: Card, file: Path) -> Blueprint:
    """The student in a checkpoint. For card options see :data:`upstreams.students.layerwise.OPTIONS`.

    Raises:
        SlimbenchError: the file is no such checkpoint, or of a kind that is not supported.
    """
    checkpoint = read_checkpoint(file)
    state = read_student(file, checkpoint)
    return blueprint(card, file, plan_of(read_config(card, file, checkpoint)), state)


def plan_of(config: Settings) -> Architecture:
    """The student that a configuration describes.

    Raises:
        SlimbenchError: it reduces time, or its pattern of reused maps cannot be read.
    """
    if config.flag("enable_tr_layer", False):
        raise SlimbenchError(f"{config.file} describes a student with time reduction; set the adapter of fithubert.")
    return architecture(config, own_maps_of(config))


def own_maps_of(config: Settings) -> list[bool] | None:
    """Per layer, whether it computes its attention map; ``None`` where the configuration does not say, so that all do.

    The pattern is a list, or text such as ``[True, False] * 6``, which is not evaluated.
    """
    pattern = config.values.get("reuse_pattern")
    if pattern is None:
        return None
    if isinstance(pattern, list) and all(isinstance(own, bool) for own in pattern):
        return pattern
    if not (
        isinstance(pattern, str) and len(pattern) < 1000 and re.fullmatch(rf"\s*{_LIST}(\s*\+\s*{_LIST})*\s*", pattern)
    ):
        raise SlimbenchError(
            f"{config.file}: {config.path}.reuse_pattern is {str(pattern)[:80]!r}; it must be like '[True, False] * 6'."
        )
    found: list[bool] = []
    for part, times in re.findall(r"\[([^\]]*)\](?:\s*\*\s*(\d+))?", pattern):
        found += [word == "True" for word in re.findall("True|False", part)] * int(times or 1)
    return found


def recognise(path: Path, checkpoint: Mapping[str, Any]) -> dict[str, object] | None:
    """A card's fields if this checkpoint is an ARMHuBERT, MaskHuBERT or STaRHuBERT, else ``None``."""
    return drafted("armhubert", path, checkpoint, reduced=False)


adapter = Family("armhubert", read)
