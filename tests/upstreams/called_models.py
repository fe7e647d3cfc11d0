"""Small models for the adapters that only call; importable, as an installed package is."""

import torch
from torch import nn


class Framed(nn.Module):
    """Two states of width 6 every ``hop`` samples; of one utterance, or of a padded batch."""

    def __init__(self, hop: int = 320, window: int = 400):
        super().__init__()
        torch.manual_seed(2)
        self.hop, self.window = hop, window
        self.conv = nn.Conv1d(1, 6, window, hop)
        self.linear = nn.Linear(6, 6)
        self.dropout = nn.Dropout(0.5)

    def forward(self, waves: torch.Tensor, lengths: torch.Tensor) -> list[torch.Tensor]:
        x = 10 * self.conv(waves.unsqueeze(1)).transpose(1, 2)
        return [x, torch.tanh(self.linear(self.dropout(x)))]


class Counting(Framed):
    """The same with valid frames."""

    def forward(self, waves: torch.Tensor, lengths: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        x = 10 * self.conv(waves.unsqueeze(1)).transpose(1, 2)
        return [x, torch.tanh(self.linear(self.dropout(x)))], (lengths - self.window) // self.hop + 1


def framed(card, device):
    return Framed(**card.options.get("arguments", {}))


def counting(card, device):
    return Counting()


def plain(card, device):
    """No module: loudness of 20 ms frames, one state."""
    return lambda waves, lengths: waves.unfold(-1, 320, 320).square().mean(-1, keepdim=True).add(1e-8).log()


def wrong(card, device):
    """Models that break their word, each in its way."""

    def fail(waves, lengths):
        raise KeyError("nothing\nhere")

    ways = {
        "fails": fail,
        "nothing": lambda w, n: None,
        "words": lambda w, n: ["a"],
        "ragged": lambda w, n: [torch.ones(1, 50, 4), torch.ones(1, 50, 5)],
        "flat": lambda w, n: torch.ones(1, 50),
        "whole": lambda w, n: torch.ones(1, 50, 4, dtype=torch.int64),
        "batch": lambda w, n: torch.ones(2, 50, 4),
        "uneven": lambda w, n: torch.ones(1, int(w.shape[1] ** 0.5), 4),
        "one": lambda w, n: torch.ones(1, 1, 4),
        "number": 3,
    }
    return ways[card.options["arguments"]["way"]]
