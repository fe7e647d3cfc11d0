"""The static page, from records and published rows: HTML, style, script and copies of the records, in one folder.

Nothing needs a server and nothing is fetched from elsewhere: each page forbids it itself, by its content security
policy. All text goes through Jinja's escaping and loses its control characters; every link is made in ``links``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness import atomic, records
from harness.interface import SlimbenchError
from harness.records import Record
from harness.show import interval, printable, rate
from leaderboards.gather import gather
from leaderboards.published import MARKS, MEASURED, PUBLISHED, RANKED, Origin
from leaderboards.site import charts, links
from leaderboards.site.entries import TASK_TITLES, Column, Content, Entry, content
from leaderboards.site.published import overall_of, published_entries

HERE = Path(__file__).parent
LIST = ".site.json"
"""Names of the files of the last build, so that those of another one can be removed."""

POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src data:; "
    "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
)
"""Scripts and styles of the page's own files only: nothing inline, no evaluation, no connection. ``file:`` is what
``'self'`` means for a page that is opened from a disk; over HTTP a browser loads no file."""

ASSETS = ("site.css", "site.js", "theme.js", "vendor/sortable.min.js", "vendor/sortable.LICENSE.txt")


def write(results: Path, out: Path, published: bool = True, accepted: bool = False) -> Path:
    """Write the page.

    Args:
        results: folder of records; it may be empty where there are published rows.
        out: folder of the page; files of an earlier page that are no longer part of it are removed.
        published: whether the rows published by others are shown.
        accepted: whether the accepted submissions are shown beside the records of the folder.

    Returns:
        The first page.

    Raises:
        SlimbenchError: for a broken record, or where there is nothing to show.
    """
    rows, notes = published_entries() if published else ([], [])
    found = content(gather(results, accepted), rows, notes, overall_of)
    if not found.entries:
        raise SlimbenchError(f"There are no records under {results} and no published rows: run a bench first.")
    files: dict[str, bytes] = {str(name): text.encode() for name, text in pages(found)}
    for asset in ASSETS:
        files[f"assets/{Path(asset).name}"] = (HERE / "assets" / asset).read_bytes()
    for path, record in _records(found):
        files[f"records/{path}"] = records.text(record).encode()
    _replace(out, files)
    return out / "index.html"


def _records(found: Content) -> Iterator[tuple[PurePosixPath, Record]]:
    for entry in found.entries:
        for score in entry.scores.values():
            if score.record and score.record_path:
                yield score.record_path, score.record


def _replace(out: Path, files: dict[str, bytes]) -> None:
    """Write what is new or changed, remove what an earlier page left."""
    try:
        before = json.loads((out / LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = []
    for name in sorted({name for name in before if isinstance(name, str)} - set(files)):
        old = out / name
        if ".." not in PurePosixPath(name).parts and out.resolve() in old.resolve().parents:
            old.unlink(missing_ok=True)
    atomic.write(out / LIST, json.dumps(sorted(files), indent=0).encode())
    for name, data in files.items():
        path = out / name
        if not (path.is_file() and path.read_bytes() == data):
            atomic.write(path, data)


def vendor() -> dict[str, str]:
    """What is known of the carried library, after a check of its bytes.

    Raises:
        SlimbenchError: where the file is not the one that its package has.
    """
    (entry,) = yaml.safe_load((HERE / "assets" / "vendor" / "VENDOR.yaml").read_text(encoding="utf-8"))
    seen = hashlib.sha256((HERE / "assets" / "vendor" / entry["file"]).read_bytes()).hexdigest()
    if seen != entry["sha256"]:
        raise SlimbenchError(f"{entry['file']} is not that of {entry['package']} {entry['version']}: install it again.")
    return {name: str(value) for name, value in entry.items()}


@cache
def environment() -> Environment:
    """Jinja with escaping on, undefined names as errors, and text without control characters."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    made.globals |= {
        "href": links.href,
        "page_of": links.page_of,
        "task_page": links.task_page,
        "record_file": links.record_file,
        "anchor_of": links.anchor_of,
        "web": links.web,
        "arxiv": links.arxiv_parts,
        "words": charts.words,
        "interval": interval,
        "rate": rate,
        "quoted": quote,
        "root_of": lambda depth: "../" * depth,
        "params": _params,
        "policy": POLICY,
        "ranked": RANKED,
        "vendor": vendor(),
    }
    return made


def _finalize(value: Any) -> Any:
    """Text without control characters and marks that turn the direction of writing; what is markup already stays."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def pages(found: Content) -> Iterator[tuple[PurePosixPath, str]]:
    """Name and HTML of every page."""
    jinja = environment()
    tasks = list(dict.fromkeys(column.task for column in found.columns()))
    shared = {
        "nav": [(Column(task, "", True).title, str(links.task_page(task))) for task in tasks],
        "footer": _footer(found),
    }

    def render(template: str, name: PurePosixPath, /, **values: Any) -> tuple[PurePosixPath, str]:
        root = "../" * (len(name.parts) - 1)
        return name, jinja.get_template(template).render(**shared, root=root, here=str(name), **values)

    yield render("index.html", PurePosixPath("index.html"), **_index(found))
    for task in tasks:
        yield render("task.html", links.task_page(task), **_task(found, task))
    for name, entries in _systems(found).items():
        yield render("system.html", name, **_system(found, entries))


def _footer(found: Content) -> str:
    made = [score.record.created for e in found.entries for score in e.scores.values() if score.record]
    published = sum(entry.origin == "published" for entry in found.entries)
    newest = f", the newest of {max(made)[:10]}" if made else ""
    return f"Made from {len(made)} records{newest}, and {published} published rows."


@dataclass(frozen=True)
class Fixed:
    """A cell that is not a score: its text, and what it sorts by (an empty key sorts last)."""

    text: str
    key: str
    number: bool = False


Cells = Callable[[Entry], Fixed]


def _index(found: Content) -> dict[str, Any]:
    suites = found.suites()
    origins = {entry.origin for entry in found.entries}
    signs = {score.sign for entry in found.entries for score in entry.scores.values()}
    fixed: list[tuple[str, str, bool, Cells]] = [
        ("Origin", "", False, lambda entry: Fixed(entry.origin, entry.origin)),
        ("Suite", "", False, lambda entry: Fixed(entry.suite, entry.suite)),
        ("Params", "M", True, _params),
    ]
    for what, title, unit in (("macs_rate", "MACs/s", "G"), ("macs", "MACs", "G, 32 utt.")):
        if any(getattr(entry, what) is not None for entry in found.entries):
            fixed.append((title, unit, True, partial(_cost, what)))
    return {
        "entries": found.entries,
        "groups": found.groups(),
        "fixed": [{"title": title, "unit": unit, "number": number} for title, unit, number, _ in fixed],
        "cells": [render for *_, render in fixed],
        "suites": [{"value": suite, "title": suite} for suite in suites],
        "first": suites[0],
        "notes": found.notes,
        "legend": [(origin.name, _sentence(origin)) for origin in (MEASURED, PUBLISHED) if origin.name in origins],
        "footnotes": [mark.footnote for mark in MARKS.values() if mark.sign and mark.sign in signs],
    }


def _sentence(origin: Origin) -> str:
    """What an origin means, without the sign and word that stand before it on the page."""
    return origin.footnote.removeprefix(f"{origin.sign} ").removeprefix("Measured ").removeprefix("Published ")


def _params(entry: Entry) -> Fixed:
    if entry.params is None:
        return Fixed("", "", True)
    millions = entry.params / 1e6
    shown = f"{millions:.1f}" if millions >= 10 else f"{millions:.2f}" if millions else "0"
    return Fixed(shown, f"{millions:.6f}", True)


def _cost(what: str, entry: Entry) -> Fixed:
    value = getattr(entry, what)
    if value is None:
        return Fixed("", "", True)
    shown = f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2g}"
    return Fixed(shown, f"{value:.6g}", True)


def _task(found: Content, task: str) -> dict[str, Any]:
    columns = [column for column in found.columns() if column.task == task]
    sections = []
    for suite in found.suites():
        here = [e for e in found.entries if e.suite == suite and any(column in e.scores for column in columns)]
        if here:
            shown = [column for column in columns if any(column in entry.scores for entry in here)]
            drawn = [chart for column in shown for chart in _task_charts(found, suite, column)]
            sections.append(
                {"suite": suite, "anchor": links.anchor_of(suite), "columns": shown, "entries": here, "charts": drawn}
            )
    return {"task": Column(task, "", True).title, "meaning": TASK_TITLES.get(task, ""), "sections": sections}


def _task_charts(found: Content, suite: str, column: Column) -> list[charts.Chart]:
    drawn = [
        charts.ranking(found.entries, column, suite),
        *(charts.tradeoff(found.entries, column, suite, what) for what in charts.COSTS),
        charts.depth_width(found, suite, column),
    ]
    return [chart for chart in drawn if chart is not None]


def _systems(found: Content) -> dict[PurePosixPath, list[Entry]]:
    grouped: dict[PurePosixPath, list[Entry]] = {}
    for entry in found.entries:
        grouped.setdefault(links.page_of(entry), []).append(entry)
    return grouped


def _system(found: Content, entries: Sequence[Entry]) -> dict[str, Any]:
    first = entries[0]
    facts = [*_costs(first), *(("teacher", first.teacher),) * bool(first.teacher), *first.facts]
    sections = []
    for entry in entries:
        curves = [charts.learning_rates(entry, column) for column in entry.scores]
        weights = charts.layer_weights(entry)
        sections.append(
            {
                "suite": entry.suite,
                "anchor": links.anchor_of(entry.suite),
                "rows": list(_rows(entry)),
                "remarks": any(score.note for score in entry.scores.values()),
                "charts": [weights] if weights else [],
                "curves": [chart for chart in curves if chart],
                "notes": _record_notes(entry),
            }
        )
    return {
        "name": first.name,
        "title": first.title,
        "kind": first.origin,
        "facts": facts,
        "sources": first.sources,
        "sections": sections,
    }


def _rows(entry: Entry) -> Iterator[tuple[Column, Any, str]]:
    """Columns and scores with the anchor that the first of a task has."""
    seen: set[str] = set()
    for column, score in entry.scores.items():
        yield column, score, "" if column.task in seen else links.anchor_of(entry.suite, column.task)
        seen.add(column.task)


def _costs(entry: Entry) -> Iterator[tuple[str, str]]:
    if entry.params is not None:
        yield "parameters", f"{entry.params / 1e6:.2f} M" if entry.params else "none"
    if entry.macs_rate is not None:
        yield "MACs per second of audio", f"{entry.macs_rate:.3g} G"
    if entry.macs is not None:
        yield "MACs of SUPERB's 32 utterances", f"{entry.macs:.5g} G"


def _record_notes(entry: Entry) -> list[str]:
    """The notes of the entry's records, each with the tasks that it stands in."""
    where: dict[str, list[str]] = {}
    for column, score in entry.scores.items():
        for note in score.record.notes if score.record else ():
            where.setdefault(note, []).append(column.title)
    return [f"{', '.join(tasks)}: {note}" for note, tasks in where.items()]
