"""What the verbs of the command line share: how one is added, and types of arguments."""

from __future__ import annotations

import argparse
import math
from typing import Any


def new_verb(
    verbs: Any, name: str, text: str, more: str = "", parents: tuple[argparse.ArgumentParser, ...] = ()
) -> argparse.ArgumentParser:
    """Add a verb, or an action of one.

    Args:
        verbs: what ``add_subparsers`` gave.
        name: of the verb.
        text: what it does, in one line of lower case without a full stop; the list of verbs shows it.
        more: what the verb's own help says after that, in sentences.
        parents: parsers whose options it has too.
    """
    about = f"{text[0].upper()}{text[1:]}.{more and ' '}{more}"
    made: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=about, parents=parents)
    return made


def positive(text: str) -> int:
    """A whole number above 0.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def above_zero(text: str) -> float:
    """A finite number above 0.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number
