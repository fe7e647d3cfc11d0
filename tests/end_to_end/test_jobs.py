"""A bench divided into many jobs, each of them done twice, is the bench done in one go."""

from __future__ import annotations

import csv
import json
from contextlib import nullcontext
from dataclasses import replace

import pytest
import toy_data
from same_records import assert_same, comparable

from harness import performing, preparing, run
from harness.jobs import InProcess


def options_of(place, suite, *tasks):
    where = {"results": place.folder / "results", "cache": place.folder / "cache", "data": place.data}
    return preparing.Options(str(place.card), str(suite), **where, tasks=tasks, device="cpu", threads=1)


def divided(options, done):
    """A bench whose every job is done by a bench prepared anew, as another process would, and then once more."""
    bench = preparing.prepare(options)

    def do(job):
        for _ in range(2):
            other = preparing.prepare(replace(options, tasks=options.tasks), recorded=False)
            preparing.survey(other)
            other.watch.seconds.update(bench.watch.seconds)
            other.features = bench.features
            performing.perform(other, job)
        done.append(job.title)

    return run._bench(bench, nullcontext(InProcess(do, workers=3)))


def test_jobs_done_apart_and_twice_make_the_same_records(place, finished):
    done = []
    divided(options_of(place, place.suite), done)
    assert_same(place, finished)
    assert done[:3] == ["encode part 1 of 3", "encode part 2 of 3", "encode part 3 of 3"]
    assert done[3:] == [f"{stage} {task}" for stage in ("train", "score") for task in ("ks", "sid", "pr", "asv")]


@pytest.fixture
def in_folds(place):
    """The tones with speakers told apart in two folds."""
    suite = place.folder / "published.yaml"
    suite.write_text(toy_data.AS_SUPERB)
    (place.data / "er").mkdir()
    with (place.data / "er" / "manifest.csv").open("w", newline="") as handle:
        rows = toy_data.read_manifest(place.data, "ks")
        writer = csv.DictWriter(handle, [*rows[0], "test_fold"])
        writer.writeheader()
        for fold in (1, 2):
            for number, row in enumerate(rows):
                split = "test" if number % 2 == fold - 1 else ("dev" if number % 5 == 0 else "train")
                writer.writerow({**row, "split": split, "test_fold": fold})
    return suite


def test_folds_are_jobs_of_their_own_and_their_times_add_up(place, in_folds):
    done = []
    options = options_of(place, in_folds, "er")
    divided(options, done)
    assert done[3:] == ["train er, fold 1", "train er, fold 2", "score er"]
    (apart,) = (json.loads(file.read_text()) for file in place.folder.glob("results/*/*/*.json"))
    (whole,) = run.bench(replace(options, results=place.folder / "other"))
    assert comparable(apart) == comparable(json.loads(next(place.folder.glob("other/*/*/*.json")).read_text()))
    assert whole.key == apart["key"]
    assert apart["seconds"]["train"] > 0
    assert not apart["provenance"]["resumed"]
    assert not list((place.folder / "results").glob(".work/*"))
