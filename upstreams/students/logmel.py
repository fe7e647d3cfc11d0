"""The log-mel front end of the project's own models: level removed per utterance, two frames of 10 ms in one."""

from __future__ import annotations

import torch
import torchaudio
from torch import Tensor, nn

from upstreams.students.frontend import valid as valid_mask

__all__ = ["FFT", "HOP", "WINDOW", "LogMel", "mel_frames", "min_samples", "remove_level", "stacked", "valid_mask"]

WINDOW, HOP, FFT = 400, 160, 512


class LogMel(nn.Module):
    """Log-mel front end: (B, S) waveform to (B, T10, mels) at 10 ms, no padding at the edges.

    Level is removed per utterance (mean mel power over its valid frames), so that gain does not matter.
    """

    window: Tensor
    bank: Tensor

    def __init__(self, mels: int) -> None:
        super().__init__()
        with torch.device("cpu"):  # constants, real even in a model that is built on the meta device
            self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
            bank = torchaudio.functional.melscale_fbanks(FFT // 2 + 1, 20.0, 8000.0, mels, 16_000, norm="slaney")
            self.register_buffer("bank", bank, persistent=False)

    def forward(self, waves: Tensor) -> Tensor:
        """Log mel power, not level-normalised, (B, 1 + (S - 400) // 160, mels)."""
        frames = waves.unfold(-1, WINDOW, HOP) * self.window
        power = torch.fft.rfft(frames, FFT).abs().square()
        return torch.log(power @ self.bank + 1e-8)


def mel_frames(lengths: Tensor) -> Tensor:
    """(B,) samples to the (B,) frames of 10 ms that :class:`LogMel` makes of them."""
    return 1 + torch.div(lengths - WINDOW, HOP, rounding_mode="floor")


def min_samples(frames: int = 1) -> int:
    """Fewest samples of which that many stacked frames come.

    >>> min_samples(), min_samples(2)
    (560, 880)
    """
    return WINDOW + (2 * frames - 1) * HOP


def remove_level(logmel: Tensor, mask: Tensor) -> Tensor:
    """Subtract the log of the mean mel power over valid frames, per utterance."""
    power = torch.where(mask[..., None], logmel, -torch.inf).flatten(1)
    counts = (mask.sum(1) * logmel.shape[-1]).clamp(min=1).to(logmel.dtype)
    return logmel - (torch.logsumexp(power, 1) - counts.log())[:, None, None]


def stacked(logmel: Tensor, lengths: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """What a model sees of log-mels: without level, brought to mean 0 and deviation 1, two frames in one.

    Args:
        logmel: (B, T10, mels) log mel power at 10 ms.
        lengths: (B,) valid frames of it.
        mean: (mels,) of the training data, as ``std``.
        std: (mels,).

    Returns:
        (B, T10 // 2, 2 * mels) at 20 ms, and (B,) valid frames of that.
    """
    logmel = remove_level(logmel, valid_mask(lengths, logmel.shape[1]))
    x = (logmel - mean) / std
    pairs = x.shape[1] // 2
    return x[:, : 2 * pairs].reshape(x.shape[0], pairs, -1), lengths // 2
