"""Figures of fidelity: heat maps of CKA, what linear maps explain, and agreement per task. Draw inside ``styled()``."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from leaderboards.similarity.estimates import Estimate, Estimates, Floats
from leaderboards.similarity.fidelity import Fidelity, TaskAgreement
from leaderboards.similarity.layers import Layers
from leaderboards.style import INK, PALETTE, WIDTH, Plot, plain

NUMBERED = 30
"""So many columns fit at full width with a readable number in each cell."""

COLOURS = "Blues"


def cka_heat(board: str, layers: Layers) -> Plot:
    """Student states by teacher states, one heat map for frames and one for time means."""
    maps = [("single frames", layers.frames), ("time means", layers.means)]
    there = [(title, values) for title, values in maps if values is not None]
    students, teachers = layers.means.value.shape
    beside = 2 * teachers <= NUMBERED
    lines, columns = (1, len(there)) if beside else (len(there), 1)
    cell = 0.2 if students <= NUMBERED else 0.13
    figure = Figure(figsize=(WIDTH, lines * (0.45 + cell * max(students, 3)) + 0.25), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharey=beside)
    image = None
    for panel, (title, values) in zip(axes.flat, there, strict=True):
        image = _heat(panel, values.value)
        panel.set_title(title)
        panel.set_xlabel(plain(f"state of {layers.teacher}"))
    for panel in axes[:, 0]:
        panel.set_ylabel(plain(f"state of\n{layers.student}"))
    if image is not None:
        bar = figure.colorbar(image, ax=list(axes.flat), shrink=0.9, aspect=12 if beside else 40, pad=0.015)
        bar.outline.set_visible(False)
        bar.set_label("linear CKA")
    caption = (
        f"Suite {board}, {layers.utterances} test utterances of {layers.task}. Linear CKA (unbiased, batchwise) "
        f"between the states of {layers.student} and of {layers.teacher}; state 0 is nearest the input. Numbers are "
        "hundredths; a frame marks the teacher's state nearest to each of the student's."
    )
    return Plot("cka", "Similarity of states", caption, figure)


def _heat(panel: Axes, values: Floats) -> AxesImage:
    image = panel.imshow(values, cmap=COLOURS, vmin=0.0, vmax=1.0, aspect="auto")
    panel.grid(visible=False)
    for side in panel.spines.values():
        side.set_visible(False)
    for axis, count in ((panel.xaxis, values.shape[1]), (panel.yaxis, values.shape[0])):
        axis.set_ticks(range(0, count, 1 if count <= 16 else 2))
    panel.tick_params(length=0, pad=2)
    for (row, column), value in np.ndenumerate(values):
        if values.shape[1] <= NUMBERED and not math.isnan(value):
            colour = "white" if value > 0.55 else "#333333"
            panel.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=5.5, color=colour)
    for row, line in enumerate(values):
        if not np.isnan(line).all():
            column = int(np.nanargmax(line))
            corners = [column - 0.5, column + 0.5, column + 0.5, column - 0.5, column - 0.5]
            sides = [row - 0.5, row - 0.5, row + 0.5, row + 0.5, row - 0.5]
            panel.plot(corners, sides, color=PALETTE[1], linewidth=1.1, clip_on=False, zorder=3)
    return image


def linear_lines(board: str, layers: Layers) -> Plot:
    """R² of each teacher state, from the student's last state."""
    figure = Figure(figsize=(WIDTH / 2, 1.9), layout="constrained")
    panel = figure.subplots()
    shown = [("single frames", layers.frames_explained, PALETTE[0], "o"), ("time means", layers.means_explained,
             PALETTE[1], "s")]  # fmt: skip
    for shift, (label, values, colour, marker) in zip((-0.1, 0.1), shown, strict=True):
        if values is not None:
            _with_intervals(panel, values, shift, colour, marker, label)
    panel.set_xlabel(plain(f"state of {layers.teacher} (0 is nearest the input)"))
    panel.set_ylabel(f"R² on held-out {layers.unit}")
    panel.set_ylim(top=1.0)
    count = len(layers.means_explained.value)
    panel.set_xticks(range(0, count, 1 if count <= 16 else 2))
    panel.grid(axis="x", visible=False)
    figure.legend(loc="outside upper center", ncols=2)
    caption = (
        f"Suite {board}. Share of the variance of each state of {layers.teacher} that the best linear map from the "
        f"last state of {layers.student} explains on {layers.unit} held out; lines: 95 % interval over {layers.unit}."
    )
    return Plot("linear_maps", "What linear maps explain", caption, figure)


def _with_intervals(panel: Axes, values: Estimates, shift: float, colour: str, marker: str, label: str) -> None:
    places = np.arange(len(values.value)) + shift
    panel.vlines(places, values.low, values.high, color=colour, linewidth=1.2)
    panel.plot(places, values.value, marker, color=colour, markersize=3.5, label=label)


def agreement_dots(found: Fidelity) -> Plot | None:
    """Agreement per task: main measure beside the teacher's own seeds, and where the teacher is right or wrong."""
    tasks = [task for task in found.tasks if task.measures]
    if not tasks:
        return None
    figure = Figure(figsize=(WIDTH, 0.75 + 0.23 * len(tasks)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, task in enumerate(tasks):
        main = task.measures[task.main]
        _dot(left, main, place, PALETTE[0], "o")
        if task.ceiling is not None:
            _dot(left, task.ceiling, place + 0.25, "#8c8c8c", "d")
        _dot(right, task.measures["on_right"], place, PALETTE[2], "^")
        _dot(right, task.measures["on_wrong"], place + 0.25, PALETTE[1], "v")
    left.set_yticks(range(len(tasks)), [plain(_name(task)) for task in tasks])
    left.set_ylim(len(tasks) - 0.4, -0.5)
    ranked = [_name(task) for task in tasks if task.main == "ranks"]
    left.set_xlabel(plain("agreement (%)" + (f"; {', '.join(ranked)}: rank correlation × 100" if ranked else "")))
    right.set_xlabel("same answers (%)")
    for panel in (left, right):
        panel.set_xlim(min(0.0, panel.get_xlim()[0]) if panel.dataLim.x0 < 0 else 0.0, 101.0)
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="y", visible=False)
    left.legend(handles=[_key(PALETTE[0], "o", "student with teacher"), _key("#8c8c8c", "d", "teacher's own seeds")],
                loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)  # fmt: skip
    right.legend(handles=[_key(PALETTE[2], "^", "teacher right"), _key(PALETTE[1], "v", "teacher wrong")],
                 loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)  # fmt: skip
    caption = (
        f"Suite {found.board}: do {found.student} and {found.teacher} answer alike? Left: same labels, 1 − error rate "
        "against the teacher's text, or rank correlation of trial scores, beside the same between the teacher's own "
        "probes. Right: the same answers where the teacher is right and where it is wrong. Lines: 95 % intervals over "
        "speakers."
    )
    return Plot("agreement", "Answers of student and teacher", caption, figure)


def _name(task: TaskAgreement) -> str:
    return task.task.upper()


def _dot(panel: Axes, estimate: Estimate, place: float, colour: str, marker: str) -> None:
    if math.isnan(estimate.value):
        return
    if not math.isnan(estimate.low):
        panel.plot([100 * estimate.low, 100 * estimate.high], [place, place], color=colour, linewidth=1.2)
    panel.plot(100 * estimate.value, place, marker, color=colour, markersize=3.8)


def _key(colour: str, marker: str, label: str) -> Line2D:
    return Line2D(
        [], [], color=colour, marker=marker, markersize=4, markeredgecolor=INK, markeredgewidth=0.0, label=label
    )
