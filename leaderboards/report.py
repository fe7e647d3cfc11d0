"""The ``report`` verb: tables and figures of every suite, from the records of a results folder.

What is written depends on the records, the options and this package's own code; a digest of these lies beside the
report, so that a second call with nothing new returns at once. pandas and matplotlib are imported only when drawing.
"""

from __future__ import annotations

import argparse
import fnmatch
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import atomic, records
from harness.arguments import new_verb
from harness.identity import digest_bytes, digest_json
from harness.interface import SlimbenchError
from leaderboards.gather import gather

if TYPE_CHECKING:
    from harness.records import Record
    from leaderboards.board import Board
    from leaderboards.published import Row
    from leaderboards.render import Table
    from leaderboards.style import Plot

STATE = ".state.json"


SUPERB = "superb"
"""The suite that published rows are of."""


@dataclass(frozen=True)
class Options:
    """What a report is made of, besides the records of a folder.

    Attributes:
        accepted: also the records of the accepted submissions.
        published: also the rows that others published.
        weighting: name or file of the overall score of measured upstreams.
        tolerance: how much more parameters students of one budget may have, as a share.
        lab: also the records of the distillation lab's own students.
    """

    accepted: bool = False
    published: bool = False
    weighting: str = "slim_mean"
    tolerance: float = 0.05
    lab: bool = False


def add_verb(subparsers: Any) -> None:
    """Add ``report`` to the command line."""
    text = "make tables and figures from records and published rows"
    verb = new_verb(subparsers, "report", text)
    verb.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="records (default: results)")
    verb.add_argument("--out", type=Path, metavar="DIR", help="where the report goes (default: RESULTS/report)")
    for what in ("suite", "upstreams", "tasks"):
        verb.add_argument(
            f"--{what}", default="", metavar="A,B", help=f"only these {what}, * for any ending (default: all)"
        )
    verb.add_argument("--accepted", action="store_true", help="also the accepted submissions; local records come first")
    verb.add_argument("--lab", action="store_true", help="also the students that this project distilled, dozens")
    verb.add_argument("--no-published", action="store_true", help="leave out the rows published by others")
    name = Options.weighting
    verb.add_argument("--weighting", default=name, metavar="NAME|FILE", help=f"of the overall score (default: {name})")
    verb.add_argument(
        "--tolerance", type=float, default=5.0, metavar="PERCENT",
        help="students whose parameters differ by no more are of one size (default: 5)",
    )  # fmt: skip
    verb.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    out = options.out or options.results / "report"
    if not 0.0 <= options.tolerance <= 100.0:
        raise SlimbenchError(f"--tolerance {options.tolerance:g} is no share of parameters: use 0 to 100 percent.")
    chosen = {
        what: [name.strip() for name in getattr(options, what).split(",") if name.strip()]
        for what in ("suite", "upstreams", "tasks")
    }
    made = Options(
        options.accepted, not options.no_published, options.weighting, options.tolerance / 100.0, options.lab
    )
    files = write(options.results, out, **chosen, options=made)
    kinds = {kind: sum(path.name.startswith(f"{kind}_") for path in files) for kind in ("table", "figure")}
    shown = ", ".join(f"{count} {kind} files" for kind, count in kinds.items())
    print(f"report: {files[0]} ({shown} beside it)")


def write(
    results: Path,
    out: Path,
    suite: Sequence[str] = (),
    upstreams: Sequence[str] = (),
    tasks: Sequence[str] = (),
    options: Options | None = None,
) -> list[Path]:
    """Write the report of a results folder; does nothing where it stands already.

    Args:
        results: folder of records.
        out: folder of the report: ``report.md``, and per suite ``<suite>/*.{md,csv,tex,pdf,png}``; published rows alone
            in ``published/``.
        suite: only these suites; empty: all. Published rows are of the suite ``superb``.
        upstreams: only these upstreams, and published systems; empty: all.
        tasks: only these tasks; empty: all.
        options: what else it is made of.

    Returns:
        The files of the report, in order.

    Raises:
        SlimbenchError: nothing to show, a broken record, or a name that nothing has.
    """
    from leaderboards import scores
    from leaderboards.published import published

    options = options or Options()
    how = repr(scores.weighting(options.weighting))
    wanted = {"suite": suite, "upstream": upstreams, "task": tasks}
    everything = gather(results, options.accepted, options.lab)
    found, rows = _chosen(everything, published().rows if options.published else (), results, wanted)
    named = [row.system for row in rows]
    seals = [records.digest(record) for record in found]
    state = digest_json([_code(), asdict(options), how, list(tasks), named, seals])
    before = _state(out)
    files = [out / name for name in before.get("files", [])]
    if before.get("state") == state and files and all(path.is_file() for path in files):
        return files
    (out / STATE).unlink(missing_ok=True)
    made = _draw(found, rows, out, options)
    names = [path.relative_to(out).as_posix() for path in made]
    for name in set(before.get("files", [])) - set(names):
        (out / name).unlink(missing_ok=True)
    atomic.write(out / STATE, json.dumps({"state": state, "files": names}).encode())
    return made


def _draw(found: Sequence[Record], rows: Sequence[Row], out: Path, options: Options) -> list[Path]:
    from leaderboards import figures, published_tables, tables
    from leaderboards.board import boards
    from leaderboards.render import escape_markdown
    from leaderboards.resamples import resample
    from leaderboards.style import looks, styled

    made: list[Path] = []
    page = ["# Report", "", _ABOUT, ""]
    everything = boards(found)
    faces = looks(_union(b.fixed() for b in everything), _union(b.learned() for b in everything))
    how = options.weighting, options.tolerance
    for board in everything:
        drawn = resample(board)
        page += [f"## Suite {escape_markdown(board.suite)}", ""]
        shown = tables.tables(board, drawn, *how)
        made += _write_tables(shown, out / board.suite, page)
        page += _further(board, shown, options.tolerance)
        with styled():
            made += _write_plots(figures.figures(board, faces, drawn, *how, rows), out / board.suite, page)
    if rows:
        page += ["## Published rows", "", _PUBLISHED, ""]
        made += _write_tables(published_tables.published_tables(rows), out / "published", page)
        with styled():
            made += _write_plots(figures.published_figures(rows), out / "published", page)
    atomic.write(out / "report.md", "\n".join(page).encode())
    return [out / "report.md", *made]


def _further(board: Board, shown: Sequence[Table], tolerance: float) -> list[str]:
    """What the tables of a suite do not show, and where to find it; empty where nothing is missing."""
    from leaderboards.render import escape_markdown

    lines = []
    if not any(table.name == "budgets" for table in shown):
        lines.append(
            "No two students of one teacher and family with different depths have parameters within "
            f"{100 * tolerance:g} % of each other here, so nothing is said of depth against width at equal size."
        )
    pairs = [name for name in board.upstreams if board.any_of(name).upstream["teacher"] in board.upstreams]
    if pairs:
        lines.append(
            f"Whether {', '.join(map(escape_markdown, pairs))} answers as its teacher does and has states like its: "
            "`slimbench fidelity STUDENT` (`docs/fidelity.md`)."
        )
    return [part for line in lines for part in (line, "")]


_PUBLISHED = "Numbers of others, with their sources in the CSV of the results. Nothing here was measured by us."

_ABOUT = (
    "Made from records; every number can be re-derived from the predictions they hold. Scores compare upstreams within "
    "one suite and one protocol; only a suite with SUPERB's own data and protocol gives SUPERB numbers."
)


def _write_tables(shown: Iterable[Table], folder: Path, page: list[str]) -> list[Path]:
    """Each table in three formats, and on the page."""
    from leaderboards.render import csv, latex, markdown

    made = []
    for table in shown:
        made += _write_table(table, folder, {"md": markdown, "csv": csv, "tex": partial(latex, scope=folder.name)})
        page += [markdown(table, level=3)]
    return made


def _write_plots(shown: Iterable[Plot], folder: Path, page: list[str]) -> list[Path]:
    """Each figure in two formats, and on the page with its caption. Inside ``style.styled()``."""
    from leaderboards.render import escape_markdown

    made = []
    for plot in shown:
        made += _write_plot(plot, folder)
        page += [
            f"### {escape_markdown(plot.title)}\n",
            f"![{escape_markdown(plot.title)}]({folder.name}/{_stem(plot)}.png)\n",
            escape_markdown(plot.caption) + "\n",
        ]
    return made


def _write_table(table: Table, folder: Path, formats: dict[str, Any]) -> list[Path]:
    made = []
    for suffix, render in formats.items():
        path = folder / f"table_{table.name}.{suffix}"
        atomic.write(path, render(table).encode())
        made.append(path)
    return made


def _stem(plot: Plot) -> str:
    return f"figure_{plot.name}"


def _write_plot(plot: Plot, folder: Path) -> list[Path]:
    """PDF and PNG of a figure, laid out once, without dates, so that the same records give the same bytes."""
    from leaderboards.style import freeze

    made = []
    freeze(plot.figure)
    for suffix in ("pdf", "png"):
        buffer = io.BytesIO()
        metadata = {"CreationDate": None, "Title": plot.title} if suffix == "pdf" else {"Title": plot.title}
        plot.figure.savefig(buffer, format=suffix, dpi=200, metadata=metadata)
        path = folder / f"{_stem(plot)}.{suffix}"
        atomic.write(path, buffer.getvalue())
        made.append(path)
    return made


def _chosen(
    found: Sequence[Record], rows: Sequence[Row], results: Path, wanted: Mapping[str, Sequence[str]]
) -> tuple[list[Record], list[Row]]:
    """The records, and the published rows, that match every given list of names."""
    if not found and not rows:
        raise SlimbenchError(f"There are no records under {results}: run 'slimbench bench --upstream NAME' first.")
    theirs = {
        "suite": {SUPERB} if rows else set(),
        "upstream": {row.system for row in rows},
        "task": {metric.split(".")[0] for row in rows for metric in row.metrics()},
    }
    whole = found
    for what, names in wanted.items():
        there = sorted({_name(record, what) for record in whole})
        for name in names:
            if not any(_matches(one, [name]) for one in (*there, *theirs[what])):
                more = " (or the name of a published system)" if rows and what == "upstream" else ""
                known = f"use {', '.join(there)}" if there else "see the list of published rows"
                raise SlimbenchError(f"No record under {results} has the {what} {name!r}: {known}{more}.")
        found = [record for record in found if not names or _matches(_name(record, what), names)]
    kept = rows if not wanted["suite"] or SUPERB in wanted["suite"] else ()
    kept = [row for row in kept if not wanted["upstream"] or _matches(row.system, wanted["upstream"])]
    if wanted["task"]:
        kept = [_only(row, wanted["task"]) for row in kept]
    if not found and not kept:
        raise SlimbenchError(f"No record under {results} has all of these names together: ask for fewer.")
    return list(found), list(kept)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _only(row: Row, tasks: Sequence[str]) -> Row:
    """The row with the scores of some tasks alone; sizes stay."""
    keep = {n: v for n, v in row.values.items() if v.quantity.group == "size" or n.split(".")[0] in tasks}
    return replace(row, values=keep)


def _name(record: Record, what: str) -> str:
    return str(record.upstream["name"] if what == "upstream" else getattr(record, what))


def _union(groups: Iterable[Sequence[str]]) -> list[str]:
    """All names once, in order of first appearance."""
    return list(dict.fromkeys(name for group in groups for name in group))


ELSEWHERE = frozenset({"site", "submissions", "records", "similarity"})
"""Folders of this package that a report is not made from."""


def _code() -> str:
    """Digest of what turns records into a report: this package's modules and data, and the harness' scores and formats.

    New code and new published rows draw anew.
    """
    here = Path(__file__).parent
    own = [path for kind in ("*.py", "*.yaml") for path in sorted(here.rglob(kind))]
    own = [path for path in own if path.relative_to(here).parts[0] not in ELSEWHERE]
    lent = [Path(records.__file__).with_name(name) for name in ("show.py", "stats.py", "metrics.py")]
    return digest_json([[path.name, digest_bytes(path.read_bytes())] for path in [*own, *lent]])


def _state(out: Path) -> dict[str, Any]:
    """What the last report was made from; nothing where there is none or it cannot be read."""
    try:
        known = json.loads((out / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
