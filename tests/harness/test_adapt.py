from dataclasses import replace
from pathlib import Path

from toy_probe import toy_manifest

from downstreams.sid import SID
from harness import adapt
from harness.interface import SAMPLE_RATE, Manifest, Utterance


def manifest(seconds, split="train", start=None):
    rows = tuple(
        Utterance(f"u{i}", split, Path(f"u{i}.wav"), "s", "", "l", start, length, i + 2)
        for i, length in enumerate(seconds)
    )
    return Manifest("sid", Path("m.csv"), rows)


def test_a_protocol_without_crops_leaves_the_manifest_alone():
    table = toy_manifest("ks", str)
    assert adapt.apply(table, replace(SID.protocol, crops=0)) is table


def test_longer_training_utterances_become_fixed_crops():
    table = adapt.apply(manifest([3.0, 8.0, 20.0, 9.0]), SID.protocol)
    assert [u.id for u in table.utterances[:2]] == ["u0", "u1"]
    crops = [u for u in table.utterances if u.variant_of == "u2"]
    assert len(crops) == SID.protocol.crops == 4
    assert len({u.id for u in table.utterances}) == len(table.utterances) == 10
    for crop in crops:
        assert crop.seconds == 8.0
        assert 0 <= crop.start <= 12.0
        assert (crop.start * SAMPLE_RATE).is_integer()
    assert len({crop.start for crop in crops}) == 4
    assert adapt.apply(manifest([3.0, 8.0, 20.0, 9.0]), SID.protocol) == table
    assert adapt.groups(table.utterances) == [[0], [1], [2, 3, 4, 5], [6, 7, 8, 9]]


def test_dev_and_test_stay_whole_and_a_cut_is_cropped_within_itself():
    for split in ("dev", "test"):
        table = manifest([20.0], split)
        assert adapt.apply(table, SID.protocol) is table
    crops = adapt.apply(manifest([10.0], start=100.0), SID.protocol).utterances
    assert all(100.0 <= crop.start <= 102.0 for crop in crops)


def test_dev_can_be_trained_on_too():
    table = toy_manifest("asv", lambda i: f"s{i % 4}")
    both = adapt.apply(table, replace(SID.protocol, crops=0, train_on_dev=True))
    assert both.split("dev") == table.split("dev")
    assert len(both.split("train")) == len(table.split("train")) + len(table.split("dev"))
    assert len({u.id for u in both.utterances}) == len(both.utterances)


def test_the_union_of_folds_holds_the_crops_of_every_fold():
    one, two = manifest([20.0, 3.0]), manifest([20.0, 3.0], split="test")
    whole = adapt.apply(replace(one, folds=(one, two)), SID.protocol)
    every = {u.id for u in whole.utterances}
    assert every == {u.id for fold in whole.folds for u in fold.utterances}
    assert {"u0", "u0#0", "u1"} <= every
