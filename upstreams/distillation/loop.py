"""The optimiser loop shared by pre-training and distillation: schedule, clip, log, checkpoint, resume."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from upstreams.distillation import files

LOG_EVERY, SAVE_EVERY = 25, 100


def rank_and_world() -> tuple[int, int]:
    """This process's rank and the number of processes; (0, 1) where none were started together."""
    return (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)


class Loop:
    """AdamW with linear warm-up and decay; writes ``curve.jsonl`` and an atomic ``state.pt`` in ``folder``.

    Batches must depend on the step number only; then a killed run that resumes sees what it would have seen.
    Under ``torchrun`` each process takes its own batch (``draw_index``) and gradients are averaged.
    ``identity`` is a digest of all that decides the run's outcome; a checkpoint of another identity is refused.
    """

    def __init__(
        self, folder: Path, model: nn.Module, lr: float, steps: int, identity: str, warmup: float = 0.06
    ) -> None:
        self.identity = identity
        self.folder, self.model, self.steps, self.step, self.hours = folder, model, steps, 0, 0.0
        decay = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]
        flat = [p for p in model.parameters() if p.requires_grad and p.dim() <= 1]
        groups: list[dict[str, Any]] = [{"params": decay}, {"params": flat, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
        rise = max(1, int(warmup * steps))
        hold = int(0.4 * steps)

        def factor(step: int) -> float:
            if step < rise:
                return (step + 1) / rise
            return 1.0 if step < hold else max(0.02, (steps - step) / (steps - hold))

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        self._figures: dict[str, list[float]] = {}
        self.rank, self.world = rank_and_world()

    @property
    def draw_index(self) -> int:
        """Number of the batch that this process takes next; no two processes or steps share one."""
        return self.step * self.world + self.rank

    def _average_gradients(self, hours: float) -> float:
        """Average gradients over all processes; returns the hours that all of them drew together."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients] + [torch.tensor([hours])])
        distributed.all_reduce(flat)
        total = float(flat[-1])
        flat = flat[:-1] / self.world
        for gradient, piece in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(piece.view_as(gradient))
        return total

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
        lines = [line for line in curve.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
        files.write_text(curve, "".join(line for line in lines if json.loads(line)["step"] <= self.step))

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

    def update(self, loss: Tensor, figures: dict[str, float], hours: float, started: float) -> None:
        """One update, with logging and checkpointing when due.

        Args:
            loss: of this process's batch.
            figures: numbers to log, averaged over the steps between two rows.
            hours: of audio in this process's batch.
            started: ``time.time()`` when this process began.

        Raises:
            FloatingPointError: the loss is not finite.
            SlimbenchError: the checkpoint cannot be written.
        """
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError(f"loss is {float(loss)} at step {self.step} in {self.folder}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.hours += self._average_gradients(hours) if self.world > 1 else hours
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        if self.rank:
            return
        for name, value in figures.items():
            self._figures.setdefault(name, []).append(value)
        if self.step % LOG_EVERY == 0 or self.step == self.steps:
            row = {k: round(sum(v) / len(v), 4) for k, v in self._figures.items()}
            row |= {"step": self.step, "hours": round(self.hours, 3), "seconds": round(time.time() - started, 1)}
            self._figures = {}
            with (self.folder / "curve.jsonl").open("a") as handle:
                handle.write(json.dumps(row) + "\n")
            print(f"{self.folder.name}: {self.step}/{self.steps} {row}", flush=True)
        if self.step % SAVE_EVERY == 0 or self.step == self.steps:
            self.save()
