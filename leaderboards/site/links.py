"""File names and relative links of the page. Every address within the page is made here, none by a card."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from urllib.parse import quote

from harness.identity import digest_bytes
from leaderboards.site.entries import Entry, Score

_PLAIN = re.compile(r"[a-z0-9_]+(-[a-z0-9_]+)*")
_ARXIV = re.compile(r"\b(\d{4}\.\d{4,5})(v\d+)?\b")


def slug(name: str) -> str:
    """A file name from any text: lower case, digits, _ and -; with part of a digest where that loses something."""
    plain = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[:48].strip("-")
    if plain == name and _PLAIN.fullmatch(plain):
        return plain
    return f"{plain or 'name'}-{digest_bytes(name.encode())[:8]}"


def page_of(entry: Entry) -> PurePosixPath:
    """The detail page of an entry's system, one for all of its suites."""
    return PurePosixPath(entry.origin, f"{slug(entry.name)}.html")


def task_page(task: str) -> PurePosixPath:
    """The page of a task."""
    return PurePosixPath("tasks", f"{slug(task)}.html")


def record_file(score: Score) -> PurePosixPath | None:
    """The page's copy of the record behind a score."""
    path = score.record_path
    return PurePosixPath("records", path) if path else None


def href(target: PurePosixPath, depth: int, anchor: str = "") -> str:
    """A relative link to a file of the page from a page ``depth`` folders down; always safe inside an attribute."""
    path = "../" * depth + quote(str(target))
    return f"{path}#{quote(anchor)}" if anchor else path


def anchor_of(suite: str, task: str = "") -> str:
    """The id of a section within a page."""
    return "-".join(filter(None, (slug(suite), slug(task) if task else "")))


def web(address: str) -> str:
    """The address of a source, or nothing where it is not one of the web."""
    return address if re.fullmatch(r"https?://[^\s\"'<>]+", address) else ""


def arxiv_parts(text: str) -> Iterable[tuple[str, str]]:
    """A text in pieces, each with the address of the paper that it names, or an empty one."""
    at = 0
    for found in _ARXIV.finditer(text):
        yield text[at : found.start()], ""
        yield found.group(0), f"https://arxiv.org/abs/{found.group(1)}"
        at = found.end()
    yield text[at:], ""
