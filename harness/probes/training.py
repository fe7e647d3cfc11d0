"""One training run: all trials of a task, step by step, with looks at dev and checkpoints."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from harness import adapt, metrics
from harness.head import Head
from harness.interface import FeatureSource, Labels, Manifest, SlimbenchError, Task, TrainingProtocol, Utterance
from harness.probes.augment import spec_augment
from harness.probes.batches import Table
from harness.probes.order import Order, balanced_draw
from harness.probes.outputs import check_frames, classes_of, evaluate, targets_of
from harness.probes.stacked import LAYERS, StackedAdam, build_bank
from harness.probes.trials import ProbeTrial, TrialResult
from harness.randomness import Noise, generator
from harness.threads import side_by_side


class Run:
    """The state of one training run: everything that a checkpoint holds, and the data beside it."""

    def __init__(
        self,
        task: Task,
        labels: Labels,
        manifest: Manifest,
        features: FeatureSource,
        protocol: TrainingProtocol,
        trials: tuple[ProbeTrial, ...],
        device: str,
    ) -> None:
        self.task, self.labels, self.manifest, self.protocol, self.trials = task, labels, manifest, protocol, trials
        self.device = device
        self.metric = metrics.metric(task.metric)
        self.key = _key(task, labels, manifest, features, protocol, trials)
        self.notes: list[str] = []
        heads = {seed: _head(task, features.width, labels, protocol, seed) for seed in {t.seed for t in trials}}
        self.bank = build_bank([heads[trial.seed] for trial in trials], features.num_states, device)
        rates = [trial.learning_rate for trial in trials]
        self.optimizer = StackedAdam(protocol.optimizer, self.bank.params, rates, protocol.clip, protocol.layer_lr)
        self._load_data(features)
        self.step = 0
        self.best = {key: value.detach().clone() for key, value in self.bank.params.items()}
        self.dev = [self.metric.worst] * len(trials)
        self.best_step = [0] * len(trials)
        self.curves: list[list[tuple[int, float]]] = [[] for _ in trials]
        self.diverged = [False] * len(trials)
        self.skipped = torch.zeros(len(trials), dtype=torch.long)
        self.seconds = 0.0
        self.encoded = 0.0
        self.features = features
        self.status = ""

    @property
    def done(self) -> bool:
        """Whether all updates have been made."""
        return self.step >= self.protocol.steps

    def advance(self, checkpoint: Path | None = None) -> None:
        """The next update, and where one is due the look at dev and its checkpoint."""
        began, before = time.perf_counter(), encoded_by(self.features)
        self.update(self.step)
        due = self.step % self.protocol.eval_every == 0 or self.done
        if due:
            self.look()
        self.seconds += time.perf_counter() - began
        self.encoded += encoded_by(self.features) - before
        if due and checkpoint is not None:
            self.save(checkpoint)

    def _load_data(self, features: FeatureSource) -> None:
        task, manifest, protocol = self.task, self.manifest, self.protocol
        train_rows, dev_rows = manifest.split("train"), manifest.split("dev")
        self.targets = targets_of(task, manifest, train_rows, self.labels)
        dev_targets = targets_of(task, manifest, dev_rows, self.labels)
        targets_of(task, manifest, manifest.split("test"), self.labels)  # unknown labels show before hours of training
        self.train = Table(features, [utterance.id for utterance in train_rows], task.need, self.device)
        self.dev_table = Table(features, [utterance.id for utterance in dev_rows], task.need, self.device)
        check_frames(manifest, train_rows, self.train.lengths, self.bank.head)
        check_frames(manifest, dev_rows, self.dev_table.lengths, self.bank.head)
        test_rows = manifest.split("test")  # only their lengths: no test state or label is read in training
        check_frames(manifest, test_rows, [features.num_frames(row.id) for row in test_rows], self.bank.head)
        self.crop = self._crop(features.frame_ms, train_rows)
        self.order = Order(
            protocol,
            task.need,
            self.train.lengths,
            [row.seconds for row in train_rows],
            [len(target) for target in self.targets],
            classes_of(self.targets) if protocol.balanced else None,
            adapt.groups(train_rows),
        )
        dev_groups = adapt.groups(dev_rows)
        self.dev_draw: list[int] | None = None
        if protocol.balanced_dev:
            self.dev_draw = balanced_draw(classes_of(dev_targets), len(dev_groups))
        elif len(dev_groups) < len(dev_rows):
            self.dev_draw = [group[0] for group in dev_groups]
        self.notes += task.remarks(self.targets, self.train.lengths)

    def _crop(self, frame_ms: float, rows: Sequence[Utterance]) -> int | None:
        """Longest training utterance in frames, or None; says where a crop is asked for and cannot be made."""
        seconds = self.protocol.max_seconds
        if seconds is None:
            return None
        if not self.task.croppable:
            raise SlimbenchError(
                f"Task {self.task.name} cannot crop utterances; take max_seconds out of the suite file."
            )
        if self.task.need == "pooled":
            if self.protocol.crops:  # the crops are utterances of their own here
                return None
            longer = sum(row.seconds > seconds for row in rows)
            if longer:
                self.notes.append(f"{longer} training utterances over {seconds:g} s were averaged whole, not cropped.")
            return None
        crop = int(seconds * 1000 / frame_ms)
        least = self.bank.head.min_frames
        if crop < least:
            raise SlimbenchError(
                f"Crops of {seconds:g} s are {crop} frames, the head of {self.task.name} needs {least}; "
                "raise max_seconds in the suite file."
            )
        return crop

    def update(self, step: int) -> None:
        """One optimiser update of every trial."""
        places, weights = self.order.update(step)
        indices = places.tolist()
        weights = weights.to(self.device)
        x, lengths = self.train.gather(indices, self.crop, generator("crop", step))
        if self.protocol.specaugment:
            x = spec_augment(x, lengths, generator("augment", step))
        self.bank.head.train()

        def trained(trials: range) -> Tensor:
            bank = self.bank.part(trials)
            output = bank(x, lengths, Noise([self.trials[r].seed for r in trials], step, self.device))
            targets = [self.targets[i] for i in indices] * len(trials)
            losses = self.task.loss(output.flatten(0, 1), lengths.repeat(len(trials)), targets, self.labels)
            total = (losses.view(len(trials), -1) * weights).sum()
            grads = torch.autograd.grad(total, list(bank.params.values()))
            return self.optimizer.step(dict(zip(bank.params, grads, strict=True)), trials)

        self.skipped += ~torch.cat(side_by_side(trained, self.bank.parts())).cpu()
        self.step = step + 1

    def look(self) -> None:
        """Score every trial on dev and keep the weights of those that became better."""
        predictions, finite = evaluate(self.task, self.labels, self.bank, self.dev_table, self.protocol.batch)
        for r, prediction in enumerate(predictions):
            if self.diverged[r] or not finite[r]:
                self._give_up(r)
                continue
            rows = self.task.rows(self.manifest, "dev", prediction, self.labels)
            if self.dev_draw is not None:
                rows = [rows[place] for place in self.dev_draw]
            value = metrics.score(self.metric.name, rows)
            self.curves[r].append((self.step, value))
            if self.protocol.choose == "last" or self.metric.better(value, self.dev[r]):
                self.dev[r], self.best_step[r] = value, self.step
                for key, param in self.bank.params.items():
                    self.best[key][r] = param[r].detach()
        alive = [value for value, gone in zip(self.dev, self.diverged, strict=True) if not gone]
        if alive:
            value = max(alive) if self.metric.higher_is_better else min(alive)
            self.status = f"dev {self.metric.name} {value:.2f}"

    def _give_up(self, r: int) -> None:
        """Mark trial ``r`` as diverged: whatever it scored before does not count."""
        self.diverged[r] = True
        self.dev[r] = self.metric.worst

    def results(self) -> list[TrialResult]:
        """One result per trial."""
        weights = self.best[LAYERS].detach().softmax(-1).tolist()
        return [
            TrialResult(
                learning_rate=trial.learning_rate,
                seed=trial.seed,
                curve=list(self.curves[r]),
                best_step=self.best_step[r],
                dev=self.dev[r],
                layer_weights=weights[r],
                state={key: value[r].detach().cpu().clone() for key, value in self.best.items()},
                diverged=self.diverged[r],
                skipped=int(self.skipped[r]),
                notes=self.notes + self._trial_notes(r),
                seconds=self.seconds,
                encoded=self.encoded,
            )
            for r, trial in enumerate(self.trials)
        ]

    def _trial_notes(self, r: int) -> list[str]:
        trial = f"The trial at learning rate {self.trials[r].learning_rate:g}, seed {self.trials[r].seed}"
        notes = [f"{trial} diverged and counts as worst."] if self.diverged[r] else []
        if self.skipped[r]:
            notes.append(f"{trial} skipped {int(self.skipped[r])} updates whose gradient was not finite.")
        return notes

    def save(self, file: Path) -> None:
        """Write everything that goes on changing, atomically; and this look's weights, where all looks are tested.

        Raises:
            SlimbenchError: it cannot be written, for example because the disk is full; nothing is left of the attempt.
        """
        state = {
            "key": self.key,
            "step": self.step,
            "params": {key: value.detach() for key, value in self.bank.params.items()},
            "optimizer": self.optimizer.state(),
            "best": self.best,
            "dev": self.dev,
            "best_step": self.best_step,
            "curves": self.curves,
            "diverged": self.diverged,
            "skipped": self.skipped,
            "status": self.status,
            "seconds": self.seconds,
            "encoded": self.encoded,
        }
        if self.protocol.looks_on_test:
            _write({"key": self.key, "params": state["params"]}, look_file(file, self.step))
        _write(state, file)

    def load(self, file: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            SlimbenchError: it cannot be read or belongs to another run.
        """
        try:
            state = torch.load(file, map_location=self.device, weights_only=True)
        except Exception as error:
            raise SlimbenchError(
                f"The checkpoint {file} cannot be read ({error}); delete it to start again."
            ) from error
        if state.get("key") != self.key:
            raise SlimbenchError(f"The checkpoint {file} belongs to another task, protocol or data; delete it.")
        with torch.no_grad():
            for key, value in self.bank.params.items():
                value.copy_(state["params"][key])
                self.best[key].copy_(state["best"][key])
        self.optimizer.load(state["optimizer"])
        self.step, self.dev, self.best_step = state["step"], state["dev"], state["best_step"]
        self.curves = [[(int(step), float(value)) for step, value in curve] for curve in state["curves"]]
        self.diverged, self.skipped, self.status = state["diverged"], state["skipped"].cpu(), state["status"]
        self.seconds, self.encoded = state["seconds"], state["encoded"]


def encoded_by(features: FeatureSource) -> float:
    """Seconds of audio that a source of features has had encoded so far; stored features need none."""
    return float(getattr(features, "encoded_seconds", 0.0))


def look_file(checkpoint: Path, step: int) -> Path:
    """Where the weights of the look at ``step`` are kept beside a checkpoint."""
    return checkpoint.with_name(f"{checkpoint.stem}-look-{step}.pt")


def _write(state: Mapping[str, object], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        torch.save(state, part)
        part.replace(file)
    except (OSError, RuntimeError) as error:  # torch says RuntimeError where the disk is full
        reason = str(error).partition("\n")[0]
        raise SlimbenchError(
            f"{file}: the checkpoint cannot be written ({reason}); make room on that disk, or make the folder "
            "writable, and repeat the command, it goes on."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _head(task: Task, width: int, labels: Labels, protocol: TrainingProtocol, seed: int) -> Head:
    """A head whose initial weights depend on ``seed`` alone; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return task.head(width, labels.size, protocol.head)


def _key(
    task: Task,
    labels: Labels,
    manifest: Manifest,
    features: FeatureSource,
    protocol: TrainingProtocol,
    trials: tuple[ProbeTrial, ...],
) -> str:
    """Digest of what a checkpoint depends on, as far as the probe sees it."""
    changes: Mapping[str, int] = dict(sorted(protocol.head.items()))
    parts = (task.name, labels, manifest.digest, features.num_states, features.width, features.frame_ms)
    settings = {key: value for key, value in protocol.settings().items() if key != "head"}
    return hashlib.sha256(repr((parts, settings, changes, trials)).encode()).hexdigest()
