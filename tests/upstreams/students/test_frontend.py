"""The front end: padded batches against single utterances, torch's own norms, and the text that describes it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from upstreams.students.frontend import (
    WAV2VEC2,
    Convolution,
    FrontEnd,
    MaskedGroupNorm,
    frame_ms,
    min_samples,
    parse_convolutions,
    standardise,
)

SMALL = tuple(Convolution(6, layer.kernel, layer.stride) for layer in WAV2VEC2)


def test_full_size_has_the_known_number_of_parameters() -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in FrontEnd().parameters()) == 4_200_448
    assert (frame_ms(WAV2VEC2), min_samples(WAV2VEC2), min_samples(WAV2VEC2, 2)) == (20.0, 400, 720)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_a_padded_batch_is_its_utterances(norm: str) -> None:
    torch.manual_seed(0)
    front = FrontEnd(SMALL, norm, bias=True).eval()
    lengths = torch.tensor([5_000, 400, 3_333])
    waves = torch.randn(3, 5_000)  # noise in the padding as well: it must not matter
    with torch.no_grad():
        together, frames = front(waves, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone, own = front(waves[row : row + 1, :length], lengths[row : row + 1])
            assert own.item() == frames[row].item() == (length - 400) // 320 + 1
            torch.testing.assert_close(together[row, : own.item()], alone[0], atol=1e-5, rtol=1e-5)


def test_group_norm_without_padding_is_torchs() -> None:
    ours, theirs = MaskedGroupNorm(5), torch.nn.GroupNorm(5, 5)
    with torch.no_grad():
        for norm in (ours, theirs):
            norm.weight.copy_(torch.arange(1.0, 6))
            norm.bias.copy_(torch.arange(5.0))
    x = torch.randn(2, 5, 9)
    assert torch.equal(ours(x), theirs(x))
    padded = torch.nn.functional.pad(x, (0, 4), value=7.0)
    torch.testing.assert_close(ours(padded, torch.tensor([9, 9]))[..., :9], theirs(x), atol=1e-5, rtol=1e-5)


def test_standardising_is_layer_norm_of_each_utterance() -> None:
    waves, lengths = torch.randn(2, 900) * 3 + 1, torch.tensor([900, 500])
    ours = standardise(waves, lengths)
    for row, length in enumerate((900, 500)):
        expected = torch.nn.functional.layer_norm(waves[row, :length], (length,))
        torch.testing.assert_close(ours[row, :length], expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(ours[1, 500:], torch.zeros(400))


layer = st.tuples(st.integers(1, 999), st.integers(1, 99), st.integers(1, 9))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.lists(layer, min_size=1, max_size=3), st.integers(1, 4)), min_size=1, max_size=4))
def test_text_is_read_as_python_reads_it(parts: list[tuple[list[tuple[int, int, int]], int]]) -> None:
    text = " + ".join(f"{layers} * {times}" if times > 1 else f"{layers}" for layers, times in parts)
    expected = [row for layers, times in parts for row in layers * times]
    assert [tuple(row) for row in parse_convolutions(text)] == expected
    assert [tuple(row) for row in parse_convolutions(expected)] == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[(1,2)]",
        "[(1,2,3)] * 400",
        "__import__('os')",
        "[(512,0,5)]",
        "[(1,2,3)] - [(1,2,3)]",
        7,
        None,
        [],
        [(1, 2)],
    ],
)
def test_other_text_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="are not of the form"):
        parse_convolutions(text)
