"""Synthetic records for tests of tables and figures. The numbers are invented and measure nothing."""

import math
import random

from harness.identity import digest_json
from harness.records import Record

TASKS = {
    "asr": ("wer", False), "pr": ("per", False), "ks": ("accuracy", True), "ic": ("accuracy", True),
    "sid": ("accuracy", True), "asv": ("eer", False), "er": ("accuracy", True),
}  # fmt: skip
# Invented scores per upstream, in the order of TASKS.
SCORES = {
    "fbank": (96.1, 84.3, 8.6, 4.1, 2.5, 31.0, 26.0),
    "logmel": (88.2, 61.0, 44.0, 39.5, 88.0, 24.1, 55.2),
    "random_mini": (91.5, 57.2, 61.3, 48.9, 93.1, 21.9, 62.4),
    "wavlm_mini": (38.4, 16.7, 94.2, 90.3, 95.8, 17.2, 71.6),
    "distilled_wavlm": (47.9, 22.8, 90.7, 83.0, 94.4, 18.8, 70.9),
}
# title, family, depth, width, teacher, states, parameters, MACs per second, real-time factor, bytes
UPSTREAMS = {
    "fbank": ("FBANK", "features", None, None, None, 1, 0, 2.4e7, 0.0011, 0),
    "logmel": ("log-mel", "features", None, None, None, 1, 0, 2.4e7, 0.0009, 0),
    "random_mini": ("random mini", "mini", 12, 192, None, 13, 5_523_456, 3.1e8, 0.021, 11_100_000),
    "wavlm_mini": ("WavLM mini", "mini", 12, 192, None, 13, 5_523_456, 3.1e8, 0.0204, 11_100_000),
    "distilled_wavlm": ("distilled", "mini", 3, 192, "wavlm_mini", 4, 1_438_208, 8.4e7, 0.0066, 2_900_000),
}
STUDENTS = {
    "thin_wavlm": ("thin", "mini", 12, 96, "wavlm_mini", 13, 1_402_112, 9.2e7, 0.017, 2_800_000),
    "wide_wavlm": ("wide", "mini", 2, 256, "wavlm_mini", 3, 1_700_000, 9.9e7, 0.006, 3_400_000),
}
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def build(suite="embedded", upstreams=UPSTREAMS, tasks=tuple(TASKS), scores=SCORES, **changes):
    """One invented record per upstream and task."""
    return [
        fake(name, task, scores[name][list(TASKS).index(task)], suite=suite, facts=upstreams[name], **changes)
        for name in upstreams
        for task in tasks
    ]


def fake(name, task, value, half=2.0, suite="embedded", facts=None, **changes):
    title, family, depth, width, teacher, states, params, macs, rtf, size = facts or UPSTREAMS[name]
    metric, higher = TASKS.get(task, ("accuracy", True))
    rng = random.Random(f"{name} {task} {suite}")
    values = [value - 0.6, value, value + 0.6]
    best = RATES[rng.randrange(1, 4)]
    fields = {
        "key": digest_json([suite, name, task, changes.get("created", "")]),
        "created": "2030-01-01T00:00:00+00:00",
        "suite": suite,
        "suite_digest": None,
        "upstream": {
            "name": name, "title": title, "fingerprint": digest_json(name), "family": family, "depth": depth,
            "width": width, "teacher": teacher, "licence": "none", "num_states": states,
            "state_width": width or 240, "frame_ms": 20.0, "exposes": "invented",
        },
        "task": task, "metric": metric, "value": value,
        "ci95": [max(0.0, value - half), value + half], "n_test": 2, "values_per_seed": values,
        "secondary": {"cer": {"value": value / 3, "ci95": [value / 4, value / 2]}} if metric == "wer" else {},
        "learning_rate": best, "seeds": [0, 1, 2],
        "trials": [_trial(rate, seed, value, best, higher, rng) for rate in RATES for seed in range(3)],
        "layer_weights": [_weights(states, task, rng) for _ in range(3)],
        "protocol": {"steps": 400, "batch": 16, "learning_rates": list(RATES)},
        "data": {"train": 900, "dev": 300, "test": 320, "manifest_digest": digest_json([suite, task])},
        "predictions": {
            str(seed): [{"id": "a", "speaker": "x", "ref": "yes", "hyp": "no"}] * 2
            for seed in range(3)
        },
        "cost": {
            "params": params, "head_params": 40_000, "params_with_head": params + 40_000 + states,
            "macs_per_second": macs, "bytes_on_disk": size, "real_time_factor": rtf, "peak_memory_mb": 410.5,
            "device": "cpu", "threads": 2,
        },
        "features": {"encoded_seconds": 3600.0, "distinct_seconds": 3600.0, "encoded_over_distinct": 1.0},
        "seconds": {"extract": 30.0, "train": 12.5, "test": 0.5},
        "provenance": {"slimbench": "0"}, "notes": [],
    }  # fmt: skip
    return Record(**(fields | changes))


def _trial(rate, seed, value, best, higher, rng):
    away = abs(math.log10(rate / best))
    loss = min(40.0, 14.0 * away**1.5) + rng.uniform(-0.7, 0.7)
    dev = max(0.0, min(100.0, value - loss if higher else value + loss))
    curve = [[100, dev / 2], [300, dev]]
    return {"learning_rate": rate, "seed": seed, "dev": dev, "best_step": 300, "curve": curve, "diverged": False}


def _weights(states, task, rng):
    peaks = {"asr": 0.75, "pr": 0.7, "ks": 0.9, "ic": 0.9, "sid": 0.2, "asv": 0.25}
    peak = peaks.get(task, 0.5) * (states - 1)
    raw = [math.exp(-(((i - peak) / (0.25 * states)) ** 2)) + rng.uniform(0.02, 0.12) for i in range(states)]
    return [value / sum(raw) for value in raw]
