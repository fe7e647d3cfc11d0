"""The verb ``family``: students of equal size, solved, printed as a grid and written as recipes."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.arguments import new_verb
from harness.interface import SlimbenchError

if TYPE_CHECKING:
    from upstreams.distillation.families.solver import Shape

_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}


def add_family(subparsers: Any) -> None:
    """Add ``family``."""
    text = "solve student shapes of equal size, print the grid and write one recipe per student"
    parser = new_verb(subparsers, "family", text)
    parser.add_argument("--params", default="1.0M,2.5M", metavar="A,B", help="budgets (default: %(default)s)")
    parser.add_argument("--depths", default="1,2,3,4,6,8,12", metavar="A,B", help="layers (default: %(default)s)")
    parser.add_argument("--methods", default="pred,l2l", metavar="A,B", help="how to distil (default: %(default)s)")
    parser.add_argument(
        "--seeds", default="1", metavar="N", help="distillations per student, one number or one per budget (default: 1)"
    )
    parser.add_argument("--teacher", default="wavlm_mini", metavar="NAME", help="upstream (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=1500, metavar="N", help="updates (default: %(default)s)")
    parser.add_argument(
        "--hours", type=float, default=16.0, metavar="H", help="synthetic speech (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=24.0, metavar="S", help="audio per update (%(default)s)")
    parser.add_argument(
        "--head-widths", default="64,48,32,24,16", metavar="A,B", help="sizes of a head to try (default: %(default)s)"
    )
    parser.add_argument("--name", default="dvw", help="of the family (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("families"), metavar="DIR", help="where it goes (default: %(default)s)"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from harness import registry
    from upstreams.distillation.families import files, solver

    budgets = [parameters(word) for word in _words(arguments.params, "--params")]
    depths = _numbers(arguments.depths, "--depths")
    seeds = _numbers(arguments.seeds, "--seeds")
    if len(seeds) == 1:
        seeds *= len(budgets)
    if len(seeds) != len(budgets):
        raise SlimbenchError(f"--seeds has {len(seeds)} numbers for {len(budgets)} budgets; give one, or one for each.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", arguments.name):
        raise SlimbenchError(
            f"--name {arguments.name!r}: write letters, digits, '_' and '-', as in the names of upstreams."
        )
    layers = registry.card(arguments.teacher).depth
    if layers is None:
        raise SlimbenchError(f"The card of {arguments.teacher} states no depth; choose a teacher that has layers.")
    if arguments.steps < 1 or arguments.hours <= 0 or arguments.seconds <= 0:
        raise SlimbenchError("--steps, --hours and --seconds must be above 0; correct them.")
    shapes = solver.grid(budgets, depths, _numbers(arguments.head_widths, "--head-widths"))
    priced = [(shape, solver.macs_per_second(shape.config)) for shape in shapes]
    print(table(priced))
    methods = _words(arguments.methods, "--methods")
    listed = files.students(arguments.name, priced, methods, dict(zip(budgets, seeds, strict=True)), arguments.steps)
    training = files.Training(arguments.teacher, layers, arguments.steps, arguments.hours, arguments.seconds)
    file = files.write(arguments.name, arguments.out / arguments.name, listed, training)
    print(f"\n{len(listed)} students of {arguments.teacher} ({', '.join(methods)}): {file}")
    return 0


def table(priced: Sequence[tuple[Shape, float]]) -> str:
    """The grid as text."""
    from harness import listing

    return listing.text(
        [
            {
                "budget": f"{shape.budget / 1e6:g} M",
                "depth": shape.config.layers,
                "width": shape.config.width,
                "heads": f"{shape.config.width // shape.config.head_width} x {shape.config.head_width}",
                "ffn": shape.config.ffn,
                "ffn/width": f"{shape.ratio:.2f}",
                "parameters": f"{shape.parameters:,}",
                "deviation": f"{100 * shape.deviation:+.2f} %",
                "MACs/s": f"{macs / 1e6:.1f} M",
            }
            for shape, macs in priced
        ]
    )


def parameters(text: str) -> int:
    """A number of parameters in words: ``1.0M``, ``800k``, ``1000000``.

    Raises:
        SlimbenchError: it is none, or not above 0.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kKmM]?)", text)
    number = round(float(found[1]) * _UNITS[found[2].lower()]) if found else 0
    if number < 1:
        raise SlimbenchError(f"--params: {text!r} is no number of parameters; write 1.0M, 800k or 1000000.")
    return number


def _words(text: str, option: str) -> list[str]:
    words = list(dict.fromkeys(text.replace(",", " ").split()))
    if not words:
        raise SlimbenchError(f"{option} is empty; give at least one value.")
    return words


def _numbers(text: str, option: str) -> list[int]:
    words = text.replace(",", " ").split()
    if not words or not all(word.isascii() and word.isdigit() and 0 < int(word) < 10**6 for word in words):
        raise SlimbenchError(f"{option}: {text!r} is no list of whole numbers above 0; write 1,2,3.")
    numbers = [int(word) for word in words]
    return numbers if option == "--seeds" else list(dict.fromkeys(numbers))
