"""Every bad input ends with exit status 2 and one sentence that names what is wrong, before anything is encoded."""

from __future__ import annotations

import pytest
import soundfile
import toy_data
import toy_upstream
from safetensors import SafetensorError
from safetensors.torch import save_file


def change(place, task, row, **values):
    rows = toy_data.read_manifest(place.data, task)
    rows[row].update(values)
    toy_data.write_manifest(place.data, task, rows)


def audio(place, row=-1):
    return place.data / toy_data.read_manifest(place.data, "ks")[row]["path"]


def empty_file(place):
    audio(place).write_bytes(b"")
    return audio(place).name


def missing_file(place):
    audio(place).unlink()
    return audio(place).name


def truncated_file(place):
    audio(place).write_bytes(audio(place).read_bytes()[:-1_000])
    return audio(place).name


def no_audio(place):
    audio(place).write_text("these are words")
    return audio(place).name


def nan_samples(place):
    wave, rate = soundfile.read(audio(place), dtype="float32")
    wave[7] = float("nan")
    soundfile.write(audio(place), wave, rate, subtype="FLOAT")
    return audio(place).name


def too_short(place):
    wave, rate = soundfile.read(audio(place), dtype="float32")
    soundfile.write(audio(place), wave[:100], rate)
    for task in ("ks", "sid", "pr", "asv"):
        change(place, task, -1, seconds=0.00625)
    return "too short for one frame of toy"


def label_missing_in_training(place):
    change(place, "ks", -1, label="unheard")
    return "unheard"


def empty_label(place):
    change(place, "ks", 3, label="")
    return "line 5"


def split_missing(place):
    rows = [row for row in toy_data.read_manifest(place.data, "ks") if row["split"] != "dev"]
    toy_data.write_manifest(place.data, "ks", rows)
    return "dev"


def in_two_splits(place):
    rows = toy_data.read_manifest(place.data, "ks")
    toy_data.write_manifest(place.data, "ks", [*rows, {**rows[0], "split": "test"}])
    return "one split only"


def same_audio_in_two_splits(place):
    audio(place).write_bytes(audio(place, 0).read_bytes())
    return "same audio"


def changed_weights(place):
    place.card.write_text(place.card.read_text() + f"sha256: {'ab' * 32}\n")
    return "SHA-256"


def weights_that_do_not_fit(place):
    weights = place.card.parent / "toy.safetensors"
    save_file({"weights": toy_upstream.weights(0)[:1].contiguous()}, weights)
    return "do not fit"


def no_trials(place):
    for split in ("dev", "test"):
        (place.data / "asv" / f"trials_{split}.txt").unlink()
    return "trials_dev.txt"


def no_manifest(place):
    (place.data / "pr" / "manifest.csv").unlink()
    return "pr/manifest.csv"


DAMAGES = [
    *(empty_file, missing_file, truncated_file, no_audio, nan_samples, too_short, label_missing_in_training),
    *(empty_label, split_missing, in_two_splits, same_audio_in_two_splits, changed_weights),
    *(weights_that_do_not_fit, no_trials, no_manifest),
]


def sentences(called):
    status, _, said = called
    return status, [line for line in said.splitlines() if line.startswith("slimbench: ")]


def bench(call, place):
    return sentences(call("bench", *place.options()))


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_bad_data_or_weights(place, call, damage):
    said = damage(place)
    status, errors = bench(call, place)
    assert status == 2
    assert len(errors) == 1
    assert said in errors[0]
    assert place.encoded() == 0
    assert not place.records()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--upstream", "fbnk", "did you mean 'fbank'"),
        ("--upstream", "no/such.yaml", "such.yaml"),
        ("--suite", "embeded", "did you mean 'embedded'"),
        ("--tasks", "ks,prr", "did you mean 'pr'"),
        ("--data", "no/such/folder", "no such data folder"),
        ("--device", "gpu", "use auto, cpu or cuda"),
    ],
)
def test_unknown_names(place, call, option, value, said):
    options = place.options()
    if option in options:
        del options[options.index(option) : options.index(option) + 2]
    status, errors = sentences(call("bench", *options, option, value))
    assert status == 2
    assert len(errors) == 1
    assert said in errors[0]


def test_a_suite_without_builder_asks_for_data(place, call):
    options = place.options()
    del options[options.index("--data") : options.index("--data") + 2]
    status, errors = sentences(call("bench", *options))
    assert status == 2
    assert "DATA=" in errors[0]


def test_no_space_left(place, call, monkeypatch):
    from harness.extraction import extract

    monkeypatch.setattr(extract.shutil, "disk_usage", lambda _path: type("usage", (), {"free": 1_000}))
    status, errors = bench(call, place)
    assert status == 2
    assert "are free" in errors[0]
    assert place.encoded() == 0


def test_space_that_runs_out_later_is_said_and_nothing_is_lost(place, call, monkeypatch):
    from harness.store import shards

    def full(*_args, **_kwargs):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(shards, "save_file", full)
    status, errors = bench(call, place)
    assert status == 2
    assert "No space left" in errors[0]
    assert "it goes on" in errors[0]


def test_an_interruption_says_that_the_same_command_goes_on(place, call, monkeypatch):
    from harness.probes.training import Run

    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "update", interrupt)
    status, errors = bench(call, place)
    assert status == 130
    assert "same command goes on" in errors[0]
    assert place.encoded() > 0
