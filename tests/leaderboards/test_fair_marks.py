"""Who is marked best, what times may stand side by side, which tasks form a group: one answer for report and page."""

import random

import numpy as np
import pytest
from fake_records import SCORES, STUDENTS, UPSTREAMS, build, fake

from leaderboards import costs, figures, groups, published_tables, ranking, report, tables
from leaderboards.board import TASK_ORDER, board
from leaderboards.depth_width import shapes
from leaderboards.published import PUBLISHED, RANKED, published
from leaderboards.published.marks import MARKS
from leaderboards.render import Cell, Table, latex
from leaderboards.shape import depth_width
from leaderboards.site import charts
from leaderboards.site.entries import Column, content
from leaderboards.site.published import overall_of, published_entries
from leaderboards.style import LEAST_RANGE, freeze, looks, off_scale, styled
from leaderboards.tradeoff import front
from leaderboards.tradeoff_figure import SHAPES, published_tradeoff


def measured(values, task="asr"):
    facts = UPSTREAMS["wavlm_mini"]
    return board("s", [fake(name, task, value, half=0.0, facts=facts) for name, value in values.items()])


def marked(shown, task="asr"):
    cells = tables.score_cells(shown, shown.upstreams)
    return {name: cells[name, task].mark for name in shown.upstreams if cells[name, task].mark}


def test_equal_values_and_those_that_the_digits_cannot_tell_are_not_marked():
    assert marked(measured({"a": 100.0, "b": 100.0, "c": 100.0})) == {}
    assert marked(measured({"a": 99.94, "b": 100.0, "c": 100.0})) == {}
    assert marked(measured({"a": 50.0, "b": 60.0, "c": 60.0})) == {"a": "best", "b": "second", "c": "second"}
    assert marked(measured({"a": 50.0, "b": 60.04, "c": 60.06})) == {"a": "best"}
    assert marked(measured({"a": 50.0, "b": 50.2, "c": 60.0})) == {"a": "best", "b": "second"}


def brute(values, higher):
    """Who is best beyond doubt, by looking at all pairs."""
    sign = 1 if higher else -1
    top = max(sign * float(shown.text) for shown in values.values())
    best = {name for name, shown in values.items() if sign * float(shown.text) == top}
    rest = set(values) - best
    sure = all(
        abs(values[one].value - values[two].value) >= values[one].precision + values[two].precision - 1e-9
        for one in best
        for two in rest
    )
    return best if rest and sure else set()


@pytest.mark.parametrize("higher", [True, False])
def test_the_best_by_brute_force(higher):
    rng = random.Random(5)
    seen = set()
    for _ in range(400):
        values = {}
        for name in range(rng.randrange(1, 6)):
            value, precision = rng.uniform(90.0, 90.6), rng.choice([0.005, 0.05])
            values[name] = ranking.Shown(f"{value:.1f}", value, precision)
        best = {name for name, mark in ranking.marks(values, higher).items() if mark == "best"}
        # only the next level is looked at; what lies further away is not nearer
        expected = brute(values, higher)
        assert expected <= best
        assert best <= {n for n, s in values.items() if float(s.text) == (max if higher else min)(
            float(o.text) for o in values.values())}  # fmt: skip
        seen.add((bool(best), bool(expected)))
    assert {(True, True), (False, False)} <= seen


def test_page_and_report_have_the_same_winners_and_no_paper_edition_wins():
    rows = published().rows
    table = published_tables.results(rows)
    entries, notes = published_entries()
    page = {entry.name: entry for entry in content([], entries, notes, overall_of).entries}
    columns = {index: name for index, name in enumerate(_quantities(rows), 3)}
    compared = 0
    for cells in table.rows:
        entry = page[cells[0].text.removesuffix(PUBLISHED.sign)]
        by_column = {f"{column.task}.{column.metric}".lower(): score for column, score in entry.scores.items()}
        for index, name in columns.items():
            score = by_column.get(name.replace("accuracy", "acc"))
            if score is not None:
                assert score.mark == cells[index].mark, (entry.name, name)
                assert score.text + score.sign == cells[index].text
                compared += bool(score.mark)
        if not next(row for row in rows if row.system == entry.name).ranked:
            assert not any(cell.mark for cell in cells)
    assert compared >= 20
    assert RANKED in table.caption


def _quantities(rows):
    there = {name for row in rows for name in row.metrics()}
    return [name for name in published_tables.ORDER if name in there]


def timed(name, threads, processor, factor, device="cpu"):
    record = fake(name, "ks", 50.0, facts=UPSTREAMS["wavlm_mini"])
    record.cost.update(threads=threads, device=device, real_time_factor=factor)
    record.provenance["processor"] = processor
    return record


def test_times_of_another_condition_are_left_out_and_named():
    usual = [timed(f"u{i}", 1, "Chip A", 0.01 * (i + 1)) for i in range(3)]
    others = [
        timed("two", 2, "Chip A", 0.001),
        timed("chip", 1, "Chip B", 0.002),
        timed("gpu", 1, "Chip A", 1e-4, "cuda"),
    ]
    shown = board("s", [*usual, *others])
    assert costs.timing(shown) == "on cpu, 1 thread, Chip A"
    for table in (tables.costs(shown), tables.tradeoff(shown)):
        factors = {cells[0].text: cells[3].text for cells in table.rows}
        assert factors == {
            "u0": "0.0100", "u1": "0.0200", "u2": "0.0300", "two": "–", "chip": "–", "gpu": "–",
        }  # fmt: skip
        assert "cpu, 1 thread, Chip A" in table.caption
        assert "The real-time factor of two that was measured on cpu, 2 threads, Chip A is not shown." in table.notes
        assert any("gpu that was measured on cuda" in note for note in table.notes)
    plot = figures.tradeoff(shown, looks(shown.fixed(), shown.learned()), "real_time_factor")
    assert "Timed on cpu, 1 thread, Chip A." in plot.caption
    assert "two" in plot.caption.split("Not shown")[1]
    drawn = {float(line.get_xdata()[0]) for line in plot.figure.axes[0].lines if len(line.get_xdata()) == 1}
    assert drawn == {0.01, 0.02, 0.03}


def test_a_record_under_both_conditions_keeps_the_usual_one():
    one, two = timed("a", 1, "A", 0.01), timed("a", 2, "A", 0.09)
    two.__dict__["task"] = "er"
    shown = board("s", [one, two, timed("b", 1, "A", 0.02)])
    assert costs.median_cost(shown, "a", "real_time_factor") == 0.01
    assert "is left out" in costs.other_times(shown)[0]
    assert costs.median_cost(shown, "a", "params") is not None


@pytest.mark.parametrize("what", ["params", "macs_per_second"])
def test_the_front_is_the_same_on_page_and_report_and_begins_with_fixed_features(what):
    scores = SCORES | {"thin_wavlm": SCORES["logmel"], "wide_wavlm": tuple(v - 1 for v in SCORES["distilled_wavlm"])}
    shown = board("s", build("s", upstreams=UPSTREAMS | STUDENTS, scores=scores))
    found = content(build("s", upstreams=UPSTREAMS | STUDENTS, scores=scores))
    with styled():
        plot = figures.tradeoff(shown, looks(shown.fixed(), shown.learned()), what)
    panel = next(axes for axes in plot.figure.axes if axes.get_title("left").startswith("PR"))
    line = next(line for line in panel.lines if line.get_drawstyle() == "steps-post")
    axis = {"params": "params", "macs_per_second": "macs_rate"}[what]
    chart = charts.tradeoff(found.entries, Column("pr", "PER", False), "s", axis)
    steps = next(line for line in chart.lines if line.kind == "front")
    levels = list(dict.fromkeys(y for _, y in steps.points))
    assert levels == [chart.y.at(value) for value in dict.fromkeys(line.get_ydata())]
    assert line.get_ydata()[0] == SCORES["logmel"][1]
    assert "thin_wavlm" not in plot.caption
    assert "first step" in plot.caption
    assert "first step" in chart.caption


def test_a_front_by_brute_force():
    rng = random.Random(3)
    for higher in (True, False):
        for _ in range(100):
            points = {f"p{i}": (float(rng.randrange(1, 6)), float(rng.randrange(6))) for i in range(rng.randrange(7))}
            floors = {f"f{i}": float(rng.randrange(6)) for i in range(rng.randrange(3))}
            both = points | {name: (0.0, value) for name, value in floors.items()}
            sign = 1 if higher else -1
            expected = {
                a for a, (cost, score) in both.items()
                if not any(c <= cost and sign * s >= sign * score and (c, s) != (cost, score) for c, s in both.values())
            }  # fmt: skip
            assert {name for name, *_ in front(points, floors, higher)} == expected


def test_marks_of_published_points_are_shapes_and_footnotes():
    rows = published().rows
    with styled():
        plot = published_tradeoff(rows, "params_m")
        gains = next(p for p in figures.published_figures(rows) if p.name == "published_gains")
    for sign in ("§", "≈"):
        assert next(mark for mark in MARKS.values() if mark.sign == sign).footnote in plot.caption
        drawn = [line for axes in plot.figure.axes for line in axes.lines if line.get_marker() == SHAPES[sign]]
        assert drawn
    assert next(mark for mark in MARKS.values() if mark.sign == "§").footnote in gains.caption
    assert any("§" in tick.get_text() for axes in gains.figure.axes for tick in axes.get_yticklabels())


def test_one_definition_of_groups():
    assert TASK_ORDER == groups.OWN_TASKS == tuple(t for g in groups.GROUPS for t in groups.own(g))
    assert groups.own("content") == ("asr", "pr", "ks")
    assert groups.group_of("ic") == "semantics"
    assert [Column(task, "x", True).group for task in TASK_ORDER] == [groups.group_of(task) for task in TASK_ORDER]
    made = [shapes.Gain(task, "layer", float(place), None, 2) for place, task in enumerate(TASK_ORDER)]
    content_mean, speaker_mean = shapes.group_gains(made)
    assert content_mean.value == np.mean([TASK_ORDER.index(task) for task in ("asr", "pr", "ks")])
    assert speaker_mean.value == np.mean([TASK_ORDER.index(task) for task in ("sid", "asv")])


def test_near_equal_scores_are_not_drawn_as_a_landslide():
    values = dict(zip(UPSTREAMS, (99.94, 100.0, 100.0, 100.0, 99.94), strict=True))
    records = [fake(name, task, value, half=0.0) for name, value in values.items() for task in ("asr", "ks")]
    for record in records:
        record.__dict__["values_per_seed"] = [record.value] * 3
        for trial in record.trials:
            trial["dev"] = record.value
    shown = board("s", records)
    faces = looks(shown.fixed(), shown.learned())
    assert off_scale(shown.fair("asr"), False) == off_scale(shown.fair("ks"), True) == frozenset()
    with styled():
        for plot, axis in ((figures.results(shown, faces), "x"), (figures.learning_rates(shown, faces), "y")):
            freeze(plot.figure)
            for panel in plot.figure.axes[:2]:
                low, high = panel.get_xlim() if axis == "x" else panel.get_ylim()
                assert abs(high - low) >= LEAST_RANGE
        colours = [p.get_facecolor()[0][:3] for p in depth_width(shown, faces).figure.axes[0].collections]
        assert max(np.abs(np.subtract(a, b)).max() for a in colours for b in colours) < 0.1
    found = content(records)
    for column in found.columns():
        chart = charts.ranking(found.entries, column, "embedded")
        assert chart.x.high - chart.x.low >= LEAST_RANGE
        spread = [dot.x for dot in chart.dots]
        assert max(spread) - min(spread) < 0.05 * (chart.x.end - chart.x.start)


def test_the_report_says_that_no_budgets_were_measured_and_where_fidelity_is():
    shown = board("embedded", build())
    lines = " ".join(report._further(shown, tables.tables(shown), 0.05))
    assert "No two students of one teacher and family" in lines
    assert "`slimbench fidelity STUDENT` (`docs/fidelity.md`)" in lines
    assert "distilled\\_wavlm" in lines


def test_captions_say_what_intervals_cover():
    shown = board("embedded", build())
    assert "over test speakers" in tables.results(shown).caption
    assert "spread of probe seeds is not in it" in tables.results(shown).caption
    assert "t-interval over test speakers" in tables.gain_kept(shown).caption
    assert "t-interval over test speakers and probe seeds" in tables.tradeoff(shown).caption
    with styled():
        for plot in figures.figures(shown):
            if "interval" in plot.caption:
                assert "speakers" in plot.caption, plot.name


def test_what_follows_a_number_hangs_in_latex():
    cells = (Cell("a†"), Cell("12.5†"), Cell("3.25≈", mark="best"), Cell("82 %§"), Cell("7.0", letters="ab"))
    text = latex(Table("t", "T", "c", ("S", "a", "b", "c", "d"), (cells,), None))
    assert r"a$\dagger$ & 12.5\rlap{$\dagger$} & \textbf{3.25}\rlap{$\approx$} & 82 \%\rlap{\S{}}" in text
    assert r"7.0\rlap{\textsuperscript{ab}}" in text
