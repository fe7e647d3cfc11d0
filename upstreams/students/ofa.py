"""Once-for-all sequence compression (arXiv 2211.02332): one model whose frame period is chosen when it runs.

Format: the fairseq checkpoint of the author's wav2vec 2.0 (``cfg`` or ``args`` with the model's settings, ``model``).
Between the normed features of the front end and the encoder, integrate-and-fire joins frames to segments; the encoder
runs on segments. States are those that SUPERB takes of wav2vec 2.0: the input of every layer, the encoder's output.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from harness.cards import Card
from harness.interface import SlimbenchError
from upstreams.adapters.checkpoints import read_checkpoint
from upstreams.students import cif
from upstreams.students.encoder import Encoder
from upstreams.students.fairseq_models import Parts
from upstreams.students.layout import Layout, layout_of
from upstreams.students.settings import Settings
from upstreams.students.student import FAIRSEQ, Blueprint, Family, inputs_and_final, renamed, tensors_under

NAMES = (
    (r"layer_norm\.", "feature_norm."),
    (r"cif_subsampler\.alpha_fn\.cnn\.", "weights.conv."),
    (r"cif_subsampler\.alpha_fn\.layer\.0\.", "weights.norm."),
    (r"cif_subsampler\.alpha_fn\.layer\.2\.", "weights.linear."),
    *FAIRSEQ,
)
HEADS = ("mask_emb", "quantizer.", "project_q.", "final_proj.", "target_glu.")
"""Weights of the pre-training, of which no state depends."""


class OnceForAll(nn.Module):
    """The model at one compression.

    Args:
        layout: front end and encoder, without a norm of the features, which is done before the compression here.
        lam: compression, see :func:`upstreams.students.cif.mixed`.
        repeat: give states on the front end's grid, each segment repeated over its frames, instead of one per segment.
    """

    def __init__(self, layout: Layout, lam: float, repeat: bool) -> None:
        super().__init__()
        self.front = layout.front()
        self.feature_norm = nn.LayerNorm(layout.encoder.features)
        self.weights = cif.Weights(layout.encoder.features)
        self.encoder = Encoder(layout.encoder)
        self.lam, self.repeat = lam, repeat

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """Waveforms (B, S) with (B,) valid samples to states (B, T, width) and (B,) valid frames or segments."""
        features, frames = self.front(waves, lengths)
        features = self.feature_norm(features)
        end = cif.ends(cif.mixed(self.weights(features, frames), self.lam), frames)
        joined, segments = cif.fire(features, end)
        states, counts = inputs_and_final(self.encoder(joined, segments))
        if not self.repeat:
            return list(states), counts
        place = cif.segment_of(end, segments)[..., None]
        return [state.gather(1, place.expand(-1, -1, state.shape[-1])) for state in states], frames


def compression(card: Card) -> tuple[float, bool]:
    """What the card chooses: ``lam`` (0 to 2) or ``period_ms`` (20 to 90), and ``repeat`` (default false).

    Raises:
        SlimbenchError: both or neither of ``lam`` and ``period_ms`` are set, or one is out of range.
    """
    options = card.settings({"lam": None, "period_ms": None, "repeat": False})
    given = [name for name in ("lam", "period_ms") if options[name] is not None]
    if len(given) != 1:
        raise SlimbenchError(f"{card.file}: set one of the options lam (0 to 2) and period_ms (20 to 90), not {given}.")
    value, most, least = options[given[0]], *((2, 0) if given == ["lam"] else (90, 20))
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise SlimbenchError(f"{card.file}: option {given[0]} is {value!r}; write a number from {least} to {most}.")
    return float(value) if given == ["lam"] else cif.lambda_of(float(value)), bool(options["repeat"])


def read(card: Card, file: Path) -> Blueprint:
    """The model in a checkpoint, at the compression that the card chooses.

    Raises:
        SlimbenchError: the file is no such checkpoint, or of a kind that is not supported.
    """
    lam, repeat = compression(card)
    parts = Parts.of(Settings(file, read_checkpoint(file)))
    config = parts.model
    if config.one_of("subsample", ("none", "fixed", "cif"), "none") != "cif" or not config.flag("mixup", False):
        raise SlimbenchError(f"{file}: subsample and mixup do not say once-for-all compression; use another adapter.")
    layout = layout_of_model(config)
    depth = len(layout.encoder.layers)
    period = cif.period_of(min(lam, 1.0))
    return Blueprint(
        make=lambda: OnceForAll(layout, lam, repeat),
        state=renamed(tensors_under(parts.weights.values), NAMES, HEADS, file),
        settings={"model": plain(config.values), "lam": lam, "repeat": repeat},
        depth=depth,
        width=layout.encoder.width,
        num_states=depth + 1,
        frame_ms=layout.frame_ms if repeat else period,
        min_samples=layout.min_samples,
        normalise=parts.task.flag("normalize", False),
        variable_rate=not repeat,
    )


def layout_of_model(config: Settings) -> Layout:
    """Front end and encoder of a model's settings; the features' norm stands before the compression.

    Raises:
        SlimbenchError: they say something that is not supported.
    """
    if config.flag("quantize_input", False):
        raise SlimbenchError(f"{config.file}: a model with quantised input is not supported.")
    return layout_of(config, feature_norm=False)


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide shapes; others (losses, dropout, paths) change no state."""
    keys = ("extractor_mode", "conv_feature_layers", "layer_norm_first", "activation_fn", "conv_pos", "conv_pos_groups")
    return {key: values[key] for key in values if key in keys or key.startswith("encoder_")}


def recognise(path: Path, checkpoint: Mapping[str, Any]) -> dict[str, object] | None:
    """The card's fields for a checkpoint of this family, or nothing."""
    weights = checkpoint.get("model")
    if not isinstance(weights, Mapping) or not any(str(name).startswith("cif_subsampler.") for name in weights):
        return None
    shape = layout_of_model(Parts.of(Settings(path, checkpoint)).model).encoder
    return {
        "adapter": "upstreams.students.ofa:adapter",
        "family": "ofa",
        "depth": len(shape.layers),
        "width": shape.width,
        "exposes": "input of every layer and the output of the encoder, one frame per segment",
        "options": {"period_ms": 45},
    }


adapter = Family("ofa", read)
