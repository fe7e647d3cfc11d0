"""The page as files: well-formed, whole, true to the records, and deaf to hostile text."""

import argparse
import json
import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import hostile_text as hostile
import html5lib
import pytest
from fake_records import SCORES, STUDENTS, TASKS, UPSTREAMS, build
from hypothesis import given
from hypothesis import strategies as st

from harness import records
from harness.interface import SlimbenchError
from harness.show import interval, number
from leaderboards.published import MEASURED, PUBLISHED, published
from leaderboards.site import build as site
from leaderboards.site import charts, links, scales, verb
from leaderboards.site.entries import Column, content
from leaderboards.site.published import overall_of, published_entries
from leaderboards.submissions import verification

FEW = {name: UPSTREAMS[name] for name in ("fbank", "wavlm_mini", "distilled_wavlm")}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for record in [*build("one"), *build("two", upstreams=FEW, tasks=("asr", "ks"))]:
        records.save(record, folder)
    return folder


@pytest.fixture(scope="module")
def page(results):
    return site.write(results, results / "site").parent


@pytest.fixture(scope="module")
def bad_page(tmp_path_factory):
    """A page of hostile text only, past the loader of published rows, which would refuse most of it."""
    folder = tmp_path_factory.mktemp("hostile")
    for record in hostile.records():
        records.save(record, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "published_entries", lambda: (list(hostile.published()), list(hostile.TEXTS)))
        return site.write(folder, folder / "site").parent


@cache
def parse(path):
    """The tree of a page; a page with any error of HTML5 is refused."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return parser.parse(path.read_text(encoding="utf-8"))


def elements(page):
    for path in sorted(page.rglob("*.html")):
        for element in parse(path).iter():
            if isinstance(element.tag, str):
                yield path, element


def addresses(page):
    for path, element in elements(page):
        for name, value in element.attrib.items():
            if (name[1] if isinstance(name, tuple) else name) in ("href", "src", "data-record", "action"):
                yield path, element, value


@pytest.mark.parametrize("which", ["page", "bad_page"])
def test_pages_are_html5_with_unique_ids(request, which):
    folder = request.getfixturevalue(which)
    assert len(list(folder.rglob("*.html"))) > 8
    for path in folder.rglob("*.html"):
        ids = Counter(e.attrib["id"] for e in parse(path).iter() if isinstance(e.tag, str) and "id" in e.attrib)
        assert not [name for name, count in ids.items() if count > 1], path


@pytest.mark.parametrize("which", ["page", "bad_page"])
def test_every_link_leads_somewhere(request, which):
    folder = request.getfixturevalue(which)
    ids = {}
    for path, element in elements(folder):
        ids.setdefault(path, set()).add(element.attrib.get("id"))
    inside = 0
    for path, element, value in addresses(folder):
        parts = urlsplit(value)
        if parts.scheme in ("https", "http"):
            assert element.tag == "a", value
            continue
        if value == "data:,":
            continue
        assert (parts.scheme, parts.netloc) == ("", ""), value
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        assert target.is_file(), (path, value)
        assert folder.resolve() in target.parents, (path, value)
        if parts.fragment:
            assert unquote(parts.fragment) in ids[target], (path, value)
        inside += 1
    assert inside > 200


@pytest.mark.parametrize("which", ["page", "bad_page"])
def test_nothing_is_inline_and_the_policy_is_on_every_page(request, which):
    for path, element in elements(request.getfixturevalue(which)):
        names = {name if isinstance(name, str) else name[1] for name in element.attrib}
        assert not {name for name in names if name.startswith("on") or name in ("style", "srcdoc", "formaction")}, path
        assert element.tag not in ("style", "iframe", "object", "embed", "base", "img", "foreignObject")
        if element.tag == "script":
            assert element.attrib["src"]
            assert not element.text
    for path in request.getfixturevalue(which).rglob("*.html"):
        found = [e.attrib["content"] for e in parse(path).iter("meta") if "http-equiv" in e.attrib]
        assert found == [site.POLICY]
    assert "unsafe" not in site.POLICY
    assert "default-src 'none'" in site.POLICY


def test_hostile_text_is_there_as_text(bad_page):
    found = "".join("".join(parse(path).itertext()) for path in bad_page.rglob("*.html"))
    for text in hostile.TEXTS[:6] + hostile.TEXTS[7:]:
        assert text in found
    assert hostile.NAME in found
    assert not [char for char in found if unicodedata.category(char) in ("Cf", "Cc") and char not in "\n"]


def test_hostile_addresses_do_not_become_links(bad_page):
    outside = {value for _, _, value in addresses(bad_page) if ":" in value} - {"data:,"}
    assert outside <= {site.vendor()["source"]}


def cells(page, suite):
    """Texts of the scores of one suite on the first page: by system and heading."""
    tree = parse(page / "index.html")
    head = ["".join(th.itertext()) for th in tree.find(".//table[@id='board']/thead").findall("tr")[1]]
    found = {}
    for row in tree.findall(".//table[@id='board']/tbody/tr"):
        if row.attrib["data-suite"] == suite:
            name = row.find("th/a").find("bdi").text
            found |= {(name, title): cell for title, cell in zip(head, row, strict=True)}
    return found


def test_the_table_says_what_the_records_say(page, results):
    heading = {"wer": "WER ↓", "per": "PER ↓", "accuracy": "Acc ↑", "eer": "EER ↓"}
    shown = cells(page, "one")
    made = [record for record in records.load_all(results) if record.suite == "one"]
    assert len(made) == len(UPSTREAMS) * len(TASKS)
    for record in made:
        cell = shown[record.upstream["name"], f"{record.task.upper()} {heading[record.metric]}"]
        link = cell.find("a")
        assert link.text == number(record.value)
        assert float(cell.attrib["data-sort"]) == pytest.approx(record.value, abs=1e-3)
        assert cell.find("small").text == interval(record.ci95)
        assert f"95 % interval {interval(record.ci95)}" in link.attrib["data-tip"]
        copy = page / unquote(link.attrib["data-record"])
        assert records.digest(records.load(copy)) == records.digest(record)


def test_best_and_second_are_those_of_the_suite(page):
    shown = cells(page, "one")
    for place, (task, (metric, higher)) in enumerate(TASKS.items()):
        title = next(name for _, name in shown if name.startswith(task.upper()))
        values = {name: round(score[place], 1) for name, score in SCORES.items() if name in UPSTREAMS}
        order = sorted(set(values.values()), reverse=higher)
        for name, value in values.items():
            names = shown[name, title].find("a").attrib["class"].split()
            assert ("best" in names) == (value == order[0]), (metric, name)
            assert ("second" in names) == (value == order[1]), (metric, name)


def test_published_rows_are_all_there_and_never_pass_for_measured(page):
    shown = cells(page, "superb")
    rows = {row.system: row for row in published().rows if row.metrics()}
    assert {name for name, _ in shown} == set(rows)
    for name, row in rows.items():
        if "asr.wer" in row.metrics():
            link = shown[name, "ASR WER ↓"].find("a")
            assert float(link.text) == row.value("asr.wer")
            assert "published" in link.attrib["class"]
            assert "data-record" not in link.attrib
            signs = [sign.text for sign in link.findall("span")]
            assert signs == [row.values["asr.wer"].mark.sign] * bool(row.values["asr.wer"].mark.sign)
    silent = [row.system for row in published().rows if not row.metrics()]
    plain = "".join(parse(page / "index.html").itertext())
    assert silent
    assert not [name for name in silent if name not in plain]


def test_colours_are_those_of_the_marks():
    style = (Path(site.HERE) / "assets" / "site.css").read_text(encoding="utf-8")
    for origin in (MEASURED, PUBLISHED):
        assert f"--{origin.name}: light-dark({origin.colour}, {origin.colour_dark})" in style


def test_the_same_records_give_the_same_bytes_and_old_files_go(results, page):
    before = {path: path.read_bytes() for path in page.rglob("*") if path.is_file()}
    (page / "notes.txt").write_text("mine")
    listed = json.loads((page / site.LIST).read_text())
    (page / "tasks" / "old.html").write_text("old")
    (page / site.LIST).write_text(json.dumps([*listed, "tasks/old.html", "../keep.json", 3]))
    (results / "keep.json").write_text("{}")
    site.write(results, page)
    assert {path: path.read_bytes() for path in before} == before
    assert not (page / "tasks" / "old.html").exists()
    assert (page / "notes.txt").exists()
    assert (results / "keep.json").exists()
    (page / "notes.txt").unlink()


def test_the_page_does_not_disturb_its_records(results, page):
    assert page.parent == results
    assert len(records.load_all(results)) == len(UPSTREAMS) * len(TASKS) + len(FEW) * 2


def test_without_records_the_published_rows_stand_alone(tmp_path):
    first = site.write(tmp_path / "none", tmp_path / "page")
    assert 'data-origin="published"' in first.read_text(encoding="utf-8")
    with pytest.raises(SlimbenchError, match="no records"):
        site.write(tmp_path / "none", tmp_path / "page", published=False)


def test_the_carried_library_is_the_package_s_own(monkeypatch, tmp_path):
    assert site.vendor()["licence"] == "Unlicense"
    folder = tmp_path / "assets" / "vendor"
    folder.mkdir(parents=True)
    for path in (site.HERE / "assets" / "vendor").iterdir():
        (folder / path.name).write_bytes(path.read_bytes() + b" ")
    monkeypatch.setattr(site, "HERE", tmp_path)
    with pytest.raises(SlimbenchError, match="install it again"):
        site.vendor()


def test_points_stand_where_their_numbers_say():
    rows, _ = site.published_entries()
    found = content(build("superb"), rows)
    column = Column("asr", "WER", False)
    chart = charts.tradeoff(found.entries, column, "superb", "params")
    entries = {(e.name, e.origin): e for e in found.entries if e.params and column in e.scores}
    assert len(chart.dots) == len(entries) > 50
    for dot in chart.dots:
        entry = entries[dot.tip.name, dot.origin]
        aside = abs(dot.x - chart.x.at(entry.params / 1e6))
        assert aside < 8 if entry.origin == "measured" else aside == 0
        assert dot.y == chart.y.at(entry.scores[column].value)


@given(st.lists(st.text(min_size=1, max_size=60), min_size=2, max_size=8, unique=True))
def test_names_never_share_a_file(names):
    made = [links.slug(name) for name in names]
    assert len({name.lower() for name in made}) == len(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-") and len(name) < 80 for name in made)


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=9), st.booleans())
def test_axes_keep_the_order_and_their_ticks_inside(values, turned):
    ends = (300.0, 20.0) if turned else (20.0, 300.0)
    for axis in (scales.linear(values, *ends), scales.logarithmic(values, *ends)):
        places = [axis.at(value) for value in sorted(values)]
        assert places == sorted(places, reverse=turned)
        assert all(20.0 <= place <= 300.0 for place in places)
        assert 1 <= len(axis.ticks) <= 16
        assert all(axis.low <= tick <= axis.high for tick in axis.ticks)


def test_the_front_of_the_figure_is_the_front_by_brute_force():
    found = content(
        build("one", upstreams=UPSTREAMS | STUDENTS, scores=SCORES | {n: SCORES["logmel"] for n in STUDENTS})
    )
    column = Column("asr", "WER", False)
    chart = charts.tradeoff(found.entries, column, "one", "params")
    line = next(line for line in chart.lines if line.kind == "front")
    placed = {entry.name: (entry.params, entry.scores[column].value) for entry in found.entries}
    best = {
        name for name, (cost, score) in placed.items()
        if not any((c <= cost and s <= score and (c, s) != (cost, score)) for c, s in placed.values())
    }  # fmt: skip
    corners = {point for point in line.points[:-1]}
    for name, (cost, score) in placed.items():
        at = (chart.x.at(cost / 1e6) if cost else chart.x.start, chart.y.at(score))
        assert (name not in best) or at in corners
    assert 1 < len(best) < len(placed)
    assert "logmel" in best
    assert "thin_wavlm" not in best  # as good as log-mel, and dearer


def test_names_beside_points_lie_on_nothing():
    """No name of the published figures lies on another name, on a point or on a line; boxes are drawn anew here."""
    entries, notes = published_entries()
    found = content([], entries, notes, overall_of)
    names = 0
    for column in found.columns():
        chart = charts.tradeoff(found.entries, column, "superb", "params")
        boxes = []
        for dot in chart.dots if chart else ():
            if dot.label:
                wide = 6.4 * len(dot.label)
                left, y = (dot.x - 8 - wide, dot.y) if dot.value == "left" else (dot.x + 8, dot.y - 8)
                boxes.append((left, left + wide, y - 4.5, y + 4.5))
        names += len(boxes)
        for index, (left, right, low, high) in enumerate(boxes):
            assert all(right <= b[0] or b[1] <= left or high <= b[2] or b[3] <= low for b in boxes[index + 1 :])
            assert not [d for d in chart.dots if left < d.x < right and low < d.y < high]
            for line in chart.lines:
                for (x1, y1), (x2, y2) in zip(line.points, line.points[1:], strict=False):
                    steps = [(x1 + (x2 - x1) * k / 99, y1 + (y2 - y1) * k / 99) for k in range(100)]
                    assert not [p for p in steps if left < p[0] < right and low < p[1] < high], (column, line)
    assert names > 20


def test_the_verb(results, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    verb.add_verb(parser.add_subparsers())
    options = parser.parse_args(["site", "--results", str(results), "--out", str(tmp_path / "s"), "--no-published"])
    options.run(options)
    assert str(tmp_path / "s" / "index.html") in capsys.readouterr().out
    assert 'data-origin="published"' not in (tmp_path / "s" / "index.html").read_text(encoding="utf-8")


def test_accepted_submissions_stand_beside_local_records_and_keep_their_seal(tmp_path):
    first = site.write(tmp_path / "none", tmp_path / "page", published=False, accepted=True)
    accepted = verification.accepted()
    names = {record.upstream["name"] for record in accepted}
    assert {"wavlm_mini", "distilled_wavlm"} <= names
    assert all(name in first.read_text(encoding="utf-8") for name in names)
    copies = [records.load(file) for file in (first.parent / "records").rglob("*.json")]
    assert {records.digest(copy) for copy in copies} <= {records.digest(record) for record in accepted}
    assert len(copies) >= 5 * 7
