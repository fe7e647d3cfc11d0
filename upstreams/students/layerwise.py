"""What FitHuBERT and ARMHuBERT have in common: their checkpoints, and a student with a head on every layer.

Format: a PyTorch-Lightning checkpoint whose ``state_dict`` holds the student under ``student_model.`` beside its
teacher, and a YAML file that training writes next to it, with the student's shape in the part ``distiller``. The same
mapping stands in the checkpoint itself under ``hyper_parameters``, which serves where a card names no YAML file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from harness import plain_yaml
from harness.cards import Card
from harness.interface import SlimbenchError
from upstreams.students.encoder import Encoder, EncoderShape, LayerShape, uniform
from upstreams.students.frontend import WAV2VEC2, Convolution, FrontEnd, frame_ms, min_samples
from upstreams.students.settings import Settings
from upstreams.students.student import FAIRSEQ, Blueprint, renamed, tensors_under

OPTIONS: Mapping[str, Any] = {"config": "", "states": "heads"}
"""``config``: the YAML file, relative to the weights' folder; empty for the configuration in the checkpoint.
``states``: ``heads`` (what every head predicts), ``last`` (only the last head), ``layers`` (outputs of the layers)."""
STUDENT = "student_model."
MAX_SIZE = 100_000
"""Largest width of anything, so that a damaged configuration is refused before a model is built."""
NAMES = (
    *FAIRSEQ,
    (r"proj_head\.(\d+)\.upsampler\.", r"heads.\1.upsampling."),
    (r"proj_head\.(\d+)\.lin_proj\.", r"heads.\1.projection."),
)
"""Stored names in ours."""
UNUSED = ("upsampler.", "mask_emb", "final_proj.")
"""Weights that only training uses: a further upsampling convolution, the mask embedding, STaRHuBERT's projection."""


@dataclass(frozen=True)
class Architecture:
    """A student.

    Attributes:
        convolutions: its front end.
        norm: of the front end, ``group`` or ``layer``.
        bias: whether the front end's convolutions have one.
        shape: the encoder.
        predicted: width of what the heads predict; 0 where there are no heads.
    """

    convolutions: tuple[Convolution, ...]
    norm: str
    bias: bool
    shape: EncoderShape
    predicted: int


class Head(nn.Module):
    """Brings a layer's output to the frame rate and the width of the teacher, where these differ."""

    def __init__(self, width: int, reduce: int, predicted: int) -> None:
        super().__init__()
        self.upsampling = nn.ConvTranspose1d(width, width, reduce, reduce) if reduce > 1 else None
        self.projection = nn.Linear(width, predicted) if predicted != width else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) to (B, reduce * T, predicted)."""
        if self.upsampling is not None:
            x = self.upsampling(x.transpose(1, 2)).transpose(1, 2)
        return x if self.projection is None else self.projection(x)


class LayerwiseStudent(nn.Module):
    """Front end, encoder, and as many heads as ``states`` needs (see :data:`OPTIONS`)."""

    def __init__(self, plan: Architecture, states: str) -> None:
        super().__init__()
        shape, count = plan.shape, {"heads": len(plan.shape.layers), "last": 1, "layers": 0}[states]
        self.front = FrontEnd(plan.convolutions, plan.norm, plan.bias)
        self.encoder = Encoder(shape)
        self.heads = nn.ModuleList(Head(shape.width, shape.reduce, plan.predicted) for _ in range(count))
        self.states = states

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """Waveforms (B, S) with (B,) valid samples to states (B, T, width) and (B,) valid frames."""
        passage = self.encoder(*self.front(waves, lengths))
        if self.states == "layers":
            return passage.layers, passage.reduced_frames
        inputs = passage.layers[-len(self.heads) :]
        predicted = [head(x) for head, x in zip(self.heads, inputs, strict=True)]
        return predicted, passage.reduced_frames * self.encoder.shape.reduce


def architecture(config: Settings, own_maps: Sequence[bool] | None = None, reduce: int = 1) -> Architecture:
    """The student that the part ``distiller`` of a configuration describes.

    Args:
        config: that part. Where a key is missing, the public code's default holds.
        own_maps: per layer, whether it computes its attention map; ``None`` for all.
        reduce: frames that a convolution joins before the first layer.

    Raises:
        SlimbenchError: a setting is missing, of the wrong type or not supported.
    """
    for key, only in (("n_mels", 0), ("pos_conv_depth", 1), ("crop_seq_to_multiple", 1)):
        if config.integer(key, only) != only:
            raise SlimbenchError(f"{config.file}: {config.path}.{key} other than {only} is not supported.")
    config.one_of("layer_type", ("transformer",), "transformer")
    config.one_of("activation_fn", ("gelu",), "gelu")
    mode = config.one_of("extractor_mode", ("default", "layer_norm"), "default")
    convolutions = config.convolutions("conv_feature_layers", WAV2VEC2)
    width, groups = _size(config, "encoder_embed_dim", 768), _size(config, "conv_pos_groups", 16)
    heads, depth = _size(config, "encoder_attention_heads", 12), _size(config, "encoder_layers", 12, most=1000)
    if width % heads or width % groups:
        raise SlimbenchError(
            f"{config.file}: {heads} attention heads and {groups} conv_pos_groups do not divide width {width}; "
            "take it from its source again."
        )
    layers = uniform(depth, width, heads, _size(config, "encoder_ffn_embed_dim", 3072))
    shape = EncoderShape(
        features=convolutions[-1].channels,
        width=width,
        layers=layers if own_maps is None else _with_maps(config, layers, own_maps),
        project=convolutions[-1].channels != width,
        position_kernel=_size(config, "conv_pos", 128),
        position_groups=groups,
        norm_first=config.flag("layer_norm_first", False),
        reduce=reduce,
    )
    has_heads = config.flag("layerwise_proj", False)
    return Architecture(
        convolutions,
        {"default": "group", "layer_norm": "layer"}[mode],
        config.flag("conv_bias", False),
        shape,
        _size(config, "pred_head_final_dim", 768) if has_heads else 0,
    )


def _size(config: Settings, key: str, default: int, most: int = MAX_SIZE) -> int:
    found = config.integer(key, default, least=1)
    if found > most:
        raise SlimbenchError(
            f"{config.file}: {config.path}.{key} is larger than {most}; take it from its source again."
        )
    return found


def _with_maps(config: Settings, layers: tuple[LayerShape, ...], own: Sequence[bool]) -> tuple[LayerShape, ...]:
    if len(own) != len(layers) or not own[0]:
        raise SlimbenchError(
            f"{config.file}: {config.path}.reuse_pattern must say for each of the {len(layers)} layers whether it "
            "computes its attention map, and the first one must."
        )
    return tuple(replace(layer, own_map=each) for layer, each in zip(layers, own, strict=True))


def read_student(file: Path, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The student's weights in a Lightning checkpoint, without those that only training uses.

    Raises:
        SlimbenchError: there are none.
    """
    values = checkpoint.get("state_dict")
    state = tensors_under(values, STUDENT) if isinstance(values, Mapping) else {}
    if not state:
        raise SlimbenchError(
            f"{file} holds no weights {STUDENT}* under state_dict; it is no Lightning checkpoint of such a student."
        )
    return {name: tensor for name, tensor in state.items() if not name.startswith(UNUSED)}


def read_config(card: Card, file: Path, checkpoint: Mapping[str, Any]) -> Settings:
    """The part ``distiller`` of the YAML file that a card names, or of the configuration in the checkpoint.

    Raises:
        SlimbenchError: there is none, or it cannot be read, or it is not in the weights' folder.
    """
    name = str(card.settings(OPTIONS)["config"])
    if not name:
        if "hyper_parameters" not in checkpoint:
            raise SlimbenchError(
                f"{file} holds no configuration; set option config of {card.file} to the YAML file that came with it."
            )
        return Settings(file, checkpoint).part("hyper_parameters").part("cfg").part("distiller")
    try:
        folder = file.parent.resolve()
        found = (folder / name).resolve()
        if not found.is_relative_to(folder):
            raise SlimbenchError(f"{card.file}: option config is {name!r}; name a file in the folder of the weights.")
        missing = not found.is_file()
    except (OSError, ValueError):
        missing = True
    if missing:
        raise SlimbenchError(
            f"{file.parent / name} (option config of {card.file}) cannot be read (no such file); put it beside "
            "the weights."
        )
    values = plain_yaml.load(found, "the configuration")
    return Settings(found, values).part("distiller")


def blueprint(card: Card, file: Path, plan: Architecture, state: Mapping[str, Tensor]) -> Blueprint:
    """The student as the card exposes it; ``state`` as :func:`read_student` gives it, layers counted from 0.

    Raises:
        SlimbenchError: the card wants states that the student does not have.
    """
    states, shape, depth = str(card.settings(OPTIONS)["states"]), plan.shape, len(plan.shape.layers)
    if states not in ("heads", "last", "layers"):
        raise SlimbenchError(f"{card.file}: option states is {states!r}; write heads, last or layers.")
    if states != "layers" and not plan.predicted:
        raise SlimbenchError(f"{card.file}: {file} has no heads on its layers; set option states to layers.")
    if states == "last" and shape.norm_first:  # the public codes differ: only FitHuBERT's applies the final norm before
        raise SlimbenchError(f"{card.file}: states last with layer_norm_first is not supported; write heads.")
    reduce = shape.reduce
    return Blueprint(
        make=lambda: LayerwiseStudent(plan, states),
        state=renamed(_needed(state, states, depth), NAMES, where=file),
        settings={"architecture": asdict(plan), "states": states},
        depth=depth,
        width=shape.width if states == "layers" else plan.predicted,
        num_states=1 if states == "last" else depth,
        frame_ms=frame_ms(plan.convolutions) * (reduce if states == "layers" else 1),
        min_samples=min_samples(plan.convolutions, reduce),
    )


def _needed(state: Mapping[str, Tensor], states: str, depth: int) -> dict[str, Tensor]:
    """Weights that the exposed states depend on. A single head is the student's first, whatever its stored number."""
    needed = {}
    for name, tensor in state.items():
        head = re.match(r"proj_head\.(\d{1,4})\.", name)
        if head is None or states == "heads" or int(head[1]) >= depth:
            needed[name] = tensor
        elif states == "last" and int(head[1]) == depth - 1:
            needed["proj_head.0." + name[head.end() :]] = tensor
    return needed


def drafted(family: str, path: Path, checkpoint: Mapping[str, Any], *, reduced: bool) -> dict[str, object] | None:
    """The fields of a card for a Lightning checkpoint, if it is of the kind that ``reduced`` says.

    Args:
        family: of the card.
        path: the checkpoint. A YAML file of its name beside it becomes the option ``config``.
        checkpoint: its content.
        reduced: whether entry 0 of the student's layers is a convolution.
    """
    values = checkpoint.get("state_dict")
    state = tensors_under(values, STUDENT) if isinstance(values, Mapping) else {}
    depth = len({name for name in state if re.fullmatch(r"encoder\.layers\.\d{1,4}\.fc1\.weight", name)})
    first, norm = state.get("encoder.layers.0.weight"), state.get("encoder.layer_norm.weight")
    if not depth or norm is None or norm.ndim != 1 or (first is not None and first.ndim == 3) != reduced:
        return None
    last = state.get(f"proj_head.{depth - 1}.lin_proj.weight")
    has_heads = any(re.match(r"proj_head\.\d{1,4}\.(upsampler|lin_proj)\.", name) for name in state)
    width = len(last) if last is not None else len(norm)
    options: dict[str, object] = {} if has_heads else {"states": "layers"}
    if path.with_suffix(".yaml").is_file():
        options["config"] = path.with_suffix(".yaml").name
    elif "hyper_parameters" not in checkpoint:
        options["config"] = "TODO name of the YAML file that came with the checkpoint, put beside it"
    return {
        "adapter": f"upstreams.students.{family}:adapter",
        "family": family,
        "depth": depth,
        "width": width,
        "exposes": "what the heads of all layers predict" if has_heads else "output of every layer",
        "options": options,
    }
