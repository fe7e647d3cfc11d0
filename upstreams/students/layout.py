"""Front end and encoder as fairseq's wav2vec 2.0 and all that is built on its code describe them in a configuration."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from harness.interface import SlimbenchError
from upstreams.students.encoder import EncoderShape, Relative, uniform
from upstreams.students.frontend import WAV2VEC2, Convolution, FrontEnd, frame_ms, min_samples
from upstreams.students.settings import Settings

NORMS = {"default": "group", "layer_norm": "layer"}
"""What ``extractor_mode`` says, in terms of :class:`upstreams.students.frontend.FrontEnd`."""
MOST_LAYERS, MOST_UNITS = 200, 100_000
"""Larger numbers in a configuration are taken for damage."""


@dataclass(frozen=True)
class Layout:
    """A waveform front end and the encoder behind it.

    Attributes:
        convolutions: of the front end.
        norm: of the front end, ``group`` or ``layer``.
        bias: whether its convolutions have a bias.
        encoder: the encoder.
    """

    convolutions: tuple[Convolution, ...]
    norm: str
    bias: bool
    encoder: EncoderShape

    def front(self) -> FrontEnd:
        """The front end with weights to be loaded."""
        return FrontEnd(self.convolutions, self.norm, self.bias)

    @property
    def frame_ms(self) -> float:
        """Time between two frames in milliseconds."""
        return frame_ms(self.convolutions)

    @property
    def min_samples(self) -> int:
        """Fewest samples that give one frame."""
        return min_samples(self.convolutions)

    def facts(self) -> dict[str, Any]:
        """All of it as plain data, for fingerprints."""
        return asdict(self)


def layout_of(
    config: Settings, convolutions: str = "conv_feature_layers", feature_norm: bool = True, depth: int = 12
) -> Layout:
    """The layout that a configuration describes.

    Args:
        config: the settings of the model.
        convolutions: the key of the front end's layers.
        feature_norm: whether the front end's output is layer-normed.
        depth: layers where the configuration does not say.

    Raises:
        SlimbenchError: a value is of the wrong type, out of range, or says what is not supported.
    """
    config.one_of("activation_fn", ("gelu",), "gelu")
    config.one_of("layer_type", ("transformer",), "transformer")
    if config.integer("pos_conv_depth", 1) != 1:
        raise SlimbenchError(f"{config.file}: pos_conv_depth is {config.integer('pos_conv_depth')}; 1 is supported.")
    front = config.convolutions(convolutions, WAV2VEC2)
    width = _size(config, "encoder_embed_dim", 768)
    layers = _size(config, "encoder_layers", depth, MOST_LAYERS)
    heads, ffn = _part(config, "encoder_attention_heads", 12, width), _size(config, "encoder_ffn_embed_dim", 3072)
    shape = EncoderShape(
        features=front[-1].channels,
        width=width,
        layers=uniform(layers, width, heads, ffn),
        feature_norm=feature_norm,
        project=front[-1].channels != width,
        position_kernel=_size(config, "conv_pos", 128),
        position_groups=_part(config, "conv_pos_groups", 16, width),
        norm_first=config.flag("layer_norm_first", False),
    )
    norm = NORMS[config.one_of("extractor_mode", tuple(NORMS), "default")]
    return Layout(front, norm, config.flag("conv_bias", False), shape)


def with_relative_positions(layout: Layout, config: Settings, max_distance: int) -> Layout:
    """The layout with the relative positions that a configuration asks for, as it is where it asks for none.

    Args:
        layout: of the model without them.
        config: the settings of the model.
        max_distance: farthest distance where the configuration does not say.
    """
    if not config.flag("relative_position_embedding", False):
        return layout
    buckets = config.integer("num_buckets", 320, least=4)
    farthest = _size(config, "max_distance", max_distance)
    if buckets % 4 or buckets // 4 >= farthest:
        raise SlimbenchError(
            f"{config.file}: num_buckets {buckets} and max_distance {farthest} do not fit together; take the file from "
            "its source again."
        )
    relative = Relative(layout.encoder.layers[0].heads, buckets, farthest, config.flag("gru_rel_pos", False))
    return replace(layout, encoder=replace(layout.encoder, relative=relative))


def _size(config: Settings, key: str, default: int, most: int = MOST_UNITS) -> int:
    value = config.integer(key, default, least=1)
    if value > most:
        raise SlimbenchError(f"{config.file}: {key} is {value}, at most {most} is supported; copy the file again.")
    return value


def _part(config: Settings, key: str, default: int, whole: int) -> int:
    value = _size(config, key, default)
    if whole % value:
        raise SlimbenchError(f"{config.file}: {key} {value} does not divide width {whole}; copy the file again.")
    return value
