"""Specifications of terms: what recipes may write, and how the rest is refused."""

from __future__ import annotations

import re

import pytest
from term_cases import MINE, THEIRS

from harness.interface import SlimbenchError
from upstreams.distillation.terms import KNOWLEDGE, TermSpec, build, specify
from upstreams.distillation.terms.options import Option


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"knowledge": "hiden"}, r"no knowledge is called 'hiden', did you mean 'hidden'\?; known: hidden, mean_top"),
        ({"knowledge": "hidden", "heads": "linear"}, r"no key is called 'heads', did you mean 'head'\?"),
        ({}, "no knowledge is called None"),
        ({"knowledge": "hidden", "student": [1.5]}, "hidden: student and teacher are a word or a list"),
        ({"knowledge": "hidden", "teacher": 4}, "hidden: student and teacher are a word or a list"),
        ({"knowledge": "hidden", "weight": "1"}, "hidden: weight is '1'; write a number"),
        ({"knowledge": "hidden", "options": [1]}, r"hidden: options is \[1\]; write a mapping"),
        ({"knowledge": "hidden", "head": "liner"}, r"hidden: no head is called 'liner', did you mean 'linear'\?"),
        ({"knowledge": "hidden", "distance": "l2"}, r"hidden: no distance is called 'l2'.*known: l1_cos, l1, mse"),
        ({"knowledge": "gram_time", "head": "mlp"}, "gram_time: no head is called 'mlp'; known: none"),
        ({"knowledge": "hidden", "options": {"cosin": 1}}, r"unknown option 'cosin', did you mean 'cosine'\?; known"),
        ({"knowledge": "hidden", "options": {"cosine": -1}}, "'cosine' is -1; write a number of at least 0"),
        ({"knowledge": "hidden", "options": {"cosine": True}}, "'cosine' is True; write a number"),
        ({"knowledge": "hidden", "options": {"shared": 1}}, "'shared' is 1; write true or false"),
        ({"knowledge": "units", "options": {"units": 2.5}}, "'units' is 2.5; write a whole number of at least 2"),
        (
            {"knowledge": "cka", "options": {"scope": "all"}},
            "'scope' is 'all'; write one of utterance, batch, centroids",
        ),
    ],
)
def test_wrong_specifications_are_refused_in_one_sentence(values, message):
    with pytest.raises(SlimbenchError, match=message):
        build(specify(values), MINE, THEIRS)


@pytest.mark.parametrize("knowledge", KNOWLEDGE)
def test_head_and_distance_default_to_the_first_that_a_knowledge_takes(knowledge):
    kind = KNOWLEDGE[knowledge]
    spec = specify({"knowledge": knowledge, "student": [2], "of": "other", "weight": 2})
    assert (spec.head, spec.distance) == (kind.takes_heads[0], kind.takes_distances[0])
    assert (spec.student, spec.of, spec.weight) == ((2,), "other", 2)


@pytest.mark.parametrize("knowledge", KNOWLEDGE)
def test_a_bare_specification_is_built(knowledge):
    built = build(TermSpec(knowledge), MINE, THEIRS)
    assert built.spec.head in built.takes_heads
    assert built.spec.distance in built.takes_distances


@pytest.mark.parametrize("kind", KNOWLEDGE.values())
def test_every_default_is_accepted_and_described(kind):
    assert re.search(r"Figures: .*``\w+``", kind.__doc__)
    for option in kind.takes_options.values():
        assert option.default is None or option.accepts(option.default)


def test_options_take_whole_numbers_for_numbers_but_not_the_reverse():
    assert Option(1.0).accepts(2)
    assert not Option(1).accepts(2.0)
    assert not Option(0).accepts(False)


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ("last", "depth", ((3, 6),)),
        ("all", "depth", ((0, 0), (1, 2), (2, 4), (3, 6))),
        ("last", (1, -1), ((3, 1), (3, 6))),
        ((1, 3), (2, 5), ((1, 2), (3, 5))),
        ((-1,), "last", ((3, 6),)),
    ],
)
def test_states_are_paired(student, teacher, expected):
    assert build(TermSpec("hidden", student, teacher), MINE, THEIRS).pairs == expected


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ("layers", "layers", "hidden: 3 student states cannot be paired with 6"),
        ((4,), "depth", r"student \[4\] is not within 0 to 3"),
        ("lst", "depth", "student 'lst' is none of last, layers, all"),
        ("last", "upper", "teacher 'upper' is none of depth, last, layers, all"),
    ],
)
def test_states_that_are_not_there_are_refused(student, teacher, message):
    with pytest.raises(SlimbenchError, match=message):
        build(TermSpec("hidden", student, teacher), MINE, THEIRS)
