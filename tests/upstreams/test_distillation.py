"""The lab: units, batches, masks, the loop's resume, growing, copying and one tiny run of each recipe kind."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio
import yaml
from torch import nn
from torch.nn import functional

from harness.interface import SlimbenchError
from upstreams.distillation import batches, distil, pool, pretrain, recipe, units
from upstreams.distillation.loop import Loop
from upstreams.students.mini import MiniConfig, MiniWavLM

TINY = MiniConfig(layers=2, width=32, ffn=64, head_width=16)


@pytest.fixture
def shards(tmp_path) -> Path:
    """A pool of noise: eight utterances of 1.5 to 5 s, half of them called real."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "pool"
    for origin in ("real", "synthetic"):
        writer = pool.Writer(folder, origin)
        writer.write("all", iter([rng.normal(0, 0.1, n) for n in (24_000, 40_000, 60_000, 80_000)]))
    return folder


def test_deltas_are_torchaudios():
    x = torch.randn(2, 40, 13)
    expected = torchaudio.functional.compute_deltas(x.transpose(1, 2), win_length=5).transpose(1, 2)
    torch.testing.assert_close(units.deltas(x), expected, atol=1e-6, rtol=0)


def test_mean_removed_mfcc_ignores_a_constant_filter():
    logmel = torch.randn(1, 60, 80)
    coloured = logmel + torch.randn(80)
    torch.testing.assert_close(units.mfcc(logmel), units.mfcc(coloured), atol=1e-4, rtol=0)
    assert not torch.allclose(units.mfcc(logmel, remove_mean=False), units.mfcc(coloured, remove_mean=False), atol=0.1)


def test_codebook_names_the_nearest_centroid():
    features = np.random.default_rng(1).normal(size=(500, 6)).astype(np.float32)
    book = units.Codebook.fit(features, 9, seed=0)
    x = torch.from_numpy(features[:50])
    scaled = (x - book.mean) / book.std
    brute = torch.cdist(scaled[None], book.centroids[None])[0].argmin(-1)
    assert torch.equal(book(x[None])[0], brute)


def test_a_draw_depends_on_seed_and_step_only(shards):
    source = batches.Batches(pool.read(shards), 8.0, 0.5, batches.Mixing())
    again = batches.Batches(pool.read(shards), 8.0, 0.5, batches.Mixing())
    source.draw(3, 0)
    for one, two in zip(source.draw(7, 1), again.draw(7, 1), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(source.draw(7, 1)[0], source.draw(7, 2)[0])


def test_mixing_only_adds_power(shards):
    always = batches.Mixing(noise=1.0, speaker=1.0)
    clean, mixed = batches.Batches(pool.read(shards), 8.0, 0.5, always).draw(0, 0)
    assert bool((mixed >= clean - 1e-3).all())
    assert float((mixed - clean).mean()) > 0.01


def test_noise_has_unit_mean():
    assert batches.mel_noise(np.random.default_rng(0), 300, 80).mean() == pytest.approx(1.0)


def test_masked_spans_cover_what_their_starts_say():
    mask = batches.span_mask(np.random.default_rng(0), 400, 200, start=0.05, span=6)
    expected = 1 - 0.95**6
    assert float(mask[:, 6:].float().mean()) == pytest.approx(expected, abs=0.01)
    assert bool(mask.any(1).all())


def _train(folder: Path, stop: int | None) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    folder.mkdir(exist_ok=True)
    loop = Loop(folder, model, lr=0.1, steps=300)
    loop.resume()
    while loop.step < (stop or loop.steps):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(loop.draw_index))
        loop.update((model(x) - x.sum(1, keepdim=True)).square().mean(), {}, hours=0.1, started=0.0)
    return [p.detach().clone() for p in model.parameters()]


def test_a_killed_loop_ends_as_an_undisturbed_one(tmp_path):
    whole = _train(tmp_path / "whole", None)
    _train(tmp_path / "cut", 170)  # the last checkpoint is of step 100
    resumed = _train(tmp_path / "cut", None)
    for one, two in zip(whole, resumed, strict=True):
        assert torch.equal(one, two)


def test_a_loss_that_is_no_number_stops_the_loop(tmp_path):
    loop = Loop(tmp_path, nn.Linear(2, 1), lr=0.1, steps=5)
    with pytest.raises(FloatingPointError, match="step 0"):
        loop.update(torch.tensor(float("nan")), {}, 0.0, 0.0)


def test_growing_repeats_each_layer_in_place():
    old, new = MiniWavLM(TINY), MiniWavLM(MiniConfig(layers=4, width=32, ffn=64, head_width=16))
    pretrain.grow_from(new, old)
    for index, layer in enumerate(new.layers):
        for one, two in zip(layer.parameters(), old.layers[index // 2].parameters(), strict=True):
            assert torch.equal(one, two)
    assert torch.equal(new.project.weight, old.project.weight)


def test_position_buckets_are_wavlms():
    from transformers.models.wavlm.modeling_wavlm import WavLMAttention

    config = MiniConfig(layers=1, width=32, ffn=64, head_width=16)
    theirs = WavLMAttention(32, 2, num_buckets=config.buckets, max_distance=config.max_distance)
    offset = torch.arange(-400, 401)
    expected = theirs._relative_positions_bucket(offset)
    assert torch.equal(MiniWavLM(config).bias.bucket(offset), expected)


def test_a_student_with_all_layers_copied_is_its_teacher():
    teacher, student = MiniWavLM(TINY).eval(), MiniWavLM(TINY).eval()
    distil.copy_weights(student, teacher, (0, 1))
    waves, lengths = torch.randn(2, 8_000), torch.tensor([8_000, 5_000])
    for one, two in zip(teacher(waves, lengths)[0], student(waves, lengths)[0], strict=True):
        assert torch.equal(one, two)


def test_pair_loss_against_its_definition():
    x, y = torch.randn(2, 5, 7), torch.randn(2, 5, 7)
    cosine = (x * y).sum(-1) / x.norm(dim=-1) / y.norm(dim=-1)
    expected = (x - y).abs().mean() - 0.7 * torch.log(1 / (1 + torch.exp(-cosine))).mean()
    loss, similarity = distil.pair_loss(x, y, 0.7)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(similarity, cosine.mean())
    assert float(distil.pair_loss(x, x, 1.0)[0]) == pytest.approx(float(-functional.logsigmoid(torch.tensor(1.0))))


def test_unknown_recipe_and_unknown_key_are_named(tmp_path):
    with pytest.raises(SlimbenchError, match="wavlm_mini"):
        recipe.load("no_such")
    with pytest.raises(SlimbenchError, match="'stepz'"):
        recipe.settings(distil.Distillation, {"config": TINY.to_dict(), "stepz": 1}, "r")


def test_both_kinds_of_recipe_train_and_leave_loadable_weights(tmp_path, shards, monkeypatch):
    monkeypatch.setattr(recipe, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(recipe.pool, "produce", lambda *_: None)
    shape = TINY.to_dict()
    first = {"config": shape, "steps": 3, "units": 8, "speaker_units": 4, "seconds": 6.0}
    second = first | {"config": shape | {"layers": 4}, "layer": 1, "grow": True}
    teach = {"name": "t", "kind": "pretrain", "pool": {"hours": 0, "seed": 0}, "iterations": [first, second]}
    student = {"config": shape, "pairs": [[1, 2], [2, 4]], "copy_layers": [0, 1], "steps": 3, "seconds": 6.0}
    learn = {"name": "s", "kind": "distil", "teacher": "t", "pool": {"hours": 0, "seed": 0}, "student": student}
    for values in (teach, learn):
        file = tmp_path / f"{values['name']}.yaml"
        file.write_text(yaml.safe_dump(values))
        weights = recipe.run(str(file), tmp_path, None)
        model = recipe.load_encoder(weights.parent)
        states, lengths = model(torch.randn(1, 16_000), torch.tensor([16_000]))
        assert all(bool(torch.isfinite(state).all()) for state in states)
        assert lengths.tolist() == [49]
        origin = json.loads((weights.parent / "provenance.json").read_text())
        assert origin["shards"] == ["real-all", "synthetic-all"]
        assert [row["step"] for curve in origin["curves"].values() for row in curve][-1] == 3


def test_real_speech_of_dev_and_test_is_never_trained_on():
    root = os.environ.get("REAL_SPEECH")
    if root is None:
        pytest.skip("REAL_SPEECH is unset: no real recordings here")
    base = Path(root)
    kept = {(path, start) for path, start, _ in pool.real_rows(base.parent)}
    held = set()
    for file in base.glob("*/manifest.csv"):
        with file.open(newline="") as handle:
            held |= {
                (base / row["path"], float(row["start"]) if row.get("start") else None)
                for row in csv.DictReader(handle)
                if row["split"] != "train"
            }
    assert kept
    assert held
    assert not kept & held
