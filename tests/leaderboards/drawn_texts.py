"""What can be read in a figure, and whether it can."""

import itertools

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.legend import Legend


def texts(figure):
    """Visible texts and their boxes in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    visible = [axes for axes in figure.findobj(Axes) if axes.axison]
    ticks = [tick for axes in visible for axis in (axes.xaxis, axes.yaxis) for tick in _ticks(axis)]
    found = [label for tick in ticks for label in (tick.label1, tick.label2) if label.get_visible()]
    found += [text for axes in visible for text in (*axes.texts, axes.title, axes._left_title, axes.xaxis.label)]
    found += [text for axes in figure.findobj(Legend) for text in (*axes.get_texts(), axes.get_title())]
    found += figure.texts
    return [(text.get_text(), text.get_window_extent()) for text in found if text.get_text().strip()]


def _ticks(axis):
    low, high = sorted(axis.get_view_interval())
    return [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]


def assert_readable(kind, figure, boxes):
    """No text is cut by the edge of the figure or lies on another."""
    width, height = figure.canvas.get_width_height()
    for text, box in boxes:
        inside = box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1
        assert inside, (kind, text, box)
    for (one, a), (two, b) in itertools.combinations(boxes, 2):
        apart = a.x1 <= b.x0 + 1 or b.x1 <= a.x0 + 1 or a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1
        assert apart, (kind, one, two)


def panel_of(figure, task):
    return next(axes for axes in figure.axes if axes.get_title(loc="left").upper().startswith(task.upper()))
