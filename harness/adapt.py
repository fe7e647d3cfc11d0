"""What a protocol makes of a manifest before anything is encoded: fixed crops, and training on dev too.

Where a task reads time means, a random crop must be encoded before it can be drawn. SUPERB crops long utterances anew
at each access; a mean over a crop cannot be had from the mean over the whole. So a set of crops is drawn once, each is
encoded once, and every epoch takes one of them at random. (s3prl itself sees few: its generators are reset at every
evaluation, so speaker identification trains on about four distinct crops per utterance; protocol section 2.3.)
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.identity import digest_bytes
from harness.interface import SAMPLE_RATE, Manifest, TrainingProtocol, Utterance


def apply(manifest: Manifest, protocol: TrainingProtocol) -> Manifest:
    """The utterances as ``protocol`` uses them; the manifest itself where it asks for nothing."""
    made: list[Utterance] = []
    for utterance in manifest.utterances:
        made += _cropped(utterance, protocol)
        if protocol.train_on_dev and utterance.split == "dev":
            made += _cropped(replace(utterance, id=f"{utterance.id}#train", split="train", shared=True), protocol)
    if made == list(manifest.utterances) and not manifest.folds:
        return manifest
    folds = tuple(apply(fold, protocol) for fold in manifest.folds)
    every = {utterance.id: utterance for fold in reversed(folds) for utterance in reversed(fold.utterances)}
    return replace(manifest, utterances=tuple(reversed(every.values())) if folds else tuple(made), folds=folds)


def _cropped(utterance: Utterance, protocol: TrainingProtocol) -> list[Utterance]:
    """The utterance, or its fixed crops: windows at places that depend on its id and split alone."""
    longest = protocol.max_seconds
    if not protocol.crops or longest is None or utterance.split not in protocol.crop_splits:
        return [utterance]
    room = int((utterance.seconds - longest) * SAMPLE_RATE)
    if room <= 0:
        return [utterance]
    digest = digest_bytes(f"crops:{utterance.split}:{utterance.id}".encode())
    draw = np.random.default_rng(int(digest[:16], 16))
    begin = utterance.start or 0.0
    offsets = draw.integers(0, room, protocol.crops, endpoint=True).tolist()
    return [
        replace(
            utterance,
            id=f"{utterance.id}#{number}",
            start=begin + offset / SAMPLE_RATE,
            seconds=longest,
            variant_of=utterance.id,
        )
        for number, offset in enumerate(offsets)
    ]


def groups(utterances: tuple[Utterance, ...]) -> list[list[int]]:
    """Places of the variants of each utterance, in order of first appearance."""
    found: dict[str, list[int]] = {}
    for place, utterance in enumerate(utterances):
        found.setdefault(utterance.variant_of or utterance.id, []).append(place)
    return list(found.values())
