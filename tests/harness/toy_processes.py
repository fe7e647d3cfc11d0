"""Other processes that use a store, for ``test_features.py``: forked from one that has imported the store's module."""

import multiprocessing

import torch
from toy_upstream import toy

from harness.store.features import Entry, FeatureStore

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["harness.store.features"])
PIECES = 40


def start(work, folder):
    """A process that does ``work(folder, line)``, and the other end of its line."""
    mine, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=work, args=(folder, theirs))
    process.start()
    theirs.close()
    return process, mine


def claim(folder, line):
    """Claim one piece of work, say whether it is ours, and hold it until anything is said."""
    with FeatureStore(folder, toy()).claim("batch 1", wait=True) as mine:
        line.send(mine)
        line.recv()


def race(folder, line):
    """Do every piece of work that nobody has done; say which these were."""
    store, done = FeatureStore(folder, toy()), []
    line.recv()
    for number in range(PIECES):
        key = f"k{number}"
        with store.claim(key, wait=True):
            if not store.has(key, frames=True):
                states = torch.zeros(2, 3, 12)
                store.save([Entry(key, 0.06, 3, True)], states.mean(1)[None], {key: states}, 1.0)
                done.append(key)
    line.send(done)
