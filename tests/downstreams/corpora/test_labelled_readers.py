"""Speech Commands, Fluent Speech Commands and IEMOCAP against s3prl's and torchaudio's parsers, and damaged."""

from __future__ import annotations

import csv
import shutil
import sys
from collections import Counter
from unittest import mock

import pytest
from torchaudio import datasets

from downstreams.corpora.fluent import FLUENT
from downstreams.corpora.iemocap import IEMOCAP
from downstreams.corpora.speech_commands import SPEECH_COMMANDS

# Speech Commands


def test_speech_commands_equals_s3prl(tones, monkeypatch):
    data, expected = tones
    pytest.importorskip("s3prl", reason="s3prl is not installed (it comes with the dev extra)")
    for name in ("torchaudio.sox_effects", "catalyst", "catalyst.data", "catalyst.data.sampler"):
        monkeypatch.setitem(sys.modules, name, mock.MagicMock())  # not needed to list files
    before = set(sys.modules)
    from s3prl.downstream.speech_commands import dataset, expert

    for name in [name for name in set(sys.modules) - before if name.startswith("s3prl")]:
        del sys.modules[name]  # they hold the stand-ins
    root, tests = str(data / "speech_commands_v0.01"), str(data / "speech_commands_test_set_v0.01")
    lists = expert.split_dataset(root)
    theirs = {
        "train": dataset.SpeechCommandsDataset(lists[0], speech_commands_root=root).data,
        "dev": dataset.SpeechCommandsDataset(lists[1], speech_commands_root=root).data,
        "test": dataset.SpeechCommandsTestingDataset(speech_commands_test_root=tests).data,
    }
    rows = SPEECH_COMMANDS.rows(data, "ks", expected)
    for split, wanted in theirs.items():
        ours = Counter((row.label, str(data / row.path)) for row in rows if row.split == split)
        assert ours == Counter((label, str(path)) for label, path in wanted)
    shared = [row.path for row in rows if row.shared]
    assert len(shared) == 12
    assert len(set(shared)) == 6


@pytest.mark.parametrize(
    ("move", "said"),
    [
        (lambda root, dev: dev.rename(dev.with_suffix(".WAV")), "is no file of Speech Commands"),
        (lambda root, dev: dev.unlink(), "is missing"),
        (lambda root, dev: shutil.copy(dev, dev.with_name(dev.name.replace("_0.", "_7."))), "is in no line of"),
        (lambda root, dev: shutil.copytree(dev.parent, root / "Yes"), "is no file of Speech Commands"),
        (lambda root, dev: (root / "_background_noise_" / "pink_noise.wav").unlink(), "pink_noise.wav is missing"),
        (lambda root, dev: shutil.copy(dev, root / "_background_noise_" / "more.wav"), "none of the six noise files"),
        (lambda root, dev: shutil.rmtree(root.parent / "speech_commands_test_set_v0.01"), "test_set_v0.01 is missing"),
        (lambda root, dev: shutil.rmtree(root.parent / "speech_commands_test_set_v0.01" / "go"), "go is missing"),
        (lambda root, dev: (root / "validation_list.txt").write_text("../../x.wav\n"), "leads out of the corpus"),
    ],
)
def test_speech_commands_damaged(problems, copied, tones, move, said):
    data = copied("speech_commands_v0.01", "speech_commands_test_set_v0.01")
    root = data / "speech_commands_v0.01"
    move(root, root / (root / "validation_list.txt").read_text().split()[0])
    assert any(said in problem for problem in problems(SPEECH_COMMANDS, data, tones[1]))


# Fluent Speech Commands


def test_fluent_equals_torchaudio_in_order(tones):
    data, expected = tones
    rows = FLUENT.rows(data, "ic", expected)
    for split, subset in (("train", "train"), ("dev", "valid"), ("test", "test")):
        theirs = datasets.FluentSpeechCommands(data, subset)
        ours = [
            (row.path.removeprefix("fluent_speech_commands_dataset/"), row.speaker, row.text, *row.label.split("|"))
            for row in rows
            if row.split == split
        ]
        wanted = [theirs.get_metadata(index) for index in range(len(theirs))]
        assert ours == [(path, *rest) for path, _, _, *rest in wanted]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: row.update(path="../../x.wav"), "leads out of the corpus"),
        (lambda row: row.update(path="wavs/speakers/train0/absent.wav"), "is missing"),
        (lambda row: row.update(path=row["path"].upper().replace("WAVS/SPEAKERS", "wavs/speakers")), "upper and lower"),
        (lambda row: row.update(location=""), "location is ''"),
        (lambda row: row.update(action="a|b"), "action is 'a|b'"),
    ],
)
def test_fluent_with_a_bad_row(problems, copied, tones, change, said):
    data = copied("fluent_speech_commands_dataset")
    file = data / "fluent_speech_commands_dataset" / "data" / "valid_data.csv"
    with file.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    change(rows[2])
    with file.open("w", newline="") as handle:
        table = csv.DictWriter(handle, rows[0])
        table.writeheader()
        table.writerows(rows)
    found = problems(FLUENT, data, tones[1])
    assert found[0].startswith(f"{file}: line 4: ")
    assert said in found[0]


def test_fluent_extra_file_double_row_and_missing_table(problems, copied, tones):
    data = copied("fluent_speech_commands_dataset")
    root = data / "fluent_speech_commands_dataset"
    audio = sorted((root / "wavs").rglob("*.wav"))[0]
    extra = audio.with_name("extra.wav")
    shutil.copy(audio, extra)
    assert problems(FLUENT, data, tones[1])[0].startswith(f"{extra} is in none of the three tables")
    table = root / "data" / "test_data.csv"
    table.write_text(table.read_text() + table.read_text().splitlines()[1] + "\n")
    assert "stands already in test_data.csv, line 2" in problems(FLUENT, data, tones[1])[0]
    table.unlink()
    assert problems(FLUENT, data, tones[1])[0].startswith(f"{table} is missing")


# IEMOCAP


def test_iemocap_labels_equal_torchaudio(tones, tmp_path):
    data, expected = tones
    (tmp_path / "IEMOCAP").symlink_to(data / "IEMOCAP_full_release")
    theirs = datasets.IEMOCAP(tmp_path)
    known = {}
    for index in range(len(theirs)):
        path, _, _, label, _ = theirs.get_metadata(index)
        if label != "fru":
            known[f"IEMOCAP_full_release/{path}"] = label.replace("exc", "hap")
    rows = IEMOCAP.rows(data, "er", expected)
    assert {row.path: row.label for row in rows} == known
    for fold in range(1, 6):
        paths = [row.path for row in rows if row.fold == fold]
        assert sorted(paths) == sorted(known)
        assert {f"Session{fold}" in row.path for row in rows if row.fold == fold and row.split == "test"} == {True}
        assert not any(f"Session{fold}" in row.path for row in rows if row.fold == fold and row.split != "test")


def test_iemocap_damaged(problems, copied, tones):
    data = copied("IEMOCAP_full_release")
    place = data / "IEMOCAP_full_release" / "Session2" / "dialog" / "EmoEvaluation"
    (place / "._Ses02F_impro03.txt").write_bytes(b"\x00\x05\x16\x07\xff\xfe")
    assert IEMOCAP.check(data, tones[1]).status == "found"
    file = next(file for file in sorted(place.glob("Ses*.txt")) if "\tneu\t" in file.read_text())
    text = file.read_text()
    line = next(line for line in text.splitlines() if "\tneu\t" in line)
    name = line.split("\t")[1]
    for changed, said in (
        (text.replace(line + "\n", ""), f"{name}.wav has no line in dialog/EmoEvaluation"),
        (text.replace("\tneu\t", "\txxx\t", 1), f"{name}.wav is tagged 'xxx'"),
        (text + line + "\n", f"{name} has a label already"),
    ):
        file.write_text(changed)
        assert any(said in problem for problem in problems(IEMOCAP, data, tones[1])), said
    file.unlink()
    assert any("has no line" in problem for problem in problems(IEMOCAP, data, tones[1]))
    shutil.rmtree(place)
    assert problems(IEMOCAP, data, tones[1])[0].startswith(f"{place} is missing")


def test_iemocap_utterance_that_superb_does_not_have(problems, copied, tones):
    data = copied("IEMOCAP_full_release")
    place = data / "IEMOCAP_full_release" / "Session1" / "dialog" / "EmoEvaluation"
    file = next(file for file in sorted(place.glob("*.txt")) if "\tfru\t" in file.read_text())
    file.write_text(file.read_text().replace("\tfru\t", "\tang\t", 1))
    assert "none of SUPERB's 5,531 utterances" in problems(IEMOCAP, data, tones[1])[0]
