from dataclasses import replace

import pytest

from harness import registry, suite
from harness.interface import SlimbenchError, TrainingProtocol

GOOD = """\
name: mine
title: Mine
tasks:
  ks: {steps: 7, learning_rates: [1.0e-3, 1.0e-2], head: {project: 8}}
"""


def written(folder, text, name="mine.yaml"):
    file = folder / name
    file.write_text(text)
    return str(file)


def test_what_a_suite_does_not_name_stays_superb(tmp_path):
    chosen = suite.load(written(tmp_path, GOOD))
    superb = registry.task("ks").protocol
    changed = suite.protocol(chosen, registry.task("ks"))
    assert changed == replace(superb, steps=7, learning_rates=(1e-3, 1e-2), head={"project": 8})
    assert (chosen.seeds, chosen.bootstrap, chosen.dtype, chosen.builder) == (3, 1000, "float16", None)


@pytest.mark.parametrize("name", ["embedded", "real-mini"])
def test_built_in_suites_serve_all_seven_tasks_with_five_rates_and_three_seeds(name):
    chosen = suite.load(name)
    assert sorted(chosen.tasks) == sorted(registry.task_names())
    assert len(chosen.tasks) == 7
    assert chosen.seeds == 3
    for task in chosen.tasks:
        protocol = suite.protocol(chosen, registry.task(task))
        assert isinstance(protocol, TrainingProtocol)
        assert len(protocol.learning_rates) >= 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("steps: 7", "stps: 7"), "'stps', did you mean 'steps'"),
        (("title: Mine", "titel: Mine"), "did you mean 'title'"),
        (("title: Mine\n", ""), "`title` is missing"),
        (("steps: 7", "steps: many"), "must be a whole number"),
        (("steps: 7", "steps: 7.5"), "must be a whole number"),
        (("steps: 7", "steps: 0"), "below 1"),
        (("[1.0e-3, 1.0e-2]", "[1e-3]"), "1.0e-3"),
        (("[1.0e-3, 1.0e-2]", "[0.1, 0.1]"), "different from each other"),
        (("[1.0e-3, 1.0e-2]", "[]"), "must not be empty"),
        (("project: 8", "project: 8.5"), "head sizes"),
        (("name: mine", "name: yours"), "must be the name of the file"),
        (("title: Mine", "title: Mine\ndtype: int8"), "float16, float32"),
        (("title: Mine", "title: Mine\nseeds: 0"), "whole number above 0"),
        (("title: Mine", "title: [Mine"), "is not plain YAML (line 3)"),
        (("steps: 7", "optimizer: SGD"), "Adam or AdamW"),
        (("steps: 7", "clip: 0"), "clip: is 0; it must be a number above 0"),
        (("steps: 7", "clip: yes"), "clip: is True; it must be a number above 0"),
        (("title: Mine", "title: Mine\nbuilder: [a.b:c]"), "`builder` is ['a.b:c']; it must be text like"),
        (("title: Mine", "title: Mine\ndigest: 1234"), "`digest` is 1234; it must be text (put quotes"),
    ],
)
def test_a_broken_suite_file_is_named_with_the_remedy(tmp_path, change, said):
    assert change[0] in GOOD
    path = written(tmp_path, GOOD.replace(*change))
    with pytest.raises(SlimbenchError, match=r"mine\.yaml") as error:
        suite.protocol(suite.load(path), registry.task("ks"))
    assert said in str(error.value)


def test_unknown_suites_and_tasks_get_the_nearest_name(tmp_path):
    with pytest.raises(SlimbenchError, match="did you mean 'embedded'"):
        suite.load("embeded")
    with pytest.raises(SlimbenchError, match="no such suite file"):
        suite.load(str(tmp_path / "absent.yaml"))
    chosen = suite.load(written(tmp_path, GOOD))
    with pytest.raises(SlimbenchError, match="pr"):
        suite.protocol(chosen, registry.task("pr"))
