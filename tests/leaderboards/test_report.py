"""The report as files: all there, not drawn twice, and clear where it cannot be made."""

import argparse
import json
import subprocess
import sys

import pytest
from fake_records import UPSTREAMS, build, fake

from harness import records
from harness.interface import SlimbenchError
from leaderboards import figures, report
from leaderboards.board import board
from leaderboards.style import styled

SMALL = ("fbank", "wavlm_mini", "distilled_wavlm")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for record in build("one", upstreams={name: UPSTREAMS[name] for name in SMALL}, tasks=("pr", "ks")):
        records.save(record, folder)
    report.write(folder, folder / "report")
    return folder


def test_all_files_are_there_and_not_empty(results):
    files = report.write(results, results / "report")
    assert files[0] == results / "report" / "report.md"
    assert all(path.stat().st_size > 100 for path in files)
    names = {path.relative_to(results / "report").as_posix() for path in files}
    for table in ("results", "depth_width", "tradeoff", "gain_kept", "costs", "parameters", "learning_rates"):
        assert {f"one/table_{table}.{suffix}" for suffix in ("md", "csv", "tex")} <= names
    for figure in ("results", "depth_width", "tradeoff_params", "tradeoff_macs", "tradeoff_rtf", "layer_weights"):
        assert {f"one/figure_{figure}.{suffix}" for suffix in ("pdf", "png")} <= names
    assert {path for path in (results / "report").rglob("*") if path.is_file()} == {
        *files, results / "report" / report.STATE,
    }  # fmt: skip
    assert len(records.load_all(results)) == 6


def test_figures_have_the_right_format(results):
    folder = results / "report" / "one"
    assert (folder / "figure_results.pdf").read_bytes().startswith(b"%PDF-")
    png = (folder / "figure_results.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20], "big") == 1400  # 7 inches at 200 dpi


def test_the_page_shows_every_table_and_figure(results):
    page = (results / "report" / "report.md").read_text(encoding="utf-8")
    for path in (results / "report").rglob("*.png"):
        assert f"({path.relative_to(results / 'report').as_posix()})" in page
    for path in (results / "report").rglob("*.md"):
        if path.name != "report.md":
            body = path.read_text(encoding="utf-8").split("\n", 1)[1]
            assert body in page


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_drawn_twice(results, monkeypatch):
    before = stamps(results / "report")
    monkeypatch.setattr(report, "_draw", lambda *_: pytest.fail("drawn again"))
    report.write(results, results / "report")
    assert stamps(results / "report") == before


@pytest.fixture
def quick(monkeypatch):
    """Without figures, which other tests look at."""
    monkeypatch.setattr("leaderboards.figures.figures", lambda *_: [])


def test_a_new_record_and_a_filter_change_the_report(tmp_path, quick):
    records.save(fake("fbank", "ks", 10.0, suite="one"), tmp_path)
    first = report.write(tmp_path, tmp_path / "out")
    records.save(fake("logmel", "ks", 20.0, suite="two"), tmp_path)
    both = report.write(tmp_path, tmp_path / "out")
    assert set(first) < set(both)
    assert "logmel" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert report.write(tmp_path, tmp_path / "out", suite=["one"]) == first
    assert not (tmp_path / "out" / "two" / "table_results.md").exists()
    assert "logmel" not in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_a_lost_file_is_made_again_with_the_same_bytes(tmp_path, quick):
    records.save(fake("fbank", "ks", 10.0), tmp_path)
    lost = report.write(tmp_path, tmp_path / "out")[1]
    before = lost.read_bytes()
    lost.unlink()
    report.write(tmp_path, tmp_path / "out")
    assert lost.read_bytes() == before


def test_a_figure_drawn_again_has_the_same_bytes(results, tmp_path):
    shown = board("one", [r for r in records.load_all(results) if r.suite == "one"])
    with styled():
        plot = next(plot for plot in figures.figures(shown) if plot.name == "tradeoff_params")
        made = report._write_plot(plot, tmp_path)
    for path in made:
        assert path.read_bytes() == (results / "report" / "one" / path.name).read_bytes()


def test_an_interrupted_report_is_drawn_again(tmp_path, quick, monkeypatch):
    records.save(fake("fbank", "ks", 10.0), tmp_path)
    made = report.write(tmp_path, tmp_path / "out")
    records.save(fake("logmel", "ks", 20.0), tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(report, "_write_table", _fail)
        with pytest.raises(RuntimeError):
            report.write(tmp_path, tmp_path / "out")
    assert report.write(tmp_path, tmp_path / "out") == made
    assert "logmel" in made[0].read_text(encoding="utf-8")


def _fail(*_):
    raise RuntimeError


def test_what_cannot_be_reported(results, tmp_path):
    with pytest.raises(SlimbenchError, match="There are no records under"):
        report.write(tmp_path, tmp_path / "out")
    with pytest.raises(SlimbenchError, match="has the upstream 'nobody': use distilled_wavlm, fbank, wavlm_mini"):
        report.write(results, tmp_path / "out", upstreams=["nobody"])
    with pytest.raises(SlimbenchError, match="has the task 'asr': use ks, pr"):
        report.write(results, tmp_path / "out", tasks=["asr"])
    assert not (tmp_path / "out").exists()


def test_the_verb(results, tmp_path, capsys, quick):
    parser = argparse.ArgumentParser()
    report.add_verb(parser.add_subparsers())
    given = ["report", "--results", str(results), "--out", str(tmp_path / "o"), "--suite", "one", "--tasks", "pr,ks"]
    options = parser.parse_args(given)
    assert not options.run(options)
    (printed,) = capsys.readouterr().out.splitlines()
    assert printed.startswith(f"report: {tmp_path / 'o' / 'report.md'} (")
    files = json.loads((tmp_path / "o" / report.STATE).read_text(encoding="utf-8"))["files"]
    tables, figures = (sum(f"/{kind}_" in name for name in files) for kind in ("table", "figure"))
    assert len(files) == 1 + tables + figures
    assert f"({tables} table files, {figures} figure files beside it)" in printed
    assert json.loads((tmp_path / "o" / report.STATE).read_text(encoding="utf-8"))["files"][0] == "report.md"


def test_the_verb_imports_nothing_heavy():
    code = "import sys, leaderboards.report; print([m for m in ('pandas', 'matplotlib', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
