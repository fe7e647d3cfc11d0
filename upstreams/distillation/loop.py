"""The optimiser loop shared by pre-training and distillation: schedule, clip, log, checkpoint, resume."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from harness.interface import SlimbenchError
from upstreams.distillation import files
from upstreams.distillation.settings import at_least, within

LOG_EVERY, SAVE_EVERY = 25, 100


def rank_and_world() -> tuple[int, int]:
    """This process's rank and the number of processes; (0, 1) where none were started together."""
    return (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)


@dataclass(frozen=True)
class Optimiser:
    """AdamW with linear warm-up, a plateau up to 40 % of the steps, and linear decay.

    Attributes:
        lr: peak learning rate.
        warmup: share of the steps in which the rate rises.
        weight_decay: of matrices; vectors have none.
        clip: largest norm of the gradient.
        accumulate: batches per update.
        precision: of products, ``float32`` or ``bfloat16``.
    """

    lr: float = 1e-3
    warmup: float = 0.06
    weight_decay: float = 0.01
    clip: float = 1.0
    accumulate: int = 1
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision {self.precision!r} is neither float32 nor bfloat16")
        if self.accumulate < 1:
            raise ValueError(f"accumulate {self.accumulate} is less than 1")
        for name in ("lr", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; write a number above 0")
        within("warmup", self.warmup, 0, 1)
        at_least("weight_decay", self.weight_decay, 0)


class Loop:
    """The optimiser of one model; writes ``curve.jsonl`` and an atomic ``state.pt`` in ``folder``.

    Batches must depend on the step number only; then a killed run that resumes sees what it would have seen.
    Under ``torchrun`` each process takes its own batch (``draw``) and gradients are averaged.
    ``identity`` is a digest of all that decides the run's outcome; a checkpoint of another identity is refused.
    ``before`` counts the batches of earlier stages, which are not drawn again.
    """

    def __init__(
        self, folder: Path, model: nn.Module, settings: Optimiser, steps: int, identity: str, before: int = 0
    ) -> None:
        self.identity, self.settings, self.before = identity, settings, before
        self.folder, self.model, self.steps, self.step, self.hours = folder, model, steps, 0, 0.0
        decay = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]
        flat = [p for p in model.parameters() if p.requires_grad and p.dim() <= 1]
        groups: list[dict[str, Any]] = [{"params": decay}, {"params": flat, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(
            groups, lr=settings.lr, betas=(0.9, 0.98), weight_decay=settings.weight_decay
        )
        rise = max(1, int(settings.warmup * steps))
        hold = int(0.4 * steps)

        def factor(step: int) -> float:
            if step < rise:
                return (step + 1) / rise
            return 1.0 if step < hold else max(0.02, (steps - step) / (steps - hold))

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        self._figures: dict[str, list[float]] = {}
        self._drawn, self._began = 0.0, time.time()
        self.rank, self.world = rank_and_world()

    @property
    def done(self) -> bool:
        """Whether all steps are taken."""
        return self.step >= self.steps

    @property
    def progress(self) -> float:
        """Share of the steps that are taken, 0 to 1."""
        return self.step / max(self.steps, 1)

    def draw(self, part: int = 0) -> int:
        """Number of the batch that is this process's ``part`` of the next update; no two ever share one."""
        return self.before + self._batches(self.step) + part * self.world + self.rank

    @property
    def drawn(self) -> int:
        """Batches that the whole training takes, of all processes, with those of the stages before."""
        return self.before + self._batches(self.steps)

    def _batches(self, updates: int) -> int:
        return updates * self.settings.accumulate * self.world

    def _average_gradients(self, hours: float) -> float:
        """Average gradients over all processes; returns the hours that all of them drew together.

        Which parameters a step uses may differ between processes. One that none used keeps no gradient, so that the
        optimiser leaves it alone as it does in one process.
        """
        mine = [p for p in self.model.parameters() if p.requires_grad]
        pieces = [torch.zeros_like(p) if p.grad is None else p.grad for p in mine]
        notes = [float(p.grad is not None) for p in mine] + [hours]
        flat = torch.cat([*(piece.flatten() for piece in pieces), pieces[0].new_tensor(notes)])
        distributed.all_reduce(flat)
        *averages, used, total = torch.split(flat, [p.numel() for p in mine] + [len(mine), 1])
        for parameter, piece, users in zip(mine, averages, used.tolist(), strict=True):
            parameter.grad = (piece / self.world).view_as(parameter) if users else None
        return float(total)

    @property
    def file(self) -> Path:
        """The checkpoint."""
        return self.folder / "state.pt"

    def resume(self) -> bool:
        """Load the checkpoint if there is one; rows of the curve that lie after it go.

        Raises:
            SlimbenchError: the checkpoint is of another run.
        """
        if not self.file.is_file():
            self._cut_curve()
            return False
        state = files.load(self.file, self.identity)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step, self.hours = state["step"], state["hours"]
        self._cut_curve()
        return True

    def _cut_curve(self) -> None:
        """Drop rows after the current step, and the half line that a kill may leave at the end."""
        curve = self.folder / "curve.jsonl"
        if self.rank or not curve.is_file():
            return
        rows = files.read_rows(curve, f"delete {self.folder} to start anew")
        files.write_text(curve, "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= self.step))

    def save(self) -> None:
        """Write the checkpoint atomically."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
            "hours": self.hours,
        }
        files.save(self.file, state, self.identity)

    def add(self, loss: Tensor, figures: Mapping[str, float], hours: float) -> None:
        """Add the gradient of one batch, its share of an update's.

        Args:
            loss: of this process's batch.
            figures: numbers to log, averaged over the batches between two rows.
            hours: of audio in the batch.

        Raises:
            SlimbenchError: the loss is not finite.
        """
        if not bool(torch.isfinite(loss)):
            raise SlimbenchError(
                f"The loss of {self.folder} is {float(loss)} at step {self.step}; lower the learning rate, "
                "and delete that folder to start anew."
            )
        (loss / self.settings.accumulate).backward()  # type: ignore[no-untyped-call]
        self._drawn += hours
        for name, value in figures.items():
            self._figures.setdefault(name, []).append(value)

    def update(self) -> None:
        """Take the step that the added gradients say, with logging and checkpointing when due.

        Raises:
            SlimbenchError: the checkpoint cannot be written.
        """
        self.hours += self._average_gradients(self._drawn) if self.world > 1 else self._drawn
        self._drawn = 0.0
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        self.step += 1
        if self.rank:
            return
        if self.step % LOG_EVERY == 0 or self.done:
            row = {k: round(sum(v) / len(v), 4) for k, v in self._figures.items()}
            row |= {"step": self.step, "hours": round(self.hours, 3), "seconds": round(time.time() - self._began, 1)}
            self._figures = {}
            with (self.folder / "curve.jsonl").open("a") as handle:
                handle.write(json.dumps(row) + "\n")
        if self.step % SAVE_EVERY == 0 or self.done:
            self.save()
