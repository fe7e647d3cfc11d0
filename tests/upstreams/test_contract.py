"""What every upstream promises to the harness: every card whose weights are here, and tiny models of each kind.

All points of the conformance check, and beside them comparisons that share no code with it.
"""

from functools import cache
from pathlib import Path

import pytest
import torch
from tiny_models import ADAPTERS, FAMILIES, hf_card, hf_model, mini_card, noise, save_adapters, save_hf, save_mini

from harness.conformance import Subject
from harness.conformance.points import BEFORE, POINTS
from harness.interface import SAMPLE_RATE, Upstream
from harness.registry import available, card, cards, load_upstream

SHIPPED = [name for name, item in cards().items() if available(item)]
HF = [f"tiny-{family}-{norm}" for family in FAMILIES for norm in ("layer", "group")]
TINY = ["tiny_mini", "tiny_random", *HF, *ADAPTERS]

WITH_HEADS = "distilled_wavlm"
"""Heads see no more of an upstream than width and range, and take seconds."""


@pytest.fixture(scope="module")
def tiny_cards(tmp_path_factory):
    """Card files of tiny models by name."""
    folder: Path = tmp_path_factory.mktemp("tiny")
    save_mini(folder / "tiny_mini")
    files = {"tiny_mini": mini_card(folder, depth=2, width=32).file}
    options = {"random": True, "config": "tiny_mini/config.json"}
    files["tiny_random"] = mini_card(folder, "tiny_random", weights=None, depth=2, width=32, options=options).file
    for name in HF:
        family, _, norm = name.removeprefix("tiny-").rpartition("-")
        save_hf(hf_model(family, norm=norm), folder / name)
        files[name] = hf_card(folder, name, family=family, depth=3, width=16).file
    return files | save_adapters(folder)


@pytest.fixture(scope="module")
def load(tiny_cards):
    """Loads an upstream by name, each once unless asked afresh."""

    def fresh(name: str) -> Upstream:
        return load_upstream(str(tiny_cards.get(name, name)))

    once = cache(fresh)
    return lambda name, again=False: fresh(name) if again else once(name)


@pytest.fixture(scope="module")
def subject(tiny_cards, load):
    """The subject of the conformance check for a name, one for all points."""

    @cache
    def made(name: str) -> Subject:
        return Subject(card(str(tiny_cards.get(name, name))), lambda: load(name, again=True))

    return made


every = pytest.mark.parametrize("name", [*SHIPPED, *TINY])


def equal(upstream: Upstream, length: int):
    """A batch of three utterances of one length."""
    return noise(length, length, length)


@pytest.mark.parametrize(
    ("name", "promise"),
    [
        pytest.param(name, promise, id=f"{name}-{promise.name}")
        for name in (*SHIPPED, *TINY)
        for promise in (*BEFORE, *POINTS)
        if promise.name != "heads" or name == WITH_HEADS
    ],
)
def test_it_keeps_every_promise(subject, name, promise):
    result = promise(subject(name))
    assert result.passed, f"{result.figure} {result.meaning}"


@every
def test_it_has_what_it_declares(load, tiny_cards, name):
    upstream = load(name)
    assert isinstance(upstream, Upstream)
    declared = card(str(tiny_cards.get(name, name)))
    states = upstream.encode(*equal(upstream, 12_345))
    assert upstream.name == declared.name
    assert declared.width in (None, upstream.width)
    assert len(states.states) == upstream.num_states >= 1
    assert declared.depth is None or name not in TINY or upstream.num_states == declared.depth + 1
    assert len(upstream.fingerprint) == 64
    assert states.frame_ms == upstream.frame_ms
    assert states.lengths.dtype == torch.int64
    assert states.lengths.shape == (3,)
    for state in states.states:
        assert state.shape == (3, int(states.lengths.max()), upstream.width)
        assert state.dtype == torch.float32


@every
def test_frames_follow_samples(load, name):
    upstream = load(name)
    hop = upstream.frame_ms * SAMPLE_RATE / 1000
    for samples in (upstream.min_samples, upstream.min_samples + 1, 8_000, 16_000, 23_456):
        frames = upstream.encode(*noise(samples)).lengths
        fewest = 2 if name == "tiny-export" else 1  # torch.export specialises on more than one frame
        assert frames.item() == (samples - upstream.min_samples) // hop + fewest
    with pytest.raises((RuntimeError, ValueError, AssertionError)):
        upstream.encode(*noise(upstream.min_samples - 1)).states[0][0, 0]


@every
def test_an_utterance_does_not_depend_on_its_batch(load, name):
    upstream = load(name)
    sizes = (16_000, 9_999, 4_000) if upstream.batch_invariant else (9_999, 9_999, 9_999)
    waves, lengths = noise(*sizes)
    batched = upstream.encode(torch.nn.functional.pad(waves, (0, 3_000)), lengths)
    for row, size in enumerate(sizes):
        alone = upstream.encode(waves[row : row + 1, :size], lengths[row : row + 1])
        frames = int(alone.lengths[0])
        assert int(batched.lengths[row]) == frames
        for many, one in zip(batched.states, alone.states, strict=True):
            torch.testing.assert_close(many[row, :frames], one[0, :frames], rtol=1e-3, atol=1e-3)


@every
def test_the_same_input_gives_the_same_states(load, name):
    first, second = load(name), load(name, again=True)
    assert first is not second
    assert first.fingerprint == second.fingerprint
    batch = equal(first, 8_000)
    torch.manual_seed(7)
    one = first.encode(*batch)
    torch.manual_seed(8)
    for other in (first.encode(*batch), second.encode(*batch)):
        assert all(torch.equal(a, b) for a, b in zip(one.states, other.states, strict=True))


@every
def test_it_hears(load, name):
    """States change with the sound: no constant output, no state that ignores its input."""
    upstream = load(name)
    waves, lengths = noise(8_000, 8_000)
    for state in upstream.encode(waves, lengths).states:
        assert (state[0] - state[1]).abs().max() > 1e-3
