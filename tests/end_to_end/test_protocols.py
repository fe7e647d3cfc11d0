"""What SUPERB's protocol asks of the line: effects, crops, folds, looks on test, and that protocols never mix."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
import toy_data

from harness import metrics, records


@pytest.fixture
def published(place):
    """The tones with a suite of two protocols, and speakers as folds of ER."""
    place.suite = place.folder / "published.yaml"
    place.suite.write_text(toy_data.AS_SUPERB)
    rows = toy_data.read_manifest(place.data, "ks")
    folds = []
    for fold, seed in ((1, 0), (2, 1)):
        for number, row in enumerate(rows):
            mine = number % 2 == seed
            split = "test" if mine else ("dev" if number % 5 == 0 else "train")
            folds.append({**row, "split": split, "test_fold": fold})
    (place.data / "er").mkdir()
    with (place.data / "er" / "manifest.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(folds[0]))
        writer.writeheader()
        writer.writerows(folds)
    return place


def found(place):
    return {r["task"]: r for r in (json.loads(p.read_text()) for p in place.folder.glob("results/published/*/*.json"))}


def test_folds_share_one_rate_and_their_scores_are_averaged(published):
    record = published.bench("er")["er"]
    records.verify(record)
    assert {(t["fold"], t["learning_rate"], t["seed"]) for t in record.trials} == {
        (fold, rate, seed) for fold in (1, 2) for rate in (1e-2, 3e-2) for seed in (0, 1)
    }
    every = {u["id"] for u in record.predictions["0"]}
    assert len(every) == record.n_test == len(toy_data.read_manifest(published.data, "ks"))
    for seed, value in zip(("0", "1"), record.values_per_seed, strict=True):
        rows = record.predictions[seed]
        parts = [[row for row in rows if row["fold"] == fold] for fold in (1, 2)]
        right = [100 * sum(row["ref"] == row["hyp"] for row in part) / len(part) for part in parts]
        assert value == pytest.approx(sum(right) / 2)
    rate = {rate: sum(t["dev"] for t in record.trials if t["learning_rate"] == rate) for rate in (1e-2, 3e-2)}
    assert record.learning_rate == max(rate, key=lambda r: (rate[r], -r))
    assert len(record.data["folds"]) == 2


def test_a_killed_fold_goes_on_to_the_same_scores(published):
    undisturbed = published.bench("er")["er"]
    shutil.rmtree(published.folder / "results")
    killed = published.killed("er: train 4 probes, fold 2", 6, "--tasks", "er")
    assert killed.returncode == -9, killed.stderr
    assert not found(published)
    again = published.bench("er")["er"]
    assert again.predictions == undisturbed.predictions
    assert again.trials == undisturbed.trials


def test_the_lowest_look_on_test_stands_beside_the_last_and_is_labelled(published):
    record = published.bench("asv")["asv"]
    assert {t["best_step"] for t in record.trials} == {8}
    records.verify(record)
    lowest = record.secondary["eer_test_min"]["value"]
    assert lowest <= record.value
    assert "lowest" in metrics.METRICS["eer_test_min"].title
    assert record.data["train"] == (toy_data.COUNTS["train"] + toy_data.COUNTS["dev"]) * len(toy_data.SPEAKERS)
    assert not list(published.folder.glob("results/.work/*"))


def test_when_no_training_utterance_is_long_enough_the_file_and_the_remedy_are_named(published):
    published.suite.write_text(published.suite.read_text().replace("min_seconds: 0.59", "min_seconds: 0.6"))
    outcome = published.process("bench", *published.options("--tasks", "asv"))
    assert outcome.returncode == 2
    assert "no training utterance is longer than 0.6 s after 'gain -3'" in outcome.stderr


def test_effects_and_crops_are_encoded_as_audio_of_their_own(published):
    published.bench("pr")
    before = published.encoded()
    record = published.bench("ks")["ks"]
    whole, cropped = toy_data.COUNTS["test"] * 2, (toy_data.COUNTS["train"] + toy_data.COUNTS["dev"]) * 2
    assert published.encoded() - before == whole + 3 * cropped + 3  # and three trials on noise
    assert record.features["encoded_over_distinct"] == 1.0
    assert record.data["protocol"] == "superb"


def test_a_record_never_passes_for_one_of_another_protocol(published, call):
    first = published.bench("ks")["ks"]
    outcome = published.process("bench", *published.options("--tasks", "ks", "--protocol", "fast"))
    assert outcome.returncode == 0, outcome.stderr
    made = [json.loads(p.read_text()) for p in published.folder.glob("results/published/*/*.json")]
    assert {r["data"]["protocol"] for r in made} == {"superb", "fast"}
    assert len({r["key"] for r in made}) == 2
    assert first.key in {r["key"] for r in made}
    status, _, said = call("plan", *published.options("--protocol", "fastt"))
    assert status == 2
    assert "fast" in said


def test_a_language_model_gives_asr_a_column_of_its_own(published):
    pytest.importorskip("flashlight.lib.text", reason="the extra lm is not installed")
    toy_data.write_manifest(published.data, "asr", toy_data.read_manifest(published.data, "ks"))
    without = published.bench("asr")["asr"]
    words = [word.upper() for word in toy_data.WORDS]
    folder = published.data / "lm"
    folder.mkdir()
    (folder / "librispeech_lexicon.lst").write_text("".join(f"{word}\t{' '.join(word)} |\n" for word in words))
    lines = ["-99\t<s>\t0", "-1\t</s>\t0", "-2\t<unk>\t0", *(f"-0.7\t{word}\t0" for word in words)]
    counts = f"ngram 1={len(lines)}\nngram 2=1"
    (folder / "4-gram.arpa").write_text(
        "\n".join(["\\data\\", counts, "", "\\1-grams:", *lines, "", "\\2-grams:", "-0.5\t<s> LA", "", "\\end\\", ""])
    )
    record = published.bench("asr")["asr"]
    records.verify(record)
    assert record.key != without.key
    assert record.value == without.value  # the language model chooses nothing
    rows = record.predictions["0"]
    assert all(set(row["hyp_wer_lm"].split()) <= set(words) for row in rows)
    assert record.secondary["wer_lm"]["value"] == pytest.approx(
        sum(metrics.score("wer_lm", found) for found in record.predictions.values()) / 2
    )
    assert record.data["wer_lm"]["weights"]["lm"] == 2.0
    assert "wer_lm" not in without.secondary


def test_protocols_of_equal_values_still_have_records_of_their_own(published):
    text = published.suite.read_text()
    same = text[text.index("    ks: {steps: 24") : text.index("    pr: ")]
    published.suite.write_text(f"{text}  twin:\n{same}")
    first = published.bench("ks")["ks"]
    outcome = published.process("bench", *published.options("--tasks", "ks", "--protocol", "twin"))
    assert outcome.returncode == 0, outcome.stderr
    made = [json.loads(p.read_text()) for p in published.folder.glob("results/published/*/*.json")]
    assert {r["data"]["protocol"]: r["value"] for r in made} == {"superb": first.value, "twin": first.value}


def test_dev_scores_count_each_utterance_once_however_many_crops_it_has(published):
    published.suite.write_text(published.suite.read_text().replace("crops: 3}", "crops: 3, balanced_dev: false}"))
    record = published.bench("ks")["ks"]
    dev = toy_data.COUNTS["dev"] * len(toy_data.SPEAKERS)
    assert record.data["dev"] == dev
    for trial in record.trials:
        assert (trial["dev"] * dev / 100) == pytest.approx(round(trial["dev"] * dev / 100))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("effects: [gain -3]", "effects: [gian -3]", "protocols.superb.asv.effects"),
        ("crops: 3}", "crops: 3, crop_splits: [test]}", "test is never cropped"),
        ("fast:\n    ks", "fast:\n    kss", "kss"),
    ],
)
def test_a_wrong_setting_is_named_before_anything_runs(published, call, old, new, said):
    text = published.suite.read_text()
    assert old in text
    published.suite.write_text(text.replace(old, new, 1 if "fast" in old else -1))
    protocol = "fast" if "fast" in old else "superb"
    status, _, error = call("plan", *published.options("--protocol", protocol))
    assert status == 2
    assert said in error
    assert published.encoded() == 0
