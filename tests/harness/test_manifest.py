"""The utterance table: what it says is what is read, and each mistake is named with its row."""

import csv
import dataclasses
import os
from collections import Counter
from pathlib import Path

import pytest

from harness import manifest
from harness.interface import SlimbenchError

HEADER = "split,path,speaker,text,label,start,seconds,mood"
ROWS = [
    "train,a/1.wav,ann,HELLO THERE,ann,,1.5,fine",
    "train,a/long.wav,ann,,ann,0,2.0,",
    'train,a/long.wav,ann,"YES, WELL",ann,2.25,1,',
    "dev,a/2.wav,bob,X,bob,,1,",
    "dev,a/3.wav,bob,Y,bob,,1,",
    "dev,a/4.wav,eve,Z,eve,,1,",
    "test,b/5.wav,kim,X,kim,,1,",
    "test,b/6.wav,kim,Y,kim,,1,",
    "test,b/7.wav,lee,Z,lee,,1,",
]
NOISE = "a/noise.wav,,,_silence_,,1,"
TRIALS = {
    "dev": "1 a/2.wav a/3.wav\n0 a/2.wav a/4.wav\n",
    "test": "1 b/5.wav b/6.wav\n0 b/5.wav b/7.wav\n",
}


@pytest.fixture
def folder(tmp_path):
    for row in ROWS:
        path = tmp_path / row.split(",")[1]
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


def write(folder, rows=ROWS, header=HEADER, trials=TRIALS):
    (folder / "asv").mkdir(exist_ok=True)
    (folder / "asv" / "manifest.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    for split, text in trials.items():
        (folder / "asv" / f"trials_{split}.txt").write_text(text)
    return folder


def test_everything_is_read(folder):
    got = manifest.read(write(folder), "asv")
    assert [u.id for u in got.utterances[:3]] == ["a/1", "a/long@0.0", "a/long@2.25"]
    cut = got.utterances[2]
    assert (cut.split, cut.path, cut.speaker, cut.text, cut.label) == (
        "train",
        folder / "a" / "long.wav",
        "ann",
        "YES, WELL",
        "ann",
    )
    assert (cut.start, cut.seconds, cut.row) == (2.25, 1.0, 4)
    assert got.utterances[0].start is None
    assert Counter(u.split for u in got.utterances) == {"train": 3, "dev": 3, "test": 3}
    assert [dataclasses.astuple(t) for t in got.trials["test"]] == [(True, "b/5", "b/6"), (False, "b/5", "b/7")]


def test_start_may_be_absent_and_lines_are_counted_as_an_editor_does(folder):
    header = "split,path,speaker,text,label,seconds"
    rows = ['train,a/1.wav,,"two\nlines",x,1', "dev,a/2.wav,,,x,1", "test,b/5.wav,,,x,1"]
    got = manifest.read(write(folder, rows, header, {}), "asv")
    assert [u.row for u in got.utterances] == [2, 4, 5]
    assert got.trials == {}
    assert {u.start for u in got.utterances} == {None}


def test_text_without_labels_is_enough(folder):
    rows = ["train,a/1.wav,,HELLO,,,1,", "dev,a/2.wav,,YES,,,1,", "test,b/5.wav,,NO,,,1,"]
    assert len(manifest.read(write(folder, rows, trials={}), "asv").utterances) == 3


def test_digest_is_of_content_not_of_place_or_notes(folder, tmp_path_factory):
    first = manifest.read(write(folder), "asv").digest
    assert len(first) == 64
    moved = tmp_path_factory.mktemp("else") / "data"
    folder.rename(moved)
    assert manifest.read(moved, "asv").digest == first
    notes = [row.replace(",fine", ",sour") for row in ROWS]
    assert manifest.read(write(moved, notes), "asv").digest == first
    texts = [row.replace("HELLO", "HALLO") for row in ROWS]
    assert manifest.read(write(moved, texts), "asv").digest != first
    swapped = {**TRIALS, "dev": "0 a/2.wav a/4.wav\n1 a/2.wav a/3.wav\n"}
    assert manifest.read(write(moved, trials=swapped), "asv").digest != first


def rows(at, text):
    return [*ROWS[:at], text, *ROWS[at + 1 :]]


BAD_TABLES = {
    "column": ({"header": HEADER.replace(",label", ",lable")}, "line 1: column label is missing"),
    "column twice": ({"header": HEADER.replace("mood", "text")}, "line 1: column text stands there twice"),
    "split": ({"rows": rows(3, "valid,a/2.wav,bob,X,bob,,1,")}, "line 5: split is 'valid'"),
    "no dev": ({"rows": [r for r in ROWS if not r.startswith("dev")], "trials": {}}, "no rows for split dev"),
    "no rows": ({"rows": [], "trials": {}}, "no rows for split train, dev, test"),
    "label": ({"rows": rows(1, "train,a/long.wav,ann,,,0,2.0,")}, "line 3: label is empty"),
    "seconds": ({"rows": rows(0, "train,a/1.wav,ann,,ann,,long,")}, "line 2: seconds is 'long'"),
    "seconds nan": ({"rows": rows(0, "train,a/1.wav,ann,,ann,,nan,")}, "line 2: seconds is 'nan'"),
    "seconds empty": ({"rows": rows(0, "train,a/1.wav,ann,,ann,,,")}, "line 2: seconds is ''"),
    "seconds zero": ({"rows": rows(0, "train,a/1.wav,ann,,ann,,0,")}, "line 2: seconds is 0; it must be above 0"),
    "start": ({"rows": rows(0, "train,a/1.wav,ann,,ann,-2,1,")}, "line 2: start is -2"),
    "start word": ({"rows": rows(0, "train,a/1.wav,ann,,ann,begin,1,")}, "line 2: start is 'begin'"),
    "outside": ({"rows": rows(0, "train,../1.wav,ann,,ann,,1,")}, r"line 2: path \.\./1\.wav leads out"),
    "absolute": ({"rows": rows(0, "train,/etc/hosts,ann,,ann,,1,")}, "line 2: path /etc/hosts leads out"),
    "no path": ({"rows": rows(0, "train,,ann,,ann,,1,")}, "line 2: path is empty"),
    "missing": ({"rows": rows(0, "train,a/9.wav,ann,,ann,,1,")}, r"line 2: audio file .*a/9\.wav is missing"),
    "short row": ({"rows": rows(2, "train,a/1.wav")}, "line 4 has fewer fields"),
    "long row": ({"rows": rows(0, "train,a/1.wav,ann,YES, WELL,ann,,1.5,")}, "line 2 has more fields"),
    "duplicate": ({"rows": [*ROWS, ROWS[0]]}, "line 11: repeats the utterance of line 2"),
    "leak": ({"rows": [*ROWS, "test,a/1.wav,ann,,ann,,1.5,"]}, "line 11: utterance a/1 is in test here and in train"),
    "overlap": ({"rows": [*ROWS, "test,a/long.wav,x,,x,1.9,0.3,"]}, "line 11 .test. and line 3 .train. cut overlap"),
    "whole and cut": ({"rows": [*ROWS, "test,a/long.wav,x,,x,,9,"]}, "cut overlapping stretches out of long.wav"),
    "quote": ({"rows": rows(8, 'test,b/7.wav,lee,"Z,lee,,1,')}, "line 10: .*close every double quote"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_mistake_in_the_table_is_named_with_its_row(folder, name):
    changes, message = BAD_TABLES[name]
    with pytest.raises(SlimbenchError, match=message) as caught:
        manifest.read(write(folder, **changes), "asv")
    assert str(caught.value).startswith(str(folder / "asv" / "manifest.csv"))
    assert "\n" not in str(caught.value)


def test_neither_text_nor_label(folder):
    table = ["train,a/1.wav,,HELLO,,,1,", "dev,a/2.wav,,,,,1,", "test,b/5.wav,,NO,,,1,"]
    with pytest.raises(SlimbenchError, match="line 3: both label and text are empty"):
        manifest.read(write(folder, table, trials={}), "asv")


def test_cuts_that_touch_do_not_overlap(folder):
    got = manifest.read(write(folder, [*ROWS, "test,a/long.wav,lee,,lee,3.25,1,"]), "asv")
    assert got.utterances[-1].id == "a/long@3.25"


def test_same_name_with_another_suffix(folder):
    (folder / "a" / "1.flac").touch()
    with pytest.raises(SlimbenchError, match=r"line 11: 1\.flac and 1\.wav \(line 2\) differ only in the suffix"):
        manifest.read(write(folder, [*ROWS, "train,a/1.flac,ann,,ann,,1,"]), "asv")


def test_not_utf8_and_no_manifest(folder):
    with pytest.raises(SlimbenchError, match=r"asv/manifest\.csv: no such manifest"):
        manifest.read(folder, "asv")
    write(folder)
    (folder / "asv" / "manifest.csv").write_bytes(b"split,path,speaker,text,label,seconds\ntrain,a/\xff.wav,,,x,1\n")
    with pytest.raises(SlimbenchError, match="is not UTF-8"):
        manifest.read(folder, "asv")


BAD_TRIALS = {
    "unknown": ("1 a/2.wav a/99.wav", r"line 1: a/99\.wav is not in manifest\.csv"),
    "no trial": ("same a/2.wav a/3.wav", "line 1: 'same a/2.wav a/3.wav' is no trial"),
    "two fields": ("1 a/2.wav a/3.wav\n0 a/2.wav", "line 2: '0 a/2.wav' is no trial"),
    "other split": ("1 a/2.wav b/5.wav", r"line 1: b/5\.wav is in the test split"),
    "ambiguous": ("1 a/2.wav a/long.wav", r"line 1: a/long\.wav holds 2 utterances; name one, such as a/long@0\.0"),
    "speakers": ("1 a/2.wav a/4.wav", "line 1: says 1, but the manifest's speakers are bob and eve"),
    "one kind": ("1 a/2.wav a/3.wav", "needs trials of the same speaker .1. and of different ones"),
}


@pytest.mark.parametrize("name", BAD_TRIALS)
def test_a_mistake_in_the_trials_is_named_with_its_line(folder, name):
    text, message = BAD_TRIALS[name]
    with pytest.raises(SlimbenchError, match=message) as caught:
        manifest.read(write(folder, trials={**TRIALS, "dev": text + "\n"}), "asv")
    assert str(caught.value).startswith(str(folder / "asv" / "trials_dev.txt"))


def test_one_list_of_trials_is_not_enough(folder):
    with pytest.raises(SlimbenchError, match=r"trials_test\.txt: no such list of trials"):
        manifest.read(write(folder, trials={"dev": TRIALS["dev"]}), "asv")


def test_same_audio_under_two_names_in_two_splits(folder):
    got = manifest.read(write(folder), "asv")
    keys = {u.id: u.id for u in got.utterances}
    manifest.check_content(got, keys)
    manifest.check_content(got, {**keys, "a/long@0.0": "a/1"})  # twice in train leaks nothing
    with pytest.raises(SlimbenchError, match=r"line 8 \(test\) holds the same audio as line 2 \(train\)"):
        manifest.check_content(got, {**keys, "b/5": "a/1"})


@pytest.mark.skipif("REAL_SPEECH" not in os.environ, reason="REAL_SPEECH does not name a folder of real speech")
@pytest.mark.parametrize("task", ["asr", "pr", "ks", "ks_fsdd", "ic", "sid", "er", "asv"])
def test_real_speech_is_read_whole(task):
    root = Path(os.environ["REAL_SPEECH"])
    got = manifest.read(root, task)
    with (root / task / "manifest.csv").open(newline="", encoding="utf-8") as file:
        expected = list(csv.DictReader(file))
    assert [(u.split, u.label, u.text, u.speaker) for u in got.utterances] == [
        (r["split"], r["label"], r["text"], r["speaker"]) for r in expected
    ]
    assert sum(u.start is not None for u in got.utterances) == sum(bool(r.get("start")) for r in expected)
    lists = {split: root / task / f"trials_{split}.txt" for split in got.trials}
    assert (task == "asv") == bool(lists)
    for split, file in lists.items():
        assert len(got.trials[split]) == len(file.read_text().splitlines())


def test_folds_are_manifests_of_their_own(folder):
    header = HEADER + ",test_fold"
    rotated = {"train": "test", "dev": "train", "test": "dev"}
    second = [",".join([rotated[row.split(",")[0]], *row.split(",")[1:]]) for row in ROWS]
    write(folder, [f"{row},1" for row in ROWS] + [f"{row},2" for row in second], header, trials={})
    got = manifest.read(folder, "asv")
    assert [len(fold.utterances) for fold in got.folds] == [len(ROWS)] * 2
    assert got.folds[0].split("test") == got.split("test")
    assert {u.id for u in got.folds[1].split("dev")} == {u.id for u in got.split("test")}
    assert len(got.utterances) == len(ROWS)
    assert got.digest != write_digest(folder, [f"{row},1" for row in ROWS] + [f"{row},3" for row in second], header)


def write_digest(folder, rows, header):
    return manifest.read(write(folder, rows, header, trials={}), "asv").digest


def test_a_fold_with_a_leak_is_an_error_of_that_fold(folder):
    leak = [f"{row},1" for row in ROWS] + [f"{row},2" for row in ROWS] + ["test,a/1.wav,ann,X,ann,,1,,2"]
    with pytest.raises(SlimbenchError, match=r"a/1 is in test here and in train"):
        manifest.read(write(folder, leak, HEADER + ",test_fold", trials={}), "asv")


def test_audio_that_is_declared_shared_may_be_in_two_splits(folder):
    header = HEADER + ",shared"
    rows = [f"{row}," for row in ROWS]
    twice = [f"train,{NOISE},1", f"dev,{NOISE},1"]
    (folder / "a" / "noise.wav").touch()
    got = manifest.read(write(folder, rows + twice, header, trials={}), "asv")
    shared = [u for u in got.utterances if u.shared]
    assert [u.id for u in shared] == ["a/noise#train", "a/noise#dev"]
    manifest.check_content(got, {u.id: str(u.path) for u in got.utterances if u.path.suffix})
    with pytest.raises(SlimbenchError, match=r"shared is 'yes'"):
        manifest.read(write(folder, [*rows, f"dev,{NOISE},yes"], header, trials={}), "asv")
    with pytest.raises(SlimbenchError, match="keep it in one split only"):
        manifest.read(write(folder, [*rows, f"train,{NOISE},", f"dev,{NOISE},"], header, trials={}), "asv")
