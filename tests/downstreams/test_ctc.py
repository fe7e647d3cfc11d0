import itertools

import pytest
import torch

from downstreams import ctc


def logits_for(path, classes=4):
    return 10.0 * torch.nn.functional.one_hot(torch.tensor([path]), classes).float()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ([1, 1, 2], [1, 2]),
        ([1, 0, 1], [1, 1]),  # "N N" with a blank between survives
        ([0, 0, 0], []),
        ([2, 2, 0, 0, 2, 3, 3, 2], [2, 2, 3, 2]),
    ],
)
def test_greedy_merges_runs_then_drops_blanks(path, expected):
    assert ctc.greedy(logits_for(path), torch.tensor([len(path)])) == [expected]


def test_greedy_stops_at_the_valid_length():
    assert ctc.greedy(logits_for([1, 2, 3]), torch.tensor([2])) == [[1, 2]]


@pytest.mark.parametrize("target", [[1], [1, 1], [2, 1], []])
def test_loss_is_the_sum_over_all_paths(target):
    torch.manual_seed(0)
    frames, classes = 4, 3
    output = torch.randn(1, frames, classes, dtype=torch.float64)
    probabilities = output[0].softmax(-1)
    total = sum(
        torch.stack([probabilities[t, c] for t, c in enumerate(path)]).prod()
        for path in itertools.product(range(classes), repeat=frames)
        if ctc.greedy(logits_for(path, classes), torch.tensor([frames])) == [target]
    )
    actual = ctc.loss(output, torch.tensor([frames]), [target])
    torch.testing.assert_close(actual, -total.log().reshape(1) / max(1, len(target)))


def test_target_without_room_adds_nothing():
    output = torch.randn(2, 3, 4, requires_grad=True)
    losses = ctc.loss(output, torch.tensor([3, 3]), [[1, 1, 1], [1, 2, 3]])
    losses.sum().backward()
    assert losses[0] == 0
    assert losses[1] > 0
    assert output.grad[0].abs().max() == 0
    assert output.grad[1].abs().max() > 0


def test_remarks_count_targets_without_room():
    assert ctc.remarks([[1, 2], [1, 1]], [2, 3]) == []
    (note,) = ctc.remarks([[1, 2], [1, 1], [1]], [2, 2, 0])
    assert note.startswith("2 of 3 ")
