"""Points on what sound does: company in the batch, padding, odd sounds, very short and long ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness.conformance import INVARIANCE, Point, Subject, moved, noise, point
from harness.interface import HiddenStates


@point(
    "batch",
    "States depend on what else is in the batch, also where all lengths are equal: a score would depend on the order.",
    "look for statistics over the batch (batch norm in training mode, one mean for the whole batch) in the model.",
)
def batch(subject: Subject) -> tuple[bool, str]:
    """Three utterances of equal length together are the same as each alone."""
    waves = [noise(subject.short, seed) for seed in range(3)]
    return _close(*moved(subject, waves), "alone v batch of equal lengths")


@point(
    "padding",
    "States of an utterance change with the padding after it, so that they depend on what shares its batch.",
    "use the lengths as a padding mask in every layer that looks along time (attention, convolutions, group norm), or "
    "set batch_invariant to false: utterances are then encoded in batches of equal length.",
)
def padding(subject: Subject) -> tuple[bool, str]:
    """Utterances of several lengths together, with padding after the longest, are the same as each alone."""
    if not subject.upstream.batch_invariant:
        return True, "not promised: batches of equal length only"
    waves = [noise(samples, seed) for seed, samples in enumerate((3 * subject.short, subject.short, 2 * subject.short))]
    return _close(*moved(subject, waves, subject.short // 2), "alone v padded batch")


def _close(distance: float, layer: int, what: str) -> tuple[bool, str]:
    place = f", in state {layer}" if distance > INVARIANCE else ""
    said = f"largest difference {what} {distance:.1e} of the standard deviation{place} (at most {INVARIANCE:g})"
    return distance <= INVARIANCE, said


def _sound(name: str, meaning: str, remedy: str, make: Callable[[int], Tensor]) -> Point:
    """The point that some sound gives states that are numbers."""

    def look(subject: Subject) -> tuple[bool, str]:
        return _finite(subject.encode([make(subject.short)]))

    return Point(name, meaning, remedy, look)


def _finite(hidden: HiddenStates) -> tuple[bool, str]:
    bad = [index for index, state in enumerate(hidden.states) if not bool(torch.isfinite(state).all())]
    if bad:
        return False, f"{len(bad)} of {len(hidden.states)} states hold NaN or infinity, the first is {bad[0]}"
    return True, f"finite, at most {max(float(state.abs().max()) for state in hidden.states):.3g}"


def _pulse(samples: int) -> Tensor:
    wave = torch.zeros(samples)
    wave[samples // 2] = 1.0
    return wave


_DIVISION = "add a small number where the model divides by a standard deviation or an energy, or takes a logarithm."
_BROKEN = "States of such audio are no numbers, and a single one spoils a task."

silence = _sound("silence", _BROKEN, _DIVISION, torch.zeros)
clipping = _sound("clipping", _BROKEN, _DIVISION, lambda samples: (100 * noise(samples)).clamp(-1, 1))
offset = _sound("constant offset", _BROKEN, _DIVISION, lambda samples: torch.full((samples,), 0.5))
click = _sound("click", _BROKEN, _DIVISION, _pulse)


@point("shortest", "Audio of min_samples does not give one frame of numbers.", "correct min_samples in the adapter.")
def shortest(subject: Subject) -> tuple[bool, str]:
    """Audio of ``min_samples`` gives at least one frame, of numbers."""
    hidden = subject.shortest
    frames = int(hidden.lengths[0])
    if frames < 1 or not hidden.states[0].shape[1]:
        return False, f"{frames} frames of {subject.upstream.min_samples} samples"
    good, said = _finite(hidden)
    return good, f"{frames} frames of {subject.upstream.min_samples} samples, {said}"


@point(
    "too short",
    "Audio that is too short for a frame is not refused, so that it would be scored on nothing.",
    "raise an error for fewer than min_samples, or state a lower min_samples.",
)
def too_short(subject: Subject) -> tuple[bool, str]:
    """Audio of one sample less than ``min_samples`` is an error."""
    samples = subject.upstream.min_samples - 1
    try:
        hidden = subject.encode([noise(samples)])
    except Exception as error:  # any error is the refusal that is wanted
        return True, f"{samples} samples refused: {type(error).__name__}"
    return False, f"{samples} samples gave {hidden.lengths.tolist()} frames"


@point("30 s", _BROKEN, "look for positions beyond a table, or for half precision that overflows.")
def long(subject: Subject) -> tuple[bool, str]:
    """30 s of noise give states that are numbers."""
    return _finite(subject.long)


@point(
    "hears",
    "A state does not change with the sound, so that it carries nothing.",
    "look at what is exposed: a bias, a padded frame, a layer that is not connected.",
)
def hears(subject: Subject) -> tuple[bool, str]:
    """Two different sounds of one length give different states, in every state."""
    one, two = (subject.encode([noise(subject.short, seed)]) for seed in (5, 6))
    frames = min(int(one.lengths[0]), int(two.lengths[0]))
    apart = []
    for first, second in zip(one.states, two.states, strict=True):
        a, b = first[0, :frames].double(), second[0, :frames].double()
        apart.append(float((a - b).abs().mean() / a.std(correction=0).clamp_min(1e-6)))
    least = apart.index(min(apart))
    return min(
        apart
    ) > INVARIANCE, f"two sounds are {min(apart):.1e} standard deviations apart in state {least}, the least"
