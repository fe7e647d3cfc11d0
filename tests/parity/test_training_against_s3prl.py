"""Fifty updates of every task by our training run and by s3prl's own runner, on the same batches: the same weights.

s3prl's side is its ``Runner.train`` with its featurizer, expert, optimiser, clipping and accumulation; ours is
``harness.probes.training.Run``, on time means where the task reads them. Batches × accumulation are s3prl's in kind,
smaller in size. ASR is trained with dropout and SpecAugment: s3prl is given the random numbers that ours draws.
"""

import contextlib
import dataclasses
from unittest import mock

import parity_cases
import pytest
import s3prl_side
import torch

from harness.probes.stacked import HEAD, LAYERS
from harness.probes.training import Run
from harness.probes.trials import ProbeTrial
from harness.randomness import Noise, generator

STEPS = 50
TOLERANCE = 1e-5
"""Of a weight; each tensor moves by more than a thousand times that."""
SEED = 7
SETTINGS = {  # utterances per batch, batches per update, learning rate
    "ks": (8, 1, 1e-2),
    "ic": (8, 1, 1e-2),
    "sid": (2, 4, 1e-1),
    "er": (2, 4, 1e-2),
    "pr": (4, 2, 1e-2),
    "asr": (4, 1, 1e-3),
    "asv": (2, 5, 1e-3),
}
ASR_WIDTH = 96
"""Wider than the widest feature mask, so that something is left to hear."""


class Batches:
    """The updates that both sides make: every utterance of an update counts the same."""

    def __init__(self, size):
        draw = torch.Generator().manual_seed(3)
        orders = [torch.randperm(parity_cases.UTTERANCES, generator=draw) for _ in range(STEPS)]
        self.places = [order[:size].tolist() for order in orders]

    def update(self, step):
        places = self.places[step]
        return torch.tensor(places), torch.full((len(places),), 1.0 / len(places))


def ours(case, batches, rate):
    """Our weights after all updates, by the names of s3prl."""
    protocol = dataclasses.replace(
        case.task.protocol, steps=STEPS, head=parity_cases.SMALL[case.name], max_seconds=None, crops=0
    )
    assert protocol.specaugment == (case.name == "asr")
    run = Run(case.task, case.labels, case.manifest, case, protocol, (ProbeTrial(rate, SEED),), "cpu")
    run.order = batches
    with torch.no_grad():
        for name, value in case.head.named_parameters():
            run.bank.params[HEAD + name][0].copy_(value)
    for step in range(STEPS):
        run.update(step)
    assert not run.skipped.any()
    params = {key: value[0].detach() for key, value in run.bank.params.items()}
    layers = params.pop(LAYERS)
    return {LAYERS: layers} | {s3prl_side.their_name(case.name, key[len(HEAD) :]): x for key, x in params.items()}


def theirs(case, batches, rate):
    """s3prl's weights after all updates."""
    per_batch, accumulate, _ = SETTINGS[case.name]
    loader = []
    for places in batches.places:
        for part in (places[i : i + per_batch] for i in range(0, len(places), per_batch)):
            other = s3prl_side.others(case.name, [case.targets[i] for i in part], [f"u{i}" for i in part])
            loader.append((case.waves(part), *other))
    optimizer = {"name": "TorchOptim", "torch_optim_name": case.task.protocol.optimizer, "lr": rate}
    clip = case.task.protocol.clip
    specaug = s3prl_side.SPECAUG if case.name == "asr" else None
    s3prl_side.train(case.upstream, case.featurizer, case.expert, loader, STEPS, optimizer, clip, accumulate, specaug)
    return {LAYERS: case.featurizer.weights.detach()} | dict(case.expert.named_parameters())


class OurDropout(torch.nn.Module):
    """Dropout by the numbers that our head draws, layer after layer within an update."""

    draws = iter(())

    def forward(self, x):
        return x * (next(OurDropout.draws)(x.shape)[0] >= 0.2) / 0.8


@contextlib.contextmanager
def our_random_numbers(case):
    """Dropout and SpecAugment of s3prl's ASR draw what ours do at the same update."""
    layers = case.expert.model.rnns
    OurDropout.draws = (noise for step in range(STEPS) for noise in [Noise([SEED], step, "cpu")] * len(layers))
    for layer in layers:
        layer.dp = OurDropout()
    steps = iter(range(STEPS))
    kind = s3prl_side.module("downstream.specaug").SpecAug
    original = kind.forward

    def forward(self, xs, x_lengths=None):
        with s3prl_side.draws_from(generator("augment", next(steps))):
            return original(self, xs, x_lengths)

    with mock.patch.object(kind, "forward", forward):
        yield
    assert next(steps, None) is None


@pytest.mark.filterwarnings("ignore:.*autocast.*:FutureWarning")
@pytest.mark.parametrize("name", SETTINGS)
def test_fifty_updates(name, tmp_path):
    case = parity_cases.make(name, tmp_path, equal=name == "asv", width=ASR_WIDTH if name == "asr" else 20)
    per_batch, accumulate, rate = SETTINGS[name]
    batches = Batches(per_batch * accumulate)
    before = {LAYERS: torch.zeros(case.num_states)} | {
        key: value.detach().clone() for key, value in case.expert.named_parameters()
    }
    actual = ours(case, batches, rate)
    with our_random_numbers(case) if name == "asr" else contextlib.nullcontext():
        expected = theirs(case, batches, rate)
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        assert (value - before[key]).abs().max() > 1000 * TOLERANCE, key
        torch.testing.assert_close(actual[key], value.detach(), atol=TOLERANCE, rtol=0)
