"""MelHuBERT (arXiv 2211.09944) and its pruned versions (arXiv 2211.09949): HuBERT on log-mel frames.

Format: ``model`` (weights) and ``Upstream_Config`` with a part ``melhubert`` (``hubert`` in early files). Input are 40
log-mel channels every 10 ms, brought to mean 0 and variance 1 by the statistics of the training corpus; models of 20 ms
take two frames side by side. The statistics are not in the checkpoint: they come from the file that the card's option
``stats`` names, a numpy array (2, 40) of means and standard deviations beside the weights.

Head pruning adds ``Pruned_heads``, one mapping of layer to pruned heads per round, counted among those left by the
round before: the stored weights are those of the heads that stay. Weight pruning adds ``Pruning`` and stores every
pruned weight as ``_orig`` and ``_mask``. Row pruning and distillation leave smaller numbers in the configuration.

States: the projected log-mel frames, then every layer's output.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchaudio.compliance import kaldi

from harness.cards import Card
from harness.identity import digest_tensors
from harness.interface import SAMPLE_RATE, SlimbenchError
from upstreams.adapters.checkpoints import read_checkpoint
from upstreams.students.encoder import Encoder, EncoderShape, LayerShape
from upstreams.students.frontend import valid
from upstreams.students.settings import Settings
from upstreams.students.student import (
    FAIRSEQ,
    Blueprint,
    Family,
    projected_and_layers,
    renamed,
    tensors_under,
)

MELS, WINDOW, SHIFT = 40, 400, 160
"""Channels; samples in a window; samples from one window to the next."""
FULL_SCALE = 2.0**15
"""Waveforms are scaled to the range of 16-bit numbers before the filter bank."""
NAMES = ((r"pre_extract_proj\.", "encoder.projection."), *FAIRSEQ)
UNUSED = ("final_proj.", "mask_emb")
"""Weights that pre-training leaves and that no state depends on: cluster predictions, the masked frame."""


class LogMel(nn.Module):
    """Kaldi's log-mel filter bank with a Hamming window, normalised by corpus statistics, ``stack`` frames in one.

    Args:
        stack: frames side by side; where the last group is not full, the rest of it is 0.
    """

    def __init__(self, stack: int) -> None:
        super().__init__()
        self.stack = stack
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(MELS))
        self.register_buffer("std", torch.ones(MELS))

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (B, S) with (B,) valid samples to (B, T, 40 * stack) with (B,) valid frames.

        Raises:
            ValueError: an utterance is too short for one window.
        """
        frames = torch.div(lengths - WINDOW, SHIFT, rounding_mode="floor") + 1
        if int(frames.min()) < 1:
            raise ValueError(f"{int(lengths.min())} samples are too few for one frame")
        mel = torch.stack([self._filter_bank(wave) for wave in waves])
        mel = (mel - self.mean) / self.std * valid(frames, mel.shape[1])[..., None]
        mel = nn.functional.pad(mel, (0, 0, 0, -mel.shape[1] % self.stack))
        stacked = mel.reshape(len(mel), -1, MELS * self.stack)
        return stacked, torch.div(frames + self.stack - 1, self.stack, rounding_mode="floor")

    def _filter_bank(self, wave: Tensor) -> Tensor:
        """(S,) to (T, 40); no window reaches over the end."""
        mel: Tensor = kaldi.fbank(
            wave[None] * FULL_SCALE,
            num_mel_bins=MELS,
            frame_length=1000 * WINDOW / SAMPLE_RATE,
            frame_shift=1000 * SHIFT / SAMPLE_RATE,
            sample_frequency=SAMPLE_RATE,
            window_type="hamming",
        )
        return mel


class MelHuBERT(nn.Module):
    """Log-mel front end and encoder."""

    def __init__(self, stack: int, shape: EncoderShape) -> None:
        super().__init__()
        self.front, self.encoder = LogMel(stack), Encoder(shape)
        if shape.norm_first:
            self.encoder.set_submodule("norm", nn.Identity())  # the states are taken before it

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """Waveforms (B, S) with (B,) valid samples to states (B, T, width) and (B,) valid frames."""
        states, frames = projected_and_layers(self.encoder(*self.front(waves, lengths)))
        return list(states), frames


def read(card: Card, file: Path) -> Blueprint:
    """The model in a checkpoint. Card option ``stats``: the file of corpus statistics, in the folder of the weights.

    Raises:
        SlimbenchError: the file is no such checkpoint or of a kind that is not supported, or the statistics are missing
            or wrong.
    """
    statistics = read_statistics(card, file)
    checkpoint = Settings(file, read_checkpoint(file))
    stack, shape = shape_of(_config(checkpoint), pruned_heads(checkpoint))
    stored = tensors_under(checkpoint.part("model").values)
    if checkpoint.values.get("Pruning") is not None:
        stored = masked(stored, file)
    drop = (*UNUSED, "encoder.layer_norm.") if shape.norm_first else UNUSED
    state = renamed(stored, NAMES, drop=drop, where=file)
    return Blueprint(
        make=lambda: MelHuBERT(stack, shape),
        state=state | statistics,
        settings={"statistics": digest_tensors(statistics)},  # the configuration is part of the file, so of its digest
        depth=len(shape.layers),
        width=shape.width,
        num_states=1 + len(shape.layers),
        frame_ms=1000 * SHIFT * stack / SAMPLE_RATE,
        min_samples=WINDOW,
    )


def read_statistics(card: Card, file: Path) -> dict[str, Tensor]:
    """Means and standard deviations of the log-mel channels, under the model's names.

    Raises:
        SlimbenchError: the option is missing, or names a file outside the folder or one that holds something else.
    """
    name = str(card.settings({"stats": ""})["stats"])
    if not name:
        raise SlimbenchError(
            f"{card.file}: option stats is missing; name the .npy file of corpus statistics beside {file.name}."
        )
    folder = file.parent.resolve()
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise SlimbenchError(f"{card.file}: option stats is {name!r}; the file must lie in the folder of the weights.")
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped, so that a false size in it costs no memory
    except (OSError, EOFError, ValueError) as error:
        raise SlimbenchError(
            f"{path} (statistics of the training corpus) cannot be read ({error}); copy it from the model's source."
        ) from error
    if not isinstance(found, np.ndarray) or found.shape != (2, MELS) or found.dtype.kind != "f":
        raise SlimbenchError(f"{path} holds no array of {MELS} means and {MELS} standard deviations; copy it again.")
    mean, std = (torch.from_numpy(np.array(row, dtype=np.float32)) for row in found)
    if not (mean.isfinite().all() and std.isfinite().all() and bool((std > 0).all())):
        raise SlimbenchError(f"{path} holds values that are no means or standard deviations; copy it again.")
    return {"front.mean": mean, "front.std": std}


def _config(checkpoint: Settings) -> Settings:
    parts = checkpoint.part("Upstream_Config")
    return parts.part("hubert" if "hubert" in parts.values and "melhubert" not in parts.values else "melhubert")


def shape_of(config: Settings, pruned: Mapping[int, int]) -> tuple[int, EncoderShape]:
    """Frames side by side, and the encoder of a configuration less the ``pruned`` heads of each layer.

    Raises:
        SlimbenchError: a value is missing, wrong or not supported.
    """
    for key, value in (("pos_emb_type", "conv"), ("activation_fn", "gelu"), ("attention_type", "original")):
        config.one_of(key, (value,), value)
    features = config.integer("feat_emb_dim", MELS)
    if features not in (MELS, 2 * MELS):
        raise SlimbenchError(
            f"{config.file}: feat_emb_dim is {features}; {MELS} (10 ms) and {2 * MELS} (20 ms) are supported."
        )
    if config.integer("pos_conv_depth", 1) != 1:
        raise SlimbenchError(f"{config.file}: a positional convolution of several layers is not supported.")
    width, depth = config.integer("encoder_embed_dim", 768, least=1), config.integer("encoder_layers", 1, least=1)
    heads = config.integer("encoder_attention_heads", 12, least=1)
    ffn = config.integer("encoder_ffn_embed_dim", 3072, least=1)
    for layer, count in pruned.items():
        if layer >= depth or count >= heads:
            raise SlimbenchError(f"{config.file} prunes {count} of {heads} heads in layer {layer} of {depth}.")
    shape = EncoderShape(
        features=features,
        width=width,
        layers=tuple(LayerShape(heads - pruned.get(index, 0), width // heads, ffn) for index in range(depth)),
        feature_norm=False,
        project=features != width,
        position_kernel=config.integer("conv_pos", 128, least=1),
        position_groups=config.integer("conv_pos_groups", 16, least=1),
        norm_first=config.flag("layer_norm_first", False),
    )
    return features // MELS, shape


def pruned_heads(checkpoint: Settings) -> dict[int, int]:
    """How many heads each layer has lost over all rounds of pruning.

    Raises:
        SlimbenchError: ``Pruned_heads`` is no list of mappings from layers to lists of heads.
    """
    rounds = checkpoint.values.get("Pruned_heads")
    lost: dict[int, int] = {}
    for each in () if rounds is None else rounds if isinstance(rounds, list | tuple) else (None,):
        if not isinstance(each, Mapping) or not all(
            type(layer) is int and layer >= 0 and isinstance(heads, list | tuple) for layer, heads in each.items()
        ):
            raise SlimbenchError(
                f"{checkpoint.file}: Pruned_heads must be a list of mappings from layer to heads; copy the file again."
            )
        for layer, heads in each.items():
            lost[layer] = lost.get(layer, 0) + len(heads)
    return lost


def masked(state: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Weights with their pruning masks applied; both are stored per weight.

    Raises:
        SlimbenchError: a weight has no mask, or one of another shape.
    """
    found = {name: tensor for name, tensor in state.items() if not name.endswith(("_orig", "_mask"))}
    for name in (name.removesuffix("_orig") for name in state if name.endswith("_orig")):
        weight, mask = state[f"{name}_orig"], state.get(f"{name}_mask")
        if mask is None or mask.shape != weight.shape:
            raise SlimbenchError(f"{file}: the pruned weight {name} has no mask that fits; copy the file again.")
        found[name] = weight * mask
    return found


def recognise(path: Path, checkpoint: Mapping[str, Any]) -> dict[str, object] | None:
    """The card's fields for a checkpoint of this family, or nothing."""
    parts, weights = checkpoint.get("Upstream_Config"), checkpoint.get("model")
    if not isinstance(parts, Mapping) or not isinstance(weights, Mapping) or "pre_extract_proj.weight" not in weights:
        return None
    stored = Settings(path, checkpoint)
    stack, shape = shape_of(_config(stored), pruned_heads(stored))
    beside = sorted(file.name for file in path.parent.glob("*.npy"))
    return {
        "adapter": "upstreams.students.melhubert:adapter",
        "family": "melhubert",
        "depth": len(shape.layers),
        "width": shape.width,
        "exposes": f"projected log-mel frames and the output of every layer, {10 * stack} ms",
        "options": {"stats": beside[0] if len(beside) == 1 else "mean-std.npy"},
    }


adapter = Family("melhubert", read)
