"""Once-for-all compression: integrate-and-fire against a loop, the ends of its range, its options and refusals."""

from __future__ import annotations

from pathlib import Path

import fairseq_cases
import ofa_cases
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from student_cases import LENGTHS, Case, card_file, random_state, utterances
from torch import Tensor

from harness.interface import SlimbenchError, Upstream
from harness.registry import load_upstream
from upstreams.students import cif


def case(**options: object) -> Case:
    return Case("ofa", "case", lambda folder: ofa_cases.write(options, folder), lambda _, __: [], "none")


def load(folder: Path, **options: object) -> Upstream:
    return load_upstream(str(card_file(case(**options), folder)))


def by_hand(x: Tensor, weights: list[float]) -> list[Tensor]:
    """Integrate and fire, frame by frame: pour each frame's weight into segments of size 1."""
    done, room, segment = [], 1.0, torch.zeros(x.shape[1], dtype=torch.float64)
    for frame, weight in zip(x.double(), weights, strict=True):
        while weight >= room - 1e-9:
            done.append(segment + room * frame)
            weight, room, segment = weight - room, 1.0, torch.zeros_like(segment)
        segment = segment + weight * frame
        room -= weight
    return done


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 64), min_size=3, max_size=40), st.integers(0, 5))
def test_segments_are_those_of_a_loop(counts: list[int], seed: int) -> None:
    weights = [count / 64 for count in counts]  # sums of these are exact, so that both sides fire at the same frame
    if sum(weights) < cif.FEWEST:
        return
    x = torch.randn(len(weights), 3, generator=torch.Generator().manual_seed(seed))
    end = cif.ends(torch.tensor([weights]), torch.tensor([len(weights)]))
    joined, segments = cif.fire(x[None], end)
    expected = by_hand(x, weights)
    assert int(segments) == len(expected)
    torch.testing.assert_close(joined[0].double(), torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_few_weights_are_stretched_to_two_segments() -> None:
    end = cif.ends(torch.full((1, 6), 0.05), torch.tensor([6]))
    joined, segments = cif.fire(torch.ones(1, 6, 1), end)
    assert segments.tolist() == [2]
    torch.testing.assert_close(joined[0, :, 0], torch.ones(2), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("period", "lam"), [(20, 0.0), (45, 5 / 7), (90, 1.0)])
def test_periods_and_compressions_are_two_names_of_one_thing(period: float, lam: float) -> None:
    assert cif.lambda_of(period) == pytest.approx(lam)
    assert cif.period_of(lam) == pytest.approx(period)


def test_without_compression_it_is_the_plain_encoder(tmp_path: Path) -> None:
    upstream = load(tmp_path, lam=0.0)
    wave = utterances()[1]
    states = upstream.encode(wave[None], torch.tensor([len(wave)]))
    model = upstream.module()
    with torch.no_grad():
        features, frames = model.front(wave[None], torch.tensor([len(wave)]))
        passage = model.encoder(model.feature_norm(features), frames)
    assert states.lengths.tolist() == frames.tolist() == [40]
    assert upstream.frame_ms == 20.0
    for ours, expected in zip(states.states, [passage.embedded, *passage.layers], strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("changes", [{}, fairseq_cases.LARGE], ids=["base", "large"])
def test_without_compression_it_is_wav2vec2_of_the_same_weights(tmp_path: Path, changes: dict[str, object]) -> None:
    """Of the family that is compared with its public code; base and large: group or layer norm, bias, pre-norm."""
    config = {**fairseq_cases.SMALL, "_name": "wav2vec2", **changes}
    fields = {"name": "x", "title": "X", "licence": "none", "source": "a test", "exposes": "all"}
    plain = fairseq_cases.write(tmp_path, "wav2vec2", config, fairseq_cases.TASK, "fairseq")
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump({**fields, **plain}))
    stored = torch.load(tmp_path / "model.pt", weights_only=True)
    parts = {"cnn.weight": (16, 16, 5), "cnn.bias": (16,), "layer.2.weight": (1, 16), "layer.2.bias": (1,)}
    shapes = {f"cif_subsampler.alpha_fn.{name}": shape for name, shape in parts.items()}
    shapes |= {f"cif_subsampler.alpha_fn.layer.0.{kind}": (16,) for kind in ("weight", "bias")}
    stored["model"] |= random_state(shapes)
    stored["cfg"]["model"] |= {"subsample": "cif", "mixup": True}
    torch.save(stored, tmp_path / "ofa.pt")
    ofa = {"adapter": "upstreams.students.ofa:adapter", "weights": "ofa.pt", "options": {"lam": 0.0}}
    (tmp_path / "ofa.yaml").write_text(yaml.safe_dump({**fields, **ofa}))
    batch = torch.nn.utils.rnn.pad_sequence(utterances(), batch_first=True), torch.tensor(LENGTHS)
    mine, theirs = (load_upstream(str(tmp_path / f"{name}.yaml")).encode(*batch) for name in ("ofa", "plain"))
    assert mine.lengths.tolist() == theirs.lengths.tolist()
    for ours, expected in zip(mine.states, theirs.states, strict=True):
        for row, frames in enumerate(mine.lengths.tolist()):
            torch.testing.assert_close(ours[row, :frames], expected[row, :frames], atol=1e-5, rtol=1e-4)


def test_more_compression_gives_fewer_frames(tmp_path: Path) -> None:
    wave = utterances()[0]
    counts = [
        int(load(tmp_path, lam=lam).encode(wave[None], torch.tensor([len(wave)])).lengths) for lam in (0, 0.4, 0.8, 1.2)
    ]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == 4


def test_repeated_states_lie_on_the_grid_of_the_front_end(tmp_path: Path) -> None:
    wave = utterances()[0]
    batch = wave[None], torch.tensor([len(wave)])
    fired, repeated = load(tmp_path, lam=1.0), load(tmp_path, lam=1.0, repeat=True)
    assert (fired.variable_rate, repeated.variable_rate) == (True, False)
    assert (fired.frame_ms, repeated.frame_ms) == (pytest.approx(90.0), 20.0)
    assert fired.fingerprint != repeated.fingerprint
    short, long = fired.encode(*batch), repeated.encode(*batch)
    assert int(long.lengths) == 74 > int(short.lengths)
    rows = long.states[-1][0]
    distinct, counts = torch.unique_consecutive(rows, dim=0, return_counts=True)
    torch.testing.assert_close(distinct, short.states[-1][0])
    assert counts.sum() == 74


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "set one of the options lam"),
        ({"lam": 0.5, "period_ms": 45}, "set one of the options lam"),
        ({"lam": 3}, "option lam is 3; write a number from 0 to 2"),
        ({"period_ms": 10}, "option period_ms is 10; write a number from 20 to 90"),
        ({"period_ms": "45"}, "option period_ms is '45'"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(SlimbenchError, match=message):
        load(tmp_path, **options)


def test_a_plain_wav2vec2_is_refused(tmp_path: Path) -> None:
    file = card_file(case(lam=1.0), tmp_path)
    stored = torch.load(tmp_path / "ofa.pt", weights_only=True)
    stored["cfg"]["model"] = {**stored["cfg"]["model"], "subsample": "none"}
    torch.save(stored, tmp_path / "ofa.pt")
    with pytest.raises(SlimbenchError, match="do not say once-for-all compression"):
        load_upstream(str(file))


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_weights_must_fit(tmp_path: Path, change: str) -> None:
    file = card_file(case(lam=1.0), tmp_path)
    stored = torch.load(tmp_path / "ofa.pt", weights_only=True)
    if change == "missing":
        del stored["model"]["cif_subsampler.alpha_fn.layer.2.bias"]
    else:
        stored["model"]["encoder.layers.0.self_attn.relative_attention_bias.weight"] = torch.zeros(320, 4)
    torch.save(stored, tmp_path / "ofa.pt")
    with pytest.raises(SlimbenchError, match=f"1 {change}"):
        load_upstream(str(file))
