"""Any upstream in half precision or in 8 bits, as an upstream of its own.

``float16`` and ``bfloat16``: weights and computing in that type (:mod:`harness.precision.halves`). ``int8``: weights
of all linear layers in 8 bits, one scale per output, and their inputs rounded to 8 bits on the fly
(:mod:`harness.precision.quantised`); the rest stays float32.

What a precision cannot do on a device is an error when the upstream is loaded, never a quiet return to float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from harness.cards import PRECISIONS
from harness.cost.meter import plain_layers
from harness.cost.packed import packed_modules
from harness.identity import digest_json
from harness.interface import HiddenStates, SlimbenchError, Upstream
from harness.precision.halves import Meeting, halve
from harness.precision.quantised import called_linear_layers, quantise_linear

VERSION = 1
HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Reduced:
    """An upstream whose weights run in another precision. The given upstream is changed, not copied.

    Utterances are encoded one by one: the scales of 8-bit inputs are taken over all that a layer is given, and rounding
    in half precision depends on the size of the batch, so that only alone the states of an utterance are its own. So
    ``batch_invariant`` is true. States are float32; frames beyond an utterance's length are zero.

    Args:
        upstream: a frozen upstream in float32; its module must be what computes its states.
        precision: ``float16``, ``bfloat16`` or ``int8``.
        device: where it runs.

    Raises:
        SlimbenchError: there is no module or no layer to convert, the module's precision is fixed (TorchScript,
            quantised), the device cannot compute in this precision, or the states do not depend on the module.
    """

    batch_invariant = True

    def __init__(self, upstream: Upstream, precision: str, device: str = "cpu") -> None:
        self.name, self.precision = upstream.name, precision
        self.num_states, self.width = upstream.num_states, upstream.width
        self.frame_ms, self.variable_rate = upstream.frame_ms, upstream.variable_rate
        self.min_samples = upstream.min_samples
        self.fingerprint = digest_json({"precision": precision, "version": VERSION, "of": upstream.fingerprint})
        self._upstream = upstream
        self._device = torch.device(device)
        self._meeting: AbstractContextManager[object] = nullcontext()
        module = self._convertible(upstream.module())
        with called_linear_layers(module) as called:
            before = self._trial()
        if precision == "int8":
            self._quantise(module, called)
            after = self._trial()
        else:
            after = self._halve(module, HALVES[precision])
        if all(torch.equal(one, other) for one, other in zip(before, after, strict=True)):
            raise SlimbenchError(
                f"{self.name} cannot run in {precision}: its states are the same as in float32, so they do not "
                "come from the weights of its module(); let module() give what encode() computes with."
            )

    def module(self) -> nn.Module | None:
        """The converted module."""
        return self._upstream.module()

    @torch.no_grad()
    def encode(self, waves: Tensor, lengths: Tensor) -> HiddenStates:
        """States of ``waves`` (B, S) with ``lengths`` (B,) valid samples, float32, each utterance by itself.

        Raises:
            SlimbenchError: an operator cannot compute in this precision.
        """
        alone = [self._alone(wave, int(length)) for wave, length in zip(waves, lengths, strict=True)]
        frames = torch.cat([item.lengths for item in alone])
        states = [
            pad_sequence([item.states[layer][0].float() for item in alone], batch_first=True)
            for layer in range(self.num_states)
        ]
        return HiddenStates(states, frames, self.frame_ms)

    def _alone(self, wave: Tensor, length: int) -> HiddenStates:
        """States of the first ``length`` samples of a wave (S,), each (1, T, width)."""
        try:
            with plain_layers(), self._meeting:
                return self._upstream.encode(wave[None, :length], torch.tensor([length]))
        except (RuntimeError, TypeError) as error:  # what torch raises where types do not meet or have no kernel
            reason = " ".join(str(error).split("\n")[0].split()).rstrip(".")
            raise SlimbenchError(
                f"{self.name} cannot run in {self.precision} on {self._device} ({reason}); choose another precision."
            ) from error

    def _trial(self) -> Sequence[Tensor]:
        """The states of a short noise."""
        samples = max(self.min_samples, 8_000)
        wave = 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            return [state.float().clone() for state in self._alone(wave, samples).states]

    def _convertible(self, module: nn.Module | None) -> nn.Module:
        """The module, if its precision can be changed."""
        name, precision = self.name, self.precision
        if precision != "int8" and precision not in HALVES:
            raise SlimbenchError(f"precision {precision!r} is not known; write one of {', '.join(PRECISIONS)}.")
        if module is None:
            raise SlimbenchError(f"{name} has no weights, so it cannot run in {precision}; leave out precision.")
        if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()) or packed_modules(module):
            raise SlimbenchError(
                f"{name} cannot run in {precision}: it is a TorchScript or quantised module, whose precision is fixed; "
                f"export it in {precision}, and leave out precision."
            )
        if precision == "int8" and self._device.type != "cpu":
            raise SlimbenchError(f"{name} cannot run in int8 on {self._device}: torch has int8 layers on the CPU only.")
        return module

    def _halve(self, module: nn.Module, dtype: torch.dtype) -> Sequence[Tensor]:
        """Bring the weights to 16 bits; returns the states of a short noise."""
        halve(module, dtype)
        try:
            return self._trial()
        except SlimbenchError:  # float32 meets 16 bits in a product outside of torch's modules
            self._meeting = Meeting(dtype)
            return self._trial()

    def _quantise(self, module: nn.Module, called: set[nn.Module]) -> None:
        """Turn all linear layers into 8 bits."""
        try:
            count = quantise_linear(module, called)
        except RuntimeError as error:
            reason = " ".join(str(error).split("\n")[0].split()).rstrip(".")
            raise SlimbenchError(f"{self.name} cannot be quantised to int8 ({reason}); choose another one.") from error
        if not count:
            raise SlimbenchError(
                f"{self.name} has no linear layers inside, so int8 would change nothing; leave it out."
            )
