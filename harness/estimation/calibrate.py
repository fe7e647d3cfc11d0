"""How fast this machine is at what a bench does: a few seconds of the real thing, on samples, kept in the cache.

The upstream encodes a few of the batches that it will be given (:mod:`harness.estimation.encode_timing`); every head is
trained for some updates with all trials side by side, looked at, tested and bootstrapped
(:mod:`harness.estimation.timing`). Results are kept per machine, upstream, device and threads; they hold for the load
that the machine was under.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from harness import cost, kept, provenance
from harness.estimation.encode_timing import Encoding, noise_pieces, time_encoding
from harness.estimation.loads import Load
from harness.estimation.timing import Speed, time_head
from harness.extraction import extract
from harness.identity import digest_json
from harness.interface import SlimbenchError, Upstream
from harness.progress import say

VERSION = 1
"""Raised when something is timed in another way, so that kept results are made again."""


@dataclass(frozen=True)
class Calibration:
    """What was timed.

    Attributes:
        encoding: the upstream; ``None`` where nothing is to be encoded.
        speeds: per task.
        macs: multiply-accumulates of the upstream per second of audio; ``None`` where they cannot be counted.
        made: when the oldest of it was timed, in UTC.
    """

    encoding: Encoding | None
    speeds: Mapping[str, Speed]
    macs: float | None
    made: str


@dataclass(frozen=True)
class Machine:
    """What is timed, and where.

    Attributes:
        upstream: loaded on ``device``.
        device: torch device.
        dtype: stored precision of frames.
        bootstrap: resamples of an interval.
        cache: folder of the cache.
        compute: precision of the upstream's products.
    """

    upstream: Upstream
    device: str
    dtype: str
    bootstrap: int
    cache: Path
    compute: str = "float32"

    @property
    def file(self) -> Path:
        """Where its calibration is kept."""
        known = provenance.gather()
        machine = [known["processor"], known["torch"], self.device, _device_name(self.device), torch.get_num_threads()]
        identity = digest_json([VERSION, self.upstream.fingerprint, *machine])[:16]
        return self.cache / "calibration" / f"{identity}.json"


def calibrate(
    machine: Machine,
    loads: Sequence[Load],
    wanted: Mapping[str, extract.Piece] | None = None,
    again: bool = False,
) -> Calibration:
    """Time what has not been timed yet.

    Args:
        machine: what and where.
        loads: the tasks.
        wanted: audio that is to be encoded; ``None`` where there are no data, then noise is.
        again: time everything anew.
    """
    entries: dict[str, Any] = {} if again else dict(kept.read(machine.file) or {})
    names = {load.name: _head_key(machine, load) for load in loads}
    coding = f"encoding {machine.dtype} {machine.compute} {'sizes' if wanted is None else 'data'}"
    encode = any(load.missing or load.streamed for load in loads)
    if "macs" not in entries:
        _keep(machine, entries, "macs", _macs(machine.upstream))
    machine.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="calibrate-", dir=machine.cache) as name:
        if encode and coding not in entries:
            say(f"calibrate: {machine.upstream.name} encodes a few batches")
            pieces = noise_pieces(loads, Path(name)) if wanted is None else wanted
            found = time_encoding(machine.upstream, pieces, machine.device, machine.dtype, Path(name), machine.compute)
            _keep(machine, entries, coding, asdict(found))
        for load in loads:
            if names[load.name] not in entries:
                say(f"calibrate: {load.trials} probes of {load.name} side by side")
                speed = time_head(machine.upstream, load, machine.device, machine.dtype, machine.bootstrap, Path(name))
                _keep(machine, entries, names[load.name], asdict(speed))
    used = [names[load.name] for load in loads] + ([coding] if encode else [])
    return Calibration(
        Encoding(**entries[coding]["found"]) if encode else None,
        {load.name: Speed(**entries[names[load.name]]["found"]) for load in loads},
        entries["macs"]["found"],
        min((entries[key]["made"] for key in used), default=""),
    )


def _macs(upstream: Upstream) -> float | None:
    try:
        with torch.no_grad():
            return cost.count_macs(upstream)
    except SlimbenchError:
        return None


def _keep(machine: Machine, entries: dict[str, Any], key: str, found: Mapping[str, float] | float | None) -> None:
    entries[key] = {"found": found, "made": datetime.now(UTC).isoformat(timespec="minutes")}
    kept.write(machine.file, entries)


def _head_key(machine: Machine, load: Load) -> str:
    """Of all that the time of a head depends on."""
    sizes = [dict(load.rows), dict(load.seconds), load.trials, load.seeds, load.labels.size]
    task = [load.name, type(load.task).__name__, load.protocol.settings()]
    return f"{load.name} {digest_json([task, sizes, machine.dtype, machine.bootstrap])[:16]}"


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
