"""The report as files: all there, not drawn twice, and clear where it cannot be made."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
from fake_records import UPSTREAMS, build, fake

from harness import records
from harness.interface import SlimbenchError
from leaderboards import figures, overall, report
from leaderboards.board import board
from leaderboards.depth_width import shapes
from leaderboards.report import Options
from leaderboards.style import styled
from leaderboards.tradeoff_figure import SAME_SUITE

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
    for figure in ("results", "depth_width", "tradeoff_params", "tradeoff_bytes", "layer_weights"):
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


def test_a_pattern_chooses_as_the_list_of_its_names_does(results, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    report.write(results, one, upstreams=["*wavlm*"])
    report.write(results, two, upstreams=["wavlm_mini", "distilled_wavlm"])
    assert (one / "report.md").read_text() == (two / "report.md").read_text()
    assert "fbank" not in (one / "report.md").read_text()
    with pytest.raises(SlimbenchError, match=r"has the upstream 'nobody\*'"):
        report.write(results, one, upstreams=["nobody*"])


@pytest.fixture
def bare(monkeypatch, quick):
    """Without any figures."""
    monkeypatch.setattr("leaderboards.figures.published_figures", lambda *_: [])


def test_without_records_there_are_the_published_rows_and_the_accepted_ones(tmp_path, bare):
    files = report.write(tmp_path, tmp_path / "out", options=Options(published=True))
    names = [path.relative_to(tmp_path / "out").as_posix() for path in files]
    assert all(name == "report.md" or name.startswith("published/table_") for name in names)
    assert "published/table_results.csv" in names
    accepted = report.write(tmp_path, tmp_path / "out", options=Options(accepted=True))
    text = accepted[0].read_text(encoding="utf-8")
    assert "## Suite embedded" in text
    assert "## Published rows" not in text
    assert not (tmp_path / "out" / "published" / "table_results.csv").exists()


def test_options_change_the_report_and_nothing_else_does(tmp_path, bare, monkeypatch):
    for name, value in (("fbank", 10.0), ("wavlm_mini", 90.0)):
        records.save(fake(name, "ks", value), tmp_path)
    drawn = []
    monkeypatch.setattr(report, "_draw", lambda *_: drawn.append(1) or [_touch(tmp_path / "out" / "report.md")])
    for options in (None, Options(), Options(weighting="slim_z"), Options(weighting="slim_z"), Options(tolerance=0.1)):
        report.write(tmp_path, tmp_path / "out", options=options)
    assert len(drawn) == 3
    monkeypatch.setattr(report, "_code", lambda: "new published rows")
    report.write(tmp_path, tmp_path / "out", options=Options(tolerance=0.1))
    assert len(drawn) == 4


def _touch(path):
    path.parent.mkdir(exist_ok=True)
    path.write_text("x", encoding="utf-8")
    return path


def test_the_code_covers_published_rows_and_weightings(monkeypatch):
    read = Path.read_bytes
    seen = set()
    monkeypatch.setattr(Path, "read_bytes", lambda path: seen.add(path) or read(path))
    first = report._code()
    here = Path(report.__file__).parent
    names = {path.relative_to(here).as_posix() for path in seen if here in path.parents}
    assert {
        "published/depth_width.yaml",
        "weights/slim_mean.yaml",
        "depth_width/shapes.py",
        "published/loader.py",
    } <= names
    assert not any(name.startswith(("site/", "records/")) for name in names)
    assert {path.name for path in seen if here not in path.parents} == {"show.py", "stats.py", "metrics.py"}
    changed = here / "published" / "depth_width.yaml"
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * (path == changed))
    assert report._code() != first


def test_published_systems_and_tasks_can_be_chosen(results, tmp_path, bare):
    report.write(results, tmp_path, (), ["HuBERT Base", "fbank"], ["ks"], options=Options(published=True))
    text = (tmp_path / "published" / "table_results.md").read_text(encoding="utf-8")
    assert "HuBERT Base" in text
    assert "DistilHuBERT" not in text
    assert "KS" in text
    assert "ASR" not in text
    assert "fbank" in (tmp_path / "one" / "table_results.md").read_text(encoding="utf-8")
    with pytest.raises(SlimbenchError, match=r"has the upstream 'HuBERT Vase': use .* a published system"):
        report.write(results, tmp_path, (), ["HuBERT Vase"], options=Options(published=True))
    report.write(results, tmp_path, ["one"], options=Options(published=True))
    assert not (tmp_path / "published" / "table_results.md").exists()


def test_a_wrong_weighting_or_tolerance_is_an_error(results, tmp_path):
    with pytest.raises(SlimbenchError, match="superb_s is a score of published values"):
        report.write(results, tmp_path, options=Options(weighting="superb_s"))
    parser = argparse.ArgumentParser()
    report.add_verb(parser.add_subparsers())
    options = parser.parse_args(["report", "--results", str(results), "--tolerance", "-3"])
    with pytest.raises(SlimbenchError, match="--tolerance -3"):
        options.run(options)


def test_defaults_are_those_of_the_rooms():
    assert (Options.weighting, Options.tolerance) == (overall.DEFAULT, shapes.TOLERANCE)
    assert report.SUPERB == SAME_SUITE


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
