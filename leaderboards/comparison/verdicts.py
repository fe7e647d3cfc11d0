"""A comparison in words, as a Markdown page and as JSON values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from harness.show import face, number, printable
from leaderboards.comparison.compare import ALPHA, Comparison, Pair
from leaderboards.render import escape_markdown

if TYPE_CHECKING:
    from leaderboards.ranks import Differences, Stability


def verdict(pair: Pair) -> str:
    """What a pair comes to on its task, in plain words: who is better, by how much, how sure; or why nobody can say."""
    task = pair.task.upper()
    if pair.refusal is not None or pair.difference is None or pair.low is None or pair.high is None:
        return str(pair.refusal)
    look = face(pair.metric)
    if pair.better is not None:
        other = pair.b if pair.better == pair.a else pair.a
        first, second = _values(pair, pair.better)
        low, high = sorted((abs(pair.low), abs(pair.high)))
        text = (
            f"{pair.better} is better than {other} on {task} by {number(abs(pair.difference))} points "
            f"[{number(low)}, {number(high)}] ({look.title} {first} against {second}; {_sure(pair)})."
        )
    else:
        first, second = _values(pair, pair.a)
        text = (
            f"{pair.a} and {pair.b} cannot be told apart on {task}: {look.title} {first} against {second}, difference "
            f"{signed(pair.difference)} points [{signed(pair.low)}, {signed(pair.high)}]"
            f"{f' ({_sure(pair)})' if pair.p is not None else ''}."
        )
    return " ".join([text, *pair.cautions])


def signed(value: float) -> str:
    """A difference in points with its sign: ``+3.1``, ``−0.4``, ``0.0``."""
    shown = number(value)
    return shown.replace("-", "−") if float(shown) <= 0 else f"+{shown}"


def probability(value: float | None) -> str:
    """A p-value, as shown: ``0.012``, ``≤ 0.001``; a dash where there is none."""
    if value is None:
        return "–"
    return "≤ 0.001" if value <= 0.001 else f"{value:.3f}"


_WORD = re.compile(r"\(?[A-Za-z0-9](?:[\w@+'/-]*[A-Za-z0-9])?%?[.,;:)]*", re.ASCII)
_NUMBER = re.compile(r"\(?\[?[+−-]?[0-9]+(?:\.[0-9]+)?%?[\],.;:)]*")
_SIGNS = frozenset("=≤≥−–—%χ²↓↑")


def escaped(text: str) -> str:
    """Text as Markdown shows it; words and numbers stay readable in a terminal, anything else is escaped."""
    words = printable(text).split(" ")
    return " ".join(
        word if _WORD.fullmatch(word) or _NUMBER.fullmatch(word) or _SIGNS.issuperset(word) else escape_markdown(word)
        for word in words
    )


def markdown(comparison: Comparison) -> str:
    """The comparison as a page: verdicts, the numbers, the picture over all tasks, how to read it."""
    names = [escaped(name) for name in comparison.upstreams]
    lines = [f"# {', '.join(names[:-1])} and {names[-1]} on {escaped(comparison.suite)}", ""]
    lines += [f"- {escaped(verdict(pair))}" for pair in comparison.pairs] + [""]
    lines += _table(comparison.pairs)
    if comparison.stability is not None:
        lines += list(_stability(comparison.stability))
    if comparison.differences is not None:
        lines += list(_differences(comparison.differences))
    if comparison.notes:
        lines += ["Notes:", "", *(f"- {escaped(note)}" for note in comparison.notes), ""]
    return "\n".join([*lines, _about(comparison), ""])


def _about(comparison: Comparison) -> str:
    count = sum(pair.p is not None for pair in comparison.pairs)
    tests = f"{count} test" if count == 1 else f"{count} tests"
    return (
        "Difference: first minus second, in points; its 95 % interval is a paired bootstrap over speakers (over "
        "utterances where speakers are unknown), seeds averaged. p: paired permutation test, two-sided, all answers to "
        f'a speaker exchanged together; Holm: adjusted for the {tests} made here. "Better" '
        f"needs both an interval without 0 and an adjusted p ≤ {ALPHA:g}. Not told apart does not mean equal."
    )


def _values(pair: Pair, first: str) -> tuple[str, str]:
    values = (number(pair.value_a or 0.0), number(pair.value_b or 0.0))
    return values if first == pair.a else (values[1], values[0])


def _sure(pair: Pair) -> str:
    return f"p {_equal(pair.p_holm)} after Holm, {pair.units} {pair.unit}"


def _equal(value: float | None) -> str:
    shown = probability(value)
    return shown if shown.startswith("≤") else f"= {shown}"


def _table(pairs: Sequence[Pair]) -> list[str]:
    header = (
        "task",
        "first",
        "second",
        "score",
        "first",
        "second",
        "difference",
        "95 % interval",
        "p",
        "Holm",
        "seeds",
    )
    lines = ["| " + " | ".join(header) + " |", "|---|---|---|---|" + "--:|" * 7]
    for pair in pairs:
        look = face(pair.metric)
        cells = [pair.task, pair.a, pair.b, f"{look.title} {look.arrow}"]
        if pair.difference is None or pair.low is None or pair.high is None:
            cells += ["–"] * 7
        else:
            cells += [*_values(pair, pair.a), signed(pair.difference), f"[{signed(pair.low)}, {signed(pair.high)}]"]
            cells += [probability(pair.p), probability(pair.p_holm), f"{100 * (pair.seed_wins or 0.0):.0f} %"]
        lines.append("| " + " | ".join(map(escaped, cells)) + " |")
    return [*lines, "", "seeds: share of pairs of training seeds in which the first is better.", ""]


def _stability(stable: Stability) -> Iterator[str]:
    """Chances of the row's upstream against the column's, by task."""
    yield "## How often the first comes out better"
    yield ""
    yield "Over resamples of test speakers and of training seeds, ties half:"
    yield ""
    names = stable.upstreams
    yield "| " + " | ".join(["first", "second", *map(escaped, stable.beats)]) + " |"
    yield "|---|---|" + "--:|" * len(stable.beats)
    for i, first in enumerate(names):
        for j, second in enumerate(names[i + 1 :], i + 1):
            shares = [f"{100 * values[i, j]:.0f} %" for values in stable.beats.values()]
            yield "| " + " | ".join([escaped(first), escaped(second), *shares]) + " |"
    yield ""
    if stable.overall:
        limits = "; ".join(
            f"{escaped(name)} {number(low)} to {number(high)}" for name, (low, high) in stable.overall.items()
        )
        yield "overall: mean over these tasks of accuracy or 100 − error, no SUPERB score."
        yield f"95 % of its resamples: {limits}."
        yield ""


def _differences(apart: Differences) -> Iterator[str]:
    yield "## Ranks over tasks"
    yield ""
    ranks = ", ".join(f"{escaped(name)} {rank:.2f}" for name, rank in apart.mean_ranks.items())
    yield f"Mean rank over {apart.tasks} tasks, 1 is best: {ranks}."
    yield ""
    yield (
        f"Friedman χ² = {apart.chi2:.2f}, p {_equal(apart.p)}; Nemenyi's critical difference at {apart.alpha:g} "
        f"is {apart.critical:.2f} ranks."
    )
    groups = [", ".join(map(escaped, group)) for group in apart.groups if len(group) > 1]
    yield ("Not separable by mean rank: " + "; ".join(groups) + ".") if groups else "All are separable by mean rank."
    yield ""


def plain(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON values, with a verdict per pair."""
    stable, apart = comparison.stability, comparison.differences
    return {
        "suite": comparison.suite,
        "upstreams": list(comparison.upstreams),
        "pairs": [{**asdict(pair), "verdict": verdict(pair)} for pair in comparison.pairs],
        "stability": stable
        and {
            "upstreams": list(stable.upstreams),
            "beats": {task: values.tolist() for task, values in stable.beats.items()},
            "places": {task: values.tolist() for task, values in stable.places.items()},
            "overall": {name: list(limits) for name, limits in stable.overall.items()},
        },
        "critical_differences": apart
        and {
            "mean_ranks": dict(apart.mean_ranks),
            "tasks": apart.tasks,
            "friedman_chi2": apart.chi2,
            "friedman_p": apart.p,
            "iman_davenport_f": apart.f,
            "iman_davenport_p": apart.f_p,
            "critical_difference": apart.critical,
            "alpha": apart.alpha,
            "groups": [list(group) for group in apart.groups],
        },
        "notes": list(comparison.notes),
    }
