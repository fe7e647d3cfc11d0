"""The optimiser loop: a kill, other runs' checkpoints, several processes, a full disk."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.interface import SlimbenchError
from upstreams.distillation import files, loop
from upstreams.distillation.loop import Loop, Optimiser

FAST = Optimiser(lr=0.1)


def _train(folder: Path, stop: int | None, settings: Optimiser = FAST) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    folder.mkdir(exist_ok=True)
    trainer = Loop(folder, model, settings, 300, "run")
    trainer.resume()
    while trainer.step < (stop or trainer.steps):
        for part in range(settings.accumulate):
            x = torch.randn(8, 4, generator=torch.Generator().manual_seed(trainer.draw(part)))
            trainer.add((model(x) - x.sum(1, keepdim=True)).square().mean(), {}, hours=0.1 / settings.accumulate)
        trainer.update()
    return [p.detach().clone() for p in model.parameters()]


def test_a_killed_loop_ends_as_an_undisturbed_one(tmp_path):
    whole = _train(tmp_path / "whole", None)
    _train(tmp_path / "cut", 170)  # the last checkpoint is of step 100
    resumed = _train(tmp_path / "cut", None)
    torch.testing.assert_close(whole, resumed, rtol=0, atol=0)
    rows = [json.loads(line) for line in (tmp_path / "cut" / "curve.jsonl").read_text().splitlines()]
    assert [(row["step"], row["hours"]) for row in rows] == [(n, round(n * 0.1, 3)) for n in range(25, 301, 25)]


def test_a_curve_without_a_checkpoint_starts_anew(tmp_path):
    (tmp_path / "curve.jsonl").write_text('{"step": 25}\n{"ste')
    _train(tmp_path, 30)
    assert [json.loads(line)["step"] for line in (tmp_path / "curve.jsonl").read_text().splitlines()] == [25]


@pytest.mark.parametrize("kept", [{"identity": "other"}, {}])
def test_a_checkpoint_of_another_run_is_refused(tmp_path, kept):
    _train(tmp_path, 100)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    del state["identity"]
    torch.save(state | kept, tmp_path / "state.pt")
    with pytest.raises(SlimbenchError, match=r"another --work folder, or delete .*to start anew"):
        _train(tmp_path, None)


def test_processes_share_gradients_and_count_the_hours_of_all(tmp_path, monkeypatch):
    model = nn.Linear(2, 1)
    trainer = Loop(tmp_path, model, FAST, 5, "run")
    trainer.world = 2
    others = torch.tensor([3.0, 5.0, 7.0, 1.0, 1.0, 0.25])  # gradients, which of the two were used, hours
    monkeypatch.setattr(loop.distributed, "all_reduce", lambda flat: flat.add_(others))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert trainer._average_gradients(0.5) == pytest.approx(0.75)
    assert model.weight.grad.tolist() == [[2.0, 3.0]]
    assert model.bias.grad.tolist() == [4.0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_one_sentence_and_leaves_no_part(tmp_path):
    part = tmp_path / "state.tmp.pt"
    part.symlink_to("/dev/full")
    with pytest.raises(SlimbenchError, match=r"state\.pt .*free disk space"):
        files.save(tmp_path / "state.pt", {"x": torch.zeros(100_000)}, "run")
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_no_number_stops_the_loop(tmp_path):
    trainer = Loop(tmp_path, nn.Linear(2, 1), FAST, 5, "run")
    with pytest.raises(SlimbenchError, match="step 0"):
        trainer.add(torch.tensor(float("nan")), {}, 0.0)


class Pair:
    """Adds up what two threads bring, as two processes do."""

    def __init__(self):
        self.barrier, self.brought = threading.Barrier(2), {}

    def __call__(self, flat):
        self.brought[threading.get_ident()] = flat.clone()
        self.barrier.wait(60)
        flat.copy_(sum(self.brought.values()))
        self.barrier.wait(60)


def test_a_parameter_that_no_process_used_is_left_alone(tmp_path, monkeypatch):
    """Two processes go the way of one that accumulates, also where a layer is used now and then."""
    monkeypatch.setattr(loop.distributed, "all_reduce", Pair())
    data = torch.randn(2 * 30, 6, 3)

    def loss(model, draw):
        used = model[1](model[0](data[draw])) if draw % 7 == 0 else model[0](data[draw])
        return (used - 1).square().mean()

    def begun(name, **more):
        torch.manual_seed(0)
        (tmp_path / name).mkdir()
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        return Loop(tmp_path / name, model, Optimiser(lr=0.1, **more), 30, "run")

    def alone(trainer):
        while not trainer.done:
            for part in range(trainer.settings.accumulate):
                trainer.add(loss(trainer.model, trainer.draw(part)), {}, 0.1)
            trainer.update()

    one, both = begun("one", accumulate=2), [begun("first"), begun("second")]
    alone(one)
    for rank, trainer in enumerate(both):
        trainer.rank, trainer.world = rank, 2
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(alone, both))
    for trainer in both:
        torch.testing.assert_close(dict(trainer.model.named_parameters()), dict(one.model.named_parameters()))


def test_stages_of_any_batches_per_update_share_no_batch(tmp_path):
    def draws(trainer):
        found = []
        for step in range(trainer.steps):
            trainer.step = step
            found += [trainer.draw(part) for part in range(trainer.settings.accumulate)]
        return found

    seen, before = [], 0
    for accumulate in (4, 1, 2):
        trainer = Loop(tmp_path, nn.Linear(2, 1), Optimiser(accumulate=accumulate), 10, "run", before)
        seen += draws(trainer)
        before = trainer.drawn
    assert seen == list(range(10 * (4 + 1 + 2)))


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path, content):
    _train(tmp_path, 100)
    file = tmp_path / "state.pt"
    file.write_bytes(file.read_bytes()[:-200] if content is None else content)
    with pytest.raises(SlimbenchError, match=r"state\.pt is damaged .*delete .*to start anew"):
        _train(tmp_path, None)


def test_a_damaged_curve_is_one_sentence(tmp_path):
    _train(tmp_path, 100)
    curve = tmp_path / "curve.jsonl"
    curve.write_text("{\n" + curve.read_text())
    with pytest.raises(SlimbenchError, match=r"curve\.jsonl is damaged .*delete .*to start anew"):
        _train(tmp_path, None)


@pytest.mark.parametrize(
    "values", [{"lr": -1.0}, {"lr": float("nan")}, {"clip": 0.0}, {"warmup": 5.0}, {"weight_decay": -0.1}]
)
def test_numbers_that_cannot_train_are_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        Optimiser(**values)


def test_accumulated_batches_are_one_large_batch(tmp_path):
    models = [nn.Linear(3, 1), nn.Linear(3, 1)]
    models[1].load_state_dict(models[0].state_dict())
    data = torch.randn(4, 6, 3)
    for model, parts, name in zip(models, (1, 4), ("one", "four"), strict=True):
        (tmp_path / name).mkdir()
        trainer = Loop(tmp_path / name, model, Optimiser(lr=0.1, accumulate=parts), 2, "run")
        for batch in data.reshape(parts, -1, 3):
            trainer.add(model(batch).square().mean(), {}, 0.1)
        trainer.update()
        assert trainer.draw(0) == parts
    torch.testing.assert_close(models[0].weight, models[1].weight)
