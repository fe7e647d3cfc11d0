"""Figures of shapes, trade-offs and frame periods: what is drawn, and that it can be read."""

import itertools

import numpy as np
import pytest
from drawn_texts import assert_readable, panel_of, texts
from fake_records import UPSTREAMS, build, fake
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from student_records import SHAPES, student, students

from leaderboards import figures
from leaderboards.board import board
from leaderboards.depth_width import shapes
from leaderboards.depth_width.depth_curves import depth_curves
from leaderboards.depth_width.families import Column
from leaderboards.depth_width.heatmap import heat_map
from leaderboards.depth_width.slopes import gains
from leaderboards.periods import frame_period, models
from leaderboards.published import PUBLISHED, published
from leaderboards.resamples import resample
from leaderboards.style import INK, freeze, looks, styled
from leaderboards.tradeoff_figure import published_tradeoff, tradeoff

MANY = {f"d{d}w{w}": (d, w, 12.0 * d * w * w) for d in (2, 4, 6, 8, 12) for w in (64, 96, 128, 160, 192, 256, 320, 384)}
TWINS = SHAPES | {"twin": (3, 192, 1_395_000), "third": (3, 192, 1_401_000)}


@pytest.fixture(autouse=True)
def style():
    with styled():
        yield


def drawn_board(given):
    shown = board("s", students(tasks=("asr", "ks", "sid", "asv", "er"), shapes=given, speakers=8, each=10, seeds=1))
    return shown, resample(shown, 100)


@pytest.fixture(scope="module", params=["known", "many", "twins"])
def case(request):
    return drawn_board({"known": SHAPES, "many": MANY, "twins": TWINS}[request.param])


def test_figures_of_shapes_can_be_read(case):
    shown, drawn = case
    faces = looks(shown.fixed(), shown.learned())
    plots = [plot for plot in figures.shape_figures(shown, faces, drawn) if plot]
    assert [plot.name for plot in plots] == ["depth_width_1", "depth_curves", "gains"]
    for plot in plots:
        freeze(plot.figure)
        assert_readable(plot.name, plot.figure, texts(plot.figure))


def test_published_figures_can_be_read_and_say_so():
    plots = figures.published_figures(published().rows)
    assert {plot.name for plot in plots} == {
        "published_depth_width_1", "published_gains", "published_tradeoff_params", "published_tradeoff_macs",
    }  # fmt: skip
    for plot in plots:
        assert PUBLISHED.footnote in plot.caption
        freeze(plot.figure)
        found = texts(plot.figure)
        assert_readable(plot.name, plot.figure, found)
        assert any(PUBLISHED.sign in text for text, _ in found)


def cells(panel):
    """Filled rectangles by the position of their middle."""
    found = [p for p in panel.patches if isinstance(p, Rectangle) and p.get_fill()]
    return {(p.get_x() + p.get_width() / 2, p.get_y() + p.get_height() / 2): p for p in found}


def test_every_score_has_its_cell_and_darker_is_better():
    shown, drawn = drawn_board(SHAPES)
    (mine,) = shapes.measured_families(shown)
    plot = heat_map(mine, shapes.measured_columns(shown, drawn), 0.05, "x", "")
    widths, depths = sorted({s[1] for s in SHAPES.values()}), sorted({s[0] for s in SHAPES.values()})
    for task, sign in (("asr", -1), ("sid", 1), ("ks", 1)):
        panel = panel_of(plot.figure, task)
        found = cells(panel)
        light = {}
        for name, (depth, width, _) in SHAPES.items():
            spot = min(found, key=lambda at: np.hypot(at[0] - widths.index(width), at[1] - depths.index(depth)))
            assert np.hypot(spot[0] - widths.index(width), spot[1] - depths.index(depth)) < 0.1
            light[name] = sum(found[spot].get_facecolor()[:3])
        assert len(found) == len(SHAPES)
        order = sorted(SHAPES, key=lambda name: sign * shown.cells[name, task].value)
        shades = [light[name] for name in order]
        assert all(a >= b - 1e-9 for a, b in itertools.pairwise(shades)), task
        words = {text.get_text() for text in panel.texts}
        assert {f"{shown.cells[name, task].value:.1f}" for name in SHAPES} <= words


def test_the_best_of_each_budget_is_framed():
    shown, drawn = drawn_board(SHAPES)
    (mine,) = shapes.measured_families(shown)
    plot = heat_map(mine, shapes.measured_columns(shown, drawn), 0.05, "x", "")

    def framed(task):
        found = cells(panel_of(plot.figure, task)).values()
        return sum(p.get_linewidth() > 1 and to_hex(p.get_edgecolor()) == INK for p in found)

    assert framed("ks") == framed("sid") == 2
    assert framed("er") == 0  # all of a budget score the same


def test_students_of_one_shape_share_its_cell():
    shown, drawn = drawn_board(TWINS)
    (mine,) = shapes.measured_families(shown)
    plot = heat_map(mine, shapes.measured_columns(shown, drawn), 0.05, "x", "")
    boxes = [p.get_bbox() for p in cells(panel_of(plot.figure, "ks")).values()]
    assert len(boxes) == len(TWINS)
    for i, one in enumerate(boxes):
        for two in boxes[:i]:
            assert one.x1 <= two.x0 or two.x1 <= one.x0 or one.y1 <= two.y0 or two.y1 <= one.y0


def test_gains_are_drawn_where_the_table_has_them():
    shown, drawn = drawn_board(SHAPES)
    (mine,) = shapes.measured_families(shown)
    found, columns = shapes.budgets(mine), shapes.measured_columns(shown, drawn)
    panel = gains(found, columns, "g", "").figure.axes[0]
    lines = [tuple(np.atleast_1d(line.get_xdata())) for line in panel.lines]
    for column in columns:
        for budget in found:
            made = shapes.gain(budget, column, "doubling")
            assert (made.value,) in lines
            assert made.ci95 in lines
    assert gains([], columns, "g", "") is None


def twice_trained():
    """Two methods, two trainings of every shape of one budget, scores known: (records, their names by shape)."""
    records = []
    for method, plus in (("pred", 0.0), ("l2l", 4.0)):
        for depth, width in ((2, 200), (4, 140), (8, 100)):
            for seed, less in enumerate((1.0, -1.0)):
                name = f"d{depth}_{method}_s{seed}"
                made = student(name, "ks", (depth, width, 1.4e6), 60.0 + 2 * depth + plus + less, noise=0.05)
                made.upstream["method"] = method
                records.append(made)
    return records


def test_curves_go_through_means_and_show_every_training():
    shown = board("s", twice_trained())
    drawn = resample(shown, 300)
    faces = looks(shown.fixed(), shown.learned())
    plots = {plot.name: plot for plot in figures.shape_figures(shown, faces, drawn) if plot}
    assert list(plots) == ["depth_width_1", "depth_width_2", "depth_curves", "gains"]
    for plot in plots.values():
        freeze(plot.figure)
        assert_readable(plot.name, plot.figure, texts(plot.figure))
    panel = panel_of(plots["depth_curves"].figure, "ks")
    curves = [line for line in panel.lines if len(line.get_xdata()) == 3]
    assert len({line.get_linestyle() for line in curves}) == len(curves) == 2
    for method, line in zip(("l2l", "pred"), sorted(curves, key=lambda c: -c.get_ydata()[0]), strict=True):
        known = {d: [shown.cells[f"d{d}_{method}_s{s}", "ks"].value for s in (0, 1)] for d in (2, 4, 8)}
        assert list(line.get_ydata()) == pytest.approx([np.mean(values) for values in known.values()])
        dots = [list(one.get_ydata()) for one in panel.lines if one.get_marker() == "o" and one.get_markersize() < 2]
        assert all(values in dots for values in known.values())
    names = [text.get_text() for text in plots["depth_curves"].figure.findobj(Text)]
    assert "pred, 1.4 M" in names
    assert "l2l, 1.4 M" in names


def test_a_heat_map_has_the_mean_of_the_trainings_in_one_cell():
    shown = board("s", twice_trained())
    (mine,) = [f for f in shapes.measured_families(shown) if f.method == "pred"]
    plot = heat_map(mine, shapes.measured_columns(shown, resample(shown, 100)), 0.05, "x", "")
    panel = panel_of(plot.figure, "ks")
    assert len(cells(panel)) == 3
    means = {np.mean([shown.cells[f"d{d}_pred_s{s}", "ks"].value for s in (0, 1)]) for d in (2, 4, 8)}
    assert {f"{value:.1f}" for value in means} <= {text.get_text() for text in panel.texts}
    assert "Several trainings of a shape stand as their mean." in plot.caption


def test_no_curve_through_one_depth():
    assert depth_curves([], [Column("ks", "accuracy ↑", True, {"a": 1.0})], "x", "") is None


def test_published_points_stand_beside_superb_alone():
    rows = published().rows
    for suite, expected in (("superb", True), ("embedded", False)):
        shown = board(suite, build(suite))
        faces = looks(shown.fixed(), shown.learned())
        plot = tradeoff(shown, faces, "params", rows=rows)
        lines = [line for line in panel_of(plot.figure, "pr").lines if line.get_color() == PUBLISHED.colour]
        assert bool(lines) is expected
        assert (PUBLISHED.footnote in plot.caption) is expected
        assert all(line.get_markerfacecolor() == "white" for line in lines)
        points = {(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines}
        if expected:
            assert (23.49, 16.27) in points  # DistilHuBERT
            freeze(plot.figure)
            assert_readable("superb", plot.figure, texts(plot.figure))


def test_the_published_front_is_that_of_the_rows():
    rows = published().rows
    panel = panel_of(published_tradeoff(rows, "params_m").figure, "pr")
    front = next(line for line in panel.lines if line.get_drawstyle() == "steps-post")
    teachers = {row.teacher for row in rows}
    points = [
        (row.value("params_m"), row.value("pr.per"))
        for row in rows
        if (row.teacher or row.system in teachers) and row.value("params_m") and row.value("pr.per") is not None
    ]
    best = [p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)]
    assert sorted(set(best)) == sorted(set(zip(front.get_xdata()[:-1], front.get_ydata()[:-1], strict=True)))


def test_the_overall_panel_has_intervals():
    shown = board("s", [student(n, t, (3, 192, size), v) for n, size, v in (("a", 1e6, 20.0), ("b", 2e6, 30.0))
                        for t in ("ks", "er")])  # fmt: skip
    faces = looks(shown.fixed(), shown.learned())
    plots = {plot.name: plot for plot in figures.figures(shown, faces, resample(shown, 200))}
    panel = panel_of(plots["tradeoff_bytes"].figure, "overall")
    spans = [np.ptp(line.get_ydata()) for line in panel.lines if len(line.get_ydata()) == 2]
    assert sum(span > 0.5 for span in spans) == 2


def test_all_but_equal_scores_are_drawn_so():
    shown = board("s", [fake("logmel", "asr", 100.0, half=0.0), fake("wavlm_mini", "asr", 99.98, half=0.0)])
    plot = tradeoff(shown, looks(shown.fixed(), shown.learned()), "params")
    low, high = sorted(panel_of(plot.figure, "asr").get_ylim())
    assert high - low >= 2.0
    assert panel_of(plot.figure, "asr").yaxis.get_inverted()


def test_rates_of_a_model_are_joined_by_rising_period():
    facts = UPSTREAMS["wavlm_mini"]
    records = []
    for name, period, value in (
        ("ofa@100ms", 100.0, 50.0),
        ("ofa@20ms", 20.0, 30.0),
        ("ofa@45ms", 45.0, 35.0),
        ("w", 20.0, 28.0),
    ):
        one = fake(name, "asr", value, facts=facts)
        one.upstream["frame_ms"] = period
        records.append(one)
    shown = board("s", [*records, fake("fbank", "asr", 99.0)])
    plot = frame_period(shown, looks(shown.fixed(), shown.learned()))
    panel = panel_of(plot.figure, "asr")
    joined = [(list(line.get_xdata()), list(line.get_ydata())) for line in panel.lines if len(line.get_xdata()) == 3]
    assert joined == [([20.0, 45.0, 100.0], [30.0, 35.0, 50.0])]
    assert panel.yaxis.get_inverted()
    assert not any(99.0 in line.get_ydata() for line in panel.lines)  # fbank is no model of a rate
    freeze(plot.figure)
    assert_readable("periods", plot.figure, texts(plot.figure))
    assert models({"a@2": 2.0, "a@1": 1.0, "b": 3.0}) == {"a": ["a@1", "a@2"], "b": ["b"]}


def test_one_period_needs_no_figure():
    shown = board("s", build())
    assert frame_period(shown, looks(shown.fixed(), shown.learned())) is None
