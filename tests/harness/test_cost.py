"""Costs against figures worked out by hand, and memory against what a model is made to hold."""

import json

import numpy as np
import pytest
import torch
import toy_upstream
from torch import nn
from wrapped import Convolution, Wrapped

from harness import cost
from harness.cards import Card, read_card, variants_of
from harness.cost import memory
from harness.interface import SlimbenchError


def test_parameters():
    shared = nn.Linear(3, 2)
    module = nn.Sequential(shared, nn.Conv1d(2, 4, 5, bias=False), shared)
    assert cost.count_parameters(None) == cost.parameter_bytes(None) == 0
    assert cost.count_parameters(module) == 8 + 40
    assert cost.parameter_bytes(module) == 4 * 48
    assert cost.parameter_bytes(module.double()) == 8 * 48


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_parameters_packed_by_torch():
    module = nn.Sequential(nn.Linear(30, 20), nn.LayerNorm(20))
    packed = torch.ao.quantization.quantize_dynamic(module, {nn.Linear})
    assert cost.count_parameters(packed) == cost.count_parameters(module) == 620 + 40
    assert cost.parameter_bytes(packed) == 600 + 4 * (20 + 40)


def test_real_time_factor_is_the_median_after_a_warm_up(monkeypatch):
    clock = iter(np.cumsum([0, 50, 0, 4, 0, 1, 0, 9]))  # warm-up 50 s, then 4, 1 and 9 s
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(clock))
    assert cost.real_time_factor(Wrapped(Convolution(1, 400, 320)), seconds=2.0, repeats=3) == 2.0


HUNGRY = """
import torch
from toy_upstream import ToyUpstream, weights

def load(card, device):
    upstream = ToyUpstream(weights(0), "hungry", device, card.name)
    passing = torch.ones(card.options["passing"] * 250_000)
    del passing
    upstream.held = torch.ones(card.options["held"] * 250_000)
    return upstream
"""


def hungry(folder, monkeypatch, passing, held):
    """A card whose upstream holds so many MB, and held others while it was loaded."""
    (folder / "hungry.py").write_text(HUNGRY)
    monkeypatch.syspath_prepend(str(folder))
    card = toy_upstream.write_card(folder)
    options = json.dumps({"passing": passing, "held": held})
    card.write_text(card.read_text().replace("toy_upstream:load", "hungry:load") + f"options: {options}\n")
    return read_card(card)


linux = pytest.mark.skipif(not memory.STATUS.exists(), reason="needs Linux's account of a process")


@linux
def test_memory_is_that_of_a_process_of_its_own(tmp_path, monkeypatch):
    here = np.ones(100_000_000)  # 800 MB in this process, which a child's ru_maxrss would show
    small = cost.peak_memory(hungry(tmp_path, monkeypatch, 1, 1))
    del here
    large = cost.peak_memory(hungry(tmp_path, monkeypatch, 300, 200))
    assert small.peak - small.idle < 150
    assert 200 < large.peak - small.peak < 320
    assert abs(large.idle - small.idle) < 30


def test_memory_of_a_variant_is_its_own(tmp_path):
    card = toy_upstream.write_card(tmp_path)
    card.write_text(card.read_text() + "variants:\n  float8: {precision: bfloat16, width: 13}\n")
    with pytest.raises(SlimbenchError, match=r"memory of toy@float8 cannot be measured: .*says width 13"):
        cost.peak_memory(variants_of(read_card(card))[0])


def test_all_costs_of_an_upstream(tmp_path):
    card = read_card(toy_upstream.write_card(tmp_path))
    upstream, notes = toy_upstream.load(card, "cpu"), []
    found = cost.measure(upstream, card, "cpu", 1, notes)
    weights = toy_upstream.STATES * toy_upstream.WIDTH * toy_upstream.BINS
    assert (found["params"], found["parameter_bytes"], notes) == (weights, 4 * weights, [])
    assert (found["device"], found["threads"], found["macs_counted"]) == ("cpu", 1, "shapes")
    assert found["macs_per_second"] == cost.count_macs(upstream)
    buckets = [found[f"macs_superb_{name}"] for name in ("short", "medium", "long", "longer")]
    assert found["macs_superb"] == pytest.approx(sum(buckets))
    assert found["macs_superb"] == pytest.approx(found["macs_per_second"] * 224.86 / 1e9, rel=0.01)
    assert 0 < found["idle_memory_mb"] < found["peak_memory_mb"]


def test_what_cannot_be_measured_is_said(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise SlimbenchError("no.")

    monkeypatch.setattr(cost, "count_superb_macs", refuse)
    monkeypatch.setattr(cost, "peak_memory", refuse)
    notes: list[str] = []
    card = read_card(toy_upstream.write_card(tmp_path))
    found = cost.measure(toy_upstream.load(card, "cpu"), card, "cpu", 1, notes)
    assert notes == ["no MACs in this record: no.", "no memory in this record: no."]
    absent = {name for name, value in found.items() if value is None}
    assert absent == {name for name in found if "macs" in name or "memory" in name}


def test_bytes_on_disk(tmp_path):
    fields = dict.fromkeys(("title", "adapter", "licence", "source", "exposes"), "x")
    assert cost.bytes_on_disk(Card("a", **fields)) == 0
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    assert cost.bytes_on_disk(Card("a", **fields, weights=tmp_path)) == 5
    assert cost.bytes_on_disk(Card("a", **fields, weights=tmp_path / "model.safetensors")) == 5
