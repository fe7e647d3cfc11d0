"""A small student and noise, for the tests of procedures."""

import numpy as np
import torch
from torch.nn import functional

from upstreams.distillation.procedures.base import chance
from upstreams.students.mini import MiniConfig, MiniWavLM

TINY = MiniConfig(layers=3, width=32, ffn=24, head_width=8, conv_kernel=7)


def student(config=TINY, seed=0, scale=0.1):
    """A student whose weights are all random, norms and biases included."""
    torch.manual_seed(seed)
    model = MiniWavLM(config)
    for parameter in model.parameters():
        parameter.data += scale * torch.randn_like(parameter)
    return model


def noise(batch=2, samples=8000, seed=0):
    rng = np.random.default_rng(seed)
    waves = torch.from_numpy(rng.normal(0, 0.1, (batch, samples)).astype(np.float32))
    return waves, torch.full((batch,), samples)


def moved_burst():
    """Two waveforms (2, S) that differ in when a burst comes, and (2, T) masked frames that hide it in both.

    Silence lies around the burst, so that it moves by whole windows and the level of an utterance stays what it was.
    """
    waves, _ = noise(2, 19_440, seed=1)
    waves[:, 6_500:12_900] = 0
    burst, _ = noise(2, 1_600, seed=2)
    found = [waves.clone(), waves.clone()]
    for copy, start in zip(found, (7_200, 9_760), strict=True):
        copy[:, start : start + 1_600] = 3 * burst
    masked = torch.zeros(2, 60, dtype=torch.bool)
    masked[:, 20:40] = True
    return *found, masked


def train(procedure, model, steps, loss, start=0, total=None, optimiser=None, samples=4000):
    """Steps as the trainer takes them, with a loss of view, waves and lengths; returns optimiser and figures."""
    total = total or steps
    if optimiser is None:
        parameters = [*model.parameters(), *procedure.parameters()]
        optimiser = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0)
    figures = []
    for step in range(start, start + steps):
        progress, (waves, lengths) = step / total, noise(2, samples, seed=step)
        view = procedure.view(model, waves, lengths, None, step, progress, chance(0, step))
        value, penalty = loss(view, waves, lengths), procedure.penalty(step, progress)
        if penalty is not None:
            value = value + penalty.loss
            figures.append(penalty.figures)
        optimiser.zero_grad()
        value.backward()
        procedure.after_backward(model, step, progress)
        optimiser.step()
    return optimiser, figures


def like(teacher):
    """The L1 distance of a view's last state to a teacher's."""

    def loss(view, waves, lengths):
        with torch.no_grad():
            target = teacher.passage(waves, lengths).states[-1]
        return functional.l1_loss(view.states[-1], target)

    return loss
