"""The points of the conformance check, in the order in which they are tried; here those on the use of the states.

Test signals last a second or less, but for one of 30 s, so that a model of base size is through in less than a minute
on one core. What may differ a little says by how much.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness import cost, registry
from harness.conformance import Point, Subject, point
from harness.conformance.card import (
    card_sizes,
    filled_in,
    fingerprint,
    frame_period,
    interface,
    loads,
    states,
    types,
    weights,
)
from harness.conformance.frozen import (
    eval_mode,
    frozen_weights,
    input_untouched,
    no_gradients,
    random_numbers,
    same_twice,
    second_load,
)
from harness.conformance.sound import (
    batch,
    click,
    clipping,
    hears,
    long,
    offset,
    padding,
    shortest,
    silence,
    too_short,
)
from harness.interface import Labels, Task

HEAD_FRAMES = 50
"""Frames of the made-up states that the heads are tried with."""


@point(
    "MAC count",
    "Multiply-accumulates cannot be counted in full, so that the record would have none.",
    "expose only the module that computes the states; for an operator without a formula extend the counter.",
)
def macs(subject: Subject) -> tuple[bool, str]:
    """Every parameter takes part in a pass whose multiply-accumulates are counted."""
    per_second = cost.count_macs(subject.upstream)
    params = cost.count_parameters(subject.upstream.module())
    return True, f"{per_second / 1e9:.3g} G/s, all {params / 1e6:.2f} M parameters covered"


@point(
    "heads",
    "The head of a task cannot be trained on such states.",
    "look at the size and the range of the states; scale them in the adapter where they overflow.",
)
def heads(subject: Subject) -> tuple[bool, str]:
    """Every registered task's head: forward, loss and gradients are finite on random states of the upstream's range."""
    scales = torch.stack([torch.stack([s.double().mean(), s.double().std()]).float() for s in subject.noise.states])
    losses = {name: _one_head(registry.task(name), subject.upstream.width, scales) for name in registry.task_names()}
    bad = [name for name, loss in losses.items() if loss is None]
    return not bad, f"not finite: {', '.join(bad)}" if bad else f"finite losses for {', '.join(losses)}"


def _one_head(task: Task, width: int, scales: Tensor) -> float | None:
    """Loss of a task's head on random states of these means and standard deviations (L, 2), if all is finite."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(scales), 2, width) if task.need == "pooled" else (len(scales), 2, HEAD_FRAMES, width)
    column = (-1, *(1 for _ in shape[1:]))
    features = torch.randn(shape, generator=generator) * scales[:, 1].view(column) + scales[:, 0].view(column)
    lengths = torch.tensor([HEAD_FRAMES, HEAD_FRAMES - 10])
    labels = Labels((tuple(map(str, range(task.superb_labels))),))
    mix = torch.zeros(len(scales), requires_grad=True)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        head = task.head(width, task.superb_labels, {}).train()
        output = head(torch.tensordot(mix.softmax(0), features, 1), lengths)
        loss = task.loss(output, lengths, [[1], [2]], labels).mean()
        loss.backward()  # type: ignore[no-untyped-call]
    gradients = [mix.grad, *(parameter.grad for parameter in head.parameters())]
    finite = all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in gradients)
    return float(loss.detach()) if finite and bool(torch.isfinite(loss)) else None


BEFORE: tuple[Point, ...] = (filled_in, weights, loads)
"""What must hold before the upstream can be tried at all; only the last two are in the way if they do not."""

POINTS: tuple[Point, ...] = (
    *(interface, fingerprint, card_sizes, states, types, frame_period, batch, padding, same_twice, second_load),
    *(eval_mode, no_gradients, frozen_weights, input_untouched, random_numbers),
    *(silence, clipping, offset, click, shortest, too_short, long, hears, macs, heads),
)
"""What is tried on sound, in order."""
