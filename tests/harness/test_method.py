"""The card's ``method``: read, carried into records where it is stated, and absent from those of cards without one."""

from types import SimpleNamespace

import pytest

from harness import recording
from harness.cards import read_card
from harness.interface import SlimbenchError
from harness.record_schema import RECORD, Later, _check

CARD = "name: a\ntitle: A\nadapter: x:y\nlicence: MIT\nsource: here\nexposes: all\nfamily: mini\n"


def identity(card):
    upstream = SimpleNamespace(name="a", fingerprint="f" * 64, num_states=2, width=8, frame_ms=20.0)
    return recording._identity(SimpleNamespace(plan=SimpleNamespace(upstream=upstream), card=card))


@pytest.mark.parametrize(("line", "method"), [("method: pred\n", "pred"), ("", None), ("method:\n", None)])
def test_records_state_the_method_that_the_card_states(tmp_path, line, method):
    file = tmp_path / "a.yaml"
    file.write_text(CARD + line)
    card = read_card(file)
    assert card.method == method
    made = identity(card)
    assert made.get("method") == method
    assert ("method" in made) is (method is not None)
    assert not list(_check(made, RECORD["upstream"], "upstream"))


def test_a_method_is_text(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(CARD + "method: 3\n")
    with pytest.raises(SlimbenchError, match="field 'method' must be text"):
        read_card(file)
    assert isinstance(RECORD["upstream"]["method"], Later)  # records from before have none
    file.write_text(CARD)
    assert list(_check({**identity(read_card(file)), "method": 3}, RECORD["upstream"], "upstream"))
