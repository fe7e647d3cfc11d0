"""Upstreams that keep every promise but one, for the tests of the conformance check, and which point catches each."""

import itertools
import random

import numpy as np
import torch
from torch import nn

from harness.identity import digest_bytes
from harness.interface import HiddenStates

FRAME, WIDTH, DEPTH = 320, 12, 2


class Model(nn.Module):
    """A linear map of 20 ms frames and a stack of two."""

    def __init__(self, seed=0):
        super().__init__()
        self.front = nn.Linear(FRAME, WIDTH)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH))
        self.drop = nn.Dropout(0.0)
        self.register_buffer("calls", torch.zeros(1))
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)

    def forward(self, frames):
        states = [self.front(frames)]
        for layer in self.layers:
            states.append(layer(torch.tanh(states[-1])))
        return states


class Good:
    """Keeps every promise."""

    name, fingerprint = "toy", digest_bytes(b"toy")
    num_states, width, frame_ms, min_samples = DEPTH + 1, WIDTH, 20.0, FRAME
    variable_rate, batch_invariant = False, True

    def __init__(self):
        with torch.random.fork_rng(devices=[]):
            self.model = Model().eval().requires_grad_(False)

    def module(self):
        return self.model

    def states(self, waves, lengths):
        return self.model(waves.unfold(-1, FRAME, FRAME))

    @torch.no_grad()
    def encode(self, waves, lengths):
        return HiddenStates(self.states(waves, lengths), lengths // FRAME, self.frame_ms)


class WithoutWeights(Good):
    def module(self):
        return None


class EqualLengths(Good):
    """Depends on padding, and says so."""

    batch_invariant = False

    def states(self, waves, lengths):
        return [s - s.mean(1, keepdim=True) / 2 for s in super().states(waves, lengths)]


class HalfTheFrames(Good):
    """Variable rate: a frame of noise counts only if it is louder than usual, which half of them are."""

    variable_rate, frame_ms = True, 40.0

    def encode(self, waves, lengths):
        states, counts, wanted = self.states(waves, lengths), [], []
        for row, length in enumerate(lengths.tolist()):
            loud = states[0][row, : length // FRAME].square().mean(-1)
            keep = [i for i, value in enumerate(loud.tolist()) if i == 0 or value > float(loud.median())]
            wanted.append([state[row, keep] for state in states])
            counts.append(len(keep))
        padded = [nn.utils.rnn.pad_sequence(list(rows), batch_first=True) for rows in zip(*wanted, strict=True)]
        return HiddenStates(padded, torch.tensor(counts), self.frame_ms)


class DependsOnPadding(EqualLengths):
    batch_invariant = True


class MixesTheBatch(Good):
    def states(self, waves, lengths):
        return [s + 0.1 * s.mean(0, keepdim=True) for s in super().states(waves, lengths)]


class MixesEqualLengths(MixesTheBatch):
    batch_invariant = False


class FramesDependOnTheBatch(Good):
    def encode(self, waves, lengths):
        hidden = super().encode(waves, lengths)
        return HiddenStates(hidden.states, torch.full_like(lengths, waves.shape[1] // FRAME), self.frame_ms)


class Trains(Good):
    def __init__(self):
        super().__init__()
        self.model.drop.train()


class KeepsGradients(Good):
    def __init__(self):
        super().__init__()
        self.model.requires_grad_(True)


class StatesWithGradients(Good):
    def encode(self, waves, lengths):
        hidden = super().encode(waves, lengths)
        weight = torch.ones(1, requires_grad=True)
        return HiddenStates([weight * s for s in hidden.states], hidden.lengths, self.frame_ms)


class SwitchesGradientsOff(Good):
    def encode(self, waves, lengths):
        torch.set_grad_enabled(False)
        return super().encode(waves, lengths)


class Counts(Good):
    def states(self, waves, lengths):
        self.model.calls += 1
        return super().states(waves, lengths)


class WritesIntoItsInput(Good):
    def states(self, waves, lengths):
        waves -= 0.1
        return super().states(waves, lengths)


class WritesIntoLengths(Good):
    def encode(self, waves, lengths):
        lengths //= FRAME
        return HiddenStates(self.states(waves, lengths), lengths.clone(), self.frame_ms)


class DrawsFromTorch(Good):
    draw = staticmethod(lambda: torch.rand(1))

    def states(self, waves, lengths):
        self.draw()
        return super().states(waves, lengths)


class DrawsFromPython(DrawsFromTorch):
    draw = staticmethod(random.random)


class DrawsFromNumpy(DrawsFromTorch):
    draw = staticmethod(np.random.rand)


class DrawsWhenLoaded(Good):
    def __init__(self):
        super().__init__()
        torch.rand(1)


class Wanders(Good):
    """A little noise from a generator of its own."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def states(self, waves, lengths):
        found = super().states(waves, lengths)
        return [s + 1e-5 * torch.randn(s.shape, generator=self.generator) for s in found]


class AnotherEachTime(Good):
    loaded = itertools.count()

    def __init__(self):
        with torch.random.fork_rng(devices=[]):
            self.model = Model(seed=next(self.loaded)).eval().requires_grad_(False)


class NewFingerprint(Good):
    loaded = itertools.count()

    def __init__(self):
        super().__init__()
        self.fingerprint = digest_bytes(str(next(self.loaded)).encode())


def spoiled_by(condition, value=float("nan")):
    """An upstream whose last state is no number where ``condition`` holds for the waveforms."""

    class Spoiled(Good):
        def states(self, waves, lengths):
            *most, last = super().states(waves, lengths)
            return [*most, last * value if condition(waves) else last]

    return Spoiled


class WrongWidth(Good):
    width = WIDTH + 1


class WrongNumber(Good):
    num_states = DEPTH + 2


class RaggedStates(Good):
    def states(self, waves, lengths):
        *most, last = super().states(waves, lengths)
        return [*most, last.repeat(1, 2, 1)]


class TooManyFrames(Good):
    def encode(self, waves, lengths):
        hidden = super().encode(waves, lengths)
        return HiddenStates(hidden.states, hidden.lengths + 1, self.frame_ms)


class WrongPeriod(Good):
    frame_ms = 20.1


class OtherPeriodInEncode(Good):
    def encode(self, waves, lengths):
        hidden = super().encode(waves, lengths)
        return HiddenStates(hidden.states, hidden.lengths, 10.0)


class VariableFarOff(HalfTheFrames):
    frame_ms = 100.0


class Float16(Good):
    def states(self, waves, lengths):
        return [s.half() for s in super().states(waves, lengths)]


class Float64(Good):
    def states(self, waves, lengths):
        return [s.double() for s in super().states(waves, lengths)]


class ShortLengths(Good):
    def encode(self, waves, lengths):
        hidden = super().encode(waves, lengths)
        return HiddenStates(hidden.states, hidden.lengths.int(), self.frame_ms)


class UncoveredParameter(Good):
    def __init__(self):
        super().__init__()
        self.model.spare = nn.Linear(3, 3, device="meta").to_empty(device="cpu").requires_grad_(False).eval()


class TakesTooShort(Good):
    def encode(self, waves, lengths):
        if waves.shape[1] < FRAME:
            waves, lengths = nn.functional.pad(waves, (0, FRAME)), lengths + FRAME
        return super().encode(waves, lengths)


class NeedsMore(Good):
    """Needs two frames, and says one."""

    def states(self, waves, lengths):
        if waves.shape[1] < 2 * FRAME:
            raise RuntimeError("too short for a convolution")
        return super().states(waves, lengths)


class Deaf(Good):
    def states(self, waves, lengths):
        first, middle, last = super().states(waves, lengths)
        return [first, torch.ones_like(middle), last]


class NotOnLong(Good):
    def states(self, waves, lengths):
        if waves.shape[1] > 400_000:
            raise RuntimeError("positions end at 1000")
        return super().states(waves, lengths)


class Huge(Good):
    def states(self, waves, lengths):
        return [1e25 * s for s in super().states(waves, lengths)]


class NoFingerprint(Good):
    fingerprint = "toy"


class OtherName(Good):
    name = "toy2"


class NumberForTruth(Good):
    batch_invariant = 1


class NoRate(Good):
    """Lacks an attribute; the point that reads it cannot be kept either."""

    variable_rate = property(lambda self: (_ for _ in ()).throw(AttributeError("variable_rate")))


BROKEN = {
    DependsOnPadding: {"padding"},
    MixesTheBatch: {"batch", "padding"},  # other lengths in the batch are other audio as well
    MixesEqualLengths: {"batch"},
    FramesDependOnTheBatch: {"padding"},
    Trains: {"eval mode"},
    KeepsGradients: {"no gradients"},
    StatesWithGradients: {"no gradients"},
    SwitchesGradientsOff: {"no gradients"},
    Counts: {"frozen weights"},
    WritesIntoItsInput: {"input untouched"},
    WritesIntoLengths: {"input untouched"},
    DrawsFromTorch: {"random numbers"},
    DrawsFromPython: {"random numbers"},
    DrawsFromNumpy: {"random numbers"},
    DrawsWhenLoaded: {"random numbers"},
    Wanders: {"same twice", "second load"},  # the second load wanders elsewhere
    AnotherEachTime: {"second load"},
    NewFingerprint: {"second load"},
    spoiled_by(lambda w: not w.any()): {"silence"},
    spoiled_by(lambda w: (w.abs() == 1).float().mean() > 0.1): {"clipping"},
    spoiled_by(lambda w: bool(w.all()) and float(w.std()) == 0): {"constant offset"},
    spoiled_by(lambda w: int((w != 0).sum()) == 1): {"click"},
    spoiled_by(lambda w: w.shape[1] == FRAME): {"shortest"},
    spoiled_by(lambda w: w.shape[1] > 400_000, float("inf")): {"30 s"},
    NotOnLong: {"30 s", "frame period"},
    WrongWidth: {"states"},
    WrongNumber: {"states"},
    RaggedStates: {"states"},
    TooManyFrames: {"states", "padding"},  # the frame too many is one of padding
    WrongPeriod: {"frame period"},
    OtherPeriodInEncode: {"frame period"},
    VariableFarOff: {"frame period"},
    Float16: {"type"},
    Float64: {"type"},
    ShortLengths: {"type"},
    UncoveredParameter: {"MAC count"},
    TakesTooShort: {"too short"},
    NeedsMore: {"shortest"},
    Deaf: {"hears"},
    Huge: {"heads"},
    NoFingerprint: {"fingerprint"},
    OtherName: {"interface"},
    NumberForTruth: {"interface"},
    NoRate: {"interface", "frame period"},
}
