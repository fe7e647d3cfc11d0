"""The tables of one suite, from its board: every cell is computed from records, nothing is typed by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from harness import metrics
from harness.records import Record, own_seconds
from harness.show import duration, face, interval, number, rate
from leaderboards.board import Board
from leaderboards.costs import median_cost
from leaderboards.facts import at_edge, cost_facts, frame, rate_facts, score_facts, shape_facts, time_facts
from leaderboards.render import EMPTY, Cell, Table
from leaderboards.tradeoff import kept

SCORES = "Scores in percent, mean over seeds; best in bold, second underlined; ↓ lower is better, ↑ higher is better."


def tables(board: Board) -> list[Table]:
    """All tables of a suite that have at least one row."""
    made = [
        build(board)
        for build in (results, further, depth_width, tradeoff, gain_kept, costs, parameters, learning_rates)
    ]
    return [table for table in made if table.rows]


def task_label(task: str, metric: str) -> str:
    """A task's column title: ``ASR WER ↓``."""
    shown = face(metric)
    return f"{task.upper()} {'Acc' if metric == 'accuracy' else shown.title} {shown.arrow}"


def results(board: Board) -> Table:
    """Scores with 95 % intervals, upstreams by tasks."""
    cells = score_cells(board, board.upstreams, with_interval=True)
    return Table(
        name="results",
        title="Results",
        caption=f"Suite {board.suite}. {SCORES} Small: 95 % bootstrap interval.",
        header=("Upstream", *_task_labels(board)),
        rows=tuple((Cell(name), *(cells[name, task] for task in board.tasks)) for name in board.upstreams),
        data=frame(board, board.upstreams, score_facts),
        notes=board.notes,
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
        caption=f"Suite {board.suite}. " + "; ".join(f"{name}: {title}" for name, title in titles.items()) + ".",
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
        header=("Upstream", "Depth", "Width", "Params (M)", *_task_labels(board)),
        rows=tuple(
            (
                Cell(name),
                Cell(str(shapes[name]["depth"])),
                Cell(str(shapes[name]["width"])),
                Cell(_millions(board.any_of(name).cost["params"])),
                *(cells[name, task] for task in board.tasks),
            )
            for name in names
        ),
        data=frame(board, names, shape_facts, score_facts),
        notes=board.notes,
    )


def tradeoff(board: Board) -> Table:
    """Scores beside what an upstream costs."""
    cells = score_cells(board, board.upstreams)
    return Table(
        name="tradeoff",
        title="Compression trade-off",
        caption=(
            f"Suite {board.suite}. MACs per second of audio; RTF: seconds of compute per second of audio on the device "
            f"of the costs table; size: bytes of the weights on disk. {SCORES}"
        ),
        header=("Upstream", "Params (M)", "GMACs/s", "RTF", "Size (MB)", *_task_labels(board)),
        rows=tuple(
            (Cell(name), *_cost_cells(board, name), *(cells[name, task] for task in board.tasks))
            for name in board.upstreams
        ),
        data=frame(board, board.upstreams, cost_facts, score_facts),
        notes=board.notes,
    )


def gain_kept(board: Board) -> Table:
    """How much of its teacher's gain over each control or fixed feature a student keeps."""
    rows, facts = [], []
    for student in board.upstreams:
        teacher = board.any_of(student).upstream["teacher"]
        if teacher not in board.teachers():
            continue
        for floor in (*board.controls(), *board.fixed()):
            shares = {task: _share(board, task, student, teacher, floor) for task in board.tasks}
            cells = [EMPTY if share is None else Cell(f"{share:.0f} %") for share in shares.values()]
            rows.append((Cell(f"{student} over {floor}"), *cells))
            facts += [
                {
                    "suite": board.suite,
                    "student": student,
                    "teacher": teacher,
                    "over": floor,
                    "task": task,
                    "kept": share,
                }
                for task, share in shares.items()
            ]
    return Table(
        name="gain_kept",
        title="Share of the teacher's gain kept",
        caption=(
            f"Suite {board.suite}. (student − floor) / (teacher − floor) of the scores, in percent; "
            "a dash where the teacher shows no gain over that floor beyond both 95 % intervals."
        ),
        header=("Student", *_task_labels(board)),
        rows=tuple(rows),
        data=pd.DataFrame(facts),
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
            "compute per second of audio; memory: peak of a process that encodes 10 s; encoded: audio seconds encoded "
            "over distinct audio seconds; time: training, test and intervals, without the extraction that tasks share."
        ),
        header=("Upstream", "Params (M)", "GMACs/s", "RTF", "Size (MB)", "Memory (MB)", "Encoded", "Time", "Device"),
        rows=tuple(rows),
        data=frame(board, board.upstreams, cost_facts, time_facts),
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
                Cell(_millions(board.any_of(name).cost["params"])),
                *(
                    Cell(_millions(record.cost["params_with_head"])) if record else EMPTY
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


def score_cells(board: Board, names: Sequence[str], with_interval: bool = False) -> dict[tuple[str, str], Cell]:
    """The score cells of some upstreams, ranked within each task among those that can be compared.

    Equal shown values share a mark; nothing is marked where there is nothing to compare with.
    """
    cells = dict.fromkeys(((name, task) for name in names for task in board.tasks), EMPTY)
    for task in board.tasks:
        fair = {name: number(record.value) for name, record in board.fair(task).items() if name in names}
        order = sorted(set(fair.values()), key=float, reverse=face(board.metric(task)).higher_is_better)
        for name in names:
            record = board.cells.get((name, task))
            if record is None:
                continue
            text = number(record.value)
            place = order.index(text) if name in fair and len(fair) > 1 else 2
            cells[name, task] = Cell(
                text=text if name in fair else f"{text}†",
                small=interval(record.ci95) if with_interval else "",
                mark="best" if place == 0 else "second" if place == 1 else "",
            )
    return cells


def _task_labels(board: Board) -> tuple[str, ...]:
    return tuple(task_label(task, board.metric(task)) for task in board.tasks)


def _share(board: Board, task: str, student: str, teacher: str, floor: str) -> float | None:
    fair = board.fair(task)
    if not {student, teacher, floor} <= fair.keys():
        return None
    return kept(fair[student], fair[teacher], fair[floor], face(board.metric(task)).higher_is_better)


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


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f}"


def _device(record: Record) -> str:
    threads = record.cost["threads"]
    return f"{record.cost['device']} × {threads}" if threads else str(record.cost["device"])
