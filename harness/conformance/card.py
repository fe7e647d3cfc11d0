"""Points on what card and adapter declare: weights, interface, sizes, shapes, types, frame period."""

from __future__ import annotations

import re
from collections import Counter

from torch import nn

from harness import cost
from harness.cards import check_weights, weights_of
from harness.conformance import LONG, Subject, misshapen, noise, point
from harness.drafting import TO_FILL_IN, left_open
from harness.identity import digest_weights
from harness.interface import SAMPLE_RATE, Upstream

FRAMES_OFF = 2
"""Frames by which a count may differ from what the frame period says, since edges are treated in several ways."""
VARIABLE = 2.0
"""Factor by which the mean period of an upstream of variable rate may differ from the nominal one, on noise."""


@point(
    "card filled in",
    "The card still has what the draft left open; a result without licence or source can be used by nobody.",
    f"write the fields that begin with {TO_FILL_IN}.",
)
def filled_in(subject: Subject) -> tuple[bool, str]:
    """Nothing of the draft is left open."""
    left = left_open(subject.card)
    return not left, f"to be written: {', '.join(left)}" if left else f"licence {subject.card.licence}"


@point(
    "weights",
    "The weights are not here, or they are not the ones that the card names.",
    "put the right file there; for changed weights write a card of its own with their sha256.",
)
def weights(subject: Subject) -> tuple[bool, str]:
    """The weights are here and are those of the card; weights that it does not pin pass, and the figure says so."""
    card = subject.card
    check_weights(card)
    place = weights_of(card)
    if place is None:
        return True, "none needed"
    if card.sha256 is None:
        return True, f"here, not pinned: add `sha256: {digest_weights(place)}` to the card"
    return True, f"here and pinned, SHA-256 {card.sha256[:12]}…"


@point(
    "loads",
    "The adapter cannot make the model from this card and these files.",
    "do as the sentence says; docs/upstreams.md lists what adapters say.",
)
def loads(subject: Subject) -> tuple[bool, str]:
    """The adapter makes an upstream of it."""
    params = cost.count_parameters(subject.upstream.module())
    return True, f"{params / 1e6:.2f} M parameters" if params else "no parameters"


@point(
    "interface",
    "Something that harness.interface.Upstream asks for is missing or is of another kind.",
    "give the adapter's class that attribute.",
)
def interface(subject: Subject) -> tuple[bool, str]:
    """Every attribute is there, of its type and in its range."""
    upstream = subject.upstream
    if not isinstance(upstream, Upstream):
        lacking = [n for n in (*Upstream.__annotations__, "encode", "module") if not hasattr(upstream, n)]
        return False, f"missing: {', '.join(lacking)}"
    for name in ("num_states", "width", "min_samples"):
        value = getattr(upstream, name)
        if type(value) is not int or value < 1:
            return False, f"{name} is {value!r}, not a whole number above 0"
    for name in ("variable_rate", "batch_invariant"):
        if type(getattr(upstream, name)) is not bool:
            return False, f"{name} is {getattr(upstream, name)!r}, not true or false"
    if not (isinstance(upstream.frame_ms, int | float) and upstream.frame_ms > 0):
        return False, f"frame_ms is {upstream.frame_ms!r}, not a time above 0"
    if upstream.name != subject.card.name:
        return False, f"its name is {upstream.name!r}, the card's is {subject.card.name!r}"
    rate = "variable rate, nominally " if upstream.variable_rate else ""
    return True, f"{upstream.num_states} states of width {upstream.width}, {rate}{upstream.frame_ms:g} ms"


@point(
    "fingerprint",
    "The fingerprint is no SHA-256, so that features of two models could be taken for one another.",
    "make it with harness.identity.digest_json of adapter, version, weights and options.",
)
def fingerprint(subject: Subject) -> tuple[bool, str]:
    """64 hexadecimal digits."""
    found = subject.upstream.fingerprint
    return bool(re.fullmatch(r"[0-9a-f]{64}", str(found))), str(found)[:12] + "…"


@point(
    "width and depth",
    "Card and model disagree; tables that order models by depth and width would be wrong.",
    "correct the card's width or depth, or build the model that it describes.",
)
def card_sizes(subject: Subject) -> tuple[bool, str]:
    """Width as on the card; depth as the states, or as a stack of equal layers somewhere in the model."""
    card, upstream = subject.card, subject.upstream
    if card.width is not None and card.width != upstream.width:
        return False, f"card says width {card.width}, states are {upstream.width} wide"
    said = f"width {upstream.width}" + ("" if card.width else " (not on the card)")
    if card.depth is None:
        return True, f"{said}, no depth on the card"
    stacks = _stacks(upstream.module())
    if card.depth not in stacks and upstream.num_states not in (card.depth, card.depth + 1):
        seen = ", ".join(map(str, sorted(stacks))) or "none"
        return (
            False,
            f"card says depth {card.depth}; the model gives {upstream.num_states} states, has stacks of {seen}",
        )
    return True, f"{said}, depth {card.depth}"


def _stacks(module: nn.Module | None) -> set[int]:
    """How many numbered parts of one kind the parts of a model have, as ``layers.0`` … ``layers.11``."""
    counts = set()
    for part in () if module is None else module.modules():
        kinds = Counter(type(child) for name, child in part.named_children() if name.isdigit())
        counts |= set(kinds.values())
    return counts


@point(
    "states",
    "The states are not those that the upstream promises, so that they cannot be stored or mixed.",
    "correct num_states, width or lengths in the adapter.",
)
def states(subject: Subject) -> tuple[bool, str]:
    """Number, width and shapes, for two utterances in one batch."""
    hidden = subject.encode([noise(SAMPLE_RATE), noise(SAMPLE_RATE, 1)])
    if fault := misshapen(subject.upstream, hidden, 2):
        return False, fault
    return True, f"{len(hidden.states)} of shape {tuple(hidden.states[0].shape)} for two seconds in one batch"


@point(
    "type",
    "States or lengths are of another type than the store and the heads read.",
    "return states as float32 (`.float()`) and lengths as int64.",
)
def types(subject: Subject) -> tuple[bool, str]:
    """States are float32, lengths int64."""
    hidden = subject.noise
    found = sorted({str(state.dtype) for state in hidden.states}), str(hidden.lengths.dtype)
    return found == (["torch.float32"], "torch.int64"), f"states {', '.join(found[0])}; lengths {found[1]}"


@point(
    "frame period",
    "The number of frames does not follow from the length of the audio and frame_ms.",
    "correct frame_ms or min_samples, or the lengths that encode returns; say variable_rate where it is so.",
)
def frame_period(subject: Subject) -> tuple[bool, str]:
    """Frames grow with the samples at the promised period; on average where the rate is variable."""
    upstream = subject.upstream
    if subject.noise.frame_ms != upstream.frame_ms:
        return False, f"encode says {subject.noise.frame_ms} ms, the upstream {upstream.frame_ms} ms"
    counts = {}
    for samples, hidden in ((SAMPLE_RATE, subject.noise), (LONG, subject.long)):
        counts[samples] = int(hidden.lengths[0])
    said = f"{counts[SAMPLE_RATE]} frames of 1 s, {counts[LONG]} of 30 s"
    if upstream.variable_rate:
        period = 30_000 / counts[LONG]
        good = 1 / VARIABLE <= period / upstream.frame_ms <= VARIABLE
        return (
            good,
            f"{said}: {period:.1f} ms on average, nominally {upstream.frame_ms:g} ms (factor {VARIABLE:g} allowed)",
        )
    hop = upstream.frame_ms * SAMPLE_RATE / 1000
    off = max(abs(n - ((samples - upstream.min_samples) / hop + 1)) for samples, n in counts.items())
    return off <= FRAMES_OFF, f"{said}; {upstream.frame_ms:g} ms: off by {off:.1f} frames (at most {FRAMES_OFF})"
