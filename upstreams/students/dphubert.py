"""DPHuBERT and DPWavLM (arXiv 2305.17651): a base model with channels, heads, units and whole parts pruned away.

Format: ``state_dict`` under torchaudio's names, ``config`` with the arguments of the public code's model builder and,
in pruned models, ``distill_linear_projs`` (the maps to the teacher's layers, which no state depends on). Every layer
has its own number of heads and feed-forward units and may lack either part; a post-norm layer keeps both norms then, a
pre-norm one uses neither norm of a part that it lacks. WavLM's layers say which heads they kept
(``encoder_remaining_heads``), because gate and position bias are still those of all heads; the bias belongs to the
first layer's attention and goes with it. ``dummy_weight`` is what the pruning's soft mask left of the last
convolution's channels. torchaudio's own wav2vec 2.0 and HuBERT checkpoints in this form are read as well.

States: the projected features before the positional convolution, then every layer's output (the public code's
``extract_features``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from harness.cards import Card
from harness.interface import SlimbenchError
from upstreams.adapters.checkpoints import read_checkpoint
from upstreams.students.encoder import EncoderShape, LayerShape, Relative
from upstreams.students.frontend import WAV2VEC2, Convolution, FrontEnd, frame_ms, min_samples
from upstreams.students.settings import Settings
from upstreams.students.student import (
    Blueprint,
    Family,
    SpeechModel,
    projected_and_layers,
    renamed,
    tensors_under,
)

LAYER, OURS = r"encoder\.transformer\.layers\.(\d+)\.", r"encoder.layers.\1."
POSITION = r"encoder\.transformer\.pos_conv_embed\.conv\."
NAMES = (
    (r"feature_extractor\.conv_layers\.(\d+)\.conv\.", r"front.layers.\1.conv."),
    (r"feature_extractor\.conv_layers\.(\d+)\.layer_norm\.", r"front.layers.\1.norm."),
    (r"feature_extractor\.dummy_weight", "front.scale"),
    (r"encoder\.feature_projection\.layer_norm\.", "encoder.feature_norm."),
    (r"encoder\.feature_projection\.projection\.", "encoder.projection."),
    (POSITION + "weight_g", "encoder.position.conv.parametrizations.weight.original0"),
    (POSITION + "weight_v", "encoder.position.conv.parametrizations.weight.original1"),
    (POSITION, "encoder.position.conv."),
    (r"encoder\.transformer\.layer_norm\.", "encoder.norm."),
    (r"encoder\.transformer\.layers\.0\.attention\.rel_attn_embed\.weight", "encoder.relative.weight"),
    (LAYER + r"attention\.gru_rel_pos_linear\.", OURS + "attention.gate.linear."),
    (LAYER + r"attention\.gru_rel_pos_const", OURS + "attention.gate.scale"),
    (LAYER + r"attention\.q_proj\.", OURS + "attention.query."),
    (LAYER + r"attention\.k_proj\.", OURS + "attention.key."),
    (LAYER + r"attention\.v_proj\.", OURS + "attention.value."),
    (LAYER + r"attention\.out_proj\.", OURS + "attention.output."),
    (LAYER + r"layer_norm\.", OURS + "attention_norm."),
    (LAYER + r"feed_forward\.intermediate_dense\.", OURS + "up."),
    (LAYER + r"feed_forward\.output_dense\.", OURS + "down."),
    (LAYER + r"final_layer_norm\.", OURS + "output_norm."),
)
"""torchaudio's names in ours."""


def read(card: Card, file: Path) -> Blueprint:
    """The model in a checkpoint.

    Card option ``normalise``: bring each waveform to mean 0 and variance 1; by default what the configuration says
    (``normalize_waveform``, which torchaudio's own configurations lack).

    Raises:
        SlimbenchError: the file is no such checkpoint, or of a kind that is not supported.
    """
    checkpoint = Settings(file, read_checkpoint(file))
    config = checkpoint.part("config")
    shape, convolutions = shape_of(config)
    norm = {"group_norm": "group", "layer_norm": "layer"}[config.one_of("extractor_mode", ("group_norm", "layer_norm"))]
    bias = config.flag("extractor_conv_bias")
    state = renamed(tensors_under(checkpoint.part("state_dict").values), NAMES, drop=("aux.",), where=file)
    # Only pruning leaves factors behind: a teacher converted to this format has neither them nor the maps.
    scale = "front.scale" in state or "distill_linear_projs" in checkpoint.values
    return Blueprint(
        make=lambda: build(shape, convolutions, norm, bias, scale),
        state=_used(state, shape),
        settings={"exposes": "projected_and_layers"},  # the configuration is part of the file, so of its digest
        depth=len(shape.layers),
        width=shape.width,
        num_states=1 + len(shape.layers),
        frame_ms=frame_ms(convolutions),
        min_samples=min_samples(convolutions),
        normalise=_normalise(card, config),
    )


def build(
    shape: EncoderShape, convolutions: tuple[Convolution, ...], norm: str, bias: bool, scale: bool = True
) -> SpeechModel:
    """The module of a shape, without the parts that no state depends on."""
    model = SpeechModel(FrontEnd(convolutions, norm, bias, scale), shape, projected_and_layers)
    for path in _idle(shape):
        model.set_submodule(path, nn.Identity())
    return model


def _idle(shape: EncoderShape) -> list[str]:
    """Modules that no state depends on: the final norm of pre-norm models, and the norms of parts that were pruned."""
    if not shape.norm_first:
        return []
    found = ["encoder.norm"]
    for index, layer in enumerate(shape.layers):
        found += [f"encoder.layers.{index}.attention_norm"] * (not layer.heads)
        found += [f"encoder.layers.{index}.output_norm"] * (not layer.ffn)
    return found


def _used(state: Mapping[str, Tensor], shape: EncoderShape) -> dict[str, Tensor]:
    """The weights without those of idle modules, and without WavLM's gates where the position bias is pruned away."""
    unused = [f"{path}." for path in _idle(shape)]
    if shape.relative is None:
        unused += [f"encoder.layers.{i}.attention.gate." for i, layer in enumerate(shape.layers) if layer.kept]
    return {name: tensor for name, tensor in state.items() if not name.startswith(tuple(unused))}


def shape_of(config: Settings) -> tuple[EncoderShape, tuple[Convolution, ...]]:
    """Encoder and front end of a configuration.

    Raises:
        SlimbenchError: a value is missing or wrong, or the model still has the gates that pruning learns with.
    """
    for key, value in config.values.items():
        if "_prune_" in str(key) and value:
            raise SlimbenchError(
                f"{config.file} is from the middle of pruning ({key} is set); prune it with its own code first."
            )
    convolutions = config.convolutions("extractor_conv_layer_config", WAV2VEC2)
    width = config.integer("encoder_embed_dim", least=1)
    layers, relative = _layers(config, width)
    shape = EncoderShape(
        features=convolutions[-1].channels,
        width=width,
        layers=layers,
        position_kernel=config.integer("encoder_pos_conv_kernel", least=1),
        position_groups=config.integer("encoder_pos_conv_groups", least=1),
        norm_first=config.flag("encoder_layer_norm_first"),
        relative=relative,
    )
    return shape, convolutions


def _layers(config: Settings, width: int) -> tuple[tuple[LayerShape, ...], Relative | None]:
    """The layers from the input up, and WavLM's position bias where the model has one."""
    depth = config.integer("encoder_num_layers", least=1)
    attends = _per_layer(config, "encoder_use_attention", depth, _is_flag, [True] * depth)
    feeds = _per_layer(config, "encoder_use_feed_forward", depth, _is_flag, [True] * depth)
    units = _per_layer(config, "encoder_ff_interm_features", depth, _is_count)
    ffn = [count if used else 0 for count, used in zip(units, feeds, strict=True)]
    if "encoder_remaining_heads" not in config.values:
        heads = _per_layer(config, "encoder_num_heads", depth, _is_count)
        size = config.integer("encoder_head_dim", width // max(1, *heads), least=1)
        rows = zip(heads, attends, ffn, strict=True)
        return tuple(LayerShape(count * used, size, inner) for count, used, inner in rows), None
    total = _total_heads(config, depth, width)
    kept = _per_layer(config, "encoder_remaining_heads", depth, lambda value: _is_choice(value, total))
    layers = tuple(
        LayerShape(len(ids), width // total, inner, kept=tuple(ids)) if used else LayerShape(0, width // total, inner)
        for ids, used, inner in zip(kept, attends, ffn, strict=True)
    )
    buckets = config.integer("encoder_num_buckets", least=4)
    distance = config.integer("encoder_max_distance", least=buckets // 4 + 1)
    return layers, Relative(total, buckets, distance, gated=True) if layers[0].heads else None


def _total_heads(config: Settings, depth: int, width: int) -> int:
    """Heads of every layer before pruning; one position bias serves all layers, so they must be equal."""
    totals = set(_per_layer(config, "encoder_total_num_heads", depth, _is_count))
    total = totals.pop()
    if totals or total < 1 or width % total:
        raise SlimbenchError(
            f"{config.file}: encoder_total_num_heads must be one divisor of the width {width} for all layers."
        )
    return int(total)


def _per_layer(
    config: Settings, key: str, depth: int, fits: Callable[[object], bool], default: list[Any] | None = None
) -> list[Any]:
    """A list with a value for each layer; torchaudio writes one value for all."""
    value = config.values.get(key, default)
    if value is None:
        raise SlimbenchError(f"{config.file} lacks config.{key}; it is not the expected kind of checkpoint.")
    found = list(value) if isinstance(value, list | tuple) else [value] * depth
    if len(found) != depth or not all(map(fits, found)):
        raise SlimbenchError(
            f"{config.file}: config.{key} is {value!r}, which does not fit {depth} layers; "
            "take the file from its source again."
        )
    return found


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_choice(value: object, total: int) -> bool:
    """Whether it is a list of different heads out of ``total``."""
    if not isinstance(value, list | tuple) or not all(_is_count(head) and head < total for head in value):
        return False
    return len(set(value)) == len(value)


def _normalise(card: Card, config: Settings) -> bool:
    option = card.settings({"normalise": None})["normalise"]
    if option is None:
        if "normalize_waveform" not in config.values:
            raise SlimbenchError(
                f"{config.file} does not say whether waveforms are normalised; set option normalise in {card.file}."
            )
        return config.flag("normalize_waveform")
    if not isinstance(option, bool):
        raise SlimbenchError(f"{card.file}: option normalise is {option!r}; write true or false, without quotes.")
    return option


def recognise(path: Path, checkpoint: Mapping[str, Any]) -> dict[str, object] | None:
    """The card's fields for a checkpoint of this family, or nothing."""
    config = checkpoint.get("config")
    if not isinstance(config, Mapping) or "extractor_conv_layer_config" not in config or "state_dict" not in checkpoint:
        return None
    shape, convolutions = shape_of(Settings(path, config, "config"))
    open_options = {"normalise": "TODO true or false, without quotes, as in pre-training"}
    return {
        "adapter": "upstreams.students.dphubert:adapter",
        "family": "dphubert",
        "depth": len(shape.layers),
        "width": shape.width,
        "exposes": "projected features before the positional convolution and the output of every layer, "
        f"{frame_ms(convolutions):g} ms",
        "options": {} if "normalize_waveform" in config else open_options,
    }


adapter = Family("dphubert", read)
