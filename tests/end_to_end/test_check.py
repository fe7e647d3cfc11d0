"""The verb ``check`` as a user calls it: table, failures with meaning and remedy, exit status."""

import json

import pytest
import toy_upstream
import yaml

from harness import registry
from harness.conformance.points import BEFORE, POINTS


@pytest.fixture(autouse=True)
def one_head(monkeypatch):
    monkeypatch.setattr(registry, "task_names", lambda: ["ks"])


def card_of(place, **fields):
    """The toy's card with other fields; ``None`` takes one out."""
    values = {**yaml.safe_load(place.card.read_text()), **fields}
    place.card.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
    return str(place.card)


def rows(shown):
    """Point names of the table by verdict."""
    lines = [line.split("  ", 2) for line in shown.splitlines() if line.startswith(("passed  ", "FAILED  "))]
    return {verdict: [line[1].strip() for line in lines if line[0] == verdict] for verdict in ("passed", "FAILED")}


def test_a_table_says_what_passed(place, call):
    status, shown, said = call("check", "--upstream", str(place.card), "--threads", "1")
    assert (status, said) == (0, "")
    assert shown.startswith(f"check of toy ({place.card})\n")
    assert rows(shown) == {"passed": [point.name for point in (*BEFORE, *POINTS)], "FAILED": []}
    assert "failed" not in shown


def test_a_failure_says_what_it_means_and_how_to_mend_it(place, call, monkeypatch):
    load = toy_upstream.load

    def with_gradients(card, device):
        upstream = load(card, device)
        upstream.module().requires_grad_(True)
        return upstream

    monkeypatch.setattr(toy_upstream, "load", with_gradients)
    status, shown, said = call("check", "--upstream", str(place.card), "--threads", "1")
    assert (status, said) == (1, "")
    assert rows(shown)["FAILED"] == ["no gradients"]
    end = shown.partition("\nno gradients failed: ")[2]
    assert end.startswith("2 parameters require gradients, such as 0.weight")
    assert "memory grows with every batch" in end
    assert "To mend it: " in end
    assert f"{len(BEFORE) + len(POINTS) - 1} of {len(BEFORE) + len(POINTS)} passed" in end


def test_as_json(call):
    status, shown, _ = call("check", "--upstream", "fbank", "--json", "--threads", "1")
    found = json.loads(shown)
    assert (status, found["upstream"], found["passed"], found["untried"]) == (0, "fbank", True, [])
    assert [result["name"] for result in found["results"]] == [point.name for point in (*BEFORE, *POINTS)]
    assert all(set(result) == {"name", "passed", "figure", "meaning", "remedy"} for result in found["results"])


def test_a_draft_is_refused_until_it_is_filled_in(place, call):
    status, shown, _ = call("check", "--upstream", card_of(place, licence="TODO licence"), "--threads", "1")
    assert status == 1
    assert "card filled in" in rows(shown)["FAILED"]
    assert "card filled in failed: to be written: licence" in shown


def test_weights_that_are_missing_or_changed_leave_the_rest_untried(place, call):
    weights = place.card.parent / "toy.safetensors"
    status, shown, _ = call("check", "--upstream", card_of(place, sha256="0" * 64), "--threads", "1")
    assert status == 1
    assert rows(shown)["FAILED"] == ["weights", "loads"]
    assert f"{len(POINTS)} not tried" in shown
    weights.unlink()
    status, shown, _ = call("check", "--upstream", card_of(place, sha256=None), "--threads", "1")
    assert status == 1
    assert "The weights of toy are not here: put them at" in shown


@pytest.mark.parametrize(
    ("name", "said"), [("fbnk", "did you mean 'fbank'"), ("none.yaml", "Cannot read the card"), ("fbank@x", "@")]
)
def test_a_name_that_nobody_has_is_bad_input(call, name, said):
    status, shown, error = call("check", "--upstream", name)
    assert (status, shown) == (2, "")
    assert said in error
    assert error.count("\n") == 1


def test_a_device_that_is_not_here_is_bad_input(call):
    status, _, error = call("check", "--upstream", "fbank", "--device", "nonsense")
    assert status == 2
    assert "cannot be used here" in error


def test_an_adapter_that_fails_in_an_unforeseen_way_is_a_failed_point(place, call, monkeypatch):
    def broken(_card, _device):
        raise KeyError("encoder")

    monkeypatch.setattr(toy_upstream, "load", broken)
    status, shown, _ = call("check", "--upstream", str(place.card), "--threads", "1")
    assert status == 1
    assert "loads failed: KeyError: 'encoder'" in shown
