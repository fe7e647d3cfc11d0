"""Records: round trip, atomicity, immutability, tampering, re-derivation."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from harness import records
from harness.interface import SlimbenchError
from harness.records import Record


def word_rows(*pairs):
    return [{"id": f"u{i}", "speaker": f"s{i}", "ref": ref, "hyp": hyp} for i, (ref, hyp) in enumerate(pairs)]


# Seed 0: 1 error in 4 words; seed 1: 3 errors in 4 words. WER by hand: 25 and 75, mean 50.
ROWS = {
    "0": word_rows(("a b", "a b"), ("c d", "c x")),
    "1": word_rows(("a b", "x"), ("c d", "c y")),
}


def make(**changes):
    fields = {
        "key": "k" * 64,
        "created": "2030-01-01T00:00:00+00:00",
        "suite": "tiny",
        "suite_digest": None,
        "upstream": {
            "name": "model", "title": "Model ü", "fingerprint": "f", "family": "toy", "depth": 2, "width": 8,
            "teacher": None, "licence": "MIT", "num_states": 3, "state_width": 8, "frame_ms": 20.0, "exposes": "all",
        },
        "task": "asr",
        "metric": "wer",
        "value": 50.0,
        "ci95": [0.1 + 0.2, 99.00000000000001],
        "n_test": 2,
        "values_per_seed": [25.0, 75.0],
        "secondary": {"cer": {"value": 50.0, "ci95": [1.0, 99.0]}},
        "learning_rate": 1e-3,
        "seeds": [0, 1],
        "trials": [
            {"learning_rate": 1e-3, "seed": s, "dev": 1 / 3, "best_step": 5, "curve": [[5, 1 / 3]], "diverged": False}
            for s in (0, 1)
        ],
        "layer_weights": [[0.2, 0.3, 0.5], [1 / 3, 1 / 3, 1 / 3]],
        "protocol": {"steps": 10, "learning_rates": (1e-3,)},
        "data": {"train": 4, "dev": 2, "test": 2, "manifest_digest": "m"},
        "predictions": ROWS,
        "cost": {
            "params": 1_500_000,
            "head_params": 10,
            "params_with_head": 1_500_013,
            "macs_per_second": 1e6,
            "bytes_on_disk": None,
            "real_time_factor": 0.1,
            "peak_memory_mb": 3.5,
            "device": "cpu",
            "threads": 2,
        },
        "features": {"encoded_seconds": 9.0, "distinct_seconds": 9.0, "encoded_over_distinct": 1.0},
        "seconds": {"extract": 1.5, "train": 2.0},
        "provenance": {"python": "3"},
        "notes": ["said"],
    }  # fmt: skip
    return Record(**(fields | changes))


def as_json(record):
    return json.loads(json.dumps(dataclasses.asdict(record)))


@pytest.fixture
def saved(tmp_path):
    return records.save(make(), tmp_path)


def test_round_trip_keeps_every_digit(tmp_path, saved):
    loaded = records.load(saved)
    assert as_json(loaded) == as_json(make())
    assert loaded.ci95 == [0.30000000000000004, 99.00000000000001]
    assert records.load_all(tmp_path) == [loaded]
    assert saved == tmp_path / "tiny" / "model" / f"asr-{'k' * 12}.json"


def test_file_is_one_json_with_a_line_per_prediction(saved):
    text = saved.read_text(encoding="utf-8")
    assert set(json.loads(text)) == {field.name for field in dataclasses.fields(Record)} | {"digest"}
    assert json.dumps(ROWS["0"][1], separators=(",", ":")) in [line.rstrip(",") for line in text.splitlines()]
    assert "Model ü" in text


def test_find(tmp_path, saved):
    assert records.find(tmp_path, "tiny", "model", "asr", "k" * 64) == records.load(saved)
    assert records.find(tmp_path, "tiny", "model", "asr", "other") is None
    with pytest.raises(SlimbenchError, match="holds the key"):
        records.find(tmp_path, "tiny", "model", "asr", "k" * 12 + "other")


def test_saving_again_is_allowed_only_with_the_same_content(tmp_path, saved):
    before = saved.read_bytes()
    assert records.save(make(), tmp_path) == saved
    with pytest.raises(SlimbenchError, match="never change"):
        records.save(make(created="2031-01-01T00:00:00+00:00"), tmp_path)
    assert saved.read_bytes() == before
    assert not saved.stat().st_mode & 0o222


def test_record_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().value = 1.0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"value": 50.0', '"value": 40.0'),
        ('"hyp":"c x"', '"hyp":"c d"'),
        ('"params":1500000', '"params":1400000'),
        ('"notes": ["said"]', '"notes": []'),
    ],
)
def test_an_edit_is_noticed(saved, old, new):
    text = saved.read_text(encoding="utf-8")
    assert text.count(old) == 1
    saved.chmod(0o644)
    saved.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(SlimbenchError, match=r"changed after it was written .* restore the file") as caught:
        records.load(saved)
    assert str(saved) in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"schema": 1}', "\x00", '{"schema": NaN}', "[" * 99999]
)
def test_broken_files_give_one_sentence(tmp_path, content):
    path = tmp_path / "tiny" / "model" / "asr-x.json"
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SlimbenchError, match="restore the file") as caught:
        records.load_all(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def rewritten(path, old, new):
    """The file with one piece of its text replaced."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.chmod(0o644)
    path.write_text(text.replace(old, new), encoding="utf-8")


FREE = [
    *("1e999", "-1e999", "NaN", "-Infinity", r'"\ud800"', r'{"\udfff": 1}', r'["a", "b\udc00c"]'),
    *("[" * 5_000 + "]" * 5_000, "9" * 5_000, '{"a": 1, "a": 2}'),
]
"""Values that JSON readers take, or some of them, and that have no digest or more than one meaning."""
PLACES = ['"python": "3"', '"notes": ["said"]', '"curve":[[5', '"hyp":"c x"', '"title": "Model ü"', '"steps": 10']
"""Pieces of the file whose value is replaced: in free fields, in lists, in rows and in fields with a type."""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", FREE, ids=lambda value: value[:12])
def test_values_that_are_no_plain_json_give_one_sentence(saved, place, value):
    text = saved.read_text(encoding="utf-8")
    place = place if place in text else place.replace(": ", ":")
    start = text.index(place)
    saved.chmod(0o644)
    saved.write_text(text[:start] + place.partition(":")[0] + ": " + value + ', "x' + text[start + 1 :])
    with pytest.raises(SlimbenchError, match=r"is not whole JSON \(.*\): restore the file") as caught:
        records.load(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('"value": 50.0', '"value": 1' + "0" * 400, "value"),
        ('"n_test": 2', '"n_test": 1' + "0" * 30, "n_test"),
        ('"seeds": [0,1]', '"seeds": [0,1' + "0" * 400 + "]", "seeds"),
        ('"real_time_factor":0.1', '"real_time_factor":1' + "0" * 400, "cost.real_time_factor"),
    ],
)
def test_numbers_beyond_those_of_the_machine_are_of_no_kind(saved, old, new, field):
    rewritten(saved, old, new)
    with pytest.raises(SlimbenchError, match=rf"is not a record: field '{field}' is not .*; restore the file"):
        records.load(saved)


def test_the_largest_numbers_are_kept(tmp_path):
    largest = make(learning_rate=1e-3, cost=make().cost | {"macs_per_second": sys.float_info.max, "params": 2**63 - 1})
    assert records.load(records.save(largest, tmp_path)).cost == largest.cost


def test_a_second_field_of_one_name_is_noticed(saved):
    """The seal would be that of the last one, while a reader of the text may see the first."""
    rewritten(saved, '"value": 50.0', '"value": 40.0,\n"value": 50.0')
    with pytest.raises(SlimbenchError, match="a field occurs twice"):
        records.load(saved)


@pytest.mark.parametrize(
    "changes", [{"notes": ["\ud800"]}, {"provenance": {"\udfff": 1}}, {"protocol": {"a": math.inf}}]
)
def test_what_could_not_be_read_again_is_not_saved(tmp_path, changes):
    with pytest.raises(SlimbenchError, match="cannot be written as JSON"):
        records.save(make(**changes), tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_every_cut_of_a_file_is_noticed(saved):
    whole = saved.read_bytes()
    saved.chmod(0o644)
    for size in range(0, len(whole) - 2, 97):
        saved.write_bytes(whole[:size])
        with pytest.raises(SlimbenchError):
            records.load(saved)


def test_missing_file(tmp_path):
    with pytest.raises(SlimbenchError, match="cannot be read"):
        records.load(tmp_path / "no.json")
    assert records.load_all(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "schema"),
        ({"value": math.nan}, "not JSON"),
        ({"value": True}, "'value'"),
        ({"ci95": [3.0, 1.0]}, "'ci95'"),
        ({"upstream": make().upstream | {"depth": "2"}}, r"'upstream\.depth'"),
        ({"cost": {"params": 1}}, r"'cost\.head_params' is missing"),
        ({"cost": make().cost | {"macs_superb": "many"}}, r"'cost\.macs_superb' is not a finite number or null"),
        ({"cost": make().cost | {"parameter_bytes": -1}}, r"'cost\.parameter_bytes' is not a whole number"),
        ({"trials": [{}]}, r"'trials\[0\]\.learning_rate' is missing"),
        ({"predictions": {"0": []}}, "not those of its seeds"),
        ({"values_per_seed": [50.0]}, "one value per seed"),
        ({"learning_rate": 2e-3}, "not among its trials"),
        ({"notes": [Path("x")]}, "not JSON"),
    ],
)
def test_what_does_not_fit_the_schema_is_not_saved(tmp_path, changes, message):
    with pytest.raises(SlimbenchError, match=message):
        records.save(make(**changes), tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_costs_that_older_records_lack_may_be_there(tmp_path):
    newer = {"parameter_bytes": 4, "macs_superb": 1.5, "macs_superb_short": None, "macs_counted": "shapes"}
    assert not newer.keys() & make().cost.keys()
    assert records.load(records.save(make(cost=make().cost | newer), tmp_path)).cost["macs_superb"] == 1.5


def test_an_unknown_field_is_refused(saved):
    plain = json.loads(saved.read_text(encoding="utf-8"))
    saved.chmod(0o644)
    saved.write_text(json.dumps(plain | {"extra": 1}), encoding="utf-8")
    with pytest.raises(SlimbenchError, match="unknown field 'extra'"):
        records.load(saved)


def test_a_diverged_trial_has_null_scores_and_only_it(tmp_path):
    bad = make().trials[0] | {"dev": math.inf, "curve": [[5, math.inf]], "diverged": True}
    record = records.load(records.save(make(trials=[bad]), tmp_path))
    assert record.trials[0]["dev"] is None
    assert record.trials[0]["curve"] == [[5, None]]
    with pytest.raises(SlimbenchError, match="not JSON"):
        records.save(make(key="z" * 64, trials=[bad | {"diverged": False}]), tmp_path)


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a\nb", "a\\b", " a", "..", "c:d"])
def test_names_that_would_leave_the_folder_are_refused(tmp_path, name):
    with pytest.raises(SlimbenchError):
        records.save(make(upstream=make().upstream | {"name": name}), tmp_path / "in")
    assert list(tmp_path.rglob("*")) == []


def test_a_copy_in_another_place_is_refused(tmp_path, saved):
    copy = tmp_path / "tiny" / "other" / saved.name
    copy.parent.mkdir()
    copy.write_bytes(saved.read_bytes())
    with pytest.raises(SlimbenchError, match="belongs at"):
        records.load_all(tmp_path)


def test_hidden_folders_hold_no_records(tmp_path, saved):
    work = tmp_path / ".work" / "k" / "state.json"
    work.parent.mkdir(parents=True)
    work.write_text("{", encoding="utf-8")
    assert len(records.load_all(tmp_path)) == 1


CRASH = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_records import make
from harness import records
Path.replace = lambda self, target: os._exit(9)
records.save(make(), Path(sys.argv[1]))
"""


def test_a_kill_between_write_and_rename_leaves_no_record(tmp_path):
    done = subprocess.run([sys.executable, "-c", CRASH, str(tmp_path), str(Path(__file__).parent)], check=False)
    assert done.returncode == 9
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".tmp"]
    assert records.load_all(tmp_path) == []
    assert records.find(tmp_path, "tiny", "model", "asr", "k" * 64) is None
    records.save(make(), tmp_path)
    assert len(records.load_all(tmp_path)) == 1


def test_an_error_while_writing_leaves_nothing(tmp_path, monkeypatch):
    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        records.save(make(), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_verify_re_derives_what_was_worked_out_by_hand():
    # CER by hand: characters a, space, b and c, space, d. Seed 0: 1 of 6. Seed 1: "a b" → "x" 3, "c d" → "c y" 1.
    cer = {"cer": {"value": 100 * (1 / 6 + 4 / 6) / 2, "ci95": [0.0, 99.0]}}
    records.verify(make(secondary=cer))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"value": 49.9}, "value"),
        ({"values_per_seed": [75.0, 25.0]}, "value of seed 0"),
        ({"n_test": 3}, "n_test"),
        ({"secondary": {"cer": {"value": 12.0, "ci95": [0.0, 99.0]}}}, "secondary cer"),
        ({"predictions": ROWS | {"1": ROWS["0"]}}, "value of seed 1"),
    ],
)
def test_verify_names_what_cannot_be_re_derived(changes, what):
    with pytest.raises(SlimbenchError, match=f"states {what} = "):
        records.verify(make(**({"secondary": {}} | changes)))


def test_verify_of_verification_trials():
    rows = [
        {"enrol": "a", "test": "b", "speakers": ["s", "s"], "same": same, "score": score}
        for same, score in [(True, 0.9), (True, 0.4), (False, 0.5), (False, 0.1)]
    ]
    # One of two targets below one of two impostors: the equal error rate is one half.
    good = make(metric="eer", secondary={}, n_test=4, seeds=[0], values_per_seed=[50.0], predictions={"0": rows})
    records.verify(good)
    with pytest.raises(SlimbenchError, match="states value"):
        records.verify(dataclasses.replace(good, value=25.0))


def test_summary():
    short = records.summary(make())
    assert short["params_m"] == 1.5
    assert short["seconds"] == 2.0  # extraction is shared with other tasks
    assert short["upstream"] == "model"
    assert short["encoded_over_distinct"] == 1.0
    assert {"key", "suite", "task", "metric", "value", "ci95", "n_test", "learning_rate", "seeds"} <= set(short)
    assert json.loads(json.dumps(short)) == short
