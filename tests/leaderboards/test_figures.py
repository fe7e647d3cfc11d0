"""Figures: what is drawn is what the records say, every name is in them, and no text overlaps another."""

import io
import itertools

import numpy as np
import pytest
from drawn_texts import assert_readable, panel_of, texts
from fake_records import SCORES, STUDENTS, TASKS, UPSTREAMS, build, fake
from matplotlib.collections import PathCollection

from leaderboards import figures
from leaderboards.board import board
from leaderboards.layers import layer_weights
from leaderboards.shape import depth_width
from leaderboards.style import freeze, looks, off_scale, styled

MANY = SCORES | {
    "thin_wavlm": (55.0, 30.1, 85.0, 80.2, 93.0, 19.9, 68.0),
    "wide_wavlm": (58.0, 33.3, 84.1, 78, 93.5, 19.2, 69.1),
}


def case(name):
    if name == "many":
        return board("embedded", build(upstreams=UPSTREAMS | STUDENTS, scores=MANY))
    return board("embedded", build(upstreams={name: UPSTREAMS[name]}, tasks=("asr", "er")))


@pytest.fixture(scope="module", params=["many", "distilled_wavlm"])
def drawn(request):
    shown = case(request.param)
    with styled():
        plots = figures.figures(shown)
        for plot in plots:
            freeze(plot.figure)
        return shown, {plot.name: (plot.figure, texts(plot.figure)) for plot in plots}


@pytest.fixture(autouse=True)
def style():
    with styled():
        yield


def test_all_figures_are_there(drawn):
    shown, plots = drawn
    shape = {"depth_width_1", "depth_curves", "gains"} if "thin_wavlm" in shown.upstreams else {"depth_width"}
    assert set(plots) == shape | {
        "results", "tradeoff_params", "tradeoff_macs", "tradeoff_rtf", "tradeoff_bytes", "layer_weights",
        "learning_rates",
    }  # fmt: skip


def test_every_upstream_and_task_is_named(drawn):
    shown, plots = drawn
    for kind, (_, found) in plots.items():
        words = {text for text, _ in found}
        facts = {name: shown.any_of(name).upstream for name in shown.upstreams}
        wanted = {
            "depth_width": [name for name in facts if facts[name]["depth"]],
            "depth_width_1": [],
            "depth_curves": [],
            "gains": [],
            "layer_weights": [name for name in facts if facts[name]["num_states"] > 1],
        }.get(kind, list(facts))
        for word in [*wanted, *(task.upper() for task in shown.tasks)]:
            assert any(text.startswith(word) for text in words), (kind, word)


def test_names_are_text_in_a_saved_figure():
    shown = board("s", build(tasks=("ks",)))
    buffer = io.BytesIO()
    figures.results(shown, looks(shown.fixed(), shown.learned())).figure.savefig(buffer, format="svg")
    for name in UPSTREAMS:
        assert f">{name}</text>" in buffer.getvalue().decode()


def test_no_text_overlaps_or_is_cut(drawn):
    _, plots = drawn
    for kind, (figure, boxes) in plots.items():
        assert_readable(kind, figure, boxes)


def test_results_draw_the_intervals_and_values():
    shown = board("s", build())
    figure = figures.results(shown, looks(shown.fixed(), shown.learned())).figure
    panel = panel_of(figure, "asv")
    lines = [tuple(line.get_xdata()) for line in panel.lines]
    for name in UPSTREAMS:
        record = shown.cells[name, "asv"]
        assert tuple(record.ci95) in lines
        assert (record.value,) in lines
        assert tuple(record.values_per_seed) in lines
    assert panel.xaxis.get_inverted()
    assert not panel_of(figure, "ks").xaxis.get_inverted()


def test_tradeoff_draws_points_front_and_floors():
    shown = board("s", build())
    figure = figures.tradeoff(shown, looks(shown.fixed(), shown.learned()), "params").figure
    panel = panel_of(figure, "pr")
    lines = [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))) for line in panel.lines]
    assert ([1.438208], [22.8]) in lines
    assert ([5.523456], [16.7]) in lines
    assert ([0.0, 1.0], [61.0, 61.0]) in lines  # log-mel, all across
    assert ([0.0, 1.0], [16.7, 16.7]) in lines  # the teacher
    front = next(line for line in panel.lines if line.get_drawstyle() == "steps-post")
    assert list(front.get_ydata()) == [61.0, 22.8, 16.7, 16.7]  # log-mel is its first step, left of the axis
    assert front.get_xdata()[0] < panel.get_xlim()[0]
    assert panel.get_xscale() == "log"


def test_unknown_cost_is_said():
    records = build(tasks=("ks",))
    for record in records:
        if record.upstream["name"] == "random_mini":
            record.cost["macs_per_second"] = None
    shown = board("s", records)
    faces = looks(shown.fixed(), shown.learned())
    assert "random_mini" in figures.tradeoff(shown, faces, "macs_per_second").caption
    assert figures.tradeoff(board("s", [r for r in records if r.upstream["name"] == "fbank"]), faces, "params") is None


def test_upstreams_of_one_shape_do_not_hide_each_other():
    shown = board("s", build(upstreams=UPSTREAMS | STUDENTS, scores=MANY))
    figure = depth_width(shown, looks(shown.fixed(), shown.learned())).figure
    panel = panel_of(figure, "ks")
    spots = [tuple(p.get_offsets()[0]) for p in panel.collections if isinstance(p, PathCollection)]
    assert len(spots) == 5
    assert min(np.hypot(a[0] - b[0], a[1] - b[1]) for a, b in itertools.combinations(spots, 2)) > 0.3
    sizes = sorted(float(p.get_sizes()[0]) for p in panel.collections)
    assert sizes[-1] == sizes[-2] > sizes[-3] > sizes[0]


def test_darker_is_better_in_both_directions():
    shown = board("s", build(upstreams={n: UPSTREAMS[n] for n in ("distilled_wavlm", "wavlm_mini")}))
    figure = depth_width(shown, looks(shown.fixed(), shown.learned())).figure
    for task in TASKS:
        light = [float(p.get_facecolor()[0][:3].sum()) for p in panel_of(figure, task).collections]
        assert light[1] < light[0], task  # the teacher is drawn second and is better everywhere


def test_layer_weights_are_means_over_seeds_in_percent():
    record = fake("distilled_wavlm", "ks", 50.0, layer_weights=[[1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0]])
    figure = layer_weights(board("s", [record])).figure
    image = next(axes for axes in figure.axes if axes.images).images[0]
    assert np.allclose(image.get_array(), [[50.0, 25.0, 25.0, 0.0]])


def test_a_diverged_rate_has_no_point_and_is_said():
    record = fake("logmel", "ks", 50.0)
    for trial in record.trials:
        if trial["learning_rate"] == 1e-2:
            trial.update(dev=None, diverged=True)
    shown = board("s", [record])
    plot = figures.learning_rates(shown, looks(shown.fixed(), shown.learned()))
    curve = next(line for line in panel_of(plot.figure, "ks").lines if len(line.get_xdata()) > 2)
    assert list(curve.get_xdata()) == [1e-4, 3e-4, 1e-3, 3e-3]
    assert "3 diverged trial(s)" in plot.caption


def test_off_scale_takes_only_far_stragglers():
    def records(task, *values):
        return {str(v): fake("x", task, v, facts=UPSTREAMS["logmel"]) for v in values}

    assert off_scale(records("sid", 2.5, 88.0, 93.0, 95.0), higher_is_better=True) == {"2.5"}
    assert off_scale(records("asr", 900.0, 38.0, 45.0, 70.0), higher_is_better=False) == {"900.0"}
    assert off_scale(records("ks", 8.6, 44.0, 61.0, 94.0), higher_is_better=True) == frozenset()
    assert off_scale(records("ks", 1.0, 99.0), higher_is_better=True) == frozenset()
    assert off_scale(records("sid", 2.5, 3.5, 90.0, 95.0), higher_is_better=True) == {"2.5", "3.5"}


def test_looks_are_unique_and_stable():
    names = [f"m{i}" for i in range(40)]
    faces = looks(["a", "b"], names)
    assert len({(face.color, face.marker) for face in faces.values()}) == 42
    assert looks(["a", "b"], names[:3]).items() <= faces.items()
