"""Synthetic students of known scores, with predictions that score as their records say. They measure nothing."""

import random

from fake_records import TASKS, fake

from harness import metrics, stats

SHAPES = {
    "s3x192": (3, 192, 1_400_000), "s6x136": (6, 136, 1_390_000), "s12x96": (12, 96, 1_440_000),
    "m3x384": (3, 384, 5_400_000), "m6x272": (6, 272, 5_450_000), "m12x192": (12, 192, 5_380_000),
    "m24x136": (24, 136, 5_500_000),
}  # fmt: skip
# Invented: what a doubling of depth adds at equal size, in points towards better.
PER_DOUBLING = {"asr": 4.0, "pr": 3.0, "ks": 2.0, "ic": 5.0, "sid": -6.0, "asv": -2.0, "er": 0.0}
AT_DEPTH_3 = {"asr": 40.0, "pr": 30.0, "ks": 80.0, "ic": 70.0, "sid": 80.0, "asv": 12.0, "er": 60.0}
WORDS = "one two three four five six seven eight nine ten".split()


def student(name, task, shape, level, speakers=40, each=20, seeds=3, teacher="wavlm_mini", noise=0.0, **changes):
    """A record whose score is ``level`` percent but for rounding; every student errs on the same utterances first."""
    depth, width, params = shape
    metric, _ = TASKS[task]
    rows = {seed: _rows(name, task, level, speakers, each, seed, noise) for seed in range(seeds)}
    listed = [rows[seed] for seed in rows]
    values = [metrics.score(metric, one) for one in listed]
    facts = (name, "mini", depth, width, teacher, depth + 1, params, 9e7, 0.01, 2 * params)
    return fake(
        name, task, sum(values) / len(values), facts=facts, metric=metric, values_per_seed=values,
        ci95=list(stats.interval(metric, listed, 200)), n_test=len(listed[0]), seeds=list(rows), secondary={},
        predictions={str(seed): one for seed, one in rows.items()}, **changes,
    )  # fmt: skip


def _rows(name, task, level, speakers, each, seed, noise):
    total = speakers * each
    order = random.Random(task).sample(range(total), total)  # hardness is the same for all
    own = random.Random(f"{name} {seed} {task}")
    hard = [place / total + own.gauss(0.0, noise) for place in order]
    if task == "asv":
        return _trials(level, speakers, own)
    limit = sorted(hard)[min(total - 1, round(total * level / 100))]
    if TASKS[task][0] in ("wer", "per"):
        return [_said(index, each, hard[index] < limit) for index in range(total)]
    return [
        {"id": f"u{index}", "speaker": f"s{index // each}", "ref": "yes", "hyp": "yes" if value < limit else "no"}
        for index, value in enumerate(hard)
    ]


def _said(index, each, wrong):
    words = list(WORDS)
    return {
        "id": f"u{index}", "speaker": f"s{index // each}", "ref": " ".join(words),
        "hyp": " ".join(["none"] * len(words) if wrong else words),
    }  # fmt: skip


def _trials(level, speakers, own):
    rows = []
    for index in range(speakers * 10):
        for same in (True, False):
            one, two = index % speakers, (index if same else index + 1 + index // speakers) % speakers
            high = (index * 37 % 100 >= level) == same
            rows.append(
                {"enrol": f"a{index}", "test": f"b{index}{same}", "speakers": [f"s{one}", f"s{two}"], "same": same,
                 "score": (0.7 if high else 0.3) + own.uniform(-0.1, 0.1)}
            )  # fmt: skip
    return rows


def level_of(task, depth, size):
    """The invented score: a line over log2 of the depth, better for the larger ones."""
    import math

    up = 1.0 if TASKS[task][1] else -1.0
    better = PER_DOUBLING[task] * math.log2(depth / 3) + (4.0 if size > 3_000_000 else 0.0)
    return AT_DEPTH_3[task] + up * better


def students(tasks=tuple(TASKS), shapes=None, **changes):
    """All shapes on some tasks."""
    return [
        student(name, task, shape, level_of(task, shape[0], shape[2]), **changes)
        for name, shape in (shapes or SHAPES).items()
        for task in tasks
    ]
