from pathlib import Path

import pytest
import toy_builder

from harness import data
from harness.interface import SlimbenchError
from harness.suite import Suite


def suite(builder="toy_builder:build", seed=0, digest=None):
    about = {"title": "", "about": "", "bootstrap": 1, "seeds": 1, "dtype": "float16", "tasks": {}, "file": Path()}
    return Suite(name="mine", builder=builder, seed=seed, digest=digest, **about)


def names(cache):
    return sorted(p.name for p in (cache / "data").iterdir())


def test_data_are_made_once(tmp_path, monkeypatch):
    folder, digest, notes = data.prepare(suite(), None, tmp_path, 1)
    assert (folder / "2.txt").read_text() == "0 2"
    assert notes == []
    monkeypatch.setattr(toy_builder, "build", None)
    assert data.prepare(suite(), None, tmp_path, 1) == (folder, digest, [])
    assert names(tmp_path) == [folder.name]


def test_another_seed_makes_other_data_beside_the_first(tmp_path):
    one, two = (data.prepare(suite(seed=seed), None, tmp_path, 1)[0] for seed in (0, 1))
    assert one != two
    assert (two / "0.txt").read_text() == "1 0"


def test_an_interrupted_build_leaves_nothing_that_passes_for_data(tmp_path):
    target = data.folder(suite(), None, tmp_path)
    broken = suite(builder="toy_builder:broken")
    with pytest.raises(KeyboardInterrupt):
        data.prepare(broken, None, tmp_path, 1)
    assert names(tmp_path) == []
    left_by_a_killed_run = target.with_name(f"{target.name}.partial-999999999")
    left_by_a_killed_run.mkdir()
    data.prepare(suite(), None, tmp_path, 1)
    assert names(tmp_path) == [target.name]


def test_changed_data_are_noticed(tmp_path):
    folder, *_ = data.prepare(suite(), None, tmp_path, 1)
    (folder / "1.txt").write_text("changed")
    with pytest.raises(SlimbenchError, match="were changed") as error:
        data.prepare(suite(), None, tmp_path, 1)
    assert str(folder) in str(error.value)


def test_data_that_differ_from_the_published_ones_are_said_to(tmp_path):
    folder, *_ = data.prepare(suite(), None, tmp_path, 1)
    same = toy_builder.digest(folder)
    assert data.prepare(suite(digest=same), None, tmp_path, 1)[2] == []
    [note] = data.prepare(suite(digest="0" * 64), None, tmp_path, 1)[2]
    assert same[:12] in note


def test_a_folder_of_the_user_is_taken_as_it_is(tmp_path):
    assert data.prepare(suite(), tmp_path, tmp_path / "cache", 1)[:2] == (tmp_path, None)
    with pytest.raises(SlimbenchError, match="no such data folder"):
        data.prepare(suite(), tmp_path / "absent", tmp_path, 1)
    with pytest.raises(SlimbenchError, match="DATA="):
        data.prepare(suite(builder=None), None, tmp_path, 1)
