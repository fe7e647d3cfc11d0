"""One table, three formats: Markdown, LaTeX (booktabs) and CSV. All text from outside is escaped here."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from harness.show import printable
from leaderboards.ranking import Mark


@dataclass(frozen=True)
class Cell:
    """One cell of a shown table: text, what stands small beside it, how it ranks, and letters set high behind it."""

    text: str
    small: str = ""
    mark: Mark = ""
    letters: str = ""


@dataclass(frozen=True)
class Table:
    """A table as shown, and the numbers behind it.

    Attributes:
        name: file name without suffix.
        title: heading.
        caption: what the numbers are, with units.
        header: column titles; the first column is text, the others are numbers.
        rows: cells, as many per row as there are column titles.
        data: the same numbers unrounded, one row per record, with the record keys: the CSV.
        notes: sentences below the table.
    """

    name: str
    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    data: pd.DataFrame
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"table {self.name}: a row has {len(row)} cells for {len(self.header)} columns")


EMPTY = Cell("–")


def csv(table: Table) -> str:
    """The unrounded numbers; floats are written so that they read back exactly."""
    text: str = table.data.to_csv(index=False, lineterminator="\n")
    return text


_MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")


def escape_markdown(text: str) -> str:
    """Text that Markdown and the HTML inside it show as it is, also inside a table cell."""
    return _MARKDOWN_SPECIAL.sub(r"\\\1", html.escape(printable(text), quote=False))


def markdown(table: Table, level: int = 2) -> str:
    """The table with heading, caption and notes; best in bold, second best underlined."""
    lines = [f"{'#' * level} {escape_markdown(table.title)}", "", escape_markdown(table.caption), ""]
    lines.append("| " + " | ".join(map(escape_markdown, table.header)) + " |")
    lines.append("|" + "|".join(["---"] + ["---:"] * (len(table.header) - 1)) + "|")
    lines += ["| " + " | ".join(map(_markdown_cell, row)) + " |" for row in table.rows]
    for note in table.notes:
        lines += ["", escape_markdown(note)]
    return "\n".join(lines) + "\n"


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    text = {"best": f"**{text}**", "second": f"<u>{text}</u>", "": text}[cell.mark]
    high = f" <sup>{escape_markdown(cell.letters)}</sup>" if cell.letters else ""
    return text + high + (f" <sub>{escape_markdown(cell.small)}</sub>" if cell.small else "")


_LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",
    "]": "{]}",
    '"': r"\textquotedbl{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "·": r"$\cdot$",
    "−": r"$-$",
    "–": "--",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "§": r"\S{}",
    "¶": r"\P{}",
    "≈": r"$\approx$",
    "∼": r"$\sim$",
    "√": r"$\surd$",
}


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is, in text mode."""
    return "".join(_LATEX_SPECIAL.get(char, char) for char in printable(text))


WIDE = 11
"""Tables of more columns than these are scaled to the width of the text."""


def latex(table: Table, scope: str = "") -> str:
    """A ``table*`` float with booktabs rules; intervals stand small on a line of their own below the values.

    What follows a number (letters, signs) takes no room, so that the decimals of a column stand below each other.

    Args:
        table: what is shown.
        scope: the suite, say: with the table's name it makes the label, which is then unique in a document.
    """
    wide = len(table.header) > WIDE
    hanging = [max(map(_hanging, column), default=0) for column in zip(*table.rows, strict=True)]
    gap = 3.0 + 2.5 * max(hanging, default=0) / 2
    end = rf"@{{\hspace{{{5 * hanging[-1]}pt}}}}" if hanging and hanging[-1] else "@{}"
    label = "-".join(re.sub(r"[^A-Za-z0-9-]", "-", part) for part in (scope, table.name) if part)
    lines = [
        "% needs \\usepackage[T1]{fontenc} and \\usepackage{booktabs}" + " and \\usepackage{graphicx}" * wide,
        r"\begin{table*}[t]",
        r"\centering",
        rf"\caption{{{escape_latex(table.caption)}}}",
        rf"\label{{tab:{label}}}",
        r"\footnotesize",
        rf"\setlength{{\tabcolsep}}{{{gap:g}pt}}",
        *([r"\resizebox{\textwidth}{!}{%"] if wide else []),
        rf"\begin{{tabular}}{{@{{}}l{'r' * (len(table.header) - 1)}{end}}}",
        r"\toprule",
        _latex_row(escape_latex(title) for title in table.header),
        r"\midrule",
        *_latex_body(table.rows),
        r"\bottomrule",
        r"\end{tabular}" + "}" * wide,
    ]
    for note in table.notes:
        lines += ["", rf"\smallskip {{\footnotesize {escape_latex(note)}\par}}"]
    return "\n".join([*lines, r"\end{table*}"]) + "\n"


_NUMBER = re.compile(r"([+−-]?\d[\d.,]*(?: %)?)([^\s\d.,%\w]+)")
"""A number and the signs behind it."""


def _hanging(cell: Cell) -> int:
    """How many characters hang behind the number of a cell."""
    found = _NUMBER.fullmatch(cell.text)
    return len(cell.letters) + (len(found[2]) if found else 0)


def _latex_body(rows: Sequence[Sequence[Cell]]) -> list[str]:
    lines = []
    for row in rows:
        lines.append(_latex_row(map(_latex_cell, row)))
        if any(cell.small for cell in row):
            small = [rf"{{\scriptsize {escape_latex(cell.small)}}}" if cell.small else "" for cell in row]
            lines.append(_latex_row(small))
    return lines


def _latex_cell(cell: Cell) -> str:
    found = _NUMBER.fullmatch(cell.text)
    number, sign = (found[1], found[2]) if found else (cell.text, "")
    text = escape_latex(number)
    text = {"best": rf"\textbf{{{text}}}", "second": rf"\underline{{{text}}}", "": text}[cell.mark]
    hung = escape_latex(sign) + (rf"\textsuperscript{{{escape_latex(cell.letters)}}}" if cell.letters else "")
    return text + (rf"\rlap{{{hung}}}" if hung else "")


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"
