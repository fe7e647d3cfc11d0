import pytest
import torch
from torch import nn

from downstreams.heads import FrameHead
from harness.interface import SlimbenchError
from harness.probes.stacked import LAYERS, StackedAdam, build_bank

RATES = [1e-3, 1e-1, 1e-3, 1.0]


def parameters():
    torch.manual_seed(0)
    shapes = {LAYERS: (5,), "head.weight": (7, 6), "head.bias": (3,)}
    return {key: torch.randn(len(RATES), *shape).requires_grad_() for key, shape in shapes.items()}


@pytest.mark.parametrize("layer_lr", [1.0, 10.0])
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_equals_torch_optimisers_with_clipping_and_skipped_updates(name, layer_lr):
    params = parameters()
    alone = [{key: value[r].detach().clone().requires_grad_() for key, value in params.items()} for r in range(4)]
    optimisers = [
        getattr(torch.optim, name)(
            [{"params": [p], "lr": rate * (layer_lr if key == LAYERS else 1)} for key, p in own.items()]
        )
        for own, rate in zip(alone, RATES, strict=True)
    ]
    stacked = StackedAdam(name, params, RATES, clip=1.0, layer_lr=layer_lr)
    for step in range(30):
        size = 0.05 if step % 2 else 3.0  # below and above the clip
        grads = {key: size * torch.randn_like(value.mT).mT for key, value in params.items()}
        if step == 7:
            grads["head.weight"][2, 0, 0] = float("nan")
        for r, own in enumerate(alone):
            for key, p in own.items():
                p.grad = grads[key][r].clone()
            if nn.utils.clip_grad_norm_(own.values(), 1.0).isfinite():
                optimisers[r].step()
        assert stacked.step(grads).tolist() == [True, True, step != 7, True]
    for r, own in enumerate(alone):
        for key, p in own.items():
            torch.testing.assert_close(params[key][r], p, atol=5e-6, rtol=1e-5)


def test_state_restores_the_trajectory():
    first, second = parameters(), parameters()
    one, two = (StackedAdam("Adam", p, RATES, clip=1.0) for p in (first, second))
    grads = [{key: torch.randn_like(value) for key, value in first.items()} for _ in range(4)]
    for grad in grads[:2]:
        one.step(grad)
    for key, value in second.items():
        value.data.copy_(first[key].data)
    two.load(one.state())
    for grad in grads[2:]:
        one.step({key: value.clone() for key, value in grad.items()})  # a step clips them in place
        two.step(grad)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_layers_start_uniform():
    bank = build_bank([FrameHead(3, 2, project=2)] * 2, num_states=4, device="cpu")
    x = torch.randn(4, 6, 3)
    torch.testing.assert_close(bank.mix(x), x.mean(0).expand(2, -1, -1))


def test_heads_with_running_statistics_are_refused():
    with pytest.raises(SlimbenchError, match="BatchNorm1d"):
        build_bank([nn.BatchNorm1d(3)], num_states=1, device="cpu")


@pytest.mark.parametrize("clip", [1e-3, 1e3])
def test_parameters_whose_gradients_are_one_tensor_are_clipped_once(clip):
    shape = {LAYERS: (2, 3), "head.a": (2, 4), "head.b": (2, 4)}
    grads = {LAYERS: torch.randn(2, 3), "head.a": (same := torch.randn(2, 4)), "head.b": same}
    moments = []
    for given in ({key: grad.clone() for key, grad in grads.items()}, grads):
        optimizer = StackedAdam("Adam", {key: torch.zeros(size) for key, size in shape.items()}, [0.1, 0.2], clip)
        optimizer.step(given)
        moments.append(optimizer.state()["first"])
    for key, apart in moments[0].items():
        assert torch.equal(apart, moments[1][key])


def test_a_step_of_some_trials_is_that_of_all_and_leaves_the_others():
    def bank():
        draw = torch.Generator().manual_seed(1)
        return {LAYERS: torch.randn(4, 3, generator=draw), "head.a": torch.randn(4, 5, generator=draw)}

    grads = {key: torch.randn_like(value) for key, value in bank().items()}
    rates, whole, parts = [0.1, 0.2, 0.1, 0.3], bank(), bank()
    StackedAdam("Adam", whole, rates, 1.0).step({key: grad.clone() for key, grad in grads.items()})
    optimizer = StackedAdam("Adam", parts, rates, 1.0)
    optimizer.step({key: grad[1:3].t().contiguous().t() for key, grad in grads.items()}, range(1, 3))  # any strides
    for key, value in parts.items():
        assert torch.equal(value[1:3], whole[key][1:3])
        assert torch.equal(value[[0, 3]], bank()[key][[0, 3]])
