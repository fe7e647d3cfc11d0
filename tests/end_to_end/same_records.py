"""What of a record must not depend on who did the jobs of its bench."""

from __future__ import annotations

MEASURED = {"real_time_factor", "peak_memory_mb", "idle_memory_mb"}
"""Fields of a record's cost that are measured anew where they are not in the cache."""
SHARED = {"suite", "check", "extract"}
"""Stages in every record's ``shared_seconds``; ``cost`` is there too where that process has measured it."""


def comparable(record):
    """Everything but the day, times and memory, and the digest over them."""
    rest = {name: value for name, value in record.items() if name not in ("created", "digest")}
    rest["seconds"] = sorted(record["seconds"])
    rest["cost"] = {name: value for name, value in record["cost"].items() if name not in MEASURED}
    rest["provenance"] = {name: value for name, value in record["provenance"].items() if name != "shared_seconds"}
    return rest


def assert_same(place, finished, tasks=None):
    """The records of these tasks, or of all, are the same in two places, as far as can be, and nothing is left over."""
    whole, here = finished.records(), place.records()
    assert set(here) == (tasks or set(whole))
    for task, record in here.items():
        assert comparable(record) == comparable(whole[task])
        assert set(record) == set(whole[task])
        assert set(record["cost"]) == set(whole[task]["cost"])
        assert record["seconds"]["train"] > 0
        assert set(record["provenance"]["shared_seconds"]) - {"cost"} == SHARED
    assert not list((place.folder / "results").glob(".work/*"))
