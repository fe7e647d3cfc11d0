"""``slimbench data noisy``: a noisy copy of a data folder, to measure any upstream on noisy speech."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness.arguments import new_verb
from harness.interface import SPLITS, SlimbenchError, Split
from harness.progress import Progress, say


def add_action(actions: Any) -> None:
    """Add ``noisy`` to the actions of the verb ``data``."""
    text = "copy a data folder with noise, or a second speaker, in the audio of its test split"
    action = new_verb(actions, "noisy", text)
    action.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data folder, which is only read")
    action.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the noisy copy goes")
    action.add_argument("--snr", type=float, default=5.0, metavar="DB", help="signal-to-noise ratio (default: 5)")
    action.add_argument(
        "--kind",
        choices=("noise", "speaker", "mixed"),
        default="noise",
        help="coloured noise, a second speaker from the train split, or both (default: noise)",
    )
    action.add_argument(
        "--splits", default="test", metavar="A,B", help="whose audio: of train, dev and test, or all (default: test)"
    )
    action.add_argument("--seed", type=int, default=0, metavar="N", help="of what is added (default: 0)")
    action.set_defaults(run=_noisy)


def splits_of(text: str) -> tuple[Split, ...]:
    """The splits that an option names, in their usual order.

    Raises:
        SlimbenchError: one is no split.
    """
    names = set(SPLITS) if text == "all" else set(text.split(","))
    if not names <= set(SPLITS):
        raise SlimbenchError(f"--splits {text!r}: write some of {', '.join(SPLITS)} with commas between, or all.")
    return tuple(split for split in SPLITS if split in names)


def _noisy(options: argparse.Namespace) -> None:
    from downstreams.corpora.noisy import Recipe, make

    recipe = Recipe(options.snr, options.kind, options.seed, splits_of(options.splits))
    with Progress("add noise", 1, "utterances") as progress:
        note = make(options.data, options.out, recipe, progress)
    speechless = note["without_speech"]
    instead = f" ({speechless} without speech carry noise instead)" if speechless and recipe.kind != "noise" else ""
    say(
        f"{options.out}: {recipe.words()}, {note['utterances']} utterances{instead}; bench it as a suite of its own, "
        "whose file says `noise` (docs/data.md)"
    )
