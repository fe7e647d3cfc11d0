"""Noisy copies of a data folder: the ratio is what was asked for, and everything else is what it was."""

from __future__ import annotations

import argparse
import csv
import json
import shutil

import noisy_tree
import numpy as np
import pytest
import soundfile
from noisy_tree import RATE, noisy_bytes, pairs, ratio, rows_of, speech, table

from downstreams.corpora import embedded, noisy, noisy_embedded, noisy_verb, pieces
from harness import data, manifest, suite
from harness.interface import SlimbenchError

Recipe = noisy.Recipe


@pytest.fixture
def source(tmp_path):
    return noisy_tree.write(tmp_path / "clean")


@pytest.mark.parametrize("kind", noisy.KINDS)
@pytest.mark.parametrize("snr", [-3.0, 5.0, 12.5])
def test_every_test_utterance_has_the_ratio_that_was_asked_for(source, tmp_path, kind, snr):
    out = tmp_path / "out"
    noisy.make(source, out, Recipe(snr, kind))
    for task in ("asv", "sid"):
        found = pairs(source, out, task)
        assert len(found) > 4
        for clean, mixed, *_ in found:
            assert len(mixed) == len(clean)
            assert ratio(clean, mixed) == pytest.approx(snr, abs=0.05)


def test_what_would_clip_is_lowered_and_keeps_its_ratio():
    wave, noise = np.float32(speech(1, 1.0, 0.4)), np.float32(np.random.default_rng(0).normal(size=RATE))
    made = noisy.disturb(wave, [noise], 0.0)
    assert np.abs(made).max() == pytest.approx(0.99, abs=1e-6)
    parts, *_ = np.linalg.lstsq(np.stack([wave, noise], 1).astype(np.float64), made.astype(np.float64), rcond=None)
    assert np.allclose(parts[0] * wave + parts[1] * noise, made, atol=1e-6)
    assert 20 * np.log10(parts[0] * wave.std() / (parts[1] * noise.std())) == pytest.approx(0.0, abs=0.05)
    # how loud a disturbance was does not matter
    one, other = (noisy.disturb(wave / 10, [factor * noise], 20.0) for factor in (1, 7))
    assert np.allclose(one, other, atol=1e-6)


def test_both_disturbances_have_the_same_power():
    rng = np.random.default_rng(0)
    wave, one, two = (np.float32(0.01 * rng.normal(size=50_000)) for _ in range(3))
    made = noisy.disturb(wave, [30 * one, two], 6.0)
    parts, *_ = np.linalg.lstsq(
        np.stack([one, two], 1).astype(np.float64), (made - wave).astype(np.float64), rcond=None
    )
    assert parts[0] * one.std() == pytest.approx(parts[1] * two.std(), rel=1e-3)


def test_train_and_dev_keep_their_bytes_and_their_rows(source, tmp_path):
    out = tmp_path / "out"
    before = {file: file.read_bytes() for file in sorted(source.rglob("*")) if file.is_file()}
    noisy.make(source, out, Recipe())
    assert {file: file.read_bytes() for file in sorted(source.rglob("*")) if file.is_file()} == before
    for task in ("asv", "sid", "ks"):
        for old, new in zip(rows_of(source, task), rows_of(out, task), strict=True):
            if old["split"] == "test":
                assert new["path"].startswith("noisy/")
                assert new == {**old, "path": new["path"], "start": ""}
            else:
                assert new == old
                assert (out / new["path"]).read_bytes() == (source / old["path"]).read_bytes()
    assert (out / "LICENSE").read_text() == "free"
    assert not (out / "SHA256SUMS").exists()
    # What is heard in test only is not there without its noise; what another task trains on is.
    assert not (out / "audio/ks/yes3.wav").exists()
    assert (out / "audio/a2.flac").exists()
    assert (out / "asv/trials_dev.txt").read_bytes() == (source / "asv/trials_dev.txt").read_bytes()


def test_an_utterance_carries_the_same_in_every_task_and_at_every_ratio(source, tmp_path):
    loud, soft = tmp_path / "loud", tmp_path / "soft"
    noisy.make(source, loud, Recipe(0.0, "mixed"))
    noisy.make(source, soft, Recipe(10.0, "mixed"))
    heard = {old["path"]: new["path"] for _, _, old, new in pairs(source, loud, "asv")}
    shared = [(old["path"], new["path"]) for _, _, old, new in pairs(source, loud, "sid") if old["path"] in heard]
    assert len(shared) == 2
    assert all(heard[old] == new for old, new in shared)
    for (clean, one, *_), (_, other, *_) in zip(pairs(source, loud, "asv"), pairs(source, soft, "asv"), strict=True):
        assert np.allclose((one - clean) * 10**-0.5, other - clean, atol=2 / 32_768)


def test_the_same_noise_whichever_tasks_there_are(source, tmp_path):
    noisy.make(source, tmp_path / "all", Recipe())
    whole = noisy_bytes(tmp_path / "all")
    (source / "ks" / "manifest.csv").unlink()
    (source / "sid" / "manifest.csv").unlink()
    noisy.make(source, tmp_path / "one", Recipe())
    noisy.make(source, tmp_path / "other", Recipe(seed=1))
    part, other = noisy_bytes(tmp_path / "one"), noisy_bytes(tmp_path / "other")
    assert part
    assert part.items() < whole.items()
    assert part.keys() == other.keys()
    assert not part.items() & other.items()


def test_a_second_speaker_is_of_the_train_split_and_somebody_else(source):
    given = pieces.tables(source)
    shared, keywords = sorted(pieces.corpora(given), key=lambda corpus: -len(corpus.tasks))
    assert (sorted(shared.tasks), keywords.tasks) == (["asv", "sid"], ("ks",))
    never = {row["path"] for task in ("asv", "sid") for row in rows_of(source, task) if row["split"] != "train"}
    assert {piece.path for piece in shared.others if piece.start < 0} == {"audio/a0.flac", "audio/b0.flac"}
    for seed in range(30):
        rng = np.random.default_rng(seed)
        for piece, row in given["sid"].pieces(["test"]):
            other = shared.second(piece, rng)
            assert shared.speakers[other] != row["speaker"]
            assert other.start >= 0 or other.path not in never
        clip = next(piece for piece, row in given["ks"].pieces(["test"]) if row["label"] == "yes")
        assert "silence" not in keywords.second(clip, rng).path


def test_a_clip_without_speech_gets_noise_instead_of_a_speaker(source, tmp_path):
    noisy.make(source, tmp_path / "speaker", Recipe(kind="speaker"))
    noisy.make(source, tmp_path / "noise", Recipe(kind="noise"))
    one, other = noisy_bytes(tmp_path / "speaker"), noisy_bytes(tmp_path / "noise")
    same = {name for name in one if one[name] == other[name]}
    assert same == {"noisy/audio/ks/_silence_3.wav"}
    assert json.loads((tmp_path / "speaker/noise.json").read_text())["without_speech"] == 1


def test_nobody_else_is_an_error_with_its_remedy(source, tmp_path):
    table(source, "ks", [{**row, "speaker": "one"} for row in rows_of(source, "ks")])
    with pytest.raises(SlimbenchError, match=r"_3\.wav: the train splits of ks have no other speaker.*--kind noise"):
        noisy.make(source, tmp_path / "out", Recipe(kind="speaker"))


def test_silence_stays_silent_and_is_said(source, tmp_path, capsys):
    soundfile.write(source / "audio/ks/_silence_3.wav", np.zeros(RATE), RATE, subtype="PCM_16")
    noisy.make(source, tmp_path / "out", Recipe())
    assert not soundfile.read(tmp_path / "out/noisy/audio/ks/_silence_3.wav")[0].any()
    assert "_silence_3.wav is silent and stays so" in capsys.readouterr().err


def test_the_copy_is_a_data_folder_with_the_same_trials(source, tmp_path):
    noisy.make(source, tmp_path / "out", Recipe())
    old, new = (manifest.read(folder, "asv") for folder in (source, tmp_path / "out"))
    assert old.digest != new.digest
    at = [{u.id: number for number, u in enumerate(found.utterances)} for found in (old, new)]
    for split in ("dev", "test"):
        one = [(t.same, at[0][t.enrol], at[0][t.test]) for t in old.trials[split]]
        assert one == [(t.same, at[1][t.enrol], at[1][t.test]) for t in new.trials[split]]
    found = data.Data(tmp_path / "out", tmp_path / "out").task_notes("ks")
    assert found[0] == "few"
    assert found[1].startswith("the audio of test carries coloured noise at 5 dB (seed 0, made from data ")


def test_folds_are_noisy_where_they_are_tested(source, tmp_path):
    rows = [r for r in rows_of(source, "ks") if r["label"] == "yes"] * 2
    splits = ["train", "train", "dev", "test", "test", "train", "dev", "train"]
    (source / "er").mkdir()
    with (source / "er/manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "test_fold"])
        writer.writeheader()
        for number, (row, split) in enumerate(zip(rows, splits, strict=True)):
            writer.writerow({**row, "split": split, "test_fold": f"f{number // 4}"})
    noisy.make(source, tmp_path / "out", Recipe())
    for fold in manifest.read(tmp_path / "out", "er").folds:
        assert {u.id.startswith("noisy/") for u in fold.split("test")} == {True}
        assert {u.id.startswith("noisy/") for u in (*fold.split("train"), *fold.split("dev"))} == {False}


@pytest.mark.parametrize("name", ["embedded", "real-mini"])
def test_the_noisy_suites_say_what_the_clean_ones_say(name):
    clean, other = suite.load(name), suite.load(f"{name}-noisy")
    for what in ("tasks", "bootstrap", "seeds", "dtype", "seed", "protocol"):
        assert getattr(other, what) == getattr(clean, what)
    assert other.noise == noisy_embedded.RECIPE.settings()
    assert clean.noise is None


def test_a_suites_noise_is_stated_whole(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\ntitle: Mine\nnoise: {snr_db: 5}\ntasks: {ks: {}}\n")
    with pytest.raises(SlimbenchError, match="`noise` must give kind, snr_db, seed, splits"):
        suite.load(str(file))


def test_the_noisy_embedded_suite_is_the_copy_of_the_clean_one(tmp_path, monkeypatch):
    for name in ("clean", "built"):
        (tmp_path / name).mkdir()
    embedded.build(tmp_path / "clean", 3, 1, None, 0.02)
    asked = []

    def build(folder, *how):  # speech is made once only
        asked.append(how)
        shutil.copytree(tmp_path / "clean", folder, dirs_exist_ok=True)

    monkeypatch.setattr(embedded, "build", build)
    noisy_embedded.build(tmp_path / "built", 3, 1, None, 0.02)
    assert asked == [(3, 1, None, 0.02)]
    noisy.make(tmp_path / "clean", tmp_path / "copied", noisy_embedded.RECIPE)
    assert noisy_embedded.digest(tmp_path / "built") == embedded.digest(tmp_path / "copied")
    assert noisy_embedded.digest(tmp_path / "built") != embedded.digest(tmp_path / "clean")
    assert not (tmp_path / "built/.clean").exists()


def test_the_verb_takes_every_kind_and_no_other():
    actions = argparse.ArgumentParser().add_subparsers()
    noisy_verb.add_action(actions)
    (kind,) = (one for one in actions.choices["noisy"]._actions if one.dest == "kind")
    assert tuple(kind.choices) == noisy.KINDS
