"""Whether a record was made under its suite's rules: protocol, data, test set, key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from harness import registry, suite
from harness.identity import digest_json
from harness.interface import SlimbenchError, TrainingProtocol
from harness.metrics import METRICS
from harness.records import Record
from harness.suite import OWN, Suite
from leaderboards.submissions import testsets
from leaderboards.submissions.findings import Finding, RefusedError, remark
from leaderboards.submissions.testsets import TestSet

Known = Mapping[tuple[str, str], Mapping[str, TestSet]]
"""Test sets by suite and protocol, then task, from the data of whoever checks."""

_SHOWN = 3


@lru_cache(maxsize=32)
def _suite(name: str, protocol: str) -> Suite | None:
    """A suite of this installation; ``None`` where it has no such suite."""
    if name not in registry.suite_files():
        return None
    return suite.load(name, None if protocol == OWN else protocol)


def suite_of(record: Record, where: str) -> Suite | None:
    """The suite that a record names, under the protocol that it names; ``None`` where it is not known here.

    Raises:
        RefusedError: the suite is known and the protocol is none of its own.
    """
    protocol = protocol_name(record)
    try:
        found = _suite(record.suite, protocol)
    except SlimbenchError:
        raise RefusedError(where, "data.protocol", f"suite {record.suite} has no protocol {protocol!r}") from None
    if found is not None and protocol == OWN and OWN not in found.protocols:
        raise RefusedError(
            where, "data.protocol", f"it names none of suite {record.suite}'s: {', '.join(found.protocols)}"
        )
    return found


def protocol_name(record: Record) -> str:
    """The name of the record's protocol; early records do not state the only one of their suite."""
    return str(record.data.get("protocol", OWN))


def findings(record: Record, where: str, chosen: Suite | None, more: Known) -> Iterator[Finding]:
    """What differs from the suite's rules, and what could not be checked here."""
    if chosen is None:
        yield remark(
            where,
            "suite",
            f"suite {record.suite!r} is not known here, so protocol, test set and key could not be checked",
        )
        return
    if record.task not in chosen.tasks:
        yield Finding(where, "task", f"suite {chosen.name} has no task {record.task!r}")
        return
    yield from _protocol(record, where, chosen)
    if len(record.seeds) != chosen.seeds:
        yield remark(where, "seeds", f"it has {len(record.seeds)} and suite {chosen.name} has {chosen.seeds}")
    found = more.get((chosen.name, chosen.protocol)) or testsets.known(chosen.name)
    if record.task in found:
        yield from _data(record, where, chosen, found[record.task])
    else:
        yield from _sizes(record, where, chosen)
        yield remark(
            where,
            "predictions",
            f"that ids and references are those of suite {chosen.name}, and the key, could not be checked: its data "
            "are not here (name them with --data)",
        )


def settings(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """A record's protocol without settings at neutral values, which early records do not state."""
    neutral = json.loads(json.dumps(TrainingProtocol.neutral()))
    return {name: value for name, value in protocol.items() if name not in neutral or value != neutral[name]}


@lru_cache(maxsize=64)
def _settings(name: str, protocol: str, task: str) -> dict[str, Any]:
    """The settings of a task under a suite's protocol that are not neutral."""
    chosen = _suite(name, protocol)
    found: dict[str, Any] = (
        json.loads(json.dumps(suite.protocol(chosen, registry.task(task)).settings())) if chosen else {}
    )
    return found


def _protocol(record: Record, where: str, chosen: Suite) -> Iterator[Finding]:
    wanted = _settings(chosen.name, chosen.protocol, record.task)
    stated = settings(record.protocol)
    for name in sorted({*wanted, *stated}):
        if stated.get(name) != wanted.get(name):
            yield Finding(
                where,
                f"protocol.{name}",
                f"it is {stated.get(name)!r} and under suite {chosen.name} it is {wanted.get(name)!r}",
            )
    if record.data.get("dtype") != chosen.dtype:
        yield Finding(where, "data.dtype", f"it is {record.data.get('dtype')!r} and the suite's is {chosen.dtype!r}")


def _data(record: Record, where: str, chosen: Suite, wanted: TestSet) -> Iterator[Finding]:
    """Compare with the suite's own data, then work the key out anew."""
    stated: dict[str, Any] = {
        "data.manifest_digest": record.data["manifest_digest"],
        "suite_digest": record.suite_digest,
    }
    correct: dict[str, Any] = {"data.manifest_digest": wanted.manifest_digest, "suite_digest": chosen.digest}
    for split, count in wanted.counts.items():
        stated[f"data.{split}"], correct[f"data.{split}"] = record.data[split], count
    if "audio_digest" in record.data:
        stated["data.audio_digest"] = record.data["audio_digest"]
        correct["data.audio_digest"] = digest_json(sorted(wanted.audio.items()))
    wrong = [name for name, value in stated.items() if value != correct[name]]
    for name in wrong:
        yield Finding(where, name, f"it is {_short(stated[name])} and suite {chosen.name} has {_short(correct[name])}")
    for seed in record.seeds:
        yield from _items(record, where, seed, wanted)
    if not wrong and (key := key_of(record, chosen, wanted)) != record.key:
        yield Finding(where, "key", f"it is {_short(record.key)}, but what the record states gives {_short(key)}")


def _items(record: Record, where: str, seed: int, wanted: TestSet) -> Iterator[Finding]:
    """The first rows of a seed that are not the suite's."""
    rows = record.predictions[str(seed)]
    field = f"predictions.{seed}"
    if len(rows) != len(wanted.items):
        yield Finding(where, field, f"it has {len(rows):,} rows and the suite's test set {len(wanted.items):,}")
        return
    shown = 0
    for number, (row, correct) in enumerate(zip(rows, wanted.items, strict=True)):
        if testsets.item(row) == correct:
            continue
        name = next(n for n in sorted({*testsets.item(row), *correct}) if row.get(n) != correct.get(n))
        yield Finding(
            where,
            f"{field}[{number}].{name}",
            f"it is {_short(row.get(name))} and in the suite's test set {_short(correct.get(name))}",
        )
        shown += 1
        if shown == _SHOWN:
            return


def _sizes(record: Record, where: str, chosen: Suite) -> Iterator[Finding]:
    """Without the data: the published number of test utterances, where the suite file knows it."""
    size = chosen.sizes.get(record.task)
    if size is None or "folds" in size:
        return
    if record.data["test"] != size["test"][0]:
        yield Finding(
            where, "data.test", f"it is {record.data['test']:,} and suite {chosen.name} has {size['test'][0]:,}"
        )
    elif not METRICS[record.metric].name.startswith("eer") and record.n_test != size["test"][0]:
        yield Finding(where, "n_test", f"it is {record.n_test:,} and suite {chosen.name} has {size['test'][0]:,}")


def key_of(record: Record, chosen: Suite, data: TestSet) -> str:
    """The key that :func:`harness.plan.record_key` gives for what a record states of itself."""
    extraction = {name: record.data[name] for name in ("extraction", "dtype") if name in record.data}
    return digest_json(
        {
            **({"wer_lm": record.data["wer_lm"]} if "wer_lm" in record.data else {}),
            **({} if chosen.protocol == OWN else {"protocol_name": chosen.protocol}),
            "protocol_version": record.data.get("protocol_version"),
            "upstream": record.upstream["fingerprint"],
            "task": record.task,
            "manifest": record.data["manifest_digest"],
            "audio": sorted(data.audio.items()),
            "protocol": settings(record.protocol),
            "seeds": record.seeds,
            "features": extraction,
            "bootstrap": chosen.bootstrap,
        }
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
