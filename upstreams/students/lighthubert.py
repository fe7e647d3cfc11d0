"""LightHuBERT (arXiv 2203.15610): one supernet, of which a card chooses a subnet.

Format: the fairseq checkpoint that its authors publish, ``cfg`` with a part ``model`` and ``model``, the weights of the
whole supernet whatever is exposed. States are the projected features before the positional convolution and every
layer's output; waveforms are always brought to mean 0 and variance 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from harness.cards import Card
from harness.interface import SlimbenchError
from upstreams.adapters.checkpoints import read_checkpoint
from upstreams.adapters.weights import check_fit
from upstreams.students.attention import Attention, heads_first
from upstreams.students.layout import Layout, layout_of
from upstreams.students.settings import Settings
from upstreams.students.student import (
    FAIRSEQ,
    Blueprint,
    Family,
    SpeechModel,
    projected_and_layers,
    renamed,
    tensors_under,
)
from upstreams.students.subnet import HEAD_WIDTH, Subnet, chosen, even, sliced

KINDS = ("hubert_pruner", "student_hubert")
"""What ``cfg.model._name`` says: a supernet, or the full net of the first stage of training."""
DEFAULTS = {"small": even(384, 6), "base": even(640, 10)}
"""The subnets that s3prl and the published results expose, by search space."""
HEADS = ("mask_emb", "label_embs_concat", "final_proj.", "layer_pred_heads.")
"""Weights of the training, of which no state depends."""
EXPOSES = "projected features before the positional convolution and every layer's output, 20 ms"


class WindowAttention(Attention):
    """Attention to at most ``window / 2`` frames on either side, as LightHuBERT computes it.

    It works on windows, so that an utterance is filled up at its beginning with zeros (after one at its end to a
    ``multiple`` of frames), and the first frames see these as keys and values of zero. Here that is one further key
    whose score is the logarithm of how many of them a frame sees. Each utterance is filled up by its own length.
    """

    def __init__(self, width: int, heads: int, window: int, multiple: int) -> None:
        super().__init__(width, heads, HEAD_WIDTH)
        self.window, self.multiple = window, multiple

    def forward(
        self, x: Tensor, padding: Tensor | None, position: Tensor | None, kept_map: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """As :meth:`Attention.forward`."""
        frames, reach = x.shape[1], self.window // 2
        place = torch.arange(frames, device=x.device)
        bias = torch.zeros(frames, frames, dtype=x.dtype, device=x.device)
        bias = bias.masked_fill((place[None, :] - place[:, None]).abs() > reach, -torch.inf)[None, None]
        count = torch.full((1, 1, 1), frames, device=x.device)
        if padding is not None:
            count = (padding == 0).sum(-1)
            # Frames behind the end see each other, or they would see nothing and be no numbers.
            bias = torch.where(place[None, None, :, None] < count[..., None], bias + padding, bias)
        filled = -(count + -count % self.multiple) % self.window
        seen = torch.minimum((reach - place).clamp(min=0), filled).to(x.dtype)
        bias = torch.cat([bias.expand(len(seen), -1, -1, -1), seen.log()[..., None]], -1)
        query, key, value = (
            heads_first(linear(x), self.heads) for linear in (self.query, self.key, self.value) if linear is not None
        )
        zero = (0, 0, 0, 1)
        mixed = functional.scaled_dot_product_attention(
            query, functional.pad(key, zero), functional.pad(value, zero), attn_mask=bias
        )
        return self.output(mixed.transpose(1, 2).flatten(2)), kept_map


class LightHuBERT(SpeechModel):
    """A subnet; ``multiple`` is what the public code rounds the number of frames up to."""

    def __init__(self, supernet: Layout, subnet: Subnet, multiple: int = 2) -> None:
        super().__init__(supernet.front(), subnet.encoder(supernet.encoder), projected_and_layers)
        for layer, heads, window in zip(self.encoder.layers, subnet.heads, subnet.windows, strict=True):
            if window:
                layer.attention = WindowAttention(subnet.width, heads, window, multiple)


def read(card: Card, file: Path) -> Blueprint:
    """The subnet that the card chooses of the supernet in a checkpoint.

    Raises:
        SlimbenchError: the file is no such checkpoint, its weights do not fit, or the card chooses what is not there.
    """
    checkpoint = Settings(file, read_checkpoint(file))
    config = checkpoint.part("cfg").part("model")
    config.one_of("_name", KINDS)
    supernet = supernet_of(config)
    subnet = chosen(card, default_of(config, supernet), supernet.encoder)
    state = {
        name: tensor.float()
        for name, tensor in renamed(tensors_under(checkpoint.part("model").values), FAIRSEQ, HEADS, file).items()
    }
    with torch.device("meta"):
        whole = SpeechModel(supernet.front(), supernet.encoder, projected_and_layers).state_dict()
    check_fit(file, state, whole, "its configuration")
    multiple = config.integer("required_seq_len_multiple", 2, least=1)
    return Blueprint(
        make=lambda: LightHuBERT(supernet, subnet, multiple),
        state=sliced(state, subnet, supernet.encoder),
        settings={"supernet": supernet.facts(), "subnet": asdict(subnet), "multiple": multiple},
        depth=subnet.depth,
        width=subnet.width,
        num_states=subnet.depth + 1,
        frame_ms=supernet.frame_ms,
        min_samples=supernet.min_samples,
        normalise=True,
    )


def recognise(path: Path, checkpoint: Mapping[str, object]) -> dict[str, object] | None:
    """The fields of a card for a checkpoint of this family, ``None`` for any other.

    Raises:
        SlimbenchError: it is of this family, but of a kind that is not supported.
    """
    config = checkpoint.get("cfg")
    model = config.get("model") if isinstance(config, Mapping) else None
    if not isinstance(model, Mapping) or model.get("_name") not in KINDS:
        return None
    settings = Settings(path, model, "cfg.model")
    subnet = default_of(settings, supernet_of(settings))
    shape = {} if subnet is None else {"depth": subnet.depth, "width": subnet.width}
    text = "" if subnet is None else f"d{subnet.width}-h{subnet.heads[0]}-r4-l{subnet.depth}"
    return {
        "adapter": "upstreams.students.lighthubert:adapter",
        "family": adapter.name,
        **shape,
        "exposes": EXPOSES,
        "options": {"subnet": text},
    }


def supernet_of(config: Settings) -> Layout:
    """The whole net of a configuration."""
    layout = layout_of(config)
    shape = layout.encoder
    if len(shape.layers) != 12 or shape.layers[0].head_width != HEAD_WIDTH or shape.layers[0].ffn % shape.width:
        raise SlimbenchError(
            f"{config.file}: a supernet has 12 layers, heads of {HEAD_WIDTH} and a feed-forward part that is a "
            "multiple of its width; this one has not."
        )
    if not shape.project:
        raise SlimbenchError(f"{config.file}: a supernet without a projection of features is not supported.")
    return layout


def default_of(config: Settings, supernet: Layout) -> Subnet | None:
    """The subnet that the public code exposes of a checkpoint, or nothing where it names no known search space."""
    if config.one_of("_name", KINDS) == "student_hubert":
        most = supernet.encoder.layers[0]
        return even(supernet.encoder.width, most.heads, most.ffn / supernet.encoder.width)
    space = str(config.values.get("pruner_supernet", "")).lower()
    return next((subnet for name, subnet in DEFAULTS.items() if space.endswith(f"{name}.yaml")), None)


adapter = Family("lighthubert", read)
