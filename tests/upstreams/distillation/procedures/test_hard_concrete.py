"""Hard-Concrete gates against their distribution, and ramps against their ends."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from upstreams.distillation.procedures import hard_concrete as hc
from upstreams.distillation.procedures import ramps


def test_openness_and_mean_are_those_of_many_draws():
    logits = torch.linspace(-4, 4, 9, dtype=torch.float64)
    draws = hc.gate(logits[:, None].expand(-1, 40_000), torch.rand(9, 40_000, dtype=torch.float64))
    torch.testing.assert_close((draws > 0).double().mean(1), hc.openness(logits), atol=0.012, rtol=0)
    torch.testing.assert_close(draws.mean(1), hc.mean(logits), atol=0.012, rtol=0)
    assert ((draws == 0).any(1) & (draws == 1).any(1)).all()


def test_between_0_and_1_gates_have_the_stretched_binary_concrete_distribution():
    draws = hc.gate(torch.full((20_000,), 0.4, dtype=torch.float64), torch.rand(20_000, dtype=torch.float64))

    def cdf(x):  # of s (zeta - gamma) + gamma with s binary Concrete (arXiv 1712.01312, equation 22)
        s = (x + 0.1) / 1.2
        return 1 / (1 + np.exp(-(2 / 3 * (np.log(s) - np.log(1 - s)) - 0.4)))

    inner = draws[(draws > 0) & (draws < 1)].numpy()
    low, high = cdf(0.0), cdf(1.0)
    assert kstest(inner, lambda x: (cdf(x) - low) / (high - low)).pvalue > 1e-3


def test_a_closed_gate_is_0_an_open_one_1_and_the_gradient_opens_or_closes_it():
    uniform = torch.rand(200)
    assert hc.gate(torch.full((200,), -30.0), uniform).max() == 0
    assert hc.gate(torch.full((200,), 30.0), uniform).min() == 1
    logits = torch.zeros(200, requires_grad=True)
    hc.gate(logits, uniform).sum().backward()
    assert logits.grad.min() >= 0
    assert logits.grad.max() > 0


def test_logit_of_is_the_inverse_of_openness():
    for probability in (0.1, 0.5, 0.95):
        assert float(hc.openness(torch.tensor(hc.logit_of(probability)))) == pytest.approx(probability, abs=1e-6)


def test_quick_scales_forward_and_passes_gradients_or_turns_them():
    x = torch.tensor([0.5, -2.0], requires_grad=True)
    y = hc.quick(x, 50.0)
    y.square().sum().backward()
    assert torch.equal(y.detach(), 50 * x.detach())
    assert torch.equal(x.grad, 2 * y.detach())
    x.grad = None
    hc.quick(x, -50.0).square().sum().backward()
    assert torch.equal(x.grad, -2 * y.detach())


def test_adam_climbs_on_a_turned_parameter_as_fast_as_asked():
    x, plain = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.Adam([x, plain], lr=0.01)
    for _ in range(5):
        optimiser.zero_grad()
        (3 * hc.quick(x, -20.0) + 3 * plain).sum().backward()
        optimiser.step()
    torch.testing.assert_close(hc.quick(x, -20.0), -20 * plain)


def test_ramps_begin_end_and_rise():
    for ramp in (ramps.linear, ramps.cubic):
        values = [ramp(p, 0.75, 0.1, 0.6) for p in np.linspace(0, 1, 101)]
        assert values[:11] == [0] * 11
        assert values[60:] == pytest.approx([0.75] * 41)
        assert values == sorted(values)
    assert ramps.cubic(0.35, 0.75, 0.1, 0.6) == pytest.approx(0.75 * (1 - 0.5**3))
    assert ramps.linear(0.35, 0.75, 0.1, 0.6) == pytest.approx(0.375)
