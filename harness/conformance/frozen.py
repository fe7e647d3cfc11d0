"""Points on a frozen model: the same states each time, and no trace left by loading or encoding."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from harness.conformance import Subject, noise, point, random_state
from harness.interface import SAMPLE_RATE, HiddenStates


@point(
    "same twice",
    "The same audio gives other states when it is encoded again: something is drawn at random or remembered.",
    "switch dropout, masking, layer drop and sampling off; keep nothing from one call to the next.",
)
def same_twice(subject: Subject) -> tuple[bool, str]:
    """Bit by bit, with other audio in between; what draws random numbers draws others the second time."""
    first = subject.noise
    subject.encode([noise(subject.short, 7)])
    other = subject.encode([noise(SAMPLE_RATE)])
    return _equal(first, other)


@point(
    "second load",
    "Loading the upstream again gives another model: weights that the file lacks are drawn at random, or the "
    "fingerprint is not made of contents.",
    "load every weight (strict), draw random ones from a fixed seed, leave time, path and id out of the fingerprint.",
)
def second_load(subject: Subject) -> tuple[bool, str]:
    """The same fingerprint and, bit by bit, the same states."""
    again, _ = subject.second
    if again.fingerprint != subject.upstream.fingerprint:
        return False, "another fingerprint"
    return _equal(subject.noise, subject.encode([noise(SAMPLE_RATE)], upstream=again))


def _equal(one: HiddenStates, other: HiddenStates) -> tuple[bool, str]:
    if [s.shape for s in one.states] != [s.shape for s in other.states]:
        return False, "states of other shapes"
    pairs = list(zip(one.states, other.states, strict=True))
    if all(torch.equal(a, b) for a, b in pairs):
        return True, "equal bit by bit"
    return False, f"largest difference {max(float((a - b).abs().max()) for a, b in pairs):.1e}"


@point(
    "eval mode",
    "Parts of the model are in training mode: dropout is on, and batch norm takes its statistics from the batch.",
    "call `.eval()` on the whole model after building it.",
)
def eval_mode(subject: Subject) -> tuple[bool, str]:
    """No part is in training mode after encoding."""
    subject.encode([noise(subject.short)])
    module = subject.upstream.module()
    parts = {} if module is None else dict(module.named_modules())
    training = [name or "the model" for name, part in parts.items() if part.training]
    return (
        not training,
        f"{len(training)} of {len(parts)} parts train, such as {training[0]}" if training else "all parts",
    )


@point(
    "no gradients",
    "Gradients are kept for a frozen model; memory grows with every batch.",
    "decorate encode with `torch.no_grad()` and call `.requires_grad_(False)` on the model.",
)
def no_gradients(subject: Subject) -> tuple[bool, str]:
    """Neither parameters nor states ask for gradients, and the caller's setting stays."""
    module = subject.upstream.module()
    open_ones = [] if module is None else [name for name, p in module.named_parameters() if p.requires_grad]
    if open_ones:
        return False, f"{len(open_ones)} parameters require gradients, such as {open_ones[0]}"
    wave = noise(subject.short)[None].to(subject.device)
    with torch.enable_grad():
        hidden = subject.upstream.encode(wave, torch.tensor([subject.short], device=subject.device))
        stays = torch.is_grad_enabled()
    if not stays:
        return False, "encode leaves gradients switched off for its caller"
    attached = sum(state.requires_grad for state in hidden.states)
    return not attached, f"{attached} states require gradients" if attached else "neither parameters nor states"


@point(
    "frozen weights",
    "Encoding changes parameters or buffers: scores would depend on what was encoded before.",
    "call `.eval()`, and take out what writes to buffers.",
)
def frozen_weights(subject: Subject) -> tuple[bool, str]:
    """Parameters and buffers are the same bytes before and after."""
    module = subject.upstream.module()
    if module is None:
        return True, "no weights"
    before = _contents(module)
    subject.encode([noise(subject.short, 2)])
    after = _contents(module)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return (
        not changed,
        f"{len(changed)} changed, such as {changed[0]}" if changed else f"{len(before)} tensors the same",
    )


def _contents(module: nn.Module) -> dict[str, str]:
    """Digest of each parameter and buffer by name."""
    named: dict[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    plain = {name: tensor.detach().cpu().contiguous().reshape(-1) for name, tensor in named.items()}
    return {name: hashlib.sha256(tensor.view(torch.uint8).numpy().data).hexdigest() for name, tensor in plain.items()}


@point(
    "input untouched",
    "encode writes into the waveforms that it is given, which others still read.",
    "replace operations in place (`waves -= …`) by new tensors.",
)
def input_untouched(subject: Subject) -> tuple[bool, str]:
    """Waveforms and lengths are the same before and after."""
    waves = torch.stack([0.5 + noise(subject.short, seed) for seed in (3, 4)]).to(subject.device)
    lengths = torch.full((2,), subject.short, device=subject.device)
    given = waves.clone(), lengths.clone()
    with torch.inference_mode():
        subject.upstream.encode(waves, lengths)
    good = torch.equal(waves, given[0]) and torch.equal(lengths, given[1])
    return good, "the same after as before" if good else "waveforms or lengths were changed"


@point(
    "random numbers",
    "Loading or encoding draws from the caller's random numbers: training after it would depend on it.",
    "build the model inside `torch.random.fork_rng`, and draw with a generator of its own.",
)
def random_numbers(subject: Subject) -> tuple[bool, str]:
    """The global generators of torch, Python and NumPy stay as they were, in encoding and in loading."""
    before = random_state()
    subject.encode([noise(subject.short)])
    if random_state() != before:
        return False, "encoding moves them"
    return subject.second[1], "untouched" if subject.second[1] else "loading moves them"
