"""The ``report`` verb: tables and figures of every suite, from the records of a results folder.

What is written depends on the records, the options and this package's own code; a digest of these lies beside the
report, so that a second call with nothing new returns at once. pandas and matplotlib are imported only when drawing.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import atomic, records
from harness.identity import digest_bytes, digest_json
from harness.interface import SlimbenchError

if TYPE_CHECKING:
    from harness.records import Record
    from leaderboards.render import Table
    from leaderboards.style import Plot

STATE = ".state.json"


def add_verb(subparsers: Any) -> None:
    """Add ``report`` to the command line."""
    text = "make tables and figures from records"
    verb = subparsers.add_parser("report", help=text, description=text[0].upper() + text[1:] + ".")
    verb.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="records (default: results)")
    verb.add_argument("--out", type=Path, metavar="DIR", help="where the report goes (default: RESULTS/report)")
    for what in ("suite", "upstreams", "tasks"):
        verb.add_argument(f"--{what}", default="", metavar="A,B", help=f"only these {what} (default: all)")
    verb.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    out = options.out or options.results / "report"
    chosen = {what: getattr(options, what).replace(",", " ").split() for what in ("suite", "upstreams", "tasks")}
    files = write(options.results, out, **chosen)
    kinds = {kind: sum(path.name.startswith(f"{kind}_") for path in files) for kind in ("table", "figure")}
    shown = ", ".join(f"{count} {kind} files" for kind, count in kinds.items())
    print(f"report: {files[0]} ({shown} beside it)")


def write(
    results: Path,
    out: Path,
    suite: Sequence[str] = (),
    upstreams: Sequence[str] = (),
    tasks: Sequence[str] = (),
) -> list[Path]:
    """Write the report of a results folder; does nothing where it stands already.

    Args:
        results: folder of records.
        out: folder of the report: ``report.md``, and per suite ``<suite>/*.{md,csv,tex,pdf,png}``.
        suite: only these suites; empty: all.
        upstreams: only these upstreams; empty: all.
        tasks: only these tasks; empty: all.

    Returns:
        The files of the report, in order.

    Raises:
        SlimbenchError: no records, a broken record, or a name that no record has.
    """
    found = _chosen(records.load_all(results), results, suite=suite, upstream=upstreams, task=tasks)
    state = digest_json([_code(), [records.digest(record) for record in found]])
    before = _state(out)
    files = [out / name for name in before.get("files", [])]
    if before.get("state") == state and files and all(path.is_file() for path in files):
        return files
    (out / STATE).unlink(missing_ok=True)
    made = _draw(found, out)
    names = [path.relative_to(out).as_posix() for path in made]
    for name in set(before.get("files", [])) - set(names):
        (out / name).unlink(missing_ok=True)
    atomic.write(out / STATE, json.dumps({"state": state, "files": names}).encode())
    return made


def _draw(found: Sequence[Record], out: Path) -> list[Path]:
    from leaderboards.board import boards
    from leaderboards.figures import figures
    from leaderboards.render import csv, escape_markdown, latex, markdown
    from leaderboards.style import looks, styled
    from leaderboards.tables import tables

    made: list[Path] = []
    page = ["# Report", "", _ABOUT, ""]
    everything = boards(found)
    faces = looks(_union(b.fixed() for b in everything), _union(b.learned() for b in everything))
    for board in everything:
        folder = out / board.suite
        page += [f"## Suite {escape_markdown(board.suite)}", ""]
        for table in tables(board):
            made += _write_table(table, folder, {"md": markdown, "csv": csv, "tex": latex})
            page += [markdown(table, level=3)]
        with styled():
            for plot in figures(board, faces):
                made += _write_plot(plot, folder)
                page += [
                    f"### {escape_markdown(plot.title)}\n",
                    f"![{escape_markdown(plot.title)}]({board.suite}/{_stem(plot)}.png)\n",
                    escape_markdown(plot.caption) + "\n",
                ]
    atomic.write(out / "report.md", "\n".join(page).encode())
    return [out / "report.md", *made]


_ABOUT = (
    "Made from records; every number can be re-derived from the predictions they hold. Scores compare upstreams within "
    "one suite and one protocol; only a suite with SUPERB's own data and protocol gives SUPERB numbers."
)


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


def _chosen(found: Sequence[Record], results: Path, **wanted: Sequence[str]) -> list[Record]:
    """The records that match every given list of names."""
    if not found:
        raise SlimbenchError(f"There are no records under {results}: run 'slimbench bench --upstream NAME' first.")
    for what, names in wanted.items():
        there = sorted({_name(record, what) for record in found})
        for name in names:
            if name not in there:
                raise SlimbenchError(f"No record under {results} has the {what} {name!r}: use {', '.join(there)}.")
        found = [record for record in found if not names or _name(record, what) in names]
    if not found:
        raise SlimbenchError(f"No record under {results} has all of these names together: ask for fewer.")
    return list(found)


def _name(record: Record, what: str) -> str:
    return str(record.upstream["name"] if what == "upstream" else getattr(record, what))


def _union(groups: Iterable[Sequence[str]]) -> list[str]:
    """All names once, in order of first appearance."""
    return list(dict.fromkeys(name for group in groups for name in group))


def _code() -> str:
    """Digest of this package's modules and of the harness' number formats: new code draws anew."""
    files = [*sorted(Path(__file__).parent.glob("*.py")), Path(records.__file__).with_name("show.py")]
    return digest_bytes(b"\0".join(path.read_bytes() for path in files))


def _state(out: Path) -> dict[str, Any]:
    """What the last report was made from; nothing where there is none or it cannot be read."""
    try:
        known = json.loads((out / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
