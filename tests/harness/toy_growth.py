"""Processes that train probes on a synthetic store and print how far their memory grew, for ``test_growth.py``.

``python toy_growth.py FOLDER UTTERANCES:FREE ...``: FREE bytes are said to be free, so tables beyond half of that stay
out of memory. Each pair is a process of its own, forked from one that has imported everything and done nothing. What
is counted is anonymous memory (``RssAnon``): pages of mapped shards belong to the page cache, which the kernel takes
back when it needs them.
"""

import dataclasses
import os
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace

import torch
from toy_probe import toy_manifest

from downstreams.ic import IC
from downstreams.pr import PR
from harness.probes import batches, probe
from harness.store.features import Entry, FeatureStore, TaskFeatures

STATES, WIDTH, FRAMES = 4, 256, 100
FRAME_BYTES = STATES * WIDTH * FRAMES * 2
MEAN_BYTES = STATES * WIDTH * 4


def store(folder, ids):
    upstream = SimpleNamespace(fingerprint="toy", name="toy", num_states=STATES, width=WIDTH, frame_ms=20.0)
    made = FeatureStore(folder, upstream)
    for start in range(0, len(ids), 16):
        part = ids[start : start + 16]
        states = {name: torch.randn(STATES, FRAMES, WIDTH, dtype=torch.float16) for name in part}
        entries = [Entry(name, 2.0, FRAMES, True) for name in part]
        made.save(entries, torch.stack([x.float().mean(1) for x in states.values()]), states, 0.0)
    return made


def anonymous():
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def grown(task, features, manifest):
    protocol = dataclasses.replace(
        task.protocol, steps=12, eval_every=6, batch=8, accumulate=1, batching="by_length", head={"project": 8}
    )
    before, seen = anonymous(), []
    what = (task, task.labels(manifest), manifest, features, protocol, [probe.ProbeTrial(1e-3, 0)])
    probe.train(*what, progress=lambda step, steps, text: seen.append(anonymous()))
    return max(seen) - before


def measured(folder, count, free):
    batches._free_bytes = lambda device: float(free)
    keys = [f"key{i}" for i in range(int(count))]
    made = store(folder, keys)
    for task, label, size in ((IC, lambda i: f"{'ab'[i % 2]}|c|d", 16 * len(keys)), (PR, lambda i: "P T", len(keys))):
        small, large = (toy_manifest(task.name, label, (train, 8, 8)) for train in (16, size))
        ids = [row.id for row in large.utterances]
        features = TaskFeatures(made, {name: keys[i % len(keys)] for i, name in enumerate(ids)})
        grown(task, features, small)  # what a first run loads is no matter of the corpus
        print(grown(task, features, large))


def main(folder, *pairs):
    torch.set_num_threads(1)
    for number, pair in enumerate(pairs):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                measured(Path(folder, str(number)), *pair.split(":"))
                sys.stdout.flush()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            sys.exit(f"{pair} failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
