"""Toy upstreams for benches on Ray: one waits while it encodes, so that its node can be taken away; one lies."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import toy_upstream

from harness.interface import HiddenStates, SlimbenchError

PATIENCE = 240.0
"""Seconds after which nobody waits any more."""


class Held(toy_upstream.ToyUpstream):
    """Says on which node it encodes the tones; on the first of these it goes no further."""

    folder: Path

    def encode(self, waves, lengths):
        import ray

        if ray.is_initialized() and int(lengths.max()) == 9_600:
            node = ray.get_runtime_context().get_node_id()
            (self.folder / node).touch()
            with contextlib.suppress(FileExistsError), (self.folder / "first").open("x") as file:
                file.write(node)
            if (self.folder / "first").read_text() == node:
                time.sleep(PATIENCE)
                raise SlimbenchError("nobody has taken this node away")
        return super().encode(waves, lengths)


def held(card, device):
    plain = toy_upstream.load(card, device)
    plain.__class__, plain.folder = Held, Path(card.options["folder"])
    return plain


class Coupled(toy_upstream.ToyUpstream):
    """Its states depend on what else is in the batch, though it says that they do not."""

    def encode(self, waves, lengths):
        hidden = super().encode(waves, lengths)
        return HiddenStates([state + state.mean() for state in hidden.states], hidden.lengths, hidden.frame_ms)


def coupled(card, device):
    plain = toy_upstream.load(card, device)
    plain.__class__, plain.fingerprint = Coupled, "coupled"
    return plain


def encoded_tones(log: Path) -> int:
    """How many tones went through toy upstreams, by their own account; noise has other lengths."""
    return log.read_text().split().count("9600") if log.exists() else 0
