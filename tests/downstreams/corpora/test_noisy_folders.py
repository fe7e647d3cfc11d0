"""Noisy copies of a data folder: after a kill, beside other folders, under their own suites only."""

from __future__ import annotations

import os

import noisy_tree
import pytest
import soundfile
from noisy_tree import RATE, noisy_bytes, rows_of, speech, table

from downstreams.corpora import noisy, noisy_verb
from harness import cli, data, suite
from harness.interface import SlimbenchError
from harness.locks import lock

Recipe = noisy.Recipe


@pytest.fixture
def source(tmp_path):
    return noisy_tree.write(tmp_path / "clean")


def test_a_killed_run_goes_on_where_it_was(source, tmp_path, monkeypatch):
    noisy.make(source, tmp_path / "whole", Recipe())
    out, real, made = tmp_path / "out", noisy._wav, []

    def killed(wave):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(1)
        return real(wave)

    monkeypatch.setattr(noisy, "_wav", killed)
    with pytest.raises(KeyboardInterrupt):
        noisy.make(source, out, Recipe())
    assert not list(out.glob("*/manifest.csv"))
    with pytest.raises(SlimbenchError, match="not whole yet; repeat"):
        data.prepare(suite.load("real-mini-noisy"), out, tmp_path, 1, ["ks"])
    (out / "noisy/.half.wav.tmp").write_bytes(b"half")
    kept = {file: file.stat().st_mtime_ns for file in out.rglob("*.wav")}
    assert len(kept) == 3
    monkeypatch.setattr(noisy, "_wav", real)
    noisy.make(source, out, Recipe())
    assert all(file.stat().st_mtime_ns == time for file, time in kept.items())
    names = [
        {f.relative_to(place).as_posix() for f in place.rglob("*") if f.is_file()}
        for place in (out, tmp_path / "whole")
    ]
    assert names[0] == names[1]
    assert all((out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in names[0])


def test_a_finished_folder_is_left_alone(source, tmp_path, monkeypatch):
    first = noisy.make(source, tmp_path / "out", Recipe())
    monkeypatch.setattr(noisy, "_wav", None)
    assert noisy.make(source, tmp_path / "out", Recipe()) == first


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Recipe(0.0), "snr_db 5.0, not 0.0"),
        (Recipe(kind="mixed"), "kind 'noise', not 'mixed'"),
        (Recipe(seed=3), "seed 0, not 3"),
        (Recipe(splits=("dev", "test")), "splits"),
    ],
)
def test_another_recipes_folder_is_refused(source, tmp_path, other, said):
    noisy.make(source, tmp_path / "out", Recipe())
    with pytest.raises(SlimbenchError, match=r"noise\.json: the folder was made with") as error:
        noisy.make(source, tmp_path / "out", other)
    assert said in str(error.value)


def test_another_source_is_refused(source, tmp_path):
    noisy.make(source, tmp_path / "out", Recipe())
    soundfile.write(source / "audio/a0.flac", speech(77, 0.5), RATE, subtype="PCM_16")
    with pytest.raises(SlimbenchError, match="made with source"):
        noisy.make(source, tmp_path / "out", Recipe())


def test_folders_that_must_not_be_written_are_refused(source, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    (tmp_path / "file").write_text("")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange/noise.json").write_text('{"mine": 1}')
    for out, said in (
        (source, "lies within"),
        (source / "noisy", "lies within"),
        (tmp_path, "lies within"),
        (tmp_path / "full", "holds other files"),
        (tmp_path / "strange", "holds other files"),
        (tmp_path / "file", "is a file"),
    ):
        with pytest.raises(SlimbenchError, match=said):
            noisy.make(source, out, Recipe())
    assert (tmp_path / "full/mine.txt").read_text() == "mine"
    noisy.make(source, tmp_path / "out", Recipe())
    with pytest.raises(SlimbenchError, match="carries noise already"):
        noisy.make(tmp_path / "out", tmp_path / "twice", Recipe())
    with lock(tmp_path / "busy/.lock"), pytest.raises(SlimbenchError, match="another process"):
        noisy.make(source, tmp_path / "busy", Recipe())


def test_two_files_that_would_become_one_are_refused(source, tmp_path):
    soundfile.write(source / "audio/ks/yes3.flac", speech(5, 1.0), RATE)
    table(
        source, "ic", [{**row, "path": row["path"].replace("yes3.wav", "yes3.flac")} for row in rows_of(source, "ks")]
    )
    with pytest.raises(SlimbenchError, match="only in the suffix; rename one"):
        noisy.make(source, tmp_path / "out", Recipe())


def test_where_nothing_can_be_linked_it_is_copied(source, tmp_path, monkeypatch):
    noisy.make(source, tmp_path / "linked", Recipe())
    assert (tmp_path / "linked/audio/a0.flac").samefile(source / "audio/a0.flac")

    def refused(*_):
        raise OSError("across devices")

    monkeypatch.setattr(os, "link", refused)
    noisy.make(source, tmp_path / "copied", Recipe())
    assert not (tmp_path / "copied/audio/a0.flac").samefile(source / "audio/a0.flac")
    assert (tmp_path / "copied/audio/a0.flac").read_bytes() == (source / "audio/a0.flac").read_bytes()


@pytest.mark.parametrize("wrong", [{"snr_db": float("nan")}, {"snr_db": 61.0}, {"kind": "babble"}, {"seed": -1}])
def test_recipes_out_of_range_are_errors(wrong):
    with pytest.raises(SlimbenchError, match="--"):
        Recipe(**wrong)


def test_the_verb_makes_what_the_function_makes(source, tmp_path, capsys):
    out = tmp_path / "verb"
    given = ["--data", str(source), "--out", str(out), "--snr", "-2.5", "--kind", "mixed", "--splits", "test,dev"]
    assert cli.main(["data", "noisy", *given, "--seed", "4"]) == 0
    said = capsys.readouterr().err
    assert "add noise: 100%" in said
    assert "1 without speech" not in said  # two: one in dev, one in test
    assert "2 without speech carry noise instead" in said
    noisy.make(source, tmp_path / "made", Recipe(-2.5, "mixed", 4, ("dev", "test")))
    assert noisy_bytes(out) == noisy_bytes(tmp_path / "made")
    assert cli.main(["data", "noisy", *given]) == 2
    assert "the folder was made with seed 4, not 0" in capsys.readouterr().err
    assert cli.main(["data", "noisy", "--data", str(source), "--out", str(tmp_path / "x"), "--splits", "valid"]) == 2
    assert "--splits 'valid'" in capsys.readouterr().err
    assert cli.main(["data", "noisy", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "x")]) == 2
    assert "no such data folder; correct --data" in capsys.readouterr().err
    assert noisy_verb.splits_of("all") == ("train", "dev", "test")


def test_clean_and_noisy_data_never_go_by_one_suite(source, tmp_path):
    clean, other = suite.load("real-mini"), suite.load("real-mini-noisy")
    noisy.make(source, tmp_path / "noisy", Recipe())
    noisy.make(source, tmp_path / "louder", Recipe(0.0))
    assert data.prepare(clean, source, tmp_path, 1, ["ks"]).root == source
    assert data.prepare(other, tmp_path / "noisy", tmp_path, 1, ["ks"]).root == tmp_path / "noisy"
    with pytest.raises(SlimbenchError, match="suite real-mini is for data without noise"):
        data.prepare(clean, tmp_path / "noisy", tmp_path, 1, ["ks"])
    with pytest.raises(
        SlimbenchError, match=r"suite real-mini-noisy is for noisy data; make them with `slimbench data noisy"
    ):
        data.prepare(other, source, tmp_path, 1, ["ks"])
    with pytest.raises(SlimbenchError, match=r"'snr_db': 0\.0.*'snr_db': 5.*name a suite for this noise"):
        data.prepare(other, tmp_path / "louder", tmp_path, 1, ["ks"])
    (source / "noise.json").write_text("[1]")
    with pytest.raises(SlimbenchError, match="no note of `slimbench data noisy`"):
        data.prepare(clean, source, tmp_path, 1, ["ks"])
