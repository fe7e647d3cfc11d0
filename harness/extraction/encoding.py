"""One batch through the upstream: in the precision that was asked for, in parts where it does not fit the memory.

What is kept of a batch is worked out on the device: time means and peaks of all states, and frames in the precision in
which they are stored. On CUDA the copies to and from the device run beside the computing (pinned memory).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from harness.conformance import INVARIANCE, apart, misshapen, noise
from harness.interface import SAMPLE_RATE, HiddenStates, SlimbenchError, Upstream
from harness.precision import Reduced

COMPUTE = ("float32", "bfloat16")
"""In which precision products may be computed; weights stay as they are."""

DRIFT = 0.2
"""How far a state computed in bfloat16 may be from float32, as root mean square in units of its standard deviation."""

_NO_ROOM = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")


def compute_type(upstream: Upstream, device: str, wish: str | None = None) -> str:
    """In which precision an upstream computes its products on a device: what is wished, else bfloat16 on CUDA.

    Upstreams without weights, and those whose precision is chosen by their card, compute as they are (``float32``).
    """
    if wish is not None and wish not in COMPUTE:
        raise SlimbenchError(f"precision {wish!r} of computing is not known; use one of {', '.join(COMPUTE)}.")
    if upstream.module() is None or isinstance(upstream, Reduced):
        return "float32"
    return wish or ("bfloat16" if torch.device(device).type == "cuda" else "float32")


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that memory did not suffice."""
    while error is not None:
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            return True
        if isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_ROOM):
            return True
        error = error.__cause__
    return False


@dataclass(frozen=True)
class Encoded:
    """What is kept of N utterances, on the CPU; on CUDA to be looked at after :meth:`wait` only.

    Attributes:
        counts: (N,) frames.
        means: (N, L, D) float32 time means.
        peaks: (N,) largest magnitude of a state; not finite where a state is not.
        frames: (M, L, T, D) in the stored precision, of the M utterances of which frames are kept, padded.
        longest: T.
    """

    counts: Tensor
    means: Tensor
    peaks: Tensor
    frames: Tensor
    longest: int
    ready: torch.Event | None = None

    def wait(self) -> None:
        """Wait until the copies from the device are there."""
        if self.ready is not None:
            self.ready.synchronize()


class Encoder:
    """Encodes batches; remembers how much fits the memory.

    Args:
        upstream: what encodes.
        device: torch device.
        dtype: in which frames are kept.
        compute: ``float32``, or ``bfloat16`` for products in autocast.
    """

    def __init__(self, upstream: Upstream, device: str, dtype: torch.dtype, compute: str = "float32") -> None:
        self.upstream, self.device, self.dtype, self.compute = upstream, torch.device(device), dtype, compute
        self._most: int | None = None

    @property
    def pinned(self) -> bool:
        """Whether waveforms should lie in pinned memory."""
        return self.device.type == "cuda"

    def __call__(
        self, waves: Tensor, lengths: Sequence[int], frames: Sequence[bool], where: Sequence[str]
    ) -> list[Encoded]:
        """Encode a batch, in one part where it fits; where it does not, in parts of half as many utterances.

        Args:
            waves: (N, S) float32 on the CPU, padded with zeros.
            lengths: valid samples of each.
            frames: whether its frames are kept.
            where: file and line of each, for messages.

        Raises:
            SlimbenchError: one utterance alone does not fit the memory, or the upstream breaks its promise.
        """
        parts, first = [], 0
        while first < len(waves):
            longest = max(lengths[first:])
            count = len(waves) - first if self._most is None else max(1, self._most // longest)
            rows = slice(first, first + count)
            try:
                parts.append(self._once(waves[rows, :longest], lengths[rows], frames[rows]))
            except Exception as error:
                if not out_of_memory(error):
                    raise
                count = len(lengths[rows])
                if count == 1:
                    raise SlimbenchError(
                        f"{where[first]}: {lengths[first] / SAMPLE_RATE:.1f} s of audio do not fit the memory of "
                        f"{self.device} with {self.upstream.name}; use a device with more memory, or cut the audio "
                        "(`start` and `seconds` in the manifest)."
                    ) from error
                self._most = count // 2 * longest
            else:
                first += count
                continue
            _free(self.device)  # here, because the error above keeps the tensors of the failed try
        return parts

    def _once(self, waves: Tensor, lengths: Sequence[int], frames: Sequence[bool]) -> Encoded:
        hidden = run(self.upstream, waves, lengths, self.device, self.compute)
        with torch.inference_mode():
            kept = [row for row, keep in enumerate(frames) if keep]
            return _reduced(hidden, kept, self.dtype, self.device)


def _reduced(hidden: HiddenStates, kept: list[int], dtype: torch.dtype, device: torch.device) -> Encoded:
    """What is kept of the states. No number is waited for, so that a GPU can go on with the next batch."""
    states, counts = hidden.states, hidden.lengths
    steps = states[0].shape[1]
    behind = (torch.arange(steps, device=counts.device) >= counts[:, None])[..., None].to(states[0].device)
    sums, tops = [], []
    for state in states:
        valid = state.float().masked_fill(behind, 0.0)
        sums.append(valid.sum(1))
        tops.append(torch.maximum(valid.amax(1), -valid.amin(1)).amax(1))  # a third of the time of a norm on a CPU
    rows = slice(None) if len(kept) == len(counts) else torch.tensor(kept, dtype=torch.long, device=states[0].device)
    frames = torch.stack([state[rows].to(dtype) for state in states], 1) if kept else torch.empty(0, dtype=dtype)

    def fetched(value: Tensor) -> Tensor:
        return value.to("cpu", non_blocking=device.type == "cuda")  # such a copy lands in pinned memory

    means = torch.stack(sums, 1) / counts.to(sums[0])[:, None, None]
    peaks = torch.stack(tops).amax(0)
    return Encoded(fetched(counts), fetched(means), fetched(peaks), fetched(frames), steps, _mark(device))


def _mark(device: torch.device) -> torch.Event | None:
    """The point up to which the device has been asked to work; none where it has worked already."""
    if device.type != "cuda":
        return None
    here = torch.Event(device, blocking=True)
    here.record(torch.accelerator.current_stream(device))
    return here


def run(
    upstream: Upstream, waves: Tensor, lengths: Sequence[int], device: torch.device | str, compute: str = "float32"
) -> HiddenStates:
    """States of a batch on the device, their shapes checked; frame counts are not looked at.

    Raises:
        SlimbenchError: the shapes are not those that the upstream promises.
    """
    device = torch.device(device)
    counts = torch.tensor(lengths)
    with torch.inference_mode(), autocast(device, compute):
        hidden = upstream.encode(waves.to(device, non_blocking=device.type == "cuda"), counts.to(device))
    fine = torch.ones(hidden.lengths.shape, dtype=torch.long)  # looking at the counts would wait for the device
    if fault := misshapen(upstream, HiddenStates(hidden.states, fine, hidden.frame_ms), len(waves)):
        raise SlimbenchError(f"upstream {upstream.name}: {fault}; mend its adapter.")
    return hidden


def autocast(device: torch.device, compute: str) -> AbstractContextManager[Any]:
    """Products in bfloat16 where ``compute`` says so; nothing else is changed."""
    return torch.autocast(device.type, torch.bfloat16) if compute == "bfloat16" else nullcontext()


def _free(device: torch.device) -> None:
    """Give back what torch keeps of the device's memory for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def check_upstream(upstream: Upstream, device: str, compute: str = "float32") -> None:
    """Try the upstream on noise: shapes, and states that do not depend on what shares the batch.

    The batch is tried in float32, where rounding hides nothing; then bfloat16 is compared with that, if it is used.

    Raises:
        SlimbenchError: with what is wrong and what its author can do.
    """
    short = max(2 * upstream.min_samples, SAMPLE_RATE // 4)
    waves = [noise(2 * short if upstream.batch_invariant else short), noise(short, 1)]
    together, alone = _tried(upstream, waves, device), _tried(upstream, waves[1:], device)
    distance, layer = apart(upstream.name, alone, 0, together, 1)
    if not distance <= INVARIANCE:
        raise SlimbenchError(
            f"upstream {upstream.name}: state {layer} depends on what else is in the batch (by {distance:.2g} of its "
            "standard deviation); "
            + (
                "set batch_invariant to false in its adapter, or use the padding mask."
                if upstream.batch_invariant
                else "also where all lengths are equal; mend its adapter."
            )
        )
    if compute != "float32":
        _check_compute(upstream, alone, _tried(upstream, waves[1:], device, compute), compute)


def _check_compute(upstream: Upstream, full: HiddenStates, reduced: HiddenStates, compute: str) -> None:
    for layer, (one, other) in enumerate(zip(full.states, reduced.states, strict=True)):
        drift = float((one - other).square().mean().sqrt() / one.std(correction=0).clamp_min(1e-6))
        if not drift <= DRIFT:
            raise SlimbenchError(
                f"upstream {upstream.name}: state {layer} computed in {compute} is {drift:.2g} of its standard "
                "deviation away from float32; compute in float32."
            )


def _tried(upstream: Upstream, waves: list[Tensor], device: str, compute: str = "float32") -> HiddenStates:
    try:
        hidden = run(upstream, pad_sequence(waves, batch_first=True), [len(wave) for wave in waves], device, compute)
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise SlimbenchError(
            f"upstream {upstream.name}: {len(waves[0]) / SAMPLE_RATE:.1f} s of noise do not fit the memory of {device}"
            "; free it or use another device."
        ) from error
    if fault := misshapen(upstream, hidden, len(waves)):
        raise SlimbenchError(f"upstream {upstream.name}: {fault}; mend its adapter.")
    return HiddenStates([state.float().cpu() for state in hidden.states], hidden.lengths.cpu(), hidden.frame_ms)
