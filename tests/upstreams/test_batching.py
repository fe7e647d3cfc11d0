"""Batches cut to size, and states of single utterances put side by side, against counting by hand."""

import pytest
import torch

from upstreams.adapters.batching import alone, batch, check_length, together

CPU = torch.device("cpu")
WAVES = torch.arange(1.0, 19.0).reshape(3, 6)


def test_padding_behind_the_longest_is_cut_and_the_mask_is_needed():
    found = batch(WAVES, torch.tensor([2, 4, 3]), 1, CPU)
    assert found.waves.tolist() == [[1, 2, 3, 4], [7, 8, 9, 10], [13, 14, 15, 16]]
    assert found.lengths.tolist() == [2, 4, 3]
    assert found.ends is found.lengths


@pytest.mark.parametrize("length", [1, 4, 6])
def test_equal_lengths_need_no_mask(length):
    found = batch(WAVES, torch.tensor([length] * 3), 1, CPU)
    assert found.waves.shape == (3, length)
    assert found.ends is None


def test_an_utterance_without_a_frame_is_refused():
    check_length(torch.tensor([5, 4]), 4)
    for call in (lambda: check_length(torch.tensor([5, 3]), 4), lambda: batch(WAVES, torch.tensor([5, 3, 4]), 4, CPU)):
        with pytest.raises(ValueError, match=r"^3 samples are too few for one frame$"):
            call()


def test_utterances_alone():
    assert [wave.tolist() for wave in alone(WAVES, torch.tensor([2, 6, 1]))] == [[1, 2], [7, 8, 9, 10, 11, 12], [13]]


def test_states_side_by_side():
    """Two utterances of one and three frames, two states, width 2."""
    short = [torch.full((1, 2), 5.0), torch.full((1, 2), 6.0)]
    long = [torch.arange(6.0).reshape(3, 2), -torch.arange(6.0).reshape(3, 2)]
    found = together([short, long], 20.0, CPU)
    assert found.lengths.tolist() == [1, 3]
    assert found.frame_ms == 20.0
    assert found.states[0].tolist() == [[[5, 5], [0, 0], [0, 0]], [[0, 1], [2, 3], [4, 5]]]
    assert found.states[1].tolist() == [[[6, 6], [0, 0], [0, 0]], [[0, -1], [-2, -3], [-4, -5]]]
