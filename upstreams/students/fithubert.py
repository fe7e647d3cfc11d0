"""FitHuBERT and FitW2V2 (arXiv 2207.00555): thin and deep, with layers at 40 ms and heads that go back to 20 ms.

A thin front end, a convolution that joins two frames into one before the first layer, and on every layer a head: a
transposed convolution that makes two frames of one, then a linear map to the teacher's width. A last frame without a
partner is left out, so that an utterance of an odd number of frames loses one. The public code does the same, with
padding to an even number (``required_seq_len_multiple``) and without: the padded pair is masked and cut off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from harness.cards import Card
from harness.interface import SlimbenchError
from upstreams.adapters.checkpoints import read_checkpoint
from upstreams.students.layerwise import Architecture, architecture, blueprint, drafted, read_config, read_student
from upstreams.students.settings import Settings
from upstreams.students.student import Blueprint, Family


def read(card: Card, file: Path) -> Blueprint:
    """The student in a checkpoint. For card options see :data:`upstreams.students.layerwise.OPTIONS`.

    Raises:
        SlimbenchError: the file is no such checkpoint, or of a kind that is not supported.
    """
    checkpoint = read_checkpoint(file)
    state = without_reduction(read_student(file, checkpoint))
    return blueprint(card, file, plan_of(read_config(card, file, checkpoint)), state)


def plan_of(config: Settings) -> Architecture:
    """The student that a configuration describes.

    Raises:
        SlimbenchError: it has no time reduction, or one of another kind or at another place.
    """
    if not config.flag("enable_tr_layer", True):
        raise SlimbenchError(f"{config.file} describes a student without time reduction, which is no FitHuBERT.")
    config.one_of("tr_layer_type", ("conv1d",), "fc1")
    factor = config.integer("tr_reduce_factor", 2, least=2)
    if factor > 100:
        raise SlimbenchError(f"{config.file}: {config.path}.tr_reduce_factor larger than 100 is not supported.")
    multiple = config.integer("required_seq_len_multiple", 2, least=1)
    if config.integer("tr_layer_index", 1) != 0:
        raise SlimbenchError(f"{config.file}: {config.path}.tr_layer_index other than 0 is not supported.")
    if multiple > 2 or (multiple == 2 and factor != 2):  # the public code would cut off frames of the utterance itself
        raise SlimbenchError(
            f"{config.file}: {config.path}.required_seq_len_multiple {multiple} is not supported with time reduction "
            f"by {factor}."
        )
    return architecture(config, reduce=factor)


def without_reduction(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stored weights with the reducing convolution, entry 0 of the list of layers, as a weight of the encoder."""
    found = {}
    for name, tensor in state.items():
        layer = re.match(r"encoder\.layers\.(\d{1,4})\.", name)
        if layer is None:
            found[name] = tensor
        elif int(layer[1]) == 0:
            found["encoder.reduction." + name[layer.end() :]] = tensor
        else:
            found[f"encoder.layers.{int(layer[1]) - 1}." + name[layer.end() :]] = tensor
    return found


def recognise(path: Path, checkpoint: Mapping[str, Any]) -> dict[str, object] | None:
    """A card's fields if this checkpoint is a FitHuBERT, else ``None``."""
    return drafted("fithubert", path, checkpoint, reduced=True)


adapter = Family("fithubert", read)
