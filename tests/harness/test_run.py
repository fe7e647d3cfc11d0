"""Parts of a run that the end-to-end tests do not single out."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_upstream import toy

from harness import plan, preparing, registry
from harness.interface import Manifest, SlimbenchError
from harness.suite import Suite


def suite(**changes):
    about = {"title": "", "about": "", "builder": None, "seed": 0, "digest": None, "file": Path("mine.yaml")}
    tasks = {"ks": {}, "pr": {}}
    about |= {"corpora": None, "protocol": "own"}
    return replace(Suite("mine", **about, bootstrap=1000, seeds=3, dtype="float16", tasks=tasks), **changes)


def key(upstream=None, chosen=None, task="ks", digest="m", protocol=None, audio=None, seeds=(0, 1, 2)):
    manifest = Manifest(task, Path("x.csv"), (), digest=digest)
    protocol = protocol or registry.task("ks").protocol
    return plan.record_key(upstream or toy(), chosen or suite(), task, manifest, protocol, audio or {"u": "a"}, seeds)


def test_the_key_of_a_record_follows_contents_and_never_names():
    base, protocol = key(), registry.task("ks").protocol
    renamed = toy()
    renamed.name = "another name"
    same = [key(), key(upstream=renamed), key(chosen=suite(name="yours", title="x", about="y"))]
    others = [
        key(upstream=toy(1)),
        key(task="sid"),
        key(digest="n"),
        key(audio={"u": "b"}),
        key(audio={"v": "a"}),
        key(seeds=(0,)),
        key(chosen=suite(dtype="float32")),
        key(chosen=suite(bootstrap=10)),
        key(protocol=replace(protocol, steps=7)),
        key(protocol=replace(protocol, learning_rates=(1.0,))),
        key(protocol=replace(protocol, head={"project": 3})),
    ]
    assert set(same) == {base}
    assert base not in others
    assert len(set(others)) == len(others)


def test_tasks_run_in_the_order_of_the_suite_and_unknown_ones_are_named():
    assert plan.choose_tasks(suite(), ["pr", "ks"]) == ["ks", "pr"]
    assert plan.choose_tasks(suite(), []) == ["ks", "pr"]
    with pytest.raises(SlimbenchError, match="did you mean 'ks'"):
        plan.choose_tasks(suite(), ["kss"])


def test_auto_is_cuda_where_there_is_one(monkeypatch):
    for there, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert preparing.resolve_device("auto") == device


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpu and more"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(SlimbenchError, match="auto, cpu or cuda"):
        preparing.resolve_device(name)
