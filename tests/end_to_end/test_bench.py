"""The whole line, from a card to a record, and what repeats of the command do."""

from __future__ import annotations

import json
import shutil

import pytest
import toy_data
import toy_upstream

from harness import records

TASKS = {"ks", "sid", "pr", "asv"}
SUMMARY = {"key", "suite", "upstream", "task", "metric", "value", "ci95", "n_test", "learning_rate", "seeds"}
SUMMARY |= {"params_m", "encoded_over_distinct", "seconds"}


def outcome_of(record):
    """What must be the same however often a run was disturbed."""
    same = ("key", "value", "ci95", "values_per_seed", "learning_rate", "trials", "layer_weights", "predictions")
    return {name: record[name] for name in same}


def files(folder):
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


def changed(before, after):
    """The names alone: a failure then says them in a line."""
    return sorted(str(path) for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def test_a_bench_makes_one_whole_record_per_task(finished):
    made = finished.records()
    assert set(made) == TASKS
    for record in records.load_all(finished.folder / "results"):
        records.verify(record)
        assert record.features["encoded_over_distinct"] == 1.0
        assert record.seeds == [0, 1]
        assert {(t["learning_rate"], t["seed"]) for t in record.trials} == {
            (rate, seed) for rate in record.protocol["learning_rates"] for seed in (0, 1)
        }
        assert record.cost["params"] == toy_upstream.STATES * toy_upstream.WIDTH * toy_upstream.BINS
        assert record.cost["bytes_on_disk"] == (finished.card.parent / "toy.safetensors").stat().st_size
        assert all(len(weights) == toy_upstream.STATES for weights in record.layer_weights)
        assert set(record.seconds) >= {"extract", "train", "test", "interval"}
        assert record.provenance["torch"]
    assert not list((finished.folder / "results").glob(".work/*"))


def test_the_upstream_itself_saw_every_file_once(finished):
    # the trial on noise before extraction; MACs of one pass, and of 33 on shapes; real-time factor; memory
    noise = 3 + (1 + 33) + 6 + 1
    assert finished.encoded() == sum(2 * n for n in toy_data.COUNTS.values()) + noise


def test_tones_are_told_apart_so_the_probes_do_learn(finished):
    assert finished.records()["ks"]["value"] > 60.0


def test_the_table_is_printed_and_results_lists_the_same(finished, call):
    _, printed, _ = call("results", "--results", str(finished.folder / "results"), "--json")
    listed = json.loads(printed)
    assert {row["task"] for row in listed} == TASKS
    for row in listed:
        assert set(row) >= SUMMARY
        assert row["value"] == finished.records()[row["task"]]["value"]
        assert f"{row['value']:.1f}" in finished.said


def test_a_report_is_written_with_the_first_bench(finished):
    report = (finished.folder / "results" / "report" / "report.md").read_text()
    for task in TASKS:
        assert f"{finished.records()[task]['value']:.1f}" in report


def test_a_report_can_wait(place, call):
    status, printed, _ = call("bench", *place.options("--tasks", "ks", "--no-report"))
    assert status == 0
    assert f"{place.records()['ks']['value']:.1f}" in printed
    assert not (place.folder / "results" / "report").exists()


def test_a_second_call_changes_nothing_and_encodes_nothing(finished, call):
    before, encoded = files(finished.folder), finished.encoded()
    status, printed, said = call("bench", *finished.options())
    assert status == 0
    assert "nothing to do: 4 records are there" in said
    assert changed(before, files(finished.folder)) == []
    assert finished.encoded() == encoded
    table = [line for line in finished.said.splitlines() if line.startswith(tuple(TASKS))]
    assert len(table) == 4
    assert all(line in printed for line in table)


def test_a_plan_says_what_is_there_and_does_nothing(finished, call):
    before = files(finished.folder)
    measured = finished.folder / "cache" / "calibration"  # how fast this machine is, for the next plan
    status, printed, _ = call("plan", *finished.options("--seeds", "1", "--tasks", "ks,pr"))
    assert status == 0
    assert printed.count("to do") == 2
    assert "0 s are still to encode" in printed
    _, printed, _ = call("plan", *finished.options())
    assert printed.count("there (") == 4
    after = files(finished.folder)
    assert changed(before, {path: after[path] for path in before}) == []
    assert all(path.is_relative_to(measured) for path in after.keys() - before.keys())


def test_tasks_one_by_one_encode_no_file_twice(place, finished):
    for task in ("ks", "pr", "sid", "asv"):
        assert place.bench(task)[task].features["encoded_over_distinct"] == 1.0
    assert place.encoded() == finished.encoded()
    assert {t: r["key"] for t, r in place.records().items()} == {t: r["key"] for t, r in finished.records().items()}


@pytest.mark.parametrize(
    ("stage", "amount"), [("encode", 5), ("ks: train", 13), ("asv: train", 5)], ids=["encode", "pooled", "frames"]
)
def test_kill_9_and_the_same_command_end_with_the_same_scores(place, finished, stage, amount):
    killed = place.killed(stage, amount)
    assert killed.returncode == -9, killed.stderr
    assert len(place.records()) < 4
    place.bench()
    whole, resumed = finished.records(), place.records()
    assert set(resumed) == TASKS
    for task in TASKS:
        assert outcome_of(resumed[task]) == outcome_of(whole[task])
        assert resumed[task]["features"]["encoded_over_distinct"] == 1.0
    disturbed = stage.split(":")[0]
    assert [t for t in sorted(TASKS) if resumed[t]["provenance"]["resumed"]] == sorted({disturbed} & TASKS)
    assert not list((place.folder / "results").glob(".work/*"))


def test_changed_weights_under_the_same_name_make_new_records(place):
    first = place.bench("ks")["ks"]
    encoded = place.encoded()
    toy_upstream.write_card(place.card.parent, seed=1)
    second = place.bench("ks")["ks"]
    assert second.key != first.key
    assert second.upstream["name"] == first.upstream["name"]
    assert second.layer_weights != first.layer_weights
    assert place.encoded() == 2 * encoded
    assert len(records.load_all(place.folder / "results")) == 2


def test_changed_audio_under_the_same_name_makes_a_new_record(place):
    first = place.bench("ks")["ks"]
    row, donor = (toy_data.read_manifest(place.data, "ks")[n] for n in (-1, -2))
    shutil.copy(place.data / donor["path"], place.data / row["path"])
    second = place.bench("ks")["ks"]
    assert second.key != first.key
    assert second.data["audio_digest"] != first.data["audio_digest"]
    assert second.data | {"audio_digest": ""} == first.data | {"audio_digest": ""}
