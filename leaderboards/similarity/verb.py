"""The ``fidelity`` verb: how near is a student to its teacher, in its answers and in its states?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import records, registry
from harness.arguments import new_verb
from harness.cards import hint
from harness.interface import SlimbenchError
from harness.progress import say

if TYPE_CHECKING:
    from harness.records import Record
    from leaderboards.similarity.fidelity import Fidelity
    from leaderboards.similarity.layers import Layers
    from leaderboards.similarity.output import Part

LEAST_REPEATS = 100


def add_verb(subparsers: Any) -> None:
    """Add ``fidelity`` to the command line."""
    text = "compare a student with its teacher: do they answer alike, and are their states alike"
    verb = new_verb(subparsers, "fidelity", text)
    verb.add_argument("student", metavar="STUDENT", help="name of an upstream, or path of a card file")
    verb.add_argument(
        "teacher", nargs="?", metavar="TEACHER", help="the same (default: the teacher that STUDENT names)"
    )
    verb.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="records (default: results)")
    verb.add_argument(
        "--cache", type=Path, default=Path("cache"), metavar="DIR", help="data, features (default: cache)"
    )
    verb.add_argument("--suite", metavar="NAME", help="only this suite, or its file (default: all of both)")
    verb.add_argument("--data", type=Path, metavar="DIR", help="folder of data, for a suite that does not make its own")
    verb.add_argument("--tasks", default="", metavar="A,B", help="only answers to these tasks (default: all shared)")
    verb.add_argument("--no-states", action="store_true", help="answers only; no audio and no weights are needed")
    verb.add_argument("--audio", metavar="TASK", help="whose test audio states are of (default: the first with frames)")
    verb.add_argument("--utterances", type=int, default=512, metavar="N", help="at most so many (default: 512)")
    verb.add_argument("--repeats", type=int, default=1000, metavar="N", help="resamples of answers (default: 1000)")
    verb.add_argument("--state-repeats", type=int, default=200, metavar="N", help="resamples of states (default: 200)")
    verb.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    verb.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's)")
    verb.add_argument(
        "--out", type=Path, metavar="DIR", help="where it goes (default: RESULTS/report/fidelity-STUDENT)"
    )
    verb.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from leaderboards.similarity import fidelity, output

    for name in ("repeats", "state_repeats"):
        if getattr(options, name) < LEAST_REPEATS:
            shown = name.replace("_", "-")
            raise SlimbenchError(f"--{shown} {getattr(options, name)} gives no 95 % interval: use at least 100.")
    if options.data and not options.suite:
        raise SlimbenchError("--data is the folder of one suite: name that with --suite.")
    found = records.load_all(options.results)
    student, stated = _named(options.student)
    teacher = _named(options.teacher)[0] if options.teacher else fidelity.teacher_of(found, student, stated)
    answers = _answers(found, options, student, teacher)
    parts = _parts(options, answers, (options.student, options.teacher or teacher))
    if not parts:
        raise SlimbenchError(_nothing(found, options, student, teacher))
    folder = f"fidelity-{student}" if teacher == _usual(found, student, stated) else f"fidelity-{student}-{teacher}"
    out = options.out or options.results / "report" / folder
    files = output.write(out, student, teacher, parts)
    print(files[0].read_text(encoding="utf-8"), end="")
    say(f"fidelity: {files[0]} ({len(files) - 1} files of tables and figures beside it)")


def _named(name: str) -> tuple[str, str | None]:
    """The upstream's own name and the teacher that its card states; an upstream may have records and no card."""
    try:
        card = registry.card(name)
    except SlimbenchError:
        if name.partition("@")[0].endswith((".yaml", ".yml")):
            raise
        return name, None
    return card.name, card.teacher


def _usual(found: Sequence[Record], student: str, stated: str | None) -> str | None:
    """The teacher that is meant where none is named, if there is one."""
    from leaderboards.similarity import fidelity

    try:
        return fidelity.teacher_of(found, student, stated)
    except SlimbenchError:
        return None


def _answers(found: Sequence[Record], options: argparse.Namespace, student: str, teacher: str) -> list[Fidelity]:
    from leaderboards.similarity.fidelity import fidelity

    mine = [record for record in found if _suite_name(options) in (None, record.suite)]
    tasks = options.tasks.replace(",", " ").split()
    known = sorted({record.task for record in mine})
    for task in tasks:
        if task not in known:
            raise SlimbenchError(f"No record under {options.results} is of the task {task!r}{hint(task, known)}.")
    return fidelity(mine, student, teacher, tasks, options.repeats)


def _suite_name(options: argparse.Namespace) -> str | None:
    """The suite that was named, by itself or by its file; a file is called as its suite."""
    named: str | None = options.suite
    return Path(named).stem if named and named.endswith((".yaml", ".yml")) else named


def _nothing(found: Sequence[Record], options: argparse.Namespace, student: str, teacher: str) -> str:
    known = sorted({record.upstream["name"] for record in found})
    for name in (student, teacher):
        if name not in known:
            return (
                f"{name} has no records under {options.results}{hint(name, known)}: run 'slimbench bench --upstream "
                f"{name}' first, or name a --suite to compare states alone."
            )
    return f"{student} and {teacher} have no task in common under {options.results}: run both on the same suite."


def _parts(options: argparse.Namespace, answers: Sequence[Fidelity], names: tuple[str, str]) -> list[Part]:
    """Per suite what is shown; states alone where a suite is named and there are no records."""
    from leaderboards.similarity import output

    parts = []
    for found in answers:
        layers, notes = _states(options, options.suite or found.suite, found.protocol, names, found.fingerprints)
        parts.append(output.part(found.board, found, layers, notes))
    if not parts and options.suite and not options.no_states:
        layers, notes = _states(options, options.suite, None, names, None)
        parts.append(
            output.part(
                str(_suite_name(options)), None, layers, ["There are no records of both: states alone.", *notes]
            )
        )
    return parts


def _states(
    options: argparse.Namespace,
    suite: str,
    protocol: str | None,
    names: tuple[str, str],
    fingerprints: tuple[str, str] | None,
) -> tuple[Layers | None, list[str]]:
    """The comparison of states, and what is to be said of it; without one, why."""
    if options.no_states:
        return None, []
    from harness.suite import load
    from leaderboards.similarity import layers, states

    chosen = load(suite, protocol)
    if chosen.builder is None and options.data is None:
        reason = f"States are not compared: suite {suite} needs its data (--suite {suite} --data DIR)."
        say(f"note: {reason}")
        return None, [reason]
    where = states.Where(
        suite=suite,
        results=options.results,
        cache=options.cache,
        data=options.data,
        protocol=protocol,
        task=options.audio,
        device=options.device,
        threads=options.threads,
    )
    try:
        heard = states.hear(*names, where, options.utterances)
    except SlimbenchError as error:
        raise SlimbenchError(f"{error} (Answers alone, without states: --no-states.)") from error
    notes = []
    for side, known in zip((heard.student, heard.teacher), fingerprints or (), strict=False):
        if side.fingerprint != known:
            notes.append(f"The states are of other weights of {side.name} than its records.")
    return layers.compare(heard, options.state_repeats), notes
