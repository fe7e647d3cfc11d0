"""A bench whose frames are encoded on demand: the same records as with stored frames, and less on the disk."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from same_records import comparable

from harness import performing, preparing, run
from harness.interface import SlimbenchError
from harness.jobs import InProcess, Job

FRAMES = {"pr", "asv"}
"""Tasks of the toy suite that read frames, both of the same audio and in the same batches."""


def options_of(place, **changes):
    where = {"results": place.folder / "results", "cache": place.folder / "cache", "data": place.data}
    return preparing.Options(str(place.card), str(place.suite), **where, device="cpu", threads=1, **changes)


def assert_same_but_for_the_way(here, whole, task):
    """Batches that are put together differently move states in their last digits, and verification scores with them."""
    one, other = comparable(here), comparable(whole)
    streamed = one["features"].pop("streamed_seconds", None)
    assert (streamed is not None) == (task in FRAMES)
    if task == "asv":
        for record in (one, other):
            for rows in record["predictions"].values():
                for row in rows:
                    row["score"] = round(row["score"], 3)
    for record in (one, other):
        for trial in record["trials"]:
            trial.pop("seconds", None)
        record["layer_weights"] = [[round(w, 4) for w in weights] for weights in record["layer_weights"]]
    assert one == other
    return streamed


def stored(place):
    return sum(file.stat().st_size for file in (place.folder / "cache" / "features").rglob("*.safetensors"))


def test_a_streamed_bench_makes_the_records_of_a_cached_one(place, finished):
    made = run.bench(options_of(place, frames="stream"))
    assert {record.task for record in made} == set(finished.records())
    streamed = {
        task: assert_same_but_for_the_way(record, finished.records()[task], task)
        for task, record in place.records().items()
    }
    assert streamed["pr"] > 0
    assert streamed["asv"] > 0
    assert stored(place) < 0.2 * stored(finished)
    assert not list((place.folder / "results").glob(".work/*"))


def test_tasks_in_step_share_one_encoding_of_every_batch(place, monkeypatch):
    monkeypatch.setattr("harness.extraction.stream.memory_bound", lambda: 15_000)  # one batch, not all audio
    together = preparing.prepare(options_of(place, frames="stream"))
    assert [{item.task.name for item in group} for group in together.plan.in_step] == [FRAMES]
    records = {record.task: record for record in run.bench(options_of(place, frames="stream"))}
    apart = {}
    for task in FRAMES:
        other = options_of(place, frames="stream", tasks=(task,))
        results = place.folder / f"only-{task}"
        apart |= {r.task: r for r in run.bench(run.replace(other, results=results))}
    shared = sum(records[task].features["streamed_seconds"] for task in FRAMES)
    alone = sum(apart[task].features["streamed_seconds"] for task in FRAMES)
    assert 0 < shared < alone
    for task in FRAMES:
        assert records[task].value == pytest.approx(apart[task].value, abs=1e-6)


def test_jobs_that_stream_can_be_done_apart_and_twice(place, finished):
    options, done = options_of(place, frames="stream"), []
    bench = preparing.prepare(options)
    ways = {name: choice.way for name, choice in bench.plan.frames.items()}

    def do(job):
        for _ in range(2):
            other = preparing.prepare(options, recorded=False, ways=ways)
            preparing.survey(other)
            other.watch.seconds.update(bench.watch.seconds)
            other.features = bench.features
            performing.perform(other, job)
        done.append(job.title)

    run._bench(bench, nullcontext(InProcess(do, workers=2)))
    assert done[2:] == ["train pr and asv", "train ks", "train sid", "score ks", "score sid", "score pr", "score asv"]
    for task, record in place.records().items():
        assert_same_but_for_the_way(record, finished.records()[task], task)


def test_the_plan_says_where_frames_come_from_and_why(place, call):
    status, printed, _ = call("plan", *place.options("--frames", "stream"))
    assert status == 0
    assert "frames of pr and asv are encoded on demand: --frames stream asks for it" in printed
    assert ", on demand" in printed
    status, printed, _ = call("plan", *place.options())
    assert status == 0
    assert "frames of pr and asv come from the disk" in printed


def test_what_the_limit_of_the_cache_has_no_room_for_is_streamed(place, finished):
    limit = 0.5 * stored(finished) / 1e9
    made = preparing.prepare(options_of(place, cache_limit=limit))
    assert {name: choice.way for name, choice in made.plan.frames.items()} == dict.fromkeys(FRAMES, "stream")
    assert "limit of the cache" in made.plan.frames["pr"].why
    records = {record.task: record.value for record in run.bench(options_of(place, cache_limit=limit))}
    assert stored(place) <= limit * 1e9
    assert records == pytest.approx({task: record["value"] for task, record in finished.records().items()})


@pytest.mark.parametrize("share", [0.85, 0.95, 1.0, 1.2])
def test_whatever_the_limit_auto_finds_a_way_that_fits(place, finished, share):
    limit = share * stored(finished) / 1e9
    records = {record.task: record.value for record in run.bench(options_of(place, cache_limit=limit))}
    assert stored(place) <= limit * 1e9
    assert records == pytest.approx({task: record["value"] for task, record in finished.records().items()})


def test_a_streamed_bench_goes_on_after_a_kill(place, finished):
    ended = place.killed("pr: train", 3, "--frames", "stream")
    assert ended.returncode == -9
    assert not place.records()
    ended = place.process("bench", *place.options("--frames", "stream"))
    assert ended.returncode == 0, ended.stderr
    for task, record in place.records().items():
        record["provenance"]["resumed"] = finished.records()[task]["provenance"]["resumed"]
        assert_same_but_for_the_way(record, finished.records()[task], task)


def test_products_in_bfloat16_are_another_record_with_features_of_their_own(place):
    full = {record.task: record for record in run.bench(options_of(place, tasks=("ks",)))}
    half = {record.task: record for record in run.bench(options_of(place, tasks=("ks",), compute="bfloat16"))}
    assert full["ks"].key != half["ks"].key
    assert (full["ks"].data.get("compute"), half["ks"].data["compute"]) == (None, "bfloat16")
    assert len(list((place.folder / "cache" / "features").iterdir())) == 2


def test_states_beyond_the_stored_precision_stop_a_streamed_bench_before_any_training(place):
    made = preparing.prepare(options_of(place, frames="stream"))
    for layer in made.plan.upstream.module():
        layer.weight *= 1e8
    preparing.survey(made)
    with pytest.raises(SlimbenchError, match="write `dtype: float32`"):
        performing.perform(made, Job("encode"))


def test_training_is_counted_once_whoever_has_done_it(place):
    """The record says what the checkpoints say, with jobs of their own and in step."""
    options = options_of(place, frames="stream")
    bench, seen = preparing.prepare(options), {}

    def do(job):
        performing.perform(bench, job)
        if job.stage == "train":
            for name in (job.task, *job.others):
                item = next(item for item in bench.plan.tasks if item.task.name == name)
                state = torch.load(place.folder / "results" / ".work" / item.key / "probe.pt", weights_only=True)
                seen[name] = state["seconds"], state["encoded"]

    records = {r.task: r for r in run._bench(bench, nullcontext(InProcess(do, workers=2)))}
    assert set(seen) == set(records)
    for name, (seconds, encoded) in seen.items():
        assert records[name].seconds["train"] == pytest.approx(seconds, abs=2e-3)
        assert not records[name].provenance["resumed"]
        if name in FRAMES:  # test is encoded on top
            assert encoded <= records[name].features["streamed_seconds"] <= encoded + 8 * 0.6 + 1e-3
        else:
            assert encoded == 0
