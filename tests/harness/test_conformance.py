"""A good upstream passes every point; each broken one is caught by its own point and by no other."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from toy_broken import (
    BROKEN,
    DEPTH,
    FRAME,
    WIDTH,
    DependsOnPadding,
    EqualLengths,
    Good,
    HalfTheFrames,
    Huge,
    WithoutWeights,
)

from harness import registry
from harness.cards import Card
from harness.conformance import Subject, apart, misshapen, random_state
from harness.conformance import card as points_card
from harness.conformance.checking import examine
from harness.conformance.points import BEFORE, POINTS
from harness.identity import digest_bytes
from harness.interface import HiddenStates, SlimbenchError

ALL = [point.name for point in (*BEFORE, *POINTS)]


def toy_card(**fields):
    texts = {"title": "Toy", "adapter": "x:y", "licence": "MIT", "source": "a test", "exposes": "all"}
    return Card(**{"name": "toy", **texts, **fields})


def failures(report):
    return {result.name for result in report.results if not result.passed}


@pytest.fixture
def one_head(monkeypatch):
    """Only one small head, to save time where heads are not what is tested; call it for another."""
    monkeypatch.setattr(registry, "task_names", lambda: ["ks"])
    return lambda name: monkeypatch.setattr(registry, "task_names", lambda: [name])


@pytest.fixture(autouse=True)
def gradients():
    yield
    torch.set_grad_enabled(True)


def test_a_good_upstream_passes_every_point():
    report = examine(Subject(toy_card(width=WIDTH, depth=DEPTH), Good))
    assert failures(report) == set()
    assert report.passed
    assert [result.name for result in report.results] == ALL
    assert all(result.figure for result in report.results)
    assert "asr, asv, er, ic, ks, pr, sid" in report.results[-1].figure


@pytest.mark.parametrize("kind", [WithoutWeights, EqualLengths, HalfTheFrames])
def test_other_kinds_of_good_upstreams_pass(kind, one_head):
    assert failures(examine(Subject(toy_card(), kind))) == set()


@pytest.mark.parametrize(
    ("kind", "caught"), [pytest.param(*item, id=f"{item[0].__name__}-{min(item[1])}") for item in BROKEN.items()]
)
def test_a_broken_upstream_is_caught_by_its_point_alone(kind, caught, one_head):
    if kind is Huge:
        one_head("asv")  # squares of the states overflow
    report = examine(Subject(toy_card(), kind))
    assert failures(report) == caught
    assert not report.passed
    assert [result.name for result in report.results] == ALL
    for result in report.results:
        if not result.passed:
            assert result.figure
            assert result.meaning.endswith(".")
            assert result.remedy.endswith(".")
            assert result.remedy in report.conclusion()
    assert f"{len(ALL) - len(caught)} of {len(ALL)} passed" in report.conclusion()


def test_every_point_but_those_of_the_card_is_broken_by_some_toy():
    assert set().union(*BROKEN.values()) == {point.name for point in POINTS} - {"width and depth"}


@pytest.mark.parametrize(
    ("fields", "caught"),
    [
        ({"licence": "TODO licence of the weights"}, {"card filled in"}),
        ({"width": WIDTH + 1}, {"width and depth"}),
        ({"depth": 7}, {"width and depth"}),
        ({"depth": DEPTH + 1}, set()),  # as many as there are states: nothing speaks against it
    ],
)
def test_what_the_card_says(fields, caught, one_head):
    assert failures(examine(Subject(toy_card(**fields), Good))) == caught


def test_weights_that_are_pinned_changed_or_missing(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"abc")

    def looked(**fields):
        return points_card.weights(Subject(toy_card(weights=file, **fields), Good))

    assert "not pinned: add `sha256: ba7816bf" in looked().figure  # SHA-256 of "abc", FIPS 180-2
    assert looked().passed
    pinned = looked(sha256=digest_bytes(b"abc"))
    assert pinned.passed
    assert "here and pinned" in pinned.figure
    assert "has SHA-256 ba7816bf" in looked(sha256="0" * 64).figure
    assert not looked(sha256="0" * 64).passed
    file.unlink()
    assert "are not here: put them at" in looked().figure


def test_an_upstream_that_does_not_load_leaves_the_rest_untried():
    def load():
        raise SlimbenchError("models/x has 3 weights too many; take another file.")

    report = examine(Subject(toy_card(), load))
    assert failures(report) == {"loads"}
    assert not report.passed
    assert report.untried == tuple(point.name for point in POINTS)
    assert "models/x has 3 weights too many" in report.conclusion()
    assert f"{len(POINTS)} not tried" in report.conclusion()


def test_the_figure_is_the_difference_that_brute_force_finds():
    """The toy's states alone and in the padded batch, worked out here from its waveforms."""
    subject = Subject(toy_card(), DependsOnPadding)
    waves = [0.1 * torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (4_000, 8_000)]
    worst = 0.0
    model = subject.upstream.model
    padded = nn.functional.pad(waves[0], (0, 4_000 + 960))
    for alone, many in zip(*(model(w.unfold(0, FRAME, FRAME)) for w in (waves[0], padded)), strict=True):
        one, two = alone - alone.mean(0) / 2, (many - many.mean(0) / 2)[: len(alone)]
        worst = max(worst, float((one - two).abs().max()) / float(one.std(correction=0)))
    together, one = subject.encode(waves, 960), subject.encode(waves[:1])
    assert apart("toy", one, 0, together, 0)[0] == pytest.approx(worst, rel=1e-4)
    assert worst > 0.01


def test_a_difference_that_is_no_number_is_the_largest():
    def hidden(*values):
        states = [torch.tensor([[[0.0], [value]]]) for value in values]
        return HiddenStates(states, torch.tensor([2]), 20.0)

    distance, layer = apart("toy", hidden(1.0, 1.0, 1.0), 0, hidden(5.0, float("nan"), 9.0), 0)
    assert (distance != distance, layer) == (True, 1)
    assert apart("toy", hidden(1.0, 1.0), 0, hidden(1.0, 2.0), 0) == (2.0, 1)  # (0, 1) has standard deviation 1/2


def test_random_state_sees_every_generator():
    before = random_state()
    assert random_state() == before
    for draw in (lambda: torch.rand(1), random.random, np.random.rand, lambda: np.random.randn(1)):
        draw()
        assert random_state() != before
        before = random_state()


def test_misshapen_says_what_was_promised():
    hidden = Good().encode(torch.zeros(2, 3 * FRAME), torch.tensor([3 * FRAME] * 2))
    assert misshapen(Good(), hidden, 2) == ""
    assert "for 3 utterances, where 3 of width 12 were promised" in misshapen(Good(), hidden, 3)
    none = HiddenStates(hidden.states, torch.tensor([3, 0]), 20.0)
    assert "frame counts [3, 0] do not fit" in misshapen(Good(), none, 2)


def test_points_have_names_of_their_own():
    assert len(set(ALL)) == len(ALL)
