"""Models behind an entry point, and those that break their word."""

import sys

import called_models
import pytest
import torch
from tiny_models import adapter_card, noise

from harness.cost import count_macs, count_parameters
from harness.interface import SlimbenchError
from upstreams.adapters.function import Function


def function_card(folder, name, **options):
    adapter = "upstreams.adapters.function:Function"
    return adapter_card(folder, "tiny", adapter, options={"entry": f"called_models:{name}", **options})


@pytest.mark.parametrize(("hop", "window"), [(320, 400), (160, 400), (1000, 999), (640, 1040), (441, 441)])
def test_what_is_measured(tmp_path, hop, window):
    upstream = Function(function_card(tmp_path, "framed", arguments={"hop": hop, "window": window}))
    assert (upstream.num_states, upstream.width, upstream.min_samples) == (2, 6, window)
    assert upstream.frame_ms == pytest.approx(hop / 16, abs=1e-9)
    got = upstream.encode(*noise(16_000, 8_000))
    assert got.lengths.tolist() == [(n - window) // hop + 1 for n in (16_000, 8_000)]


@pytest.mark.parametrize(("entry", "padded"), [("framed", False), ("counting", False), ("counting", True)])
def test_states_are_those_of_the_model_alone(tmp_path, entry, padded):
    upstream = Function(function_card(tmp_path, entry, padded=padded))
    model = called_models.Framed().eval()
    waves, lengths = noise(16_000, 8_000, 400)
    got = upstream.encode(waves, lengths)
    for row, length in enumerate(lengths.tolist()):
        with torch.no_grad():
            expected = model(waves[row : row + 1, :length], lengths[row : row + 1])
        for mine, theirs in zip(got.states, expected, strict=True):
            assert int(got.lengths[row]) == theirs.shape[1]
            torch.testing.assert_close(mine[row, : theirs.shape[1]], theirs[0], rtol=1e-5, atol=1e-5)


def test_a_callable_without_weights(tmp_path):
    upstream = Function(function_card(tmp_path, "plain"))
    assert (upstream.num_states, upstream.width, upstream.frame_ms, upstream.module()) == (1, 1, 20.0, None)
    waves, lengths = noise(640)
    assert float(upstream.encode(waves, lengths).states[0][0, 1, 0]) == pytest.approx(
        float(waves[0, 320:].square().mean().log()), abs=1e-5
    )


def test_the_frame_time_can_be_said(tmp_path):
    assert Function(function_card(tmp_path, "plain", frame_ms=20)).frame_ms == 20.0
    assert Function(function_card(tmp_path, "wrong", frame_ms=20, arguments={"way": "uneven"})).frame_ms == 20.0


def test_the_fingerprint_is_of_weights_and_options(tmp_path, monkeypatch):
    first = Function(function_card(tmp_path, "framed")).fingerprint
    assert Function(function_card(tmp_path, "framed")).fingerprint == first
    assert Function(function_card(tmp_path, "framed", version=2)).fingerprint != first
    original = called_models.Framed.__init__

    def louder(self, *arguments):
        original(self, *arguments)
        self.linear.bias.data += 1

    monkeypatch.setattr(called_models.Framed, "__init__", louder)
    assert Function(function_card(tmp_path, "framed")).fingerprint != first


def test_what_is_counted(tmp_path):
    upstream = Function(function_card(tmp_path, "framed"))
    assert count_parameters(upstream.module()) == 6 * 400 + 6 + 36 + 6
    assert count_macs(upstream, 1.0) == 49 * (6 * 400 + 36)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("fails", r"tiny\.yaml: the model fails on one second of noise.* \(KeyError: 'nothing.nhere'\); see"),
        ("nothing", "the model gives NoneType without states; let it return a list of float tensors"),
        ("words", "the model gives list without states"),
        ("ragged", r"the model gives states of shapes \[\(1, 50, 4\), \(1, 50, 5\)\] for a batch of 1"),
        ("flat", r"the model gives states of shapes \[\(1, 50\)\]"),
        ("whole", "the model gives Tensor without states"),
        ("batch", r"the model gives states of shapes \[\(2, 50, 4\)\] for a batch of 1"),
        ("uneven", "the time between frames cannot be measured .*; set option frame_ms"),
        ("one", "gives fewer than four frames for one second"),
        ("number", "called_models:wrong gives int, which cannot be called"),
    ],
)
def test_models_that_break_their_word(tmp_path, way, message):
    with pytest.raises(SlimbenchError, match=message) as error:
        Function(function_card(tmp_path, "wrong", arguments={"way": way}))
    assert "\n" not in str(error.value)


def test_padded_batches_need_valid_frames(tmp_path):
    with pytest.raises(SlimbenchError, match="gives no frames beside the states, which option 'padded: true' needs"):
        Function(function_card(tmp_path, "framed", padded=True))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("", r"option entry is ''; write 'package\.module:function'"),
        ("called_models", r"option entry is 'called_models'; write"),
        ("no_such_package_at_all:f", r"Cannot load no_such_package_at_all:f"),
        ("called_models:nothing", r"Cannot load called_models:nothing"),
        ("./evil.py:f", r"option entry is|Cannot load"),
    ],
)
def test_entries_that_cannot_be_imported(tmp_path, entry, message):
    with pytest.raises(SlimbenchError, match=message):
        Function(function_card(tmp_path, "framed", entry=entry))


@pytest.mark.parametrize("place", ["beside_me.py", "beside_me/__init__.py"])
def test_a_file_beside_the_card_is_not_imported(tmp_path, monkeypatch, place):
    trap = tmp_path / "sprung"
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"open({str(trap)!r}, 'w')\ndef f(card, device): pass\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(SlimbenchError, match="beside_me lies beside the card; install it as a package"):
        Function(function_card(tmp_path, "framed", entry="beside_me:f"))
    assert not trap.exists()
