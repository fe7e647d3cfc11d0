"""What a compressed family has to show: states equal to those of its public code, sizes equal to the printed ones.

Each family has a module ``<family>_cases.py`` beside this one with ``CASES`` and ``SIZES``; ``test_equality.py`` runs
all of them, and ``parity_table.py`` writes the table in docs/upstreams.md from them.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

GOLDEN = Path(__file__).parent / "golden"
LENGTHS = (24_000, 13_001, 5_000)
"""Samples of the three utterances that every case encodes, alone and in one batch."""


@dataclass(frozen=True)
class Case:
    """A small random-weight checkpoint in the family's true format, and what the public code makes of it.

    Attributes:
        family: as the card says.
        name: which kind of the family.
        write: writes the checkpoint into a folder and returns the card's fields beyond name, title, licence, source and
            exposes: adapter, weights (file name), options, depth, width ...; the same bytes of weights at every call.
        reference: from the folder with the checkpoint and the utterances to their states, each a list of (T, D)
            tensors, of the public code run utterance by utterance: live where it can be imported, else the stored ones
            of :func:`golden`.
        how: how the reference was made, in words.
    """

    family: str
    name: str
    write: Callable[[Path], Mapping[str, object]]
    reference: Callable[[Path, list[Tensor]], list[list[Tensor]]]
    how: str


@dataclass(frozen=True)
class Size:
    """A full-size model and its printed size.

    Attributes:
        family: as the card says.
        name: of the published model.
        model: builds it with random weights; maps waves (B, S), lengths (B,) to states and frames.
        params: printed parameters in millions; ``None`` where none is printed.
        digits: decimals of the print that count.
        macs: printed giga-MACs over SUPERB's 32 utterances, or ``None``.
        macs_within: tolerance of the MACs in percent.
        source: where the figures are printed.
    """

    family: str
    name: str
    model: Callable[[], nn.Module]
    params: float | None
    digits: int
    macs: float | None = None
    macs_within: float = 1.0
    source: str = ""


def utterances() -> list[Tensor]:
    """Three waveforms, sums of gliding tones and noise, the same on every machine."""
    found = []
    for index, length in enumerate(LENGTHS):
        rng = np.random.RandomState(index)
        time = np.arange(length) / 16_000
        tone = sum(
            np.sin(2 * np.pi * (f + 90 * np.sin(3 * time)) * time) / (k + 1) for k, f in enumerate((140, 620, 2400))
        )
        sound = 0.1 * tone * np.sin(5 * time) ** 2 + 0.01 * rng.randn(length)
        found.append(torch.from_numpy(sound.astype(np.float32)))
    return found


def random_state(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Random weights by name, the same on every machine; scaled so that states neither vanish nor explode."""
    rng = np.random.RandomState(seed)
    state = {}
    for name, shape in shapes.items():
        fan_in = max(1, int(np.prod(shape[1:])))
        values = rng.randn(*shape) * (1.0 / np.sqrt(fan_in) if len(shape) > 1 else 0.1)
        norm = name.endswith("weight") and len(shape) == 1
        state[name] = torch.from_numpy(np.asarray(values + (1.0 if norm else 0.0), dtype=np.float32))
    return state


def card_file(case: Case, folder: Path) -> Path:
    """The case's checkpoint and card in a folder."""
    fields = {"name": "case", "title": case.name, "licence": "none", "source": "a test", "exposes": "see the case"}
    file = folder / "case.yaml"
    file.write_text(yaml.safe_dump({**fields, "family": case.family, **case.write(folder)}, sort_keys=False))
    return file


def real_utterances(folder: Path) -> list[Tensor]:
    """Three short utterances of real speech from the folder in REAL_SPEECH."""
    with (folder / "pr" / "manifest.csv").open(encoding="utf-8", newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["split"] == "dev" and float(row["seconds"]) < 3]
    found = []
    for row in sorted(rows, key=lambda row: row["path"])[:3]:
        start = round(float(row["start"] or 0) * 16_000)
        samples, rate = soundfile.read(
            folder / row["path"], start=start, frames=round(float(row["seconds"]) * 16_000), dtype="float32"
        )
        if rate != 16_000:
            raise ValueError(f"{row['path']} is sampled at {rate} Hz")
        found.append(torch.from_numpy(samples))
    return found


def golden(name: str) -> Callable[[Path, list[Tensor]], list[list[Tensor]]]:
    """A reference that reads ``golden/<name>.safetensors``: names ``<waves digest>.<utterance>.<state>``, (T, D)."""

    def read(_: Path, waves: list[Tensor]) -> list[list[Tensor]]:
        stored = load_file(GOLDEN / f"{name}.safetensors")
        found = []
        for index in range(len(waves)):
            prefix = f"{digest(waves)}.{index}."
            numbers = sorted(int(key.removeprefix(prefix)) for key in stored if key.startswith(prefix))
            if not numbers:
                raise KeyError(f"golden/{name}.safetensors holds no states of these utterances")
            found.append([stored[f"{prefix}{number}"] for number in numbers])
        return found

    return read


def save_golden(name: str, results: list[tuple[list[Tensor], list[list[Tensor]]]]) -> Path:
    """Store what the public code made of one or more sets of utterances (used once, beside the project)."""
    tensors = {
        f"{digest(waves)}.{index}.{number}": state.detach().float().contiguous()
        for waves, states in results
        for index, utterance in enumerate(states)
        for number, state in enumerate(utterance)
    }
    file = GOLDEN / f"{name}.safetensors"
    save_file(tensors, file)
    return file


def digest(waves: list[Tensor]) -> str:
    """Twelve digits that name a set of utterances."""
    return hashlib.sha256(b"".join(wave.numpy().tobytes() for wave in waves)).hexdigest()[:12]
