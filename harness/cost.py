"""What an upstream costs: parameters, multiply-accumulates, real-time factor, memory and bytes.

A multiply-accumulate (MAC) is counted for every product of matrix multiplications, convolutions and attention, and,
by formula, for Fourier transforms; elementwise work, norms, softmax and look-ups are not counted. The counter
refuses what it cannot see rather than report too little.
"""

from __future__ import annotations

import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from harness.cards import Card
from harness.identity import weight_files
from harness.interface import SAMPLE_RATE, SlimbenchError, Upstream

aten = torch.ops.aten

FREE_OPERATORS = frozenset(
    {"embedding", "index", "index_select", "gather", "cat", "stack", "clone", "copy_", "_to_copy", "repeat"}
    | {"_weight_norm_interface", "norm", "linalg_vector_norm", "sum", "mean", "expand", "detach", "lift_fresh"}
)
"""Operators that may read a weight matrix without multiplying by it; views and elementwise ones are free as well."""


def count_parameters(module: nn.Module | None) -> int:
    """Number of parameters, shared ones once; 0 for an upstream without a module.

    >>> count_parameters(nn.Linear(3, 2))
    8
    """
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


def count_macs(upstream: Upstream, seconds: float = 10.0) -> float:
    """MACs per second of audio, measured on one utterance of ``seconds`` of noise.

    Attention grows with the square of the length, so the figure holds for that length.

    Raises:
        SlimbenchError: the upstream has parts that cannot be counted: recurrent, quantised or scripted modules, an
            unknown operator on a weight matrix, or a weight matrix that the pass never touched.
    """
    module = upstream.module()
    matrices = _matrices(upstream.name, module)
    watch = _Watch(upstream.name, matrices)
    waves, lengths = _noise(seconds)
    mapping = {aten._fft_r2c: _fft_flops(2.5), aten._fft_c2c: _fft_flops(5.0)}
    with _plain_kernels(), FlopCounterMode(display=False, custom_mapping=mapping) as counter, watch:
        upstream.encode(waves, lengths)
    if untouched := sorted(set(matrices.values()) - watch.touched):
        raise SlimbenchError(
            f"The MACs of {upstream.name} cannot be counted: its forward pass never touches {untouched[0]} "
            f"({len(untouched)} such weights); expose only the module that computes the states."
        )
    return float(counter.get_total_flops()) / 2 / seconds


def _matrices(name: str, module: nn.Module | None) -> dict[int, str]:
    """Names of the weight matrices by address of their storage; refuses modules that the counter cannot see into."""
    if module is None:
        return {}
    for path, part in module.named_modules():
        kind = type(part)
        if isinstance(part, nn.RNNBase | nn.RNNCellBase | torch.jit.ScriptModule) or "quantized" in kind.__module__:
            raise SlimbenchError(
                f"The MACs of {name} cannot be counted: {path or 'the model'} is a {kind.__name__}; "
                "extend harness/cost.py with its formula."
            )
    return {p.untyped_storage().data_ptr(): path for path, p in module.named_parameters() if p.dim() > 1}


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which weight matrices a forward pass reads, and refuses operators on them of unknown cost."""

    def __init__(self, name: str, matrices: dict[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.name, self.matrices = name, matrices
        self.touched: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator, after looking at its inputs."""
        kwargs = kwargs or {}
        if func._overloadpacket not in flop_registry:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        read = {self.matrices[key] for key in map(_address, _tensors((args, kwargs))) if key in self.matrices}
        if read and not self._known(func):
            raise SlimbenchError(
                f"The MACs of {self.name} cannot be counted: operator {func} on {min(read)} has no known cost; "
                "extend harness/cost.py with its formula."
            )
        self.touched |= read
        return func(*args, **kwargs)

    @staticmethod
    def _known(func: Any) -> bool:
        operator = func._overloadpacket
        free = func.is_view or torch.Tag.pointwise in func.tags or operator.__name__ in FREE_OPERATORS
        return free or operator in flop_registry


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _fft_flops(factor: float) -> Callable[..., int]:
    """FLOPs of a Fourier transform of N points, ``factor`` · N · log2 N (2.5 for real input, 5 for complex)."""

    def flops(shape: Sequence[int], dims: Sequence[int], *_: Any, **__: Any) -> int:
        points = math.prod(shape[dim] for dim in dims)
        return round(factor * math.prod(shape) * math.log2(points))

    return flops


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Attention and transformer layers as matrix products, not as fused kernels that hide them."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _noise(seconds: float) -> tuple[Tensor, Tensor]:
    samples = round(seconds * SAMPLE_RATE)
    waves = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
    return waves, torch.tensor([samples])


def real_time_factor(upstream: Upstream, seconds: float = 10.0, repeats: int = 5) -> float:
    """Seconds of computing per second of audio for one utterance: the median of ``repeats`` after one warm-up."""
    waves, lengths = _noise(seconds)
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        states = upstream.encode(waves, lengths).states
        if states[0].is_cuda:
            torch.cuda.synchronize(states[0].device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:]) / seconds


def peak_memory_mb(device: str = "cpu") -> float:
    """The high-water mark of this process in MB (10^6 bytes): on the GPU if it runs there, else in RAM.

    It is the most that the process has held at any time since it began, whatever for: interpreter, libraries, data and
    every upstream and probe before this call, not what one upstream needs. It never falls, so that it is an upper
    bound for what ran in this process, and tells upstreams apart only where each had a process of its own.
    """
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def bytes_on_disk(card: Card) -> int:
    """Size of the upstream's weight files; 0 where it has none."""
    return 0 if card.weights is None else sum(file.stat().st_size for file in weight_files(card.weights))
