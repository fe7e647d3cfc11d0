"""Compressed models as upstreams: a family reads its checkpoint into a :class:`Blueprint`, :class:`Student` runs it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.cards import Card
from harness.identity import digest_json, digest_weights
from harness.interface import HiddenStates, SlimbenchError
from upstreams.adapters.weights import check_depth, check_fit
from upstreams.students.encoder import Encoder, EncoderShape, Passage
from upstreams.students.frontend import FrontEnd, standardise

MOST_LAYERS = 1_000
"""More layers than any model has; a checkpoint that says so is broken."""


@dataclass(frozen=True)
class Blueprint:
    """A model as a checkpoint describes it.

    Attributes:
        make: builds the module, called on the meta device. The module maps waveforms (B, S) and their (B,) valid
            samples to a list of states (B, T, width) and (B,) valid frames.
        state: the stored weights under the module's names; all of them and no others.
        settings: what decides the states besides the weights, for the fingerprint: configuration and exposure.
        depth: layers, as the card's ``depth`` must say.
        width: size of a state.
        num_states: how many states there are.
        frame_ms: time between two frames of a state, in milliseconds.
        min_samples: fewest samples that give one frame.
        normalise: bring each waveform to mean 0 and variance 1 before.
        variable_rate: the time between frames varies (sequence compression).
    """

    make: Callable[[], nn.Module]
    state: Mapping[str, Tensor]
    settings: Mapping[str, Any]
    depth: int
    width: int
    num_states: int
    frame_ms: float
    min_samples: int
    normalise: bool = False
    variable_rate: bool = False


@dataclass(frozen=True)
class Family:
    """How checkpoints of one family become upstreams; an instance is the adapter that its cards name.

    Attributes:
        name: as in the card's ``family``; also part of the fingerprint.
        read: from a card and its weights to the blueprint.
        version: raised when the family's code gives other states for the same weights.
    """

    name: str
    read: Callable[[Card, Path], Blueprint]
    version: int = 1

    def __call__(self, card: Card, device: str = "cpu") -> Student:
        """The upstream of a card.

        Raises:
            SlimbenchError: the card names no weights, or another family or depth, or the weights do not fit.
        """
        if card.weights is None:
            raise SlimbenchError(f"{card.file}: field 'weights' is missing; name the checkpoint.")
        if card.family is not None and card.family != self.name:
            raise SlimbenchError(
                f"{card.file} says family {card.family}, but its adapter reads {self.name}; correct the card."
            )
        return Student(self, card, card.weights, device)


class Student:
    """A frozen compressed model; states of an utterance do not depend on its batch."""

    batch_invariant = True

    def __init__(self, family: Family, card: Card, file: Path, device: str) -> None:
        plan = family.read(card, file)
        check_depth(card, file, plan.depth)
        self.model = _made(plan, file)
        state = {name: tensor.float() for name, tensor in plan.state.items()}
        check_fit(file, state, self.model.state_dict(), "its configuration")
        self.model.load_state_dict(state, assign=True)
        self.model.eval().requires_grad_(False).to(device)
        self.name, self.device, self.normalise = card.name, torch.device(device), plan.normalise
        self.num_states, self.width = plan.num_states, plan.width
        self.frame_ms, self.min_samples, self.variable_rate = plan.frame_ms, plan.min_samples, plan.variable_rate
        key = {"weights": digest_weights(file), "settings": plan.settings, "normalise": plan.normalise}
        self.fingerprint = digest_json({"adapter": family.name, "version": family.version, **key})

    def module(self) -> nn.Module:
        """The whole model."""
        return self.model

    @torch.no_grad()
    def encode(self, waves: Tensor, lengths: Tensor) -> HiddenStates:
        """States of ``waves`` (B, S) with ``lengths`` (B,) valid samples."""
        lengths = lengths.to(self.device)
        waves = waves[:, : int(lengths.max())].to(self.device)
        if self.normalise:
            waves = standardise(waves, lengths)
        states, frames = self.model(waves, lengths)
        return HiddenStates(states, frames, self.frame_ms)


def _made(plan: Blueprint, file: Path) -> nn.Module:
    """The module without weights; a shape that cannot be is the file's fault."""
    if plan.depth > MOST_LAYERS:
        raise SlimbenchError(f"{file} describes {plan.depth} layers, more than {MOST_LAYERS}; take it from its source.")
    try:
        with torch.device("meta"):
            return plan.make()
    except (ValueError, RuntimeError, ZeroDivisionError, OverflowError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise SlimbenchError(
            f"{file} describes a model that cannot be built ({reason}); take it from its source."
        ) from error


class SpeechModel(nn.Module):
    """Front end and encoder, with the states that ``expose`` picks from the passage."""

    def __init__(
        self, front: FrontEnd, shape: EncoderShape, expose: Callable[[Passage], tuple[Sequence[Tensor], Tensor]]
    ) -> None:
        super().__init__()
        self.front, self.encoder, self.expose = front, Encoder(shape), expose

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """Waveforms (B, S) with (B,) valid samples to states (B, T, width) and (B,) valid frames."""
        states, frames = self.expose(self.encoder(*self.front(waves, lengths)))
        return list(states), frames


def projected_and_layers(passage: Passage) -> tuple[Sequence[Tensor], Tensor]:
    """Projected features before the positional convolution, then every layer's output."""
    return [passage.projected, *passage.layers], passage.frames


def inputs_and_final(passage: Passage) -> tuple[Sequence[Tensor], Tensor]:
    """The input of every layer and the encoder's output, as SUPERB takes HuBERT and WavLM."""
    return [passage.embedded, *passage.layers[:-1], passage.final], passage.frames


FAIRSEQ: Sequence[tuple[str, str]] = (
    (r"feature_extractor\.conv_layers\.(\d+)\.0\.", r"front.layers.\1.conv."),
    (r"feature_extractor\.conv_layers\.(\d+)\.2\.1\.", r"front.layers.\1.norm."),
    (r"feature_extractor\.conv_layers\.(\d+)\.2\.", r"front.layers.\1.norm."),
    (r"layer_norm\.", r"encoder.feature_norm."),
    (r"post_extract_proj\.", r"encoder.projection."),
    (r"encoder\.pos_conv\.0\.weight_g", r"encoder.position.conv.parametrizations.weight.original0"),
    (r"encoder\.pos_conv\.0\.weight_v", r"encoder.position.conv.parametrizations.weight.original1"),
    (r"encoder\.pos_conv\.0\.bias", r"encoder.position.conv.bias"),
    (r"encoder\.layer_norm\.", r"encoder.norm."),
    (r"encoder\.layers\.0\.self_attn\.relative_attention_bias\.weight", r"encoder.relative.weight"),
    (r"encoder\.layers\.(\d+)\.self_attn\.grep_linear\.", r"encoder.layers.\1.attention.gate.linear."),
    (r"encoder\.layers\.(\d+)\.self_attn\.grep_a", r"encoder.layers.\1.attention.gate.scale"),
    (r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.", r"encoder.layers.\1.attention.query."),
    (r"encoder\.layers\.(\d+)\.self_attn\.k_proj\.", r"encoder.layers.\1.attention.key."),
    (r"encoder\.layers\.(\d+)\.self_attn\.v_proj\.", r"encoder.layers.\1.attention.value."),
    (r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.", r"encoder.layers.\1.attention.output."),
    (r"encoder\.layers\.(\d+)\.self_attn_layer_norm\.", r"encoder.layers.\1.attention_norm."),
    (r"encoder\.layers\.(\d+)\.fc1\.", r"encoder.layers.\1.up."),
    (r"encoder\.layers\.(\d+)\.fc2\.", r"encoder.layers.\1.down."),
    (r"encoder\.layers\.(\d+)\.final_layer_norm\.", r"encoder.layers.\1.output_norm."),
)
"""Names of fairseq's wav2vec 2.0 (and of the students built on its code) in this module's terms: (pattern, ours)."""


def renamed(
    state: Mapping[str, Tensor], names: Iterable[tuple[str, str]], drop: Sequence[str] = (), where: Path | str = ""
) -> dict[str, Tensor]:
    """Stored weights under our names.

    Args:
        state: name to tensor, as stored.
        names: (pattern, replacement), tried in order at the beginning of a name; the first that matches is applied.
            A name that none matches stays, so that the fit check reports it.
        drop: prefixes of weights that no state depends on.
        where: the file, for messages.

    Raises:
        SlimbenchError: two stored weights come to one name.
    """
    rules = [(re.compile(pattern), replacement) for pattern, replacement in names]
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith(tuple(drop)) and drop:
            continue
        for pattern, replacement in rules:
            if pattern.match(name):
                new = pattern.sub(replacement, name, count=1)
                break
        else:
            new = name
        if new in found:
            raise SlimbenchError(f"{where} holds two weights for {new}; take the file from its source again.")
        found[new] = tensor
    return found


def tensors_under(values: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a checkpoint's mapping whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in values.items() if isinstance(v, Tensor) and k.startswith(prefix)}
