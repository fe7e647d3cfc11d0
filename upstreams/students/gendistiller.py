"""GenDistiller: one small network that generates the teacher's layers one after another (arXiv 2310.13418, 2406.09444).

No code of the authors is public. This is our own design from the description: the layers of the teacher are a sequence
over depth; attention is causal over that sequence and bidirectional over time; what has been generated is the history
of what comes next; a skip connection and an output layer make each step a change to the layer before. One set of
weights serves every step, so that depth costs computing but no parameters, and the number of generated layers is chosen
when the model runs. The sizes by default come to 17.0 M parameters, the description's 82 % less than WavLM Base+.

A step from layer l to l + 1: the newest layer plus an embedding of its depth goes through ``blocks`` blocks. A block
attends over time within the layer, then, frame by frame, over all layers so far, and ends with a feed-forward part.
The output layer maps the result to a change of the newest layer.

Format: a ``safetensors`` file with a JSON file of :class:`GenShape` beside it (``config.json``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.cards import Card
from harness.interface import SlimbenchError
from upstreams.adapters.weights import read_tensors
from upstreams.students import logmel
from upstreams.students.attention import Attention, heads_first
from upstreams.students.encoder import Encoder, EncoderShape
from upstreams.students.frontend import (
    WAV2VEC2,
    Convolution,
    FrontEnd,
    frame_ms,
    min_samples,
    parse_convolutions,
    valid,
)
from upstreams.students.passage import Passage
from upstreams.students.student import Blueprint, Family


@dataclass(frozen=True)
class GenShape:
    """Sizes of a generator.

    Attributes:
        layers: how many layers it has learnt to generate.
        width: size of a state.
        heads: of attention over time and over depth.
        ffn: inner width of the feed-forward part.
        blocks: blocks that one step passes through.
        convolutions: (channels, kernel, stride) of the front end, where it is ``wav2vec2``.
        norm: of the front end, ``group`` or ``layer``.
        position_kernel: width of the positional convolution in frames.
        position_groups: its groups.
        front: ``wav2vec2``, or ``logmel``, that of the lab's models (:mod:`upstreams.students.logmel`).
        mels: log-mel channels, where it is ``logmel``.
    """

    layers: int = 12
    width: int = 768
    heads: int = 12
    ffn: int = 1536
    blocks: int = 1
    convolutions: tuple[tuple[int, int, int], ...] = tuple(WAV2VEC2)
    norm: str = "group"
    position_kernel: int = 128
    position_groups: int = 16
    front: str = "wav2vec2"
    mels: int = 80

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GenShape:
        """From the content of ``config.json``.

        Raises:
            ValueError: a key is unknown or a value impossible.
        """
        known = {field.name: field for field in fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise ValueError(f"unknown key {unknown[0]!r}")
        for name, value in values.items():
            whole = isinstance(known[name].default, int)
            if whole and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} is {value!r}, not a whole number of at least 1")
        shape = cls(**{**values, "convolutions": parse_convolutions(values.get("convolutions", list(WAV2VEC2)))})
        if shape.norm not in ("group", "layer"):
            raise ValueError(f"norm is {shape.norm!r}, not group or layer")
        if shape.front not in ("wav2vec2", "logmel"):
            raise ValueError(f"front is {shape.front!r}, not wav2vec2 or logmel")
        if shape.width % shape.heads or shape.width % shape.position_groups:
            raise ValueError(f"width {shape.width} is no multiple of heads and position_groups")
        return shape

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; ``front`` and ``mels`` are in it only where they differ from their default."""
        late = {field.name: field.default for field in fields(self) if field.name in ("front", "mels")}
        return {name: value for name, value in asdict(self).items() if name not in late or value != late[name]}

    def grid(self) -> tuple[float, int]:
        """Time between frames in milliseconds, and the fewest samples that give one."""
        if self.front == "logmel":
            return 20.0, logmel.min_samples()
        convolutions = [Convolution(*row) for row in self.convolutions]
        return frame_ms(convolutions), min_samples(convolutions)


class DepthAttention(nn.Module):
    """Attention of each frame over the layers generated so far, at that frame."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, history: Tensor) -> Tensor:
        """Queries x (B, T, width) over ``history`` (B, T, layers, width) to (B, T, width)."""
        batch, time, layers, width = history.shape
        query = heads_first(self.query(x).view(batch * time, 1, width), self.heads)
        past = history.view(batch * time, layers, width)
        key, value = heads_first(self.key(past), self.heads), heads_first(self.value(past), self.heads)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        joined: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, time, width))
        return joined


class Block(nn.Module):
    """Attention over time, attention over depth, feed-forward; post-norm, as the teachers' layers."""

    def __init__(self, shape: GenShape) -> None:
        super().__init__()
        self.time = Attention(shape.width, shape.heads, shape.width // shape.heads)
        self.time_norm = nn.LayerNorm(shape.width)
        self.depth, self.depth_norm = DepthAttention(shape.width, shape.heads), nn.LayerNorm(shape.width)
        self.up, self.down = nn.Linear(shape.width, shape.ffn), nn.Linear(shape.ffn, shape.width)
        self.norm = nn.LayerNorm(shape.width)

    def forward(self, x: Tensor, history: Tensor, padding: Tensor | None) -> Tensor:
        """States x (B, T, width) with ``history`` (B, T, layers, width) and padding (B, 1, 1, T) of -inf or 0."""
        attended, _ = self.time(x, padding, None, None)
        x = self.time_norm(x + attended)
        x = self.depth_norm(x + self.depth(x, history))
        y: Tensor = self.norm(x + self.down(functional.gelu(self.up(x))))
        return y


class GenDistiller(nn.Module):
    """The generator; ``generate`` layers are made, by default all it has learnt."""

    front: FrontEnd | logmel.LogMel
    mel_mean: Tensor
    mel_std: Tensor

    def __init__(self, shape: GenShape, generate: int | None = None) -> None:
        super().__init__()
        self.shape, self.generate = shape, shape.layers if generate is None else generate
        if not 1 <= self.generate <= shape.layers:
            raise ValueError(f"{self.generate} layers cannot be generated, only 1 to {shape.layers}")
        self.frame_ms, self.min_samples = shape.grid()
        if shape.front == "logmel":
            self.front, features = logmel.LogMel(shape.mels), 2 * shape.mels
            self.register_buffer("mel_mean", torch.full((shape.mels,), -2.0))
            self.register_buffer("mel_std", torch.full((shape.mels,), 2.5))
        else:
            self.front = FrontEnd([Convolution(*row) for row in shape.convolutions], shape.norm)
            features = self.front.channels
        self.embedding = Encoder(
            EncoderShape(
                features=features,
                width=shape.width,
                layers=(),
                feature_norm=shape.front == "wav2vec2",
                position_kernel=shape.position_kernel,
                position_groups=shape.position_groups,
            )
        )
        self.depth = nn.Embedding(shape.layers, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.blocks))
        self.output = nn.Linear(shape.width, shape.width)

    def step(self, states: Sequence[Tensor], padding: Tensor | None) -> Tensor:
        """The next layer (B, T, width) after those in ``states``, each (B, T, width), oldest first."""
        newest = states[-1]
        history = torch.stack(list(states), dim=2)
        x = newest + self.depth.weight[len(states) - 1]
        for block in self.blocks:
            x = block(x, history, padding)
        following: Tensor = newest + self.output(x)
        return following

    @property
    def num_states(self) -> int:
        """States: the embedded front end and every generated layer."""
        return self.generate + 1

    def features(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (B, S) with (B,) valid samples to what the embedding takes, (B, T, C), and (B,) valid frames."""
        if isinstance(self.front, logmel.LogMel):
            return logmel.stacked(self.front(waves), logmel.mel_frames(lengths), self.mel_mean, self.mel_std)
        features, frames = self.front(waves, lengths)
        return features, frames

    def passage(
        self,
        waves: Tensor,
        lengths: Tensor,
        masked: Tensor | None = None,
        maps: bool = False,
        lam: float | None = None,
    ) -> Passage:
        """What the model makes of a batch, with gradient, as :meth:`upstreams.students.mini.MiniWavLM.passage`.

        Args:
            waves: (B, S) samples at 16 kHz.
            lengths: (B,) valid samples.
            masked: (B, T) bool, frames whose features become 0, the mean of log-mels; there is no mask embedding.
            maps: must be false: a step has an attention over time in each block and one over depth, no map of a layer.
            lam: must be ``None``: the model does not compress.

        Raises:
            ValueError: ``maps`` or ``lam`` is set.
        """
        if maps or lam is not None:
            raise ValueError("a GenDistiller has no attention maps to give and no compression to choose")
        features, frames = self.features(waves, lengths)
        if masked is not None:
            features = features.masked_fill(masked[..., None], 0.0)
        embedded = self.embedding(features, frames).embedded
        mask, padding = valid(frames, embedded.shape[1]), None
        if not bool(mask.all()):
            padding = torch.zeros_like(mask, dtype=waves.dtype).masked_fill(~mask, -torch.inf)[:, None, None, :]
        states = [embedded]
        for _ in range(self.generate):
            states.append(self.step(states, padding))
        return Passage(states, frames, frames)

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """Waveforms (B, S) with (B,) valid samples to 1 + ``generate`` states (B, T, width) and (B,) valid frames."""
        passage = self.passage(waves, lengths)
        return passage.states, passage.frames


def read(card: Card, file: Path) -> Blueprint:
    """The generator in a file with ``config.json`` beside it. Card option ``generate``: layers to generate (all).

    Raises:
        SlimbenchError: a file cannot be read, or the option does not fit.
    """
    generate = card.settings({"generate": None})["generate"]
    config = file.with_name("config.json")
    try:
        shape = GenShape.from_dict(json.loads(config.read_text(encoding="utf-8")))
    except OSError as error:
        raise SlimbenchError(f"{card.name} needs {config} ({error.strerror}); copy it beside the weights.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise SlimbenchError(f"{config} does not describe a GenDistiller: {error}; correct it.") from error
    if generate is not None and (type(generate) is not int or not 1 <= generate <= shape.layers):
        raise SlimbenchError(f"{card.file}: option generate is {generate!r}; write a number from 1 to {shape.layers}.")
    state = read_tensors(file)
    if generate is None:
        generate = shape.layers
    period, shortest = shape.grid()
    return Blueprint(
        make=lambda: GenDistiller(shape, generate),
        state=state,
        settings={"config": shape.to_dict(), "generate": generate},
        depth=generate,
        width=shape.width,
        num_states=generate + 1,
        frame_ms=period,
        min_samples=shortest,
    )


adapter = Family("gendistiller", read)
