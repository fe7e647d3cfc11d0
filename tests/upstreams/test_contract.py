"""What every upstream promises to the harness: every card whose weights are here, and tiny models of each kind."""

from functools import cache
from pathlib import Path

import pytest
import torch
from tiny_models import FAMILIES, hf_card, hf_model, mini_card, noise, save_hf, save_mini

from harness.interface import SAMPLE_RATE, Upstream
from harness.registry import available, card, cards, load_upstream

SHIPPED = [name for name, item in cards().items() if available(item)]
TINY = ["tiny_mini", "tiny_random", *(f"tiny-{family}-{norm}" for family in FAMILIES for norm in ("layer", "group"))]


@pytest.fixture(scope="module")
def tiny_cards(tmp_path_factory):
    """Card files of tiny models by name."""
    folder: Path = tmp_path_factory.mktemp("tiny")
    save_mini(folder / "tiny_mini")
    files = {"tiny_mini": mini_card(folder, depth=2, width=32).file}
    options = {"random": True, "config": "tiny_mini/config.json"}
    files["tiny_random"] = mini_card(folder, "tiny_random", weights=None, depth=2, width=32, options=options).file
    for name in TINY[2:]:
        family, _, norm = name.removeprefix("tiny-").rpartition("-")
        save_hf(hf_model(family, norm=norm), folder / name)
        files[name] = hf_card(folder, name, family=family, depth=3, width=16).file
    return files


@pytest.fixture(scope="module")
def load(tiny_cards):
    """Loads an upstream by name, each once unless asked afresh."""

    def fresh(name: str) -> Upstream:
        return load_upstream(str(tiny_cards.get(name, name)))

    once = cache(fresh)
    return lambda name, again=False: fresh(name) if again else once(name)


every = pytest.mark.parametrize("name", [*SHIPPED, *TINY])


def equal(upstream: Upstream, length: int):
    """A batch of three utterances of one length."""
    return noise(length, length, length)


@every
def test_it_has_what_it_declares(load, tiny_cards, name):
    upstream = load(name)
    assert isinstance(upstream, Upstream)
    declared = card(str(tiny_cards.get(name, name)))
    states = upstream.encode(*equal(upstream, 12_345))
    assert upstream.name == declared.name
    assert declared.width in (None, upstream.width)
    assert len(states.states) == upstream.num_states >= 1
    assert declared.depth is None or upstream.num_states == declared.depth + 1
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
        assert frames.item() == (samples - upstream.min_samples) // hop + 1
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
def test_it_is_frozen_and_leaves_no_trace(load, name):
    random_state, grad = torch.get_rng_state(), torch.is_grad_enabled()
    upstream = load(name, again=True)
    batch = equal(upstream, 8_000)
    kept = batch[0].clone()
    module = upstream.module()
    before = {} if module is None else {n: t.clone() for n, t in module.state_dict().items()}
    states = upstream.encode(*batch)
    assert not any(state.requires_grad for state in states.states)
    if module is not None:
        assert not any(part.training for part in module.modules())
        assert not any(parameter.requires_grad for parameter in module.parameters())
        assert all(torch.equal(before[n], t) for n, t in module.state_dict().items())
    assert torch.equal(batch[0], kept)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.is_grad_enabled() is grad


@every
@pytest.mark.parametrize("kind", ["silence", "short", "clipped", "offset", "click"])
def test_odd_sound_gives_finite_states(load, name, kind):
    upstream = load(name)
    length = upstream.min_samples if kind == "short" else 8_000
    waves, lengths = noise(length)
    if kind == "silence":
        waves = torch.zeros_like(waves)
    elif kind == "clipped":
        waves = (100 * waves).clamp(-1, 1)
    elif kind == "offset":
        waves = torch.full_like(waves, 0.5)
    elif kind == "click":
        waves = torch.zeros_like(waves)
        waves[0, 4_000] = 1.0
    for state in upstream.encode(waves, lengths).states:
        assert torch.isfinite(state).all()


@every
def test_it_hears(load, name):
    """States change with the sound: no constant output, no state that ignores its input."""
    upstream = load(name)
    waves, lengths = noise(8_000, 8_000)
    for state in upstream.encode(waves, lengths).states:
        assert (state[0] - state[1]).abs().max() > 1e-3
