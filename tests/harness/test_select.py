from types import SimpleNamespace

import pytest

from harness.interface import SlimbenchError
from harness.select import choose


def trials(table):
    """``{rate: [dev per seed]}`` in an order that no choice may depend on."""
    made = [SimpleNamespace(learning_rate=r, seed=s, dev=d) for r, devs in table.items() for s, d in enumerate(devs)]
    return made[::-1]


@pytest.mark.parametrize(("metric", "rate"), [("wer", 0.1), ("accuracy", 0.01)])
def test_the_best_mean_over_seeds_wins_in_the_metric_s_direction(metric, rate):
    choice = choose(trials({0.01: [60.0, 50.0], 0.1: [10.0, 58.0]}), metric)
    assert choice.learning_rate == rate
    assert [r.seed for r in choice.results] == [0, 1]
    assert {r.learning_rate for r in choice.results} == {rate}


def test_a_rate_with_a_diverged_seed_cannot_win():
    assert choose(trials({0.01: [60.0, 60.0], 0.1: [1.0, float("inf")]}), "wer").learning_rate == 0.01
    assert choose(trials({0.01: [60.0, 60.0], 0.1: [99.0, float("-inf")]}), "accuracy").learning_rate == 0.01


def test_of_equal_rates_the_lower_wins():
    assert choose(trials({0.1: [5.0], 0.01: [5.0], 1.0: [5.0]}), "eer").learning_rate == 0.01


def test_nothing_is_chosen_where_all_diverged():
    with pytest.raises(SlimbenchError, match="lower ones"):
        choose(trials({0.1: [float("inf")], 1.0: [float("nan")]}), "wer")
