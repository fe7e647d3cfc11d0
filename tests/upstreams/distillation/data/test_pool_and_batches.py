"""What training draws: which recordings, which crops, which noise, which masks."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from harness.interface import SlimbenchError
from upstreams.distillation.data import batches, pool


def _read(folder: Path) -> list[pool.Shard]:
    return pool.read(pool.shard_files(folder, 0.3, 0, real=True))


def test_a_shard_holds_what_was_spoken_to_half_a_step(tmp_path):
    waves = [np.random.default_rng(n).uniform(-0.9, 0.9, 2_000 + n) for n in range(3)]
    loud = 3 * waves[0]
    pool.Writer(tmp_path, "synthetic").write("000-0000", iter([*waves, loud]))
    (shard,) = pool.read([tmp_path / "synthetic-000-0000.npy"])
    for index, wave in enumerate([*waves, loud / np.abs(loud).max()]):
        stored = shard.wave[shard.offsets[index] : shard.offsets[index + 1]] / pool.FULL_SCALE
        assert np.abs(stored - wave).max() <= 0.5 / pool.FULL_SCALE + 1e-9


def test_synthetic_speech_fills_shard_after_shard_in_one_process():
    lengths = [[wave.size for wave in pool.synthetic(seed, 3.0)] for seed in (5, 6, 5)]
    assert lengths[0] == lengths[2] != lengths[1]


def test_a_draw_depends_on_seed_and_step_only(shards):
    source = batches.Batches(_read(shards), 8.0, 0.5, batches.Mixing())
    again = batches.Batches(_read(shards), 8.0, 0.5, batches.Mixing())
    source.draw(3, 0)
    torch.testing.assert_close(source.draw(7, 1), again.draw(7, 1), rtol=0, atol=0)
    clean, _ = source.draw(7, 1)
    assert not torch.equal(clean, source.draw(7, 2)[0])
    assert batches.hours(clean) * 3600 == pytest.approx(sum(len(crop) for crop in clean) / 16_000)


def test_noise_comes_at_its_signal_to_noise_ratio(shards):
    always = batches.Mixing(noise=1.0, noise_snr_db=(7.0, 7.0), speaker=0.0)
    clean, mixed = batches.Batches(_read(shards), 8.0, 0.5, always).draw(0, 0)
    ratio = 10 * torch.log10(clean.square().mean(1) / (mixed - clean).square().mean(1))
    torch.testing.assert_close(ratio, torch.full_like(ratio, 7.0), atol=0.01, rtol=0)


def test_a_second_speaker_takes_at_most_half_of_a_crop(shards):
    always = batches.Mixing(noise=0.0, speaker=1.0)
    clean, mixed = batches.Batches(_read(shards), 8.0, 0.5, always).draw(0, 0)
    touched = (mixed != clean).float().mean(1)
    assert bool((touched > 0.1).all() and (touched <= 0.5).all())


def test_only_allowed_clips_are_drawn(shards):
    read = _read(shards)
    source = batches.Batches(read, 8.0, 0.5, batches.Mixing(), frozenset({(1, 2)}))
    start, end = read[1].offsets[2:4]
    own = read[1].wave[start:end].astype(np.float32) / pool.FULL_SCALE  # as crops are made
    for step in range(20):
        clean, _ = source.draw(step, 0)
        assert all(crop.numpy().tobytes() in own.tobytes() for crop in clean)


def test_noise_has_power_one():
    assert np.square(batches.coloured_noise(np.random.default_rng(0), 30_000)).mean() == pytest.approx(1.0, rel=1e-4)


def test_masked_spans_cover_what_their_starts_say():
    mask = batches.span_mask(np.random.default_rng(0), 400, 200, start=0.05, span=6)
    assert float(mask[:, 6:].float().mean()) == pytest.approx(1 - 0.95**6, abs=0.01)
    assert bool(mask.any(1).all())


def test_other_recordings_than_the_pools_are_refused(shards):
    root = shards.parent / "data"
    pool.produce(shards, 0.3, 0, root)
    manifest = root / "pretrain" / "manifest.csv"
    manifest.write_text("\n".join(manifest.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(SlimbenchError, match=r"real-all\.npy was made from other recordings"):
        pool.produce(shards, 0.3, 0, root)
    # a synthetic run leaves the real shard alone
    assert [file.stem for file in pool.shard_files(shards, 0.3, 0, real=False)] == ["synthetic-000-0000"]


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


def _steps(file: Path, number: int, seconds: int) -> None:
    """A recording whose samples say where they are from: every tenth of a second has a level that no other has."""
    levels = 64 * (100 * number + np.arange(10 * seconds) + 1)
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, np.repeat(levels, 1_600).astype(np.int16), 16_000)


def _moments(shard: pool.Shard) -> set[tuple[int, int]]:
    """(recording, tenth of a second) of all samples of a shard."""
    places = np.unique(np.rint(shard.wave / pool.FULL_SCALE * 512).astype(int)) - 1
    return {divmod(int(place), 100) for place in places}


def _manifests(root: Path, rows: dict[str, list[str]]) -> None:
    for name, lines in rows.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("\n".join(["split,path,start,seconds", *lines]) + "\n")


def test_no_sample_of_dev_or_test_is_in_the_shard_of_real_speech(tmp_path):
    for number in range(3):
        _steps(tmp_path / "real" / "audio" / f"{number}.wav", number, 8)
    _steps(tmp_path / "pretrain" / "3.wav", 3, 2)
    first, second, third = (f"audio/{number}.wav" for number in range(3))
    rows = {
        "real/ks/manifest.csv": [f"train,{first},1.0,2.0", f"train,{first},5,2.5", f"train,{second},,8"],
        "real/pr/manifest.csv": [f"train,{third},0,2", f"train,{third},3.0,1.5", f"test,{third},4.4,1"],
        "real/sid/manifest.csv": [f"dev,{first},3.0,2.0", f"test,{second},,8", f"train,{first},4.5,3"],
        "pretrain/manifest.csv": ["train,3.wav,0.5,1"],
    }
    _manifests(tmp_path, rows)
    pool.produce(tmp_path / "pool", 0, 0, tmp_path)
    (shard,) = pool.read(pool.shard_files(tmp_path / "pool", 0, 0, real=True))
    spans = {0: ((10, 30), (50, 75)), 2: ((0, 20),), 3: ((5, 15),)}
    assert _moments(shard) == {(number, n) for number, found in spans.items() for span in found for n in range(*span)}


@pytest.mark.parametrize("way", ["spelling", "link", "copy"])
def test_a_recording_of_test_is_not_trained_on_under_another_path(way, tmp_path):
    for number in range(2):
        _steps(tmp_path / "real" / "audio" / f"{number}.wav", number, 2)
    tested, path = tmp_path / "real" / "audio" / "0.wav", "again.wav"
    (tmp_path / "pretrain").mkdir()
    if way == "spelling":
        path = "../real/audio/0.wav"
    elif way == "link":
        (tmp_path / "pretrain" / path).symlink_to(tested)
    else:
        (tmp_path / "pretrain" / path).write_bytes(tested.read_bytes())
    rows = {
        "real/sid/manifest.csv": ["test,audio/0.wav,,2", "train,audio/1.wav,,2"],
        "pretrain/manifest.csv": [f"train,{path},,2"],
    }
    _manifests(tmp_path, rows)
    pool.produce(tmp_path / "pool", 0, 0, tmp_path)
    (shard,) = pool.read(pool.shard_files(tmp_path / "pool", 0, 0, real=True))
    assert _moments(shard) == {(1, n) for n in range(20)}


def test_a_cut_that_shares_a_moment_with_one_of_dev_or_test_is_left_out(tmp_path):
    rows = {
        "real/ks/manifest.csv": [
            "train,a.wav,0.0,2.0",
            "train,a.wav,4.0,2.0",
            "train,b.wav,,3.0",
            "train,c.wav,1.0,1.0",
        ],
        "real/sid/manifest.csv": ["dev,a.wav,1.5,1", "test,b.wav,8,1", "test,c.wav,,5", "test,a.wav,6,1"],
        "pretrain/manifest.csv": ["train,d.wav,,1.0"],
    }
    _manifests(tmp_path, rows)
    kept = [(path.name, start, seconds) for path, start, seconds in pool.real_rows(tmp_path)]
    # a at 4 s ends where a tested cut begins; the whole of b is not apart from its tested second
    assert kept == [("d.wav", None, None), ("a.wav", 4.0, 2.0)]
