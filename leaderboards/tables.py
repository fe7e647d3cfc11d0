"""The tables of one suite, from its board: every cell is computed from records, nothing is typed by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from harness import metrics
from harness.records import Record, own_seconds
from harness.show import duration, face, interval, number, rate
from leaderboards import letters, overall
from leaderboards.adaptive_periods import adaptive_periods
from leaderboards.board import Board
from leaderboards.cells import SCORES, SPEAKERS, millions, score_cells, task_labels
from leaderboards.costs import median_cost, other_times, timing
from leaderboards.depth_width import shapes
from leaderboards.depth_width.tables import families
from leaderboards.facts import at_edge, cost_facts, frame, rate_facts, score_facts, shape_facts, time_facts
from leaderboards.gain_kept import gain_kept
from leaderboards.render import EMPTY, Cell, Table
from leaderboards.resamples import NONE, Resamples, resample


def tables(
    board: Board,
    drawn: Resamples | None = None,
    weighting: str = overall.DEFAULT,
    tolerance: float = shapes.TOLERANCE,
) -> list[Table]:
    """All tables of a suite that have at least one row.

    Args:
        board: the suite's records.
        drawn: its joint resamples; drawn here where they are not given.
        weighting: name or file of the overall score.
        tolerance: how much more parameters students of one budget may have, as a share.
    """
    drawn = resample(board) if drawn is None else drawn
    made = [
        results(board, drawn),
        further(board),
        *families(board, drawn, tolerance),
        depth_width(board),
        adaptive_periods(board),
        tradeoff(board, drawn, weighting),
        gain_kept(board, drawn),
        costs(board),
        parameters(board),
        learning_rates(board),
    ]
    return [table for table in made if table.rows]


def results(board: Board, drawn: Resamples = NONE) -> Table:
    """Scores with 95 % intervals and letters of significance, upstreams by tasks; the CSV has all of it as columns."""
    signs = letters.signs(drawn)
    cells = score_cells(board, board.upstreams, with_interval=True)
    cells = {where: replace(cell, letters=signs.get(where, "")) for where, cell in cells.items()}

    def marks(record: Record) -> dict[str, Any]:
        where = record.upstream["name"], record.task
        return {"letters": signs.get(where, ""), "mark": cells[where].mark}

    return Table(
        name="results",
        title="Results",
        caption=f"Suite {board.suite}. {SCORES} Small: {SPEAKERS}." + f" {letters.ABOUT}" * bool(signs),
        header=("Upstream", *task_labels(board)),
        rows=tuple((Cell(name), *(cells[name, task] for task in board.tasks)) for name in board.upstreams),
        data=frame(board, board.upstreams, score_facts, marks),
        notes=(*board.notes, *drawn.notes),
    )


def further(board: Board) -> Table:
    """The scores that records report beside the main one, each under a name that says how it came about."""
    found = {
        task: {name for (_, t), r in board.cells.items() if t == task for name in r.secondary} for task in board.tasks
    }
    columns = {(task, name): face(name) for task in board.tasks for name in metrics.METRICS if name in found[task]}

    def cell(upstream: str, task: str, name: str) -> Cell:
        record = board.cells.get((upstream, task))
        entry = None if record is None else record.secondary.get(name)
        odd = "†" if (upstream, task) in board.odd else ""
        return EMPTY if entry is None else Cell(number(entry["value"]) + odd, interval(entry["ci95"]))

    names = [name for name in board.upstreams if any(cell(name, *column) is not EMPTY for column in columns)]
    titles = {name: metrics.METRICS[name].title for _, name in columns}
    return Table(
        name="further",
        title="Further scores",
        caption=f"Suite {board.suite}. "
        + "; ".join(f"{name}: {title}" for name, title in titles.items())
        + f". Small: {SPEAKERS}.",
        header=("Upstream", *(f"{task.upper()} {name} {shown.arrow}" for (task, name), shown in columns.items())),
        rows=tuple((Cell(name), *(cell(name, *column) for column in columns)) for name in names),
        data=frame(board, names, score_facts),
        notes=board.notes,
    )


def depth_width(board: Board) -> Table:
    """Scores beside depth, width and parameters, for the upstreams that have a depth and a width."""
    shapes = {name: board.any_of(name).upstream for name in board.upstreams}
    names = [name for name in board.upstreams if shapes[name]["depth"] and shapes[name]["width"]]
    names.sort(key=lambda name: (shapes[name]["depth"], shapes[name]["width"], board.upstreams.index(name)))
    cells = score_cells(board, names)
    return Table(
        name="depth_width",
        title="Depth versus width",
        caption=f"Suite {board.suite}. Depth: transformer layers; width: size of a state. {SCORES}",
        header=("Upstream", "Depth", "Width", "Params (M)", *task_labels(board)),
        rows=tuple(
            (
                Cell(name),
                Cell(str(shapes[name]["depth"])),
                Cell(str(shapes[name]["width"])),
                Cell(millions(board.any_of(name).cost["params"])),
                *(cells[name, task] for task in board.tasks),
            )
            for name in names
        ),
        data=frame(board, names, shape_facts, score_facts),
        notes=board.notes,
    )


def tradeoff(board: Board, drawn: Resamples = NONE, weighting: str = overall.DEFAULT) -> Table:
    """Scores, each and overall, beside what an upstream costs."""
    cells = score_cells(board, board.upstreams)
    whole = overall.measured(board, drawn, weighting)

    def overall_facts(record: Record) -> dict[str, Any]:
        found = whole.scores.get(record.upstream["name"])
        low, high = (found and found.ci95) or (None, None)
        return {"overall": found and found.value, "overall_ci95_low": low, "overall_ci95_high": high}

    return Table(
        name="tradeoff",
        title="Compression trade-off",
        caption=(
            f"Suite {board.suite}. MACs per second of audio; RTF: seconds of compute per second of audio "
            f"({timing(board)}); size: bytes of the weights on disk. {SCORES} Overall: {whole.covers}, with its 95 % "
            "t-interval over test speakers and probe seeds, tasks taken as independent."
        ),
        header=("Upstream", "Params (M)", "GMACs/s", "RTF", "Size (MB)", *task_labels(board), "Overall ↑"),
        rows=tuple(
            (
                Cell(name),
                *_cost_cells(board, name),
                *(cells[name, task] for task in board.tasks),
                overall.cell(whole, name),
            )
            for name in board.upstreams
        ),
        data=frame(board, board.upstreams, cost_facts, score_facts, overall_facts),
        notes=(*board.notes, *whole.notes, *other_times(board)),
    )


def costs(board: Board) -> Table:
    """What each upstream costs, and what the bench of it took."""
    rows = []
    for name in board.upstreams:
        mine = board.of(name)
        memory = median_cost(board, name, "peak_memory_mb")
        rows.append(
            (
                Cell(name),
                *_cost_cells(board, name),
                Cell(f"{memory:.0f}") if memory is not None else EMPTY,
                Cell(f"{max(record.features['encoded_over_distinct'] for record in mine):.2f}"),
                Cell(duration(sum(own_seconds(record) for record in mine))),
                Cell(", ".join(sorted({_device(record) for record in mine}))),
            )
        )
    return Table(
        name="costs",
        title="Costs",
        caption=(
            f"Suite {board.suite}. Params: exposed model without heads; MACs per second of audio; RTF: seconds of "
            f"compute per second of audio ({timing(board)}); memory: peak of a process that encodes 10 s; "
            "encoded: audio seconds encoded over distinct audio seconds; time: training, test and intervals, without "
            "the extraction that tasks share."
        ),
        header=("Upstream", "Params (M)", "GMACs/s", "RTF", "Size (MB)", "Memory (MB)", "Encoded", "Time", "Device"),
        rows=tuple(rows),
        data=frame(board, board.upstreams, cost_facts, time_facts),
        notes=tuple(other_times(board)),
    )


def parameters(board: Board) -> Table:
    """Parameters of the exposed model, and with the head of each task."""
    return Table(
        name="parameters",
        title="Parameters",
        caption=f"Suite {board.suite}. Millions of parameters: the exposed model alone, and with each task's head.",
        header=("Upstream", "Alone", *(f"+ {task.upper()}" for task in board.tasks)),
        rows=tuple(
            (
                Cell(name),
                Cell(millions(board.any_of(name).cost["params"])),
                *(
                    Cell(millions(record.cost["params_with_head"])) if record else EMPTY
                    for record in (board.cells.get((name, task)) for task in board.tasks)
                ),
            )
            for name in board.upstreams
        ),
        data=frame(board, board.upstreams, cost_facts),
    )


def learning_rates(board: Board) -> Table:
    """The learning rate that dev chose; an asterisk where it lies at an end of its grid."""
    cells = {
        key: Cell(rate(record.learning_rate) + ("*" if at_edge(record) else "")) for key, record in board.cells.items()
    }
    return Table(
        name="learning_rates",
        title="Learning rates chosen on dev",
        caption=f"Suite {board.suite}. * at an end of the grid: a wider grid could find a better one.",
        header=("Upstream", *(task.upper() for task in board.tasks)),
        rows=tuple((Cell(name), *(cells.get((name, task), EMPTY) for task in board.tasks)) for name in board.upstreams),
        data=frame(board, board.upstreams, rate_facts),
    )


def _cost_cells(board: Board, name: str) -> tuple[Cell, ...]:
    """Parameters, MACs, real-time factor and bytes of one upstream."""
    shown: tuple[tuple[str, float, Callable[[float], str]], ...] = (
        ("params", 1e6, lambda v: f"{v:.2f}"),
        ("macs_per_second", 1e9, lambda v: f"{v:.3g}"),
        ("real_time_factor", 1.0, lambda v: f"{v:.4f}"),
        ("bytes_on_disk", 1e6, lambda v: f"{v:.1f}"),
    )
    values = [(median_cost(board, name, what), unit, form) for what, unit, form in shown]
    return tuple(EMPTY if value is None else Cell(form(value / unit)) for value, unit, form in values)


def _device(record: Record) -> str:
    threads = record.cost["threads"]
    return f"{record.cost['device']} × {threads}" if threads else str(record.cost["device"])
