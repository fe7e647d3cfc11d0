"""The command line: what is instant, what is exact, and how errors end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import partial

import pytest
import toy_data

from harness import cli, registry

SUPERB_HEADS = {
    "asr": 42_828_832,
    "pr": 215_882,
    "ks": 199_948,
    "ic": 203_032,
    "sid": 518_371,
    "asv": 6_730_204,
    "er": 197_892,
}
"""Head parameters at width 768 (protocol section 4.0)."""

LIGHT = """
import sys
from harness.cli import main
try:
    main({arguments})
except SystemExit:
    pass
heavy = {{"torch", "numpy", "pandas", "matplotlib", "transformers", "scipy"}} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["bench", "--help"], *(["list", what] for what in ("upstreams", "tasks", "suites"))]
)
def test_help_and_lists_import_nothing_heavy(arguments):
    program = LIGHT.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_help_says_of_every_verb_what_it_does(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert len(registry.verbs()) >= 16
    for name in registry.verbs():
        assert re.search(rf"^    {name}\s+\S+ \S+", text, re.MULTILINE), name
    assert "see 'slimbench" not in text


def test_a_verb_that_cannot_be_loaded_says_so_in_the_list_and_takes_no_other_along(capsys, monkeypatch):
    verbs = registry.verbs()
    gone = partial(registry.resolve, "gone_100%.verb:add_verb")
    monkeypatch.setattr(registry, "verbs", lambda: {**verbs, "sing": lambda _: gone()})
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "sing Cannot load gone_100%.verb:add_verb: No module named" in text
    assert "sweep distil and bench all students" in text
    assert cli.main(["list", "suites"]) == 0
    assert cli.main(["sing"]) == 2


def listed(capsys, *arguments):
    assert cli.main(["list", *arguments, "--json"]) == 0
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)}


def test_heads_at_width_768_have_exactly_superb_s_parameters(capsys):
    rows = listed(capsys, "tasks", "--width", "768")
    assert {name: row["head_parameters"] for name, row in rows.items()} == SUPERB_HEADS


def test_head_parameters_follow_the_width(capsys):
    ks = listed(capsys, "tasks", "--width", "384")["ks"]
    assert ks["head_parameters"] == 256 * 384 + 256 + 256 * 12 + 12


def test_tasks_are_listed_without_width_too(capsys):
    assert set(listed(capsys, "tasks")) == set(SUPERB_HEADS)


def test_upstreams_and_those_whose_weights_are_here(capsys, tmp_path, monkeypatch):
    (tmp_path / "absent.yaml").write_text(
        "name: absent\ntitle: Absent\nadapter: a.b:c\nweights: no.bin\nlicence: MIT\nsource: none\nexposes: none\n"
    )
    monkeypatch.setenv("SLIMBENCH_CARDS", str(tmp_path))
    every, here = listed(capsys, "upstreams"), listed(capsys, "upstreams", "--available")
    assert set(every) == set(registry.cards())
    assert set(here) == {name for name, row in every.items() if row["available"]}
    assert "absent" in set(every) - set(here)
    assert {"fbank", "logmel", "random_mini"} <= set(here)


def test_suites_say_whether_they_need_data(capsys):
    rows = listed(capsys, "suites")
    assert rows["real-mini"]["needs_data"]
    assert not rows["embedded"]["needs_data"]
    assert rows["superb"]["protocols"] == ["superb", "fast"]


def test_lists_as_text_have_one_line_per_row(capsys):
    assert cli.main(["list", "tasks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(SUPERB_HEADS)
    assert lines[0].startswith("name")


def test_no_records_are_no_error(capsys, tmp_path):
    assert cli.main(["results", "--results", str(tmp_path / "none"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_bad_input_is_one_sentence_and_status_2(capsys):
    assert cli.main(["bench", "--upstream", "fbnk"]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'fbank'" in error
    assert error.count("\n") == 1


def test_a_cache_that_is_a_file_is_one_sentence(capsys, tmp_path):
    suite = toy_data.write(tmp_path / "data")
    (tmp_path / "file").write_text("")
    options = ["--upstream", "fbank", "--suite", str(suite), "--data", str(tmp_path / "data"), "--tasks", "ks"]
    assert cli.main(["bench", *options, "--cache", str(tmp_path / "file" / "cache")]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("slimbench: ")]
    assert len(said) == 1
    assert str(tmp_path / "file") in said[0]
    assert "not a directory; correct the path" in said[0]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "a/b.csv"), "slimbench: a/b.csv: permission denied; correct"),
        (OSError(28, "No space left on device"), "slimbench: the disk: no space left; make room"),
    ],
)
def test_other_errors_of_files_are_one_sentence(capsys, monkeypatch, error, said):
    monkeypatch.setattr(cli.listing, "suites", raising(error))
    assert cli.main(["list", "suites"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(said)
    assert shown.count("\n") == 1


def test_errors_that_concern_no_file_are_not_hidden(monkeypatch):
    monkeypatch.setattr(cli.listing, "suites", raising(OSError("a defect")))
    with pytest.raises(OSError, match="a defect"):
        cli.main(["list", "suites"])


def raising(error):
    def fail(*_arguments):
        raise error

    return fail


def test_a_reader_that_has_gone_is_no_error():
    read, write = os.pipe()
    os.close(read)
    program = "import sys; from harness.cli import main; sys.exit(main(['list', 'tasks']))"
    done = subprocess.run([sys.executable, "-u", "-c", program], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "arguments", [["bench"], ["bnch"], ["list", "cards"], ["plan", "--upstream", "a", "--seeds", "0"]]
)
def test_wrong_usage_ends_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert "slimbench" in capsys.readouterr().err


def test_a_verb_of_a_plug_in_shows_its_own_options(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["report", "--help"])
    assert end.value.code == 0
    assert "--out" in capsys.readouterr().out
