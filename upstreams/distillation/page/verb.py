"""The verb ``recipes``: lists the built-in recipes, or writes the page about them and what their students score."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.arguments import new_verb
from harness.interface import SlimbenchError
from upstreams.distillation.verbs import STUDENTS

if TYPE_CHECKING:
    from upstreams.distillation.page.products import Entry

SUITES = "embedded,real-mini,embedded-noisy,real-mini-noisy"


def add_recipes(subparsers: Any) -> None:
    """Add ``recipes``."""
    text = "list the built-in recipes; with --write, make the page about them from the records of their students"
    parser = new_verb(subparsers, "recipes", text)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page, such as docs/recipes.md")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="records (default: %(default)s)"
    )
    parser.add_argument(
        "--students", type=Path, default=STUDENTS, metavar="DIR", help="models and cards (default: %(default)s)"
    )
    parser.add_argument("--suites", default=SUITES, metavar="A,B", help="of the page (default: %(default)s)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from upstreams.distillation.page.products import entries

    suites = list(dict.fromkeys(arguments.suites.replace(",", " ").split()))
    if not suites:
        raise SlimbenchError("--suites is empty; name at least one suite.")
    if arguments.write is None:
        print(table(entries()))
        return 0
    from harness import atomic
    from leaderboards.gather import gather
    from upstreams.distillation.page import render

    text = render.page(entries(), gather(arguments.results, accepted=True, lab=True), arguments.students, suites)
    atomic.write(arguments.write, text.encode())
    print(f"recipes: {arguments.write}")
    return 0


def table(found: Sequence[Entry]) -> str:
    """The recipes as text, one line per product; what is a recipe's stands in its first line, its loss on the page."""
    from harness import listing
    from upstreams.distillation.page import words

    rows: list[dict[str, Any]] = []
    for entry in found:
        one = entry.recipe
        facts = {
            "steps": " + ".join(map(str, words.steps(one))),
            "audio (s)": f"{words.audio_seconds(one):g}",
            "procedure": " + ".join(dict.fromkeys(_procedures(entry))),
            "after": one.after,
        }
        for number, product in enumerate(entry.products):
            rows.append(
                {
                    "name": product.name,
                    "student": words.short_shape(product.shape),
                    "parameters": "<= " * product.at_most + f"{product.parameters:,}",
                    "MACs/s": "-" if product.macs is None else f"{product.macs / 1e6:.1f} M",
                    **(facts if number == 0 else dict.fromkeys(facts, "")),
                }
            )
    return listing.text(rows)


def _procedures(entry: Entry) -> list[str]:
    """The kinds of procedure, stage by stage."""
    from upstreams.distillation.recipe import Recipe, stage

    one = entry.recipe
    if not isinstance(one, Recipe):
        return ["pre-training"]
    return [str(stage(one, number).procedure.get("kind", "plain")) for number in range(1 + len(one.stages))]
