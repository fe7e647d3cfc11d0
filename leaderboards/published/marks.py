"""What tells published from measured, and a printed number from one that was read off a plot or came second-hand.

Two questions, two answers. An :class:`Origin` says who measured: this project, with a record, or somebody else. A
:class:`Mark` says how a published number reached us. Tables, figures and the page take sign, colour and footnote from
here, so that the two look the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Origin:
    """Who measured.

    Attributes:
        name: ``measured`` or ``published``; also the name of its CSS class.
        title: the word in tables and legends.
        sign: follows the system's name in text tables; empty for our own. ``latex`` is the same in LaTeX.
        colour: of points and lines on white, as ``#rrggbb``; ``colour_dark`` the same on a dark ground.
        filled: whether points of figures are filled; published ones are hollow, so that print in grey tells them apart.
        footnote: the sentence under a table or figure that shows such values.
    """

    name: str
    title: str
    sign: str
    latex: str
    colour: str
    colour_dark: str
    filled: bool
    footnote: str


MEASURED = Origin(
    name="measured",
    title="measured",
    sign="",
    latex="",
    colour="#0072B2",
    colour_dark="#56B4E9",
    filled=True,
    footnote="Measured by this harness: every number can be scored again from the predictions in its record.",
)
PUBLISHED = Origin(
    name="published",
    title="published",
    sign="¶",
    latex=r"\P",
    colour="#7A6A53",
    colour_dark="#CDBE9F",
    filled=False,
    footnote=(
        "¶ Published by others, not measured here: full SUPERB data, each paper's own choice of states and learning "
        "rates; comparable with measured values of the suite superb only."
    ),
)


@dataclass(frozen=True)
class Mark:
    """How a published value reached us.

    Attributes:
        name: as in the data files; also the name of its CSS class.
        title: in words.
        sign: follows the value in text tables; empty where the source itself prints it. ``latex`` the same in LaTeX.
        footnote: the sentence that explains the sign.
    """

    name: str
    title: str
    sign: str
    latex: str
    footnote: str


MARKS: Mapping[str, Mark] = MappingProxyType(
    {
        mark.name: mark
        for mark in (
            Mark("printed", "printed by its authors or by the leaderboard", "", "", ""),
            Mark(
                "quoted",
                "quoted by a later paper",
                "§",
                r"\S",
                "§ Quoted by a later paper; the paper itself was not read.",
            ),
            Mark(
                "second_hand",
                "second-hand",
                "‡",
                r"\ddag",
                "‡ Second-hand: from notes about the paper, which itself was not read.",
            ),
            Mark(
                "digitised",
                "read off a plot",
                "≈",
                r"$\approx$",
                "≈ Read off a plot, see the row for its precision.",
            ),
            Mark(
                "estimated",
                "worked out, not printed",
                "∼",
                r"$\sim$",
                "∼ Worked out from the shape of the network, not printed by anybody.",
            ),
        )
    }
)
"""All marks by name, from the strongest to the weakest."""

OF_KIND: Mapping[str, str] = MappingProxyType(
    {
        "authors_or_leaderboard": "printed",
        "quoted_by_later_paper": "quoted",
        "secondary_digest": "second_hand",
        "digitised_plot": "digitised",
    }
)
"""The mark of a row's values by its ``source_kind``; of kind ``none``, every value must have a mark of its own."""


def of_signs(signs: Iterable[str]) -> list[Mark]:
    """The marks of these signs, each once, strongest first."""
    found = set(signs)
    return [mark for mark in MARKS.values() if mark.sign and mark.sign in found]


def footnotes(origins: Iterable[Origin], marks: Iterable[Mark]) -> list[str]:
    """The sentences that a table with these origins and marks needs, each once, origins first."""
    found = {origin.name for origin in origins}
    notes = [origin.footnote for origin in (MEASURED, PUBLISHED) if origin.name in found]
    shown = {mark.name for mark in marks}
    return notes + [mark.footnote for mark in MARKS.values() if mark.name in shown and mark.footnote]
