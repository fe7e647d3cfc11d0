"""The page of recipes: what each one does, from its file alone, and what its students score, from records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from harness import registry, suite
from harness.cards import Card, read_card
from harness.interface import SlimbenchError
from harness.records import Record
from leaderboards.board import Board, boards, task_order
from leaderboards.cells import SCORES, SPEAKERS, millions, score_cells, task_label
from leaderboards.costs import median_cost
from leaderboards.render import EMPTY, Cell, Table, escape_markdown, markdown
from upstreams.distillation.page import words
from upstreams.distillation.page.products import Entry, Product
from upstreams.distillation.recipe import Recipe

REFERENCES = ("fbank", "logmel", "random_mini", "wavlm_mini", "distilled_wavlm")
"""Upstreams that stand beside the students where they have records: features, an untrained network, embedded ones."""
BEGIN, END = "<!-- what follows is made from the recipe files -->", "<!-- what follows is made from records -->"
HEAD = """\
# Recipes

Written by `python -m harness recipes --write docs/recipes.md`; edit the recipes, not this page. A recipe is a YAML file
in `upstreams/distillation/recipes/`. `make distill RECIPE=name DATA=folder` trains it, resumably, and leaves weights,
their provenance and a card in `students/`; `make bench UPSTREAM=students/name.yaml` scores it. `DATA` names a folder
that holds `real/` and `pretrain/` ([data.md](data.md)); without it only synthetic speech is trained on. `STEPS`
shortens a training.
"""

ABOUT = (
    "States count from 0, the input of the first layer. Heads and distances have the names of "
    "`upstreams/distillation/terms/`, settings of procedures those of `upstreams/distillation/procedures/`."
)


@dataclass(frozen=True)
class Made:
    """A trained model's provenance: parameters of the exposed model, and updates, all stages together."""

    parameters: int
    updates: int | None


def page(found: Sequence[Entry], records: Iterable[Record], students: Path, suites: Sequence[str]) -> str:
    """The whole page as Markdown.

    Args:
        found: the recipes.
        records: of any upstreams; those of the recipes' products, of their variants and of :data:`REFERENCES` count.
        students: folder of trained models and their cards, which need not exist.
        suites: names of suites, each with a table of scores.

    Raises:
        SlimbenchError: there is no such suite, or a card or a provenance is broken.
    """
    products = [product for entry in found for product in entry.products]
    cards = registry.cards()
    made = {
        name: made_by(card_of(name, students, cards))
        for name in dict.fromkeys([*REFERENCES, *(p.name for p in products)])
    }
    mine = {*REFERENCES, *(product.name for product in products)}
    shown = {
        board.suite: board
        for board in boards(r for r in records if r.upstream["name"].partition("@")[0] in mine)
    }  # fmt: skip
    noisy = {name for name in suites if suite.load(name).noise is not None}  # there only what was benched on noise too
    wanted = [name for name in suites if name not in noisy or name in shown]
    tables = [markdown(scores(name, shown.get(name), found, made, name in noisy), level=3) for name in wanted]
    return "\n".join([HEAD, BEGIN, "", described(found), END, "", "## Scores", "", *tables])


def recipe_part(text: str) -> str:
    """What of a page is made from the recipe files alone.

    Raises:
        SlimbenchError: the page lacks the marks around it.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise SlimbenchError(
            "The page of recipes lacks the comments around its recipe part; make it anew with recipes --write."
        )
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()


def described(found: Sequence[Entry]) -> str:
    """The recipe part: a table of all products, then a section per recipe. Depends on the recipe files only."""
    return "\n".join([markdown(_overview(found)), "## One by one", "", ABOUT, "", *map(_section, found)])


def _overview(found: Sequence[Entry]) -> Table:
    rows = []
    for entry in found:
        for number, product in enumerate(entry.products):
            common = [
                Cell(" + ".join(map(str, words.steps(entry.recipe)))),
                Cell(f"{words.audio_seconds(entry.recipe):g}"),
                Cell(entry.recipe.after or "–"),
            ]
            rows.append(
                (
                    Cell(product.name),
                    Cell(words.short_shape(product.shape).replace(" x ", " × ")),
                    Cell(_parameters(product)),
                    EMPTY if product.macs is None else Cell(_macs(product.macs)),
                    *(common if number == 0 else [Cell("")] * len(common)),
                )
            )
    return Table(
        name="recipes",
        title="What comes out",
        caption=(
            "One line per model; a recipe may give several. Shape: layers × width and feed-forward width, before any "
            "pruning; parameters of the exposed model, ≤ where training decides how much of them is left; "
            "multiply-accumulates per second of audio at 10 s, a dash where trained weights decide; updates, stage "
            "after stage; seconds of audio per update."
        ),
        header=("Model", "Shape", "Params (M)", "MMACs/s", "Updates", "Audio (s)", "After"),
        rows=tuple(rows),
        data=pd.DataFrame(),
    )


def _section(entry: Entry) -> str:
    one = entry.recipe
    stages = words.stage_list(one)
    facts = [("model", words.student_words(entry.products[0].shape))]
    if isinstance(one, Recipe):
        teachers = [teacher.name + _mixture(teacher.mixture) for teacher in one.teachers]
        facts += [("teacher", ", ".join(teachers)), ("begins with", words.begin_words(one.init))]
    facts += [("loss", words.loss_words(one)), ("targets", words.targets_words(one))]
    facts += [(f"stage {number}" if len(stages) > 1 else "training", text) for number, text in enumerate(stages, 1)]
    if isinstance(one, Recipe):
        facts.append(("optimiser", words.optimiser_words(one.optimiser)))
    facts.append(("data", words.data_words(one.data)))
    for product in entry.products[1:]:
        facts.append((product.name, words.student_words(product.shape)))
    lines = [f"### {escape_markdown(one.name)}", ""]
    lines += [f"{escape_markdown(one.title)}" + f", after {escape_markdown(one.after)}" * bool(one.after) + ".", ""]
    lines += [escape_markdown(entry.about), ""] if entry.about else []
    lines += [f"- {escape_markdown(what)}: {_prose(text)}" for what, text in facts]
    return "\n".join([*lines, "", f"`make distill RECIPE={one.name} DATA=folder`", ""])


def _mixture(mixture: Mapping[str, float]) -> str:
    return f" ({words.plain(mixture)})" if mixture else ""


def _prose(text: str) -> str:
    """Text of which what stands between backticks is code."""
    parts = text.split("`")
    return "`".join(part if number % 2 else escape_markdown(part) for number, part in enumerate(parts))


def scores(
    name: str, board: Board | None, found: Sequence[Entry], made: Mapping[str, Made | None], benched: bool = False
) -> Table:
    """The scores of one suite: references that have records, then every product, with a dash for what is missing.

    Args:
        name: of the suite.
        board: its records; ``None`` where there are none.
        found: the recipes.
        made: provenance by upstream.
        benched: leave out products and tasks without a record.

    Raises:
        SlimbenchError: there is no such suite.
    """
    there = board.upstreams if board else ()
    tasks = sorted({*(() if benched else suite.load(name).tasks), *(board.tasks if board else ())}, key=task_order)
    rates = {one: [n for n in there if n.startswith(f"{one}@")] for one in made}
    products = {product.name: product for entry in found for product in entry.products}
    references = [one for one in REFERENCES if one in there or one in products]
    updates = {product: sum(words.steps(entry.recipe)) for entry in found for product in _names(entry)}
    students = [
        one
        for product in products
        if product not in references
        for one in (product, *_rising(board, rates[product]))
        if not benched or one in there
    ]
    cells = dict.fromkeys(((one, task) for one in (*references, *students) for task in tasks), EMPTY)
    if board:
        plain = score_cells(board, references, with_interval=True)
        cells |= {where: replace(cell, mark="") for where, cell in plain.items()}
        cells |= score_cells(board, students, with_interval=True)
    rows = []
    for one in (*references, *students):
        base = one.partition("@")[0]
        rows.append(
            (
                Cell(one),
                *_size(one, board, made.get(base), products.get(base)),
                _updates(made.get(base), updates.get(base)),
                *(cells[one, task] for task in tasks),
            )
        )
    return Table(
        name=f"recipes_{name}",
        title=f"Suite {name}",
        caption=(
            f"{SCORES} Small: {SPEAKERS}. Best and second among the recipes' models only; references stand above them "
            "where they have records. Parameters and multiply-accumulates as benched, else of the trained model, else "
            "of the recipe; updates as trained, else of the recipe. A dash for a score: not benched yet."
        ),
        header=("Upstream", "Params (M)", "MMACs/s", "Updates", *(task_label(t, _metric(t, board)) for t in tasks)),
        rows=tuple(rows),
        data=pd.DataFrame(),
        notes=(*(board.notes if board else ()), *_strangers(board, made)),
    )


def _names(entry: Entry) -> list[str]:
    return [product.name for product in entry.products]


def _rising(board: Board | None, names: Sequence[str]) -> list[str]:
    """Variants by rising frame period."""
    return sorted(names, key=lambda n: (board.any_of(n).upstream["frame_ms"] if board else 0.0, n))


def _metric(task: str, board: Board | None) -> str:
    return board.metric(task) if board and task in board.tasks else registry.task(task).metric


def _size(one: str, board: Board | None, made: Made | None, product: Product | None) -> tuple[Cell, Cell]:
    """Parameters and multiply-accumulates of an upstream from the best source there is."""
    if board and one in board.upstreams:
        macs = median_cost(board, one, "macs_per_second")
        return Cell(millions(board.any_of(one).cost["params"])), EMPTY if macs is None else Cell(_macs(macs))
    count = Cell(millions(made.parameters)) if made else Cell(_parameters(product)) if product else EMPTY
    return count, EMPTY if product is None or product.macs is None else Cell(_macs(product.macs))


def _updates(made: Made | None, planned: int | None) -> Cell:
    known = made.updates if made and made.updates is not None else planned
    return EMPTY if known is None else Cell(str(known))


def _parameters(product: Product) -> str:
    return "≤ " * product.at_most + millions(product.parameters)


def _macs(count: float) -> str:
    return f"{count / 1e6:.1f}"


def _strangers(board: Board | None, made: Mapping[str, Made | None]) -> list[str]:
    """Sentences on records of other weights than those that lie among the students."""
    notes = []
    for name in board.upstreams if board else ():
        there, params = made.get(name), board.any_of(name).cost["params"] if board else 0
        if there is not None and there.parameters != params:
            notes.append(
                f"{name}: the records are of a model of {params:,} parameters, the trained one has "
                f"{there.parameters:,}; bench it again."
            )
    return notes


def card_of(name: str, students: Path, cards: Mapping[str, Card]) -> Card | None:
    """The card of a model in the students' folder, else the registered one of its name."""
    file = students / f"{name}.yaml"
    return read_card(file) if file.is_file() else cards.get(name)


def made_by(card: Card | None) -> Made | None:
    """The provenance beside the weights of a card; ``None`` where none is there.

    Raises:
        SlimbenchError: it is broken.
    """
    file = None if card is None or card.weights is None else card.weights.with_name("provenance.json")
    if file is None or not file.is_file():
        return None
    try:
        notes: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        curves = notes.get("curves") or {}
        steps = [curve[-1]["step"] for curve in curves.values() if curve]
        return Made(int(notes["parameters"]), sum(map(int, steps)) if steps else None)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SlimbenchError(
            f"{file} is no provenance of a trained model ({error}); export the model again."
        ) from error
