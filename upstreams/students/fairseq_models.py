"""Checkpoints of fairseq's wav2vec 2.0 and HuBERT and of what grew out of them: ILS-SSL, WavLM, UniSpeech-SAT.

Formats: what fairseq writes (``cfg`` or, older, ``args``, and ``model``), what s3prl converts it to (``model_cfg``,
``task_cfg``, ``model_weight``), and what Microsoft publishes of WavLM (a flat ``cfg``, and ``model``). States are those
that SUPERB takes: the input of every layer and the output of the encoder.

ILS-SSL (arXiv 2112.08778) is HuBERT with relative positions and predictions from several layers. Its encoder leaves out
the final norm of pre-norm models, because the predictions have norms of their own; so do its states here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import nn

from harness.cards import Card
from harness.interface import SlimbenchError
from upstreams.adapters.checkpoints import read_checkpoint
from upstreams.students.layout import Layout, layout_of, with_relative_positions
from upstreams.students.settings import Settings
from upstreams.students.student import (
    FAIRSEQ,
    Blueprint,
    Family,
    SpeechModel,
    inputs_and_final,
    renamed,
    tensors_under,
)

EXPOSES = "input of every layer and the output of the encoder, 20 ms"


@dataclass(frozen=True)
class Kind:
    """What tells one kind of model from another in these checkpoints.

    Attributes:
        attribute: of this module that cards name.
        names: what ``_name`` or ``arch`` may say where the configuration has one.
        heads: weights of the pre-training, of which no state depends.
        relative: what ``relative_position_embedding`` and ``gru_rel_pos`` must say, ``None`` where it may be either.
        several: whether it predicts from several layers, so that ``predict_layers`` must be there, or must not.
        flat: whether it is also published with a flat ``cfg``, which says no name.
    """

    attribute: str
    names: tuple[str, ...]
    heads: tuple[str, ...]
    relative: tuple[bool, bool] | None = (False, False)
    several: bool = False
    flat: bool = False


_UNITS = ("mask_emb", "final_proj.", "label_embs_concat", "target_glu.")
KINDS = {
    "wav2vec2": Kind("wav2vec2", ("wav2vec2",), ("mask_emb", "quantizer.", "project_q.", "final_proj.", "target_glu.")),
    "hubert": Kind("hubert", ("hubert",), _UNITS),
    "wavlm": Kind("wavlm", ("wavlm",), _UNITS, relative=(True, True), flat=True),
    "unispeech-sat": Kind("unispeech_sat", ("unispeech_sat",), ("mask_emb",), flat=True),
    "ils": Kind("ils", ("ils_hubert",), (*_UNITS, "post_layer_norm.", "weights"), relative=None, several=True),
}
"""Kinds of models by the family that cards say."""


@dataclass(frozen=True)
class Parts:
    """A checkpoint taken apart: its name where it says one, settings of the model and of its task, weights.

    ``flat`` says that settings of model and task are one mapping under ``cfg``.
    """

    name: str | None
    model: Settings
    task: Settings
    weights: Settings
    flat: bool

    @classmethod
    def of(cls, checkpoint: Settings) -> Parts:
        """Take apart any of the formats.

        Raises:
            SlimbenchError: it is none of them.
        """
        values, flat = checkpoint.values, False
        if "model_weight" in values:
            model, task, weights = (checkpoint.part(key) for key in ("model_cfg", "task_cfg", "model_weight"))
        elif isinstance(values.get("cfg"), Mapping):
            model = task = checkpoint.part("cfg")
            flat = not isinstance(model.values.get("model"), Mapping)
            if not flat:
                model, task = model.part("model"), model.part("task")
            weights = checkpoint.part("model")
        elif isinstance(values.get("args"), Mapping):
            model = task = checkpoint.part("args")
            weights = checkpoint.part("model")
        else:
            raise SlimbenchError(f"{checkpoint.file} has no settings of a model; it is no checkpoint of fairseq.")
        name = model.values.get("_name") or model.values.get("arch")
        return cls(name if isinstance(name, str) else None, model, task, weights, flat)


def belongs(parts: Parts, kind: Kind) -> bool:
    """Whether the settings of a checkpoint are those of a kind of model."""
    said = tuple(parts.model.values.get(key) is True for key in ("relative_position_embedding", "gru_rel_pos"))
    return (
        (parts.name is None or parts.name in kind.names)
        and (kind.flat or not parts.flat)
        and kind.relative in (None, said)
        and ("predict_layers" in parts.model.values) == kind.several
    )


def layout(model: Settings) -> Layout:
    """Front end and encoder of a model's settings.

    Raises:
        SlimbenchError: they say something that is not supported.
    """
    if model.flag("quantize_input", False):
        raise SlimbenchError(f"{model.file}: a model with quantised input is not supported.")
    for key, value in (("expand_attention_head_size", -1), ("crop_seq_to_multiple", 1)):
        if model.integer(key, value) != value:
            raise SlimbenchError(f"{model.file}: {key} is {model.values[key]}; only {value} is supported.")
    return with_relative_positions(layout_of(model), model, 800 if "predict_layers" in model.values else 1280)


def build(layout: Layout, final_norm: bool = True) -> nn.Module:
    """The model; ``final_norm`` says whether a pre-norm encoder's output is normed."""
    model = SpeechModel(layout.front(), layout.encoder, inputs_and_final)
    if not final_norm:
        model.encoder.register_module("norm", nn.Identity())
    return model


def read(family: str, card: Card, file: Path) -> Blueprint:
    """The model in a checkpoint of a family.

    Raises:
        SlimbenchError: the file is no such checkpoint, or of another family, or of a kind that is not supported.
    """
    card.settings({})
    kind, parts = KINDS[family], Parts.of(Settings(file, read_checkpoint(file)))
    if not belongs(parts, kind):
        others = " or ".join(name for name, other in KINDS.items() if belongs(parts, other))
        raise SlimbenchError(
            f"{file} is not of family {family} but {others or parts.name or 'unknown'}; correct adapter and family of "
            f"{card.file}."
        )
    shape = layout(parts.model)
    final_norm = not (kind.several and shape.encoder.norm_first)
    heads = kind.heads if final_norm else (*kind.heads, "encoder.layer_norm.")
    depth = len(shape.encoder.layers)
    return Blueprint(
        make=lambda: build(shape, final_norm),
        state=renamed(tensors_under(parts.weights.values), FAIRSEQ, heads, file),
        settings={"layout": shape.facts(), "final_norm": final_norm},
        depth=depth,
        width=shape.encoder.width,
        num_states=depth + 1,
        frame_ms=shape.frame_ms,
        min_samples=shape.min_samples,
        normalise=parts.task.flag("normalize", False),
    )


def recognise(path: Path, checkpoint: Mapping[str, object]) -> dict[str, object] | None:
    """The fields of a card for a checkpoint of one of these families, ``None`` for any other.

    Raises:
        SlimbenchError: it is of one of them, but of a kind that is not supported.
    """
    if not ({"model_cfg", "model_weight"} <= checkpoint.keys() or "model" in checkpoint):
        return None
    try:
        parts = Parts.of(Settings(path, checkpoint))
    except SlimbenchError:
        return None
    families = [family for family, kind in KINDS.items() if belongs(parts, kind)]
    joined = parts.model.values.get("subsample", "none") != "none"  # once-for-all compression, another family
    if len(families) != 1 or joined or (parts.name is None and not parts.flat):
        return None
    family = families[0]
    shape = layout(parts.model).encoder
    return {
        "adapter": f"upstreams.students.fairseq_models:{KINDS[family].attribute}",
        "family": family,
        "depth": len(shape.layers),
        "width": shape.width,
        "exposes": EXPOSES,
    }


def _family(name: str) -> Family:
    reader: Callable[[Card, Path], Blueprint] = partial(read, name)
    return Family(name, reader)


wav2vec2, hubert, wavlm = _family("wav2vec2"), _family("hubert"), _family("wavlm")
unispeech_sat, ils = _family("unispeech-sat"), _family("ils")
