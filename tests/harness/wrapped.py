"""Modules as upstreams, for the tests of what upstreams cost."""

import torch
from torch import nn

from harness.interface import HiddenStates

SECONDS = 2.0
SAMPLES = 32_000


class Wrapped:
    """Any module from (B, S) waves to one state (B, T, width), as an upstream."""

    fingerprint, num_states, width, frame_ms, variable_rate = "0", 1, 8, 20.0, False
    min_samples, batch_invariant = 400, True

    def __init__(self, module):
        self.name, self.inner = "wrapped", module.eval()

    def module(self):
        return self.inner

    @torch.no_grad()
    def encode(self, waves, lengths):
        state = self.inner(waves)
        return HiddenStates([state], torch.full_like(lengths, state.shape[1]), 20.0)


class Convolution(nn.Module):
    """Strided convolution: (B, S) to (B, T, width)."""

    def __init__(self, width=8, kernel=400, stride=320):
        super().__init__()
        self.conv = nn.Conv1d(1, width, kernel, stride)
        self.kernel, self.stride = kernel, stride

    @property
    def frames(self):
        return self.frames_of(SAMPLES)

    def frames_of(self, samples):
        return (samples - self.kernel) // self.stride + 1

    def forward(self, waves):
        return self.conv(waves[:, None]).transpose(1, 2)


class Encoder(nn.Module):
    """Convolution, grouped positional convolution with weight norm, two transformer layers."""

    def __init__(self, width=16, ffn=48, heads=2, layers=2):
        super().__init__()
        self.front = Convolution(width, 400, 320)
        self.positional = nn.utils.parametrizations.weight_norm(nn.Conv1d(width, width, 5, padding=2, groups=4))
        layer = nn.TransformerEncoderLayer(width, heads, ffn, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.shape = width, ffn, layers

    def macs(self, samples):
        """Worked out by hand."""
        width, ffn, layers = self.shape
        t = self.front.frames_of(samples)
        layer = t * (4 * width * width + 2 * width * ffn) + 2 * t * t * width
        return t * 400 * width + t * width * (width // 4) * 5 + layers * layer

    def forward(self, waves):
        x = self.front(waves)
        return self.layers(x + self.positional(x.transpose(1, 2)).transpose(1, 2))


class Recurrent(nn.Module):
    """Convolution and a recurrent layer."""

    def __init__(self, kind, **settings):
        super().__init__()
        self.front, self.cell = Convolution(), kind(8, 6, batch_first=True, **settings)

    def forward(self, waves):
        return self.cell(self.front(waves))[0]
