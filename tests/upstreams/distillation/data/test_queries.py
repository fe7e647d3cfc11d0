"""The choice of clips against every choice there is, on pools small enough to try them all."""

from itertools import combinations

import numpy as np
import pytest

from harness.interface import SlimbenchError
from upstreams.distillation.data import queries
from upstreams.distillation.data.queries import Clips, choose


def pool(count, seed, equal=True):
    rng = np.random.default_rng(seed)
    seconds = np.ones(count) if equal else rng.uniform(0.5, 3.0, count)
    return Clips(rng.normal(size=(count, 3)), seconds, rng.normal(size=count), rng.random(count))


def radius(clips, chosen):
    return max(min(np.linalg.norm(a - clips.features[c]) for c in chosen) for a in clips.features)


def covered(clips, chosen):
    alike = queries.similarity(clips, np.arange(len(clips)))
    return sum(max(alike[c, i] for c in chosen) for i in range(len(clips)))


@pytest.mark.parametrize("seed", range(6))
def test_greedy_k_center_is_within_twice_the_optimum(seed):
    clips = pool(10, seed)
    for size in (2, 3, 4):
        best = min(radius(clips, chosen) for chosen in combinations(range(10), size))
        chosen = choose("k_center", clips, float(size), seed)
        assert len(set(chosen)) == size
        assert radius(clips, chosen) <= 2 * best + 1e-9


def test_k_center_takes_the_farthest_at_each_step():
    clips = pool(30, 1)
    chosen = choose("k_center", clips, 8.0, 0)
    for place in range(1, 8):
        nearest = [min(np.linalg.norm(x - clips.features[c]) for c in chosen[:place]) for x in clips.features]
        assert chosen[place] == int(np.argmax(nearest))


@pytest.mark.parametrize("seed", range(6))
def test_greedy_facility_location_keeps_its_bound_and_is_the_plain_greedy_choice(seed):
    clips = pool(10, seed)
    chosen = choose("informed", clips, 3.0, seed)
    best = max(covered(clips, other) for other in combinations(range(10), 3))
    assert covered(clips, chosen) >= (1 - 1 / np.e) * best
    plain = []
    for _ in range(3):
        plain.append(max(set(range(10)) - set(plain), key=lambda c: covered(clips, [*plain, c])))
    assert chosen == plain


def test_facility_location_weighs_gain_by_seconds():
    clips = pool(12, 3, equal=False)
    first = choose("informed", clips, 6.0, 0)[0]
    assert first == max(range(12), key=lambda c: covered(clips, [c]) / clips.seconds[c])


@pytest.mark.parametrize("kind", queries.CHOICES)
def test_a_choice_keeps_the_budget_repeats_and_leaves_no_room(kind):
    clips = pool(40, 5, equal=False)
    chosen = choose(kind, clips, 20.0, 3)
    left = 20.0 - clips.seconds[chosen].sum()
    assert chosen == choose(kind, clips, 20.0, 3)
    assert len(set(chosen)) == len(chosen)
    assert 0 <= left < min(clips.seconds[i] for i in range(40) if i not in chosen)


def test_random_choices_differ_by_seed_and_are_fair():
    clips = pool(5, 0)
    counts = np.bincount([choose("random", clips, 1.0, seed)[0] for seed in range(500)], minlength=5)
    assert counts.min() > 60


def test_quiet_clips_are_left_out_of_informed_choices_only():
    clips = pool(20, 2)
    quiet = set(np.argsort(clips.loudness)[:10].tolist())
    for kind in ("k_center", "informed", "lively"):
        assert not quiet & set(choose(kind, clips, 20.0, 0, quiet=0.5))
    assert len(choose("random", clips, 20.0, 0, quiet=0.5)) == 20


def test_lively_clips_are_those_whose_spectrum_moves():
    clips = pool(20, 2)
    assert choose("lively", clips, 4.0, 0) == sorted(range(20), key=lambda i: -clips.spread[i])[:4]


def test_the_description_tells_noise_bursts_from_steady_noise_and_loud_from_quiet():
    rng = np.random.default_rng(0)
    steady = rng.normal(0, 0.1, 16_000).astype(np.float32)
    bursts = steady * np.repeat([1, 0.01] * 4, 2000).astype(np.float32)
    clips = queries.describe([steady, bursts, 0.1 * steady[:8000]])
    assert clips.spread[1] > clips.spread[0]
    assert clips.loudness[0] - clips.loudness[2] == pytest.approx(20, abs=0.5)
    assert clips.seconds.tolist() == [1.0, 1.0, 0.5]
    assert np.allclose(clips.features.mean(0), 0)


def test_faulty_choices_are_refused():
    clips = pool(4, 0)
    with pytest.raises(SlimbenchError, match="'psychic' is none of random"):
        choose("psychic", clips, 1.0, 0)
    with pytest.raises(SlimbenchError, match=r"budget of 0\.5 s"):
        choose("k_center", clips, 0.5, 0)
    with pytest.raises(SlimbenchError, match="clip 0 has 100 samples"):
        queries.describe([np.zeros(100, np.float32)])
    with pytest.raises(SlimbenchError, match="no clips"):
        queries.describe([])
