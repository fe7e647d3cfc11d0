"""What all readers share: finding a folder, lengths of broken files, expected counts; and the verb and the index."""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import wave

import pytest
import soundfile
import trees

from downstreams.corpora import index, official
from downstreams.corpora.verb import add_verb
from harness import manifest
from harness.interface import SlimbenchError

TASKS = ("asr", "pr", "ks", "ic", "sid", "er", "asv")


@pytest.fixture
def check(capsys):
    """Runs ``data check``; returns the exit status and what was printed."""
    parser = argparse.ArgumentParser()
    add_verb(parser.add_subparsers())

    def run(*words):
        options = parser.parse_args(["data", "check", "superb", *map(str, words)])
        status = options.run(options)
        return status, capsys.readouterr().out

    return run


# Finding


def test_folder_in_any_case_but_the_exact_name_first(tmp_path):
    (tmp_path / "librispeech").mkdir()
    assert official.find_root(tmp_path, ("LibriSpeech",), ()) == (tmp_path / "librispeech", [])
    (tmp_path / "LibriSpeech").mkdir()
    assert official.find_root(tmp_path, ("LibriSpeech",), ())[0] == tmp_path / "LibriSpeech"


def test_a_nested_folder_and_the_folder_itself(tmp_path):
    inner = tmp_path / "LibriSpeech" / "LibriSpeech"
    (inner / "dev-clean").mkdir(parents=True)
    names, sign = ("LibriSpeech", "LibriSpeech/LibriSpeech"), ("dev-clean",)
    assert official.find_root(tmp_path, names, sign) == (inner, [])
    assert official.find_root(inner, names, sign) == (inner, [])
    assert official.find_root(inner / "dev-clean", names, sign) == (None, [])


def test_data_may_be_the_corpus_itself(tones):
    data, expected = tones
    rows = index.LIBRISPEECH.rows(data / "LibriSpeech", "asr", expected)
    assert all((data / "LibriSpeech" / row.path).is_file() for row in rows)


@pytest.mark.parametrize("path", ["../a.wav", "/a.wav", "a/../../b.wav", "", "a\\..\\b.wav", ".."])
def test_paths_that_lead_out(path):
    assert not official.inside(path)


def test_hidden_files_are_left_out_and_said(copied, tones):
    data = copied("LibriSpeech")
    audio = sorted((data / "LibriSpeech").rglob("*.flac"))[0]
    audio.with_name(f"._{audio.name}").write_bytes(b"\x00\x05")
    finding = index.LIBRISPEECH.check(data, tones[1])
    assert finding.status == "found"
    assert any("1 hidden files" in note for note in finding.notes)


# Lengths


def test_length_is_that_of_the_decoded_file(spoken):
    data, _ = spoken
    for path in [*sorted(data.rglob("*.flac"))[:5], *sorted(data.rglob("*.wav"))[:5]]:
        samples, rate = soundfile.read(path)
        assert official.seconds(path) == pytest.approx(len(samples) / rate, abs=1e-9)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[: len(content) // 2], "truncated|cannot be read|holds|beyond"),
        (lambda content: content[:-3000], "truncated|cannot be read|beyond"),
        (lambda content: b"", "empty"),
        (lambda content: b"<html>not found</html>", "cannot be read as audio"),
    ],
)
def test_broken_archive_members(tmp_path, suffix, damage, said):
    path = tmp_path / f"a.{suffix}"
    trees.pool.write(path, trees.pool.samples(trees.pool.clips(None, "sid")[0]))
    assert official.seconds(path) == pytest.approx(0.4)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SlimbenchError, match=said) as error:
        official.seconds(path)
    assert str(path) in str(error.value)


def test_a_file_without_samples(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
    with pytest.raises(SlimbenchError, match="holds no samples"):
        official.seconds(tmp_path / "a.wav")


# Expected counts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("librispeach: {train: 1}", "librispeech"),
        ("librispeech: {trian: 1}", "train"),
        ("librispeech: {train: many}", "must be a whole number"),
        ("librispeech: {train: -1}", "must be a whole number"),
        ("librispeech: 5", "must map counts"),
        ("[1]", "must map names"),
        ("a: [", "not plain YAML"),
        ("librispeech: {train: 1}\nlibrispeech: {train: 2}", "not plain YAML"),
    ],
)
def test_expected_counts_that_are_wrong(tmp_path, text, said):
    (tmp_path / "e.yaml").write_text(text)
    with pytest.raises(SlimbenchError, match=said):
        official.load_expected(tmp_path / "e.yaml", index.CORPORA)


def test_expected_file_that_is_missing(tmp_path):
    with pytest.raises(SlimbenchError, match="no such file"):
        official.load_expected(tmp_path / "e.yaml", index.CORPORA)


# The index


def rows_of(out, task):
    with (out / task / "manifest.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize("tree", ["tones", "spoken"])
def test_index_writes_manifests_that_the_harness_reads(tree, request, tmp_path):
    data, expected = request.getfixturevalue(tree)
    seen = []
    assert index.index(data, tmp_path, TASKS, lambda done, total: seen.append((done, total))) == {}
    assert seen[-1][0] == seen[-1][1] == len({row["path"] for task in TASKS for row in rows_of(tmp_path, task)})
    for task in TASKS:
        read = manifest.read(tmp_path, task, data)
        splits = {split: len(read.split(split)) for split in ("train", "dev", "test")}
        corpus = next(corpus for corpus in index.CORPORA if task in corpus.tasks)
        must = expected[corpus.name]
        if task == "er":
            folds = [[len(fold.split(split)) for split in ("train", "dev", "test")] for fold in read.folds]
            assert folds == [[must[f"fold{n}_{s}"] for s in ("train", "dev", "test")] for n in range(1, 6)]
        elif task == "asv":
            assert splits["train"] + splits["dev"] == must["dev_wav"]
            assert (splits["test"], len(read.trials["test"])) == (must["test"], must["trials"])
            assert len({trial.same for trial in read.trials["dev"]}) == 2
        else:
            assert splits == must
        notes = json.loads((tmp_path / task / "notes.json").read_text())
        assert any("a subset" in note for note in notes)
    for row in rows_of(tmp_path, "ks"):
        noise = "_background_noise_" in row["path"]
        assert (row["shared"] == "1") == noise
        assert float(row["seconds"]) == pytest.approx(soundfile.info(data / row["path"]).duration, abs=1e-5)


def test_index_is_the_same_again(tones, tmp_path):
    for name in ("a", "b"):
        index.index(tones[0], tmp_path / name, TASKS)
    for file in sorted((tmp_path / "a").rglob("*.*")):
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()


def test_a_missing_corpus_disables_its_tasks_only(copied, tones, tmp_path):
    data = copied("LibriSpeech")
    (data / "speech_commands_v0.02").mkdir()
    unavailable = index.index(data, tmp_path / "out", TASKS, expected=tones[1])
    assert sorted(unavailable) == ["asv", "er", "ic", "ks", "sid"]
    assert "get it from http" in unavailable["er"]
    assert "v0.02, which SUPERB does not use" in unavailable["ks"]
    assert len(rows_of(tmp_path / "out", "asr")) == 144
    assert not (tmp_path / "out" / "ks").exists()


def test_index_raises_for_a_corpus_that_differs_and_writes_nothing(copied, tones, tmp_path):
    data = copied("fluent_speech_commands_dataset")
    audio = sorted(data.rglob("*.wav"))[0]
    audio.unlink()
    with pytest.raises(SlimbenchError, match=r"is not complete: .*line [0-9]+: .*is missing"):
        index.index(data, tmp_path / "out", ["ic"], expected=tones[1])
    with pytest.raises(SlimbenchError, match="the counts differ: train 96 of 23,132"):
        index.index(tones[0], tmp_path / "out", ["ic"], expected={})
    assert not (tmp_path / "out").exists()


def test_index_raises_for_broken_audio(copied, tones, tmp_path):
    data = copied("LibriSpeech")
    audio = sorted(data.rglob("*.flac"))[7]
    audio.write_bytes(audio.read_bytes()[:-2000])
    with pytest.raises(SlimbenchError, match=audio.name):
        index.index(data, tmp_path / "out", ["asr"], expected=tones[1])
    assert not (tmp_path / "out" / "asr" / "manifest.csv").exists()


def test_index_of_an_unknown_task_and_of_no_folder(tones, tmp_path):
    with pytest.raises(SlimbenchError, match="asr"):
        index.index(tones[0], tmp_path, ["asrr"])
    with pytest.raises(SlimbenchError, match="no such data folder"):
        index.index(tmp_path / "absent", tmp_path, ["asr"])


def test_the_other_version_of_speech_commands_only_where_asked_for(copied, tones, tmp_path):
    data = copied("speech_commands_v0.01", "speech_commands_test_set_v0.01")
    for name in ("speech_commands_", "speech_commands_test_set_"):
        (data / f"{name}v0.01").rename(data / f"{name}v0.02")
    counts = {"speech_commands_v0.02": tones[1]["speech_commands"]}
    (data / "expected.yaml").write_text(json.dumps(counts))
    assert list(index.index(data, tmp_path / "out", ["ks"])) == ["ks"]
    assert index.index_with_v2(data, tmp_path / "out", ["ks"]) == {}
    assert rows_of(tmp_path / "out", "ks")[0]["path"].startswith("speech_commands_v0.02/")


# The verb


def test_check_says_found_and_returns_0(tones, check):
    status, out = check(f"DATA={tones[0]}")
    assert status == 0
    assert "6 found" in out
    assert "train 90 of 90 · dev 24 of 24 · test 30 of 30" in out
    assert "phone lexicon: librispeech-lexicon-200k-g2p.txt" in out
    assert "a subset, not the official corpus" in out


def test_check_says_missing_with_tree_size_licence_and_place(copied, tones, check, tmp_path):
    data = copied("LibriSpeech")
    (tmp_path / "e.yaml").write_text(json.dumps({"librispeech": tones[1]["librispeech"]}))
    status, out = check("--data", data, "--expect", tmp_path / "e.yaml")
    assert status == 0
    assert "1 found, 5 missing; without corpus: ks, ic, sid, asv, er" in out
    for text in ("36 GB", "CC BY 4.0", "www.robots.ox.ac.uk", "138,361", "dev/wav/id10001/", "3,556/890/1,085"):
        assert text in out, text
    assert "v0.02" not in out


def test_check_says_incomplete_with_the_file_and_returns_2(copied, tones, check, tmp_path):
    data = copied("fluent_speech_commands_dataset")
    (data / "expected.yaml").write_text(json.dumps({"fluent_speech_commands": tones[1]["fluent_speech_commands"]}))
    assert check(f"DATA={data}")[0] == 0
    audio = sorted(data.rglob("*.wav"))[0]
    content = audio.read_bytes()
    audio.write_bytes(content[:-100])
    assert check(f"DATA={data}")[0] == 0
    status, out = check(f"DATA={data}", "--audio")
    assert status == 2
    assert f"{audio}: is truncated" in out
    audio.unlink()
    status, out = check(f"DATA={data}", "--json")
    found = next(item for item in json.loads(out)["corpora"] if item["name"] == "fluent_speech_commands")
    assert status == 2
    assert (found["status"], found["official"]) == ("incomplete", False)
    assert str(audio.relative_to(data)) in found["problems"][0]
    assert "of 96" in found["problems"][-1] or "of 24" in found["problems"][-1] or "of 32" in found["problems"][-1]


def test_check_of_an_empty_folder_is_no_success(check, tmp_path):
    status, out = check(f"DATA={tmp_path}")
    assert status == 2
    assert "6 missing" in out


@pytest.mark.parametrize("words", [(), ("DATA=",), ("folder",), ("DATA=/absent-folder",), ("DATA=.", "--data", ".")])
def test_check_without_a_folder(check, words):
    with pytest.raises(SlimbenchError, match="DATA"):
        check(*words)


def test_lexicon_that_is_not_whole(copied, tones, check):
    data = copied("LibriSpeech", "lexicon")
    sorted((data / "lexicon").iterdir())[0].unlink()
    (data / "expected.yaml").write_text(json.dumps({"librispeech": tones[1]["librispeech"]}))
    assert "phone lexicon: not usable" in check(f"DATA={data}")[1]
    shutil.rmtree(data / "lexicon")
    assert "phone lexicon: cmudict" in check(f"DATA={data}")[1]
