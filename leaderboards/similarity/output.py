"""What a comparison of a student with its teacher looks like, and the files that it becomes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import atomic
from leaderboards.render import Table, csv, escape_markdown, latex, markdown
from leaderboards.similarity import figures, tables
from leaderboards.similarity.fidelity import Fidelity
from leaderboards.similarity.layers import Layers
from leaderboards.style import Plot, freeze, styled

PAGE = "fidelity.md"

_FORMATS = {"md": markdown, "csv": csv, "tex": latex}


@dataclass(frozen=True)
class Part:
    """What is shown of one suite."""

    board: str
    tables: tuple[Table, ...]
    plots: tuple[Plot, ...]
    notes: tuple[str, ...]


def part(board: str, answers: Fidelity | None, layers: Layers | None, notes: Sequence[str]) -> Part:
    """Tables and figures of one suite, of what there is."""
    shown: list[Table] = []
    drawn: list[Plot | None] = []
    with styled():
        if answers is not None:
            shown.append(tables.agreement_table(answers))
            drawn.append(figures.agreement_dots(answers))
        if layers is not None:
            shown += [*tables.cka_tables(board, layers), tables.linear_table(board, layers)]
            drawn += [figures.cka_heat(board, layers), figures.linear_lines(board, layers)]
    return Part(board, tuple(shown), tuple(plot for plot in drawn if plot is not None), tuple(notes))


def write(out: Path, student: str, teacher: str, parts: Sequence[Part]) -> list[Path]:
    """Write the page and, per suite, tables (Markdown, CSV, LaTeX) and figures (PDF, PNG).

    Returns:
        The files, the page first.
    """
    made: list[Path] = []
    page = [f"# Fidelity of {escape_markdown(student)} to {escape_markdown(teacher)}\n"]
    for each in parts:
        folder = out / each.board
        page.append(f"## Suite {escape_markdown(each.board)}\n")
        page += [escape_markdown(note) + "\n" for note in each.notes]
        for table in each.tables:
            made += _table(table, folder)
            page.append(markdown(table, level=3))
        with styled():
            for plot in each.plots:
                made += _plot(plot, folder)
                title = escape_markdown(plot.title)
                page.append(f"### {title}\n\n![{title}]({each.board}/figure_{plot.name}.png)\n")
                page.append(escape_markdown(plot.caption) + "\n")
    atomic.write(out / PAGE, "\n".join(page).encode())
    return [out / PAGE, *made]


def _table(table: Table, folder: Path) -> list[Path]:
    files = []
    for suffix, render in _FORMATS.items():
        files.append(folder / f"table_{table.name}.{suffix}")
        atomic.write(files[-1], render(table).encode())
    return files


def _plot(plot: Plot, folder: Path) -> list[Path]:
    """PDF and PNG, laid out once, without dates, so that the same numbers give the same bytes."""
    freeze(plot.figure)
    files = []
    for suffix in ("pdf", "png"):
        buffer = io.BytesIO()
        dates = {"CreationDate": None} if suffix == "pdf" else {}
        plot.figure.savefig(buffer, format=suffix, dpi=200, metadata={"Title": plot.title, **dates})
        files.append(folder / f"figure_{plot.name}.{suffix}")
        atomic.write(files[-1], buffer.getvalue())
    return files
