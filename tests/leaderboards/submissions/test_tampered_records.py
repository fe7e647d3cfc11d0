"""Tampered records: every digit of a real record, with and without a seal that fits the change."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tampering import changed, flipped, leaves, plain, record_text, resealed

from leaderboards.submissions import submission, verification
from leaderboards.submissions.findings import RefusedError

# What nothing in a record or a suite determines: whoever reseals a record can change it. docs/leaderboard.md says so.
UNPROVABLE = re.compile(
    r"created|cost\.(macs|bytes|parameter_bytes|real|peak|idle|threads)\w*|seconds\..*|provenance\..*|upstream\.(depth|width|state_width|frame_ms)"
    r"|features\.\w+|trials\.\d+\.(skipped|curve\.\d+\.1)|layer_weights\..*|notes.*"
)


def refusals(data):
    """Sentences that refuse a record's file; none where it is verified."""
    try:
        record = submission.read_record(data, "some/file.json")
    except RefusedError as refused:
        return [str(refused)]
    return [str(f) for f in verification.check(record, "some/file.json") if f.refuses]


@pytest.mark.parametrize("task", ["ks", "asr", "asv"])
def test_a_real_record_is_verified(task):
    assert refusals(record_text(task)) == []
    assert refusals(resealed(plain(task))) == []


def test_every_number_of_a_real_record_is_sealed():
    text = record_text("ks").decode()
    numbers = list(re.finditer(r"(?<=[:,\[ ])-?\d[\d.]*(e[+-]?\d+)?(?=[,\]}\n])", text))
    assert len(numbers) == sum(type(leaf) in (int, float) for _, leaf in leaves(json.loads(text)))
    for found in numbers:
        digit = max(place for place in range(*found.span(0)) if text[place].isdigit())  # the last: the smallest change
        edited = f"{text[:digit]}{(int(text[digit]) + 1) % 10}{text[digit + 1 :]}"
        with pytest.raises(RefusedError):
            submission.read_record(edited.encode(), "f")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_text_of_a_real_record_is_sealed(data):
    text = record_text("asr").decode()
    place = data.draw(st.integers(0, len(text) - 1).filter(lambda i: text[i].isalnum()))
    other = data.draw(st.sampled_from("aB0z9").filter(lambda c: c != text[place]))
    with pytest.raises(RefusedError, match=r"^f: "):
        submission.read_record((text[:place] + other + text[place + 1 :]).encode(), "f")


@pytest.mark.parametrize("task", ["ks"])
def test_a_resealed_number_is_refused_unless_nothing_determines_it(task):
    content = plain(task)
    numbers = [(path, leaf) for path, leaf in leaves(content) if type(leaf) in (int, float)]
    for path, leaf in numbers:
        name = ".".join(map(str, path))
        if any(isinstance(step, int) and step > 1 for step in path):
            continue  # trials, curves and weights are alike: the first two of each
        found = refusals(resealed(changed(content, path, flipped(leaf))))
        assert found or UNPROVABLE.fullmatch(name), name
        assert all(text.startswith("some/file.json: ") and "\n" not in text for text in found)


FIRST_SETTINGS = (
    "steps", "batch", "optimizer", "learning_rates", "clip", "eval_every", "layer_lr", "max_seconds", "specaugment",
    "balanced", "head",
)  # fmt: skip
"""All that the protocol of the first records said."""

# Changes by someone who reseals the record; the field that the refusal must name.
EDITS = {
    "value": lambda r: r.update(value=r["value"] + 1),
    "value of seed 0": lambda r: r.update(values_per_seed=[99.0, *r["values_per_seed"][1:]]),
    "ci95": lambda r: r.update(ci95=[r["ci95"][0] + 0.1, r["ci95"][1]]),
    "learning_rate": lambda r: r.update(learning_rate=0.0001),
    "key": lambda r: r.update(key="0" * 64),
    "suite_digest": lambda r: r.update(suite_digest=None),
    "data.manifest_digest": lambda r: r["data"].update(manifest_digest="0" * 64),
    "data.audio_digest": lambda r: r["data"].update(audio_digest="0" * 64),
    "data.dtype": lambda r: r["data"].update(dtype="float32"),
    "data.train": lambda r: r["data"].update(train=481),
    "protocol.steps": lambda r: r["protocol"].update(steps=6000),
    "protocol.clip": lambda r: r["protocol"].update(clip=2.0),
    "protocol.drop_last": lambda r: r["protocol"].update(drop_last=True),
    "predictions.0[0].ref": lambda r: r["predictions"]["0"][0].update(ref="no"),
    "predictions.0[3].id": lambda r: [rows[3].update(id="audio/else") for rows in r["predictions"].values()],
    "predictions.1": lambda r: r["predictions"]["1"].reverse(),
    "metric": lambda r: r.update(metric="cer"),
    "task": lambda r: r.update(task="qbe"),
    "trials": lambda r: r["trials"].pop(),
    "created": lambda r: r.update(created="yesterday"),
    "cost.params_with_head": lambda r: r["cost"].update(params=r["cost"]["params"] // 2),
    "layer_weights[0]": lambda r: r["layer_weights"][0].pop(),
    "data.test_speakers": lambda r: r["data"].update(test_speakers=5),
    "data.protocol": lambda r: r["data"].update(protocol="fast"),
}


@pytest.mark.parametrize("field", EDITS)
def test_a_refusal_names_file_and_field(field):
    content = plain("ks")
    EDITS[field](content)
    assert any(text.startswith(f"some/file.json: {field}") for text in refusals(resealed(content)))


def test_another_fingerprint_does_not_fit_the_key():
    content = plain("ks")
    content["upstream"]["fingerprint"] = "0" * 64
    assert [text for text in refusals(resealed(content)) if ": key: " in text]


def test_dropping_the_worst_utterances_is_refused():
    content = plain("ks")
    for seed, rows in content["predictions"].items():
        kept = [row for row in rows if row["ref"] == row["hyp"]][:150]
        content["predictions"][seed] = kept
    content |= {"value": 100.0, "values_per_seed": [100.0] * 3, "ci95": [100.0, 100.0], "n_test": 150}
    assert any("its items are not those" in t or "test set" in t for t in refusals(resealed(content)))


def test_made_up_predictions_pass():
    """The limit that docs/leaderboard.md states: perfect predictions that nobody ever made are consistent."""
    content = plain("ks")
    for rows in content["predictions"].values():
        for row in rows:
            row["hyp"] = row["ref"]
    content |= {"value": 100.0, "values_per_seed": [100.0] * 3, "ci95": [100.0, 100.0]}
    assert refusals(resealed(content)) == []


def test_records_without_later_fields_are_verified_and_so_are_records_with_them():
    new = plain("ks")
    assert refusals(resealed(new)) == []
    old = plain("ks")
    later = [name for name in old["cost"] if name.startswith("macs_superb")]
    assert len(later) == 5
    for name in (*later, "parameter_bytes", "idle_memory_mb"):
        del old["cost"][name]
    old["protocol"] = {name: old["protocol"][name] for name in FIRST_SETTINGS}
    for name in ("audio_digest", "protocol"):
        del old["data"][name]
    assert refusals(resealed(old)) == []
    new["cost"]["macs_superb"] = 7.0
    assert any("cost.macs_superb" in text for text in refusals(resealed(new)))


def test_what_cannot_be_checked_is_said():
    content = plain("sid")  # real-mini has the same rules for it
    content |= {"suite": "real-mini", "suite_digest": None}
    record = submission.read_record(resealed(content), "f")
    (found,) = verification.check(record, "f")
    assert not found.refuses
    assert "could not be checked: its data are not here" in str(found)
    record = submission.read_record(resealed(content | {"suite": "elsewhere"}), "f")
    (found,) = verification.check(record, "f")
    assert not found.refuses
    assert "not known here" in str(found)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(categories=("L", "N", "P")), max_size=9), st.just([]), st.just({}), st.just([{}]),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["ks", "asv"]), st.data())
def test_no_change_breaks_the_verifier(task, data):
    content = CONTENTS[task]
    every = PATHS[task]
    path = data.draw(st.sampled_from(every))
    path = path[: data.draw(st.integers(1, len(path)))]
    assert isinstance(refusals(resealed(changed(content, path, data.draw(VALUES)))), list)


CONTENTS = {task: plain(task) for task in ("ks", "asv")}
for _content in CONTENTS.values():  # smaller, so that a check takes milliseconds; they are refused for it, not broken
    for _seed in _content["predictions"]:
        _content["predictions"][_seed] = _content["predictions"][_seed][:4] + _content["predictions"][_seed][-4:]
PATHS = {task: [path for path, _ in leaves(content)] for task, content in CONTENTS.items()}
