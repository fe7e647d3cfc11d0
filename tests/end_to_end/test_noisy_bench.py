"""Clean and noisy: the same probes on the same upstream, two suites, and nothing clean is encoded again."""

from __future__ import annotations

import toy_data

from downstreams.corpora import noisy
from harness import preparing, run


def bench(place, suite, folder):
    where = {"results": place.folder / "results", "cache": place.folder / "cache", "data": folder}
    made = run.bench(
        preparing.Options(str(place.card), str(suite), **where, tasks=("ks", "asv"), device="cpu", threads=1)
    )
    return {record.task: record for record in made}


def test_a_noisy_bench_scores_the_clean_benchs_probes_on_noisy_speech(place):
    recipe = noisy.Recipe(-20.0)
    noisy.make(place.data, place.folder / "noisy", recipe)
    suite = place.folder / "tiny-noisy.yaml"
    stated = f"noise: {{kind: noise, snr_db: {recipe.snr_db}, seed: 0, splits: [test]}}"
    suite.write_text(toy_data.SUITE.replace("name: tiny", "name: tiny-noisy").replace("builder: null", stated))
    clean = bench(place, place.suite, place.data)
    before = place.encoded()
    found = bench(place, suite, place.folder / "noisy")
    test = toy_data.COUNTS["test"] * len(toy_data.SPEAKERS)
    assert place.encoded() - before <= test + 3  # and the trial on made-up sound before the first batch
    for task, record in found.items():
        assert (record.suite, record.data["test"]) == ("tiny-noisy", clean[task].data["test"])
        assert record.data["audio_digest"] != clean[task].data["audio_digest"]
        assert any("carries coloured noise at -20 dB" in note for note in record.notes)
        learned = [[(t["learning_rate"], t["seed"], t["curve"]) for t in r.trials] for r in (record, clean[task])]
        assert learned[0] == learned[1]
        assert record.layer_weights == clean[task].layer_weights
        assert record.predictions != clean[task].predictions
    assert found["ks"].value < clean["ks"].value
    assert {p.parent.parent.name for p in (place.folder / "results").glob("*/toy/*.json")} == {"tiny", "tiny-noisy"}
