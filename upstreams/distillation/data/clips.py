"""The clips of a pool that a recipe may train on where it has a budget of queries to the teacher."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from upstreams.distillation.data import queries
from upstreams.distillation.data.batches import CROPS
from upstreams.distillation.data.pool import FULL_SCALE, Shard
from upstreams.distillation.recipe import Data

CANDIDATES = 4_000
"""Clips at most that a choice looks at; of more, as many are drawn by the data's seed."""


def allowed(shards: Sequence[Shard], data: Data) -> frozenset[tuple[int, int]] | None:
    """(shard, utterance) of the clips that may be drawn, ``None`` for all where there is no budget.

    Only clips as long as the longest crop are looked at: any clip can then be drawn at any step, and a choice that goes
    by gain per second does not end with clips that are too short for most crops.
    """
    if data.queries is None:
        return None
    places = [
        (number, int(index))
        for number, shard in enumerate(shards)
        for index in np.flatnonzero(np.diff(shard.offsets) >= CROPS[-1])
    ]
    if len(places) > CANDIDATES:
        drawn = np.random.default_rng((data.seed, 13)).choice(len(places), CANDIDATES, replace=False)
        places = [places[index] for index in np.sort(drawn)]
    waves = (
        shards[s].wave[shards[s].offsets[u] : shards[s].offsets[u + 1]].astype(np.float32) / np.float32(FULL_SCALE)
        for s, u in places
    )
    chosen = queries.choose(data.queries.choose, queries.describe(waves), data.queries.minutes * 60, data.seed)
    return frozenset(places[index] for index in chosen)
