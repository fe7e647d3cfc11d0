"""The memory that an upstream needs, measured in a process of its own.

``python -m harness.cost.memory CARD DEVICE SECONDS THREADS`` is that process: it loads the card, encodes noise and
prints two numbers of bytes, what it held before it loaded the card and the most that it held at any time.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.cards import Card
from harness.interface import SAMPLE_RATE, SlimbenchError

MB = 1e6
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Memory:
    """Memory in MB (10^6 bytes).

    Attributes:
        peak: the most that was held while the upstream was loaded and encoded; in RAM with interpreter, libraries and
            audio, on a GPU the tensors alone.
        idle: what was held before the card was loaded, with torch imported.
    """

    peak: float
    idle: float


def peak_memory(card: Card, device: str = "cpu", seconds: float = 10.0, threads: int = 1) -> Memory:
    """Load a card and encode one utterance of noise in a fresh process, and say how much memory that took.

    Raises:
        SlimbenchError: the process failed; the message has its last line.
    """
    variant = card.name.partition("@")[2]
    target = f"{card.file}@{variant}" if variant else str(card.file)
    command = [sys.executable, "-m", "harness.cost.memory", target, device, str(seconds), str(threads)]
    paths = os.pathsep.join(filter(None, sys.path))  # adapters that only this process can import
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise SlimbenchError(
            f"The memory of {card.name} cannot be measured: {last}; see that the card loads in a process of its own."
        )
    idle, peak = (int(word) / MB for word in done.stdout.split()[-2:])
    return Memory(peak, idle)


def _main(target: str, device: str, seconds: str, threads: str) -> None:
    """Print the memory of this process before it loads a card, and its high-water mark after encoding."""
    import torch

    from harness import registry
    from harness.cost.macs import noise

    torch.set_num_threads(int(threads))
    idle = torch.cuda.memory_allocated(device) if device.startswith("cuda") else _resident()
    with torch.no_grad():
        upstream = registry.load_upstream(target, device)
        upstream.encode(*noise(round(float(seconds) * SAMPLE_RATE)))
    peak = torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else _high_water()
    print(idle, peak)


def _resident() -> int:
    """Bytes of RAM that this process holds now; where the kernel does not say, the most that it held."""
    return _status("VmRSS")


def _high_water() -> int:
    """The most bytes of RAM that this process held."""
    return _status("VmHWM")


def _status(field: str) -> int:
    """A line of Linux's account of this process; elsewhere the high-water mark of ``getrusage``.

    On Linux ``ru_maxrss`` is of no use here: a child inherits that of the process that started it.
    """
    if not STATUS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    line = next(row for row in STATUS.read_text().splitlines() if row.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:])
    except SlimbenchError as error:
        sys.exit(str(error))
