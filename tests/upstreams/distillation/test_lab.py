"""The lab: units, batches, masks, the loop's resume, growing, copying and one tiny run of each recipe kind."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
import yaml
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from harness.identity import digest_file
from harness.interface import SlimbenchError
from upstreams.distillation import batches, distil, files, loop, pool, pretrain, recipe, units
from upstreams.distillation.loop import Loop
from upstreams.students.mini import MiniConfig, MiniWavLM

TINY = MiniConfig(layers=2, width=32, ffn=64, head_width=16)


@pytest.fixture
def shards(tmp_path) -> Path:
    """A pool of noise: eight utterances of 1.5 to 5 s, half of them called real."""
    rng = np.random.default_rng(0)
    folder, root = tmp_path / "pool", tmp_path / "data"
    lines = ["path,start,seconds"]
    (root / "pretrain").mkdir(parents=True)
    for n in (24_000, 40_000, 60_000, 80_000):
        soundfile.write(root / "pretrain" / f"{n}.wav", rng.normal(0, 0.1, n), 16_000)
        lines.append(f"{n}.wav,,{n / 16_000}")
    (root / "pretrain" / "manifest.csv").write_text("\n".join(lines) + "\n")
    pool.Writer(folder, "real").write("all", pool.real(root), pool.rows_digest(root))
    pool.Writer(folder, "synthetic").write("000-0000", (rng.normal(0, 0.1, n) for n in range(24_000, 81_000, 18_000)))
    return folder


def _read(folder: Path) -> list[pool.Shard]:
    return pool.read(pool.shard_files(folder, 0.3, 0, real=True))


def test_deltas_are_torchaudios():
    x = torch.randn(2, 40, 13)
    expected = torchaudio.functional.compute_deltas(x.transpose(1, 2), win_length=5)
    torch.testing.assert_close(units.deltas(x).transpose(1, 2), expected, atol=1e-6, rtol=0)


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
    source = batches.Batches(_read(shards), 8.0, 0.5, batches.Mixing())
    again = batches.Batches(_read(shards), 8.0, 0.5, batches.Mixing())
    source.draw(3, 0)
    torch.testing.assert_close(source.draw(7, 1), again.draw(7, 1), rtol=0, atol=0)
    clean, _ = source.draw(7, 1)
    assert not torch.equal(clean, source.draw(7, 2)[0])
    assert batches.hours(clean) * 3600 == pytest.approx(sum(len(crop) for crop in clean) * 0.01)


def test_mixing_only_adds_power(shards):
    always = batches.Mixing(noise=1.0, speaker=1.0)
    clean, mixed = batches.Batches(_read(shards), 8.0, 0.5, always).draw(0, 0)
    assert bool((mixed >= clean - 1e-3).all())
    assert float((mixed - clean).mean()) > 0.01


def test_noise_has_unit_mean():
    assert batches.mel_noise(np.random.default_rng(0), 300, 80).mean() == pytest.approx(1.0)


def test_masked_spans_cover_what_their_starts_say():
    mask = batches.span_mask(np.random.default_rng(0), 400, 200, start=0.05, span=6)
    assert float(mask[:, 6:].float().mean()) == pytest.approx(1 - 0.95**6, abs=0.01)
    assert bool(mask.any(1).all())


def _train(folder: Path, stop: int | None) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    folder.mkdir(exist_ok=True)
    trainer = Loop(folder, model, lr=0.1, steps=300, identity="run")
    trainer.resume()
    while trainer.step < (stop or trainer.steps):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(trainer.draw_index))
        trainer.update((model(x) - x.sum(1, keepdim=True)).square().mean(), {}, hours=0.1, started=0.0)
    return [p.detach().clone() for p in model.parameters()]


def test_a_killed_loop_ends_as_an_undisturbed_one(tmp_path):
    whole = _train(tmp_path / "whole", None)
    _train(tmp_path / "cut", 170)  # the last checkpoint is of step 100
    resumed = _train(tmp_path / "cut", None)
    torch.testing.assert_close(whole, resumed, rtol=0, atol=0)
    rows = [json.loads(line) for line in (tmp_path / "cut" / "curve.jsonl").read_text().splitlines()]
    assert [(row["step"], row["hours"]) for row in rows] == [(n, round(n * 0.1, 3)) for n in range(25, 301, 25)]


def test_a_curve_without_a_checkpoint_starts_anew(tmp_path):
    (tmp_path / "curve.jsonl").write_text('{"step": 25}\n{"ste')
    _train(tmp_path, 30)
    assert [json.loads(line)["step"] for line in (tmp_path / "curve.jsonl").read_text().splitlines()] == [25]


@pytest.mark.parametrize("kept", [{"identity": "other"}, {}])
def test_a_checkpoint_of_another_run_is_refused(tmp_path, kept):
    _train(tmp_path, 100)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    del state["identity"]
    torch.save(state | kept, tmp_path / "state.pt")
    with pytest.raises(SlimbenchError, match=r"another --work folder, or delete .*to start anew"):
        _train(tmp_path, None)


def test_processes_share_gradients_and_count_the_hours_of_all(tmp_path, monkeypatch):
    model = nn.Linear(2, 1)
    trainer = Loop(tmp_path, model, lr=0.1, steps=5, identity="run")
    trainer.world = 2
    others = torch.tensor([3.0, 5.0, 7.0, 0.25])
    monkeypatch.setattr(loop.distributed, "all_reduce", lambda flat: flat.add_(others))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert trainer._average_gradients(0.5) == pytest.approx(0.75)
    assert model.weight.grad.tolist() == [[2.0, 3.0]]
    assert model.bias.grad.tolist() == [4.0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_one_sentence_and_leaves_no_part(tmp_path):
    part = tmp_path / "state.tmp.pt"
    part.symlink_to("/dev/full")
    with pytest.raises(SlimbenchError, match=r"state\.pt .*free disk space"):
        files.save(tmp_path / "state.pt", {"x": torch.zeros(100_000)}, "run")
    assert list(tmp_path.iterdir()) == []


def test_other_recordings_than_the_pools_are_refused(shards):
    root = shards.parent / "data"
    pool.produce(shards, 0.3, 0, root)
    manifest = root / "pretrain" / "manifest.csv"
    manifest.write_text("\n".join(manifest.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(SlimbenchError, match=r"real-all\.npy was made from other recordings"):
        pool.produce(shards, 0.3, 0, root)
    # a synthetic run leaves the real shard alone
    assert [file.stem for file in pool.shard_files(shards, 0.3, 0, real=False)] == ["synthetic-000-0000"]


def test_a_loss_that_is_no_number_stops_the_loop(tmp_path):
    trainer = Loop(tmp_path, nn.Linear(2, 1), lr=0.1, steps=5, identity="run")
    with pytest.raises(FloatingPointError, match="step 0"):
        trainer.update(torch.tensor(float("nan")), {}, 0.0, 0.0)


def test_growing_repeats_each_layer_in_place():
    old, new = MiniWavLM(TINY), MiniWavLM(MiniConfig(layers=4, width=32, ffn=64, head_width=16))
    pretrain.grow_from(new, old)
    for index, layer in enumerate(new.layers):
        torch.testing.assert_close(layer.state_dict(), old.layers[index // 2].state_dict(), rtol=0, atol=0)
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
    torch.testing.assert_close(teacher(waves, lengths)[0], student(waves, lengths)[0], rtol=0, atol=0)


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


POOL = "name: s\npool: {hours: 1, seed: 0}\n"
SHAPE = "student: {config: {layers: 1, width: 32, ffn: 64}, pairs: [[1, 1]]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: [distil", "not plain YAML"),
        (f"kind: distil\n{POOL}teacher: t", "'student' is missing"),
        ("kind: distil\nname: s\npool: {hours: 1}\nteacher: t\nstudent: {a: 1}", "'pool' needs hours and seed"),
        (f"kind: distil\n{POOL}teacher: t\nstudent: {{steps: 1}}", "'config'"),
        (f"kind: distil\n{POOL}teacher: no_such\n{SHAPE}, steps: 1}}", "No teacher 'no_such'.*wavlm_mini"),
        (f"kind: distil\n{POOL}teacher: t\n{SHAPE}}}", "'steps'; mend the settings"),
        (f"kind: pretrain\n{POOL}iterations: []", "'iterations' is missing, empty"),
    ],
)
def test_a_faulty_recipe_is_one_sentence(tmp_path, text, message):
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(SlimbenchError, match=message) as caught:
        recipe.run(str(file), tmp_path / "work", None)
    assert "\n" not in str(caught.value)


def test_both_kinds_of_recipe_train_and_leave_loadable_weights(tmp_path, shards, monkeypatch):
    monkeypatch.setattr(recipe, "WEIGHTS", tmp_path / "weights")
    shape = TINY.to_dict()
    first = {"config": shape, "steps": 3, "units": 8, "speaker_units": 4, "seconds": 6.0}
    second = first | {"config": shape | {"layers": 4}, "layer": 1, "grow": True}
    teach = {"name": "t", "kind": "pretrain", "pool": {"hours": 0.3, "seed": 0}, "iterations": [first, second]}
    student = {"config": shape, "pairs": [[1, 2], [2, 4]], "copy_layers": [0, 1], "steps": 3, "seconds": 6.0}
    learn = {"name": "s", "kind": "distil", "teacher": "t", "pool": {"hours": 0.3, "seed": 0}, "student": student}
    for values in (teach, learn):
        file = tmp_path / f"{values['name']}.yaml"
        file.write_text(yaml.safe_dump(values))
        weights = recipe.run(str(file), tmp_path, shards.parent / "data")
        model = recipe.load_encoder(weights.parent)
        states, lengths = model(torch.randn(1, 16_000), torch.tensor([16_000]))
        assert all(bool(torch.isfinite(state).all()) for state in states)
        assert lengths.tolist() == [49]
        origin = json.loads((weights.parent / "provenance.json").read_text())
        assert origin["shards"] == ["real-all", "synthetic-000-0000"]
        assert [row["step"] for curve in origin["curves"].values() for row in curve][-1] == 3
        assert list(origin["code_at_start"]) == list(origin["curves"])
        assert not list(weights.parent.glob("*.tmp*"))
        assert origin["sha256"] == digest_file(weights)
    teacher = tmp_path / "weights" / "t" / "model.safetensors"
    assert origin["teacher_sha256"] == digest_file(teacher)
    (tmp_path / "s" / "started.json").write_text('{"git_commit": "first"}')
    recipe.run(str(file), tmp_path, shards.parent / "data")  # a finished run is only exported again
    again = json.loads((weights.parent / "provenance.json").read_text())
    assert (again["code_at_start"]["s"], again["sha256"]) == ({"git_commit": "first"}, origin["sha256"])
    with pytest.raises(SlimbenchError, match="other settings, data"):  # the data: synthetic speech only
        recipe.run(str(file), tmp_path, None)
    file.write_text(yaml.safe_dump(learn | {"student": student | {"lr": 0.5}}))
    with pytest.raises(SlimbenchError, match="other settings, data"):
        recipe.run(str(file), tmp_path, shards.parent / "data")
    file.write_text(yaml.safe_dump(learn))
    save_file({k: v + 1 for k, v in load_file(teacher).items()}, teacher)
    with pytest.raises(SlimbenchError, match="teacher"):
        recipe.run(str(file), tmp_path, shards.parent / "data")
    (tmp_path / "t-1" / "state.pt").unlink()
    file.write_text(yaml.safe_dump(teach | {"iterations": [first | {"units": 9}, second]}))
    with pytest.raises(SlimbenchError, match=r"codebooks\.pt"):
        recipe.run(str(file), tmp_path, shards.parent / "data")


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
