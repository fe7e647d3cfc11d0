"""Suite ``superb`` on miniature trees of the official corpora: seven tasks by SUPERB's rules, and what is missing."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from harness import records

sys.path.insert(0, str(Path(__file__).parents[1] / "downstreams" / "corpora"))

import trees

SUITE = """\
name: mini_superb
title: SUPERB's rules, few updates
corpora: downstreams.corpora.index:index
bootstrap: 50
seeds: 1
protocols:
  superb:
    asr: {steps: 2, eval_every: 1, learning_rates: [1.0e-3], head: {project: 8, hidden: 8}}
    pr: {steps: 2, eval_every: 1, learning_rates: [1.0e-2]}
    ks: {steps: 6, eval_every: 3, learning_rates: [1.0e-2], crops: 4}
    ic: {steps: 6, eval_every: 3, learning_rates: [1.0e-2]}
    sid: {steps: 6, eval_every: 3, learning_rates: [1.0e-2]}
    er: {steps: 6, eval_every: 3, learning_rates: [1.0e-2]}
    asv: {steps: 2, eval_every: 1, learning_rates: [1.0e-3], train_on_dev: true, choose: last, min_seconds: 0.3,
          head: {project: 8, channels: 8, pool: 16, embed: 8}}
"""
TASKS = {"asr", "pr", "ks", "ic", "sid", "er", "asv"}


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora")
    return folder, trees.build(folder, None)


@pytest.fixture
def mini(place, corpora):
    place.suite = place.folder / "mini_superb.yaml"
    place.suite.write_text(SUITE)
    shutil.rmtree(place.data)
    place.data.symlink_to(corpora[0])
    return place


def made(place):
    found = [json.loads(p.read_text()) for p in place.folder.glob("results/mini_superb/*/*.json")]
    return {record["task"]: record for record in found}


def test_all_seven_tasks_run_on_the_official_layouts(mini, corpora):
    done = {record.task: record for record in mini.bench().values()}
    assert set(done) == TASKS
    counts = corpora[1]
    for record in done.values():
        records.verify(record)
        assert record.data["protocol"] == "superb"
        assert record.features["encoded_over_distinct"] == 1.0
        assert any("subset" in note for note in record.notes)
    assert done["asr"].n_test == done["pr"].n_test == counts["librispeech"]["test"]
    assert done["ks"].n_test == counts["speech_commands"]["test"]
    assert done["ic"].n_test == counts["fluent_speech_commands"]["test"]
    assert done["sid"].n_test == counts["voxceleb1_sid"]["test"]
    assert done["asv"].n_test == counts["voxceleb1_asv"]["trials"]
    assert done["er"].n_test == sum(counts["iemocap"][f"fold{k}_test"] for k in range(1, 6))
    assert {"eer_test_min"} <= set(done["asv"].secondary)
    assert {"per_2021"} <= set(done["pr"].secondary)
    assert list(done["ks"].protocol["effects"]) == ["gain -3"]
    assert any("lexicon" in note for note in done["pr"].notes)


def test_a_missing_corpus_takes_its_tasks_along_and_says_so(mini, corpora, call):
    part = mini.folder / "part"
    part.mkdir()
    for entry in corpora[0].iterdir():
        if not entry.name.startswith(("IEMOCAP", "VoxCeleb1", "LibriSpeech")):
            (part / entry.name).symlink_to(entry)
    mini.data.unlink()
    mini.data.symlink_to(part)
    options = mini.options("--tasks", "ks,ic")
    assert call("bench", *options)[0] == 0
    assert set(made(mini)) == {"ks", "ic"}
    status, printed, said = call("plan", *mini.options())
    assert status == 0
    for task in ("er", "sid", "asv", "asr", "pr"):
        assert f"task {task} is left out" in said
        assert f"\n{task} " not in printed
    status, _, said = call("bench", *mini.options("--tasks", "er"))
    assert status == 2
    assert "IEMOCAP" in said


def test_a_wrong_count_stops_the_bench_before_anything_is_encoded(mini, corpora, call):
    whole = mini.folder / "whole"
    shutil.copytree(corpora[0], whole)
    next(iter((whole / "LibriSpeech").rglob("*.flac"))).unlink()
    mini.data.unlink()
    mini.data.symlink_to(whole)
    status, _, said = call("bench", *mini.options("--tasks", "asr"))
    assert status == 2
    assert ".flac" in said
    assert mini.encoded() == 0
