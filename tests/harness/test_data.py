from pathlib import Path

import pytest
import toy_builder

from harness import data
from harness.interface import SlimbenchError
from harness.suite import Suite


def suite(builder="toy_builder:build", seed=0, digest=None, corpora=None):
    about = {"title": "", "about": "", "bootstrap": 1, "seeds": 1, "dtype": "float16", "tasks": {}, "file": Path()}
    return Suite(name="mine", builder=builder, seed=seed, digest=digest, corpora=corpora, protocol="own", **about)


def prepare(chosen, folder, cache, tasks=()):
    return data.prepare(chosen, folder, cache, 1, tasks)


def names(cache):
    return sorted(p.name for p in (cache / "data").iterdir())


def test_data_are_made_once(tmp_path, monkeypatch):
    made = prepare(suite(), None, tmp_path)
    assert (made.root / "2.txt").read_text() == "0 2"
    assert made.manifests == made.root
    assert made.notes == ()
    monkeypatch.setattr(toy_builder, "build", None)
    assert prepare(suite(), None, tmp_path) == made
    assert names(tmp_path) == [made.root.name]


def test_another_seed_makes_other_data_beside_the_first(tmp_path):
    one, two = (prepare(suite(seed=seed), None, tmp_path).root for seed in (0, 1))
    assert one != two
    assert (two / "0.txt").read_text() == "1 0"


def test_an_interrupted_build_leaves_nothing_that_passes_for_data(tmp_path):
    target = data.folder(suite(), None, tmp_path)
    broken = suite(builder="toy_builder:broken")
    with pytest.raises(KeyboardInterrupt):
        prepare(broken, None, tmp_path)
    assert names(tmp_path) == []
    left_by_a_killed_run = target.with_name(f"{target.name}.partial-999999999")
    left_by_a_killed_run.mkdir()
    prepare(suite(), None, tmp_path)
    assert names(tmp_path) == [target.name]


def test_changed_data_are_noticed(tmp_path):
    folder = prepare(suite(), None, tmp_path).root
    (folder / "1.txt").write_text("changed")
    with pytest.raises(SlimbenchError, match="were changed") as error:
        prepare(suite(), None, tmp_path)
    assert str(folder) in str(error.value)


def test_data_that_differ_from_the_published_ones_are_said_to(tmp_path):
    folder = prepare(suite(), None, tmp_path).root
    same = toy_builder.digest(folder)
    assert prepare(suite(digest=same), None, tmp_path).notes == ()
    [note] = prepare(suite(digest="0" * 64), None, tmp_path).notes
    assert same[:12] in note


def test_a_folder_of_the_user_is_taken_as_it_is(tmp_path):
    assert prepare(suite(), tmp_path, tmp_path / "cache").manifests == tmp_path
    with pytest.raises(SlimbenchError, match="no such data folder"):
        prepare(suite(), tmp_path / "absent", tmp_path)
    with pytest.raises(SlimbenchError, match="DATA="):
        prepare(suite(builder=None), None, tmp_path)


def test_corpora_are_indexed_once_per_task_and_what_is_not_there_is_said(tmp_path):
    root = tmp_path / "corpora"
    (root / "ks").mkdir(parents=True)
    chosen = suite(builder=None, corpora="toy_builder:index")
    first = prepare(chosen, root, tmp_path / "cache", ["ks", "pr"])
    assert (first.manifests / "ks" / "manifest.csv").read_text() == "indexed ks\n"
    assert first.root == root
    assert dict(first.unavailable) == {"pr": "no folder pr"}
    (first.manifests / "ks" / "manifest.csv").write_text("kept")
    again = prepare(chosen, root, tmp_path / "cache", ["ks"])
    assert (again.manifests / "ks" / "manifest.csv").read_text() == "kept"
    (root / "pr").mkdir()
    second = prepare(chosen, root, tmp_path / "cache", ["ks", "pr"])
    assert second.manifests != first.manifests
    deep = root / "ks" / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "labels.trans.txt").write_text("a changed transcript, however deep, makes a new index")
    assert prepare(chosen, root, tmp_path / "cache", ["ks", "pr"]).manifests != second.manifests
