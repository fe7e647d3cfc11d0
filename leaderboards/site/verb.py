"""The ``site`` verb: the static page of a results folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness.arguments import new_verb


def add_verb(subparsers: Any) -> None:
    """Add ``site`` to the command line."""
    text = "make the leaderboard page from records and published rows"
    verb = new_verb(subparsers, "site", text)
    verb.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="records (default: results)")
    verb.add_argument("--out", type=Path, metavar="DIR", help="where the page goes (default: RESULTS/site)")
    verb.add_argument("--no-published", action="store_true", help="leave out the rows published by others")
    verb.add_argument("--no-accepted", action="store_true", help="leave out the accepted submissions")
    verb.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from leaderboards.site.build import write

    out = options.out or options.results / "site"
    print(f"site: {write(options.results, out, published=not options.no_published, accepted=not options.no_accepted)}")
