"""The verb ``data``: ``slimbench data check superb DATA=/corpora`` says which official corpora are there and right.

``slimbench data noisy`` is in ``noisy_verb.py``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from downstreams.corpora import noisy_verb, official
from downstreams.corpora.official import Corpus, Expected, Finding
from harness.arguments import new_verb
from harness.interface import SlimbenchError

_SHOWN = 5
"""Problems that are printed per corpus; --json has all of them."""


def add_verb(subparsers: Any) -> None:
    """Add ``data check`` and ``data noisy``."""
    about = "check official corpora, make noisy data"
    parser = new_verb(subparsers, "data", about)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    text = "say which corpora of a suite are found, missing or incomplete, and what must come out"
    check = new_verb(actions, "check", text)
    check.add_argument("suite", choices=("superb",), help="the suite")
    check.add_argument("words", nargs="*", metavar="DATA=DIR", help="folder with the corpora; the same as --data")
    check.add_argument("--data", type=Path, metavar="DIR", help="folder with the corpora")
    check.add_argument(
        "--expect", type=Path, metavar="FILE", help="YAML file with other counts, for subsets (default: official ones)"
    )
    check.add_argument("--audio", action="store_true", help="also open every audio file and look for cut-off ones")
    check.add_argument("--json", action="store_true", help="with all problems, as JSON")
    check.set_defaults(run=_check)
    noisy_verb.add_action(actions)


def _check(options: argparse.Namespace) -> int:
    from downstreams.corpora import index

    data = _folder(options)
    known = (*index.CORPORA, *index.OTHER_VERSIONS)
    expected = official.load_expected(options.expect, known) if options.expect else index.expected_counts(data)
    findings = look(data, known, expected, options.audio)
    # What SUPERB does not use is only worth a word where it is there.
    findings = [f for f in findings if f.corpus in index.CORPORA or f.status != "missing"]
    phones = _lexicon(data) if any("pr" in f.corpus.tasks and f.root for f in findings) else ""
    if options.json:
        content = {"data": str(data), "corpora": [as_json(finding) for finding in findings], "lexicon": phones or None}
        print(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        print(describe(data, findings, phones))
    present = [finding for finding in findings if finding.status != "missing"]
    return 0 if present and all(finding.status == "found" for finding in present) else 2


def _folder(options: argparse.Namespace) -> Path:
    given = [] if options.data is None else [options.data]
    for word in options.words:
        name, separator, value = word.partition("=")
        if name != "DATA" or not separator or not value:
            raise SlimbenchError(f"{word!r} is not understood; name the folder with the corpora as DATA=folder.")
        given.append(Path(value))
    if len(given) != 1:
        raise SlimbenchError("name the folder with the corpora once, as DATA=folder or --data folder.")
    data: Path = given[0]
    if not data.is_dir():
        raise SlimbenchError(f"{data}: no such data folder; correct DATA (slimbench: --data).")
    return data


def look(data: Path, corpora: tuple[Corpus, ...], expected: Expected | None, audio: bool) -> list[Finding]:
    """Check corpora below ``data``.

    Args:
        data: the folder.
        corpora: which ones.
        expected: counts that must come out, ``None`` for the official ones.
        audio: also open every file; the first broken one of a corpus is a problem.
    """
    from harness.progress import Progress

    findings = []
    for corpus in corpora:
        finding, reading = official.check(corpus, data, expected)
        if audio and finding.root is not None:
            root = finding.root
            try:
                with Progress(f"open audio of {corpus.title}", len(reading.rows), "files") as progress:
                    official.measure(root, (row.path for row in reading.rows), progress)
            except SlimbenchError as error:
                finding = replace(finding, status="incomplete", problems=(str(error), *finding.problems))
        findings.append(finding)
    return findings


def _lexicon(data: Path) -> str:
    from downstreams.corpora import lexicon

    try:
        return lexicon.find(data).origin
    except SlimbenchError as error:
        return f"not usable: {error}"


def describe(data: Path, findings: list[Finding], phones: str) -> str:
    """What was found, as text for the terminal."""
    parts = [f"corpora below {data}"]
    for finding in findings:
        parts.append(_of_corpus(finding, phones if "pr" in finding.corpus.tasks else ""))
    status = [finding.status for finding in findings]
    there = ", ".join(f"{status.count(name)} {name}" for name in ("found", "missing", "incomplete") if name in status)
    gone = [task for finding in findings if finding.status == "missing" for task in finding.corpus.tasks]
    broken = [task for finding in findings if finding.status == "incomplete" for task in finding.corpus.tasks]
    parts.append(
        there
        + (f"; without corpus: {', '.join(gone)}" if gone else "")
        + (f"; not before the corpus is mended: {', '.join(broken)}" if broken else "")
    )
    return "\n\n".join(parts)


def _of_corpus(finding: Finding, phones: str) -> str:
    corpus = finding.corpus
    subset = "" if finding.official else " · a subset, not the official corpus"
    lines = [f"{finding.status:<10}  {corpus.title} · tasks {', '.join(corpus.tasks)}{subset}"]
    if finding.root is None:
        lines.append(f"            {finding.problems[0]}")
        lines.append(f"            {corpus.size_gb:g} GB · {corpus.licence} · {corpus.source}")
        lines.append(f"            must hold {_counts(finding.expected, None)}")
        lines += [f"              {line}" for line in corpus.tree.splitlines()]
        return "\n".join(lines)
    lines.append(f"            {finding.root} · {corpus.size_gb:g} GB · {corpus.licence} · {corpus.source}")
    lines.append(f"            {_counts(finding.expected, finding.counts)}")
    if phones:
        lines.append(f"            phone lexicon: {phones}")
    lines += [f"            note: {note}" for note in finding.notes]
    lines += [f"            {problem}" for problem in finding.problems[:_SHOWN]]
    if len(finding.problems) > _SHOWN:
        # The last one compares the counts, which is the gist of them.
        lines.append(f"            ... and {len(finding.problems) - _SHOWN} more (--json): {finding.problems[-1]}")
    return "\n".join(lines)


def _counts(expected: Mapping[str, int], counts: Mapping[str, int] | None) -> str:
    """What must be counted, or what was counted against it: ``train 28,539 of 28,539 · dev 2,703 of 2,703``.

    The three numbers of a fold stand together.
    """
    groups: dict[str, list[str]] = {}
    for name, number in expected.items():
        fold = name.startswith("fold")
        group = name.partition("_")[0] if fold else name
        groups.setdefault(group, []).append(f"{number if counts is None else counts.get(name, 0):,}")
        if counts is not None and (not fold or counts.get(name) != number):
            groups[group][-1] += f" of {number:,}"
    return " · ".join(f"{name} {'/'.join(shown)}" for name, shown in groups.items())


def as_json(finding: Finding) -> dict[str, Any]:
    """All that is known of a corpus, JSON-able."""
    corpus = finding.corpus
    return {
        "name": corpus.name,
        "title": corpus.title,
        "tasks": list(corpus.tasks),
        "status": finding.status,
        "root": None if finding.root is None else str(finding.root),
        "counts": dict(finding.counts),
        "expected": dict(finding.expected),
        "official": finding.official,
        "problems": list(finding.problems),
        "notes": list(finding.notes),
        "size_gb": corpus.size_gb,
        "licence": corpus.licence,
        "source": corpus.source,
        "tree": corpus.tree,
        "looked_for": list(corpus.folders),
    }
