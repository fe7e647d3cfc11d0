"""Random views, a tiny student and teacher, and short ways to terms, for the tests of terms."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from upstreams.distillation.terms import KNOWLEDGE, Side, Term, View, build, specify

FRAMES = (9, 6)
MINE, THEIRS = Side(4, 8), Side(7, 12)


def view(seed, side, frames=FRAMES, length=None, heads=2):
    """Random states and maps of two utterances, padded with what is in no way zero."""
    rng = torch.Generator().manual_seed(seed)
    length = length or max(frames)
    valid = torch.tensor(frames)
    states = tuple(torch.randn(len(frames), length, side.width, generator=rng) for _ in range(side.states))
    scores = [torch.randn(len(frames), heads, length, length, generator=rng) for _ in range(side.states - 1)]
    keys = torch.arange(length)[None, None, None, :] < valid[:, None, None, None]
    maps = tuple(torch.softmax(score.masked_fill(~keys, -torch.inf), -1) for score in scores)
    return View(states, valid, maps)


def term(knowledge, mine=MINE, theirs=THEIRS, seed=0, **values):
    """A built and, where it asks for it, fitted term; codebooks are small."""
    options = dict(values.pop("options", {}))
    if "units" in KNOWLEDGE[knowledge].takes_options:
        options.setdefault("units", 5)
    torch.manual_seed(seed)
    built = build(specify({"knowledge": knowledge, "options": options, **values}), mine, theirs)
    if built.fits:
        built.fit(view(100 + n, theirs) for n in range(4))
    return built.eval()


def loss(built: Term, mine: View, theirs: View) -> float:
    return float(built(mine, theirs).loss.detach())


def rows(state, frames=FRAMES):
    """Valid frames of each utterance as numpy, one (T, D) array per utterance."""
    return [state[b, :n].detach().double().numpy() for b, n in enumerate(frames)]


def cosine(x, y):
    return float(np.dot(x, y) / np.sqrt(np.dot(x, x) * np.dot(y, y)))


def softmax(x):
    e = np.exp(np.asarray(x) - np.max(x))
    return e / e.sum()


class Tiny(nn.Module):
    """A few layers of one attention map and one Linear each, over random inputs (B, T, 6)."""

    def __init__(self, side: Side, seed: int, heads: int = 2) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.heads = heads
        self.front = nn.Linear(6, side.width)
        self.query = nn.ModuleList(nn.Linear(side.width, 4 * heads) for _ in range(side.states - 1))
        self.mix = nn.ModuleList(nn.Linear(side.width, side.width) for _ in range(side.states - 1))

    def forward(self, inputs, frames):
        x = torch.tanh(self.front(inputs))
        states, maps = [x], []
        keys = torch.arange(x.shape[1])[None, None, None, :] < frames[:, None, None, None]
        for query, mix in zip(self.query, self.mix, strict=True):
            q = query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            weights = torch.softmax((q @ q.transpose(-1, -2)).masked_fill(~keys, -torch.inf), -1)
            x = torch.tanh(mix(x) + weights.mean(1) @ x)
            states.append(x)
            maps.append(weights)
        return View(tuple(states), frames, tuple(maps))
