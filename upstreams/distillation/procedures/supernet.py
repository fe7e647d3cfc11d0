"""Once-for-all training, as in LightHuBERT (arXiv 2203.15610): a step trains subnets that share the student's weights.

A subnet's states are layer-normed over its own width, as it exposes them, and filled up with zeros to the student's
width, so that one head serves all widths: a linear head on a filled-up state is the head's leading columns on the
state, which is what LightHuBERT does. (A norm over the whole width, option ``norm`` of a head, then only multiplies a
narrow state by the root of the ratio of widths.) A layer that a subnet leaves out has the state of the layer before it,
so that states keep their numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from harness.interface import SlimbenchError
from upstreams.distillation.procedures.base import Procedure, typed
from upstreams.distillation.procedures.space import Space, Subnet
from upstreams.distillation.terms.base import View
from upstreams.students.cutting import cut, passage_with
from upstreams.students.mini import MiniConfig, MiniWavLM, skeleton

WORDS = ("sampled", "largest", "smallest")
SKELETONS = 64
"""Shapes of subnets that are kept ready."""


@dataclass(frozen=True)
class SupernetSettings:
    """Settings of :class:`Supernet`.

    Attributes:
        space: ``width``, ``heads``, ``ratio`` (feed-forward over width), ``depth``: each a list of what may be drawn;
            left out, the student's. Heads and ratio are drawn layer by layer.
        each_step: what a step trains: ``sampled``, ``largest``, ``smallest`` or the name of a product, one or several.
            The utterances of a batch are divided among them, so that several cost no more than one.
        products: subnets to be cut out in the end, by name, with the keys of ``space``: one ``width`` and ``depth``,
            ``heads`` and ``ratio`` as one number or a list with one per layer.
    """

    space: Any
    each_step: Any = ("sampled",)
    products: Any = None


class Supernet(Procedure):
    """Draws and trains subnets; the products are the whole and the named subnets.

    Args:
        values: see :class:`SupernetSettings`.
        model: the student, the whole of all subnets.

    Raises:
        SlimbenchError: a setting is faulty, or asks for what the student does not have.
    """

    def __init__(self, values: Mapping[str, Any], model: MiniWavLM) -> None:
        super().__init__()
        settings = typed("supernet", SupernetSettings, values)
        self.space = Space.of(model.config, settings.space)
        listed = settings.products or {}
        if not isinstance(listed, Mapping):
            raise SlimbenchError(f"procedure supernet: products is {listed!r}; write a mapping of names to subnets.")
        self.named = {str(name): self.space.named(shape, f"product {name}") for name, shape in listed.items()}
        self.each_step = (settings.each_step,) if isinstance(settings.each_step, str) else tuple(settings.each_step)
        known = (*WORDS, *self.named)
        if not self.each_step or not set(self.each_step) <= set(known):
            raise SlimbenchError(
                f"procedure supernet: each_step is {list(self.each_step)}; write some of {', '.join(known)}."
            )
        self._skeletons: dict[tuple[MiniConfig, torch.device], MiniWavLM] = {}

    def drawn(self, word: str, rng: np.random.Generator) -> Subnet:
        """The subnet that a word of ``each_step`` means at this moment."""
        if word == "sampled":
            return self.space.sample(rng)
        return {"largest": self.space.largest, "smallest": self.space.smallest, **self.named}[word]

    def view(
        self,
        student: MiniWavLM,
        waves: Tensor,
        lengths: Tensor,
        masked: Tensor | None,
        step: int,
        progress: float,
        rng: np.random.Generator,
        maps: bool = False,
    ) -> View:
        """Each share of the batch as its subnet sees it, in the student's width and number of states.

        Raises:
            SlimbenchError: a term asks for attention maps, of which subnets have different numbers.
        """
        if maps:
            raise SlimbenchError(
                "procedure supernet: subnets differ in attention heads, so that no term can compare attention maps; "
                "leave such terms out."
            )
        count = min(len(self.each_step), len(waves))
        words = [self.each_step[(step + number) % len(self.each_step)] for number in range(count)]
        if count == len(self.each_step):
            words = list(self.each_step)
        shares = zip(*(parts(x, count) for x in (waves, lengths)), parts(masked, count), strict=True)
        views = [self.passed(student, self.drawn(word, rng), *share) for word, share in zip(words, shares, strict=True)]
        states = zip(*(view.states for view in views), strict=True)
        return View(tuple(torch.cat(column) for column in states), torch.cat([view.frames for view in views]))

    def passed(
        self, student: MiniWavLM, subnet: Subnet, waves: Tensor, lengths: Tensor, masked: Tensor | None = None
    ) -> View:
        """A batch as one subnet sees it, with gradient to the student's weights.

        Returns:
            As many states as the student's, each (B, T, student's width).
        """
        whole, target = student.config, subnet.config(student.config)
        layers = subnet.layers(whole)
        state = cut(student.state_dict(keep_vars=True), whole, target, layers)
        passage = passage_with(self._skeleton(target, waves.device), state, waves, lengths, masked=masked)
        states = [passage.states[0]]
        for number in range(whole.layers):
            states.append(passage.states[layers.index(number) + 1] if number in layers else states[-1])
        exposed = [functional.layer_norm(state, state.shape[-1:]) for state in states]
        return View(tuple(pad_states(exposed, whole.width)), passage.frames)

    def _skeleton(self, config: MiniConfig, device: torch.device) -> MiniWavLM:
        key = (config, device)
        if key not in self._skeletons:
            if len(self._skeletons) >= SKELETONS:
                del self._skeletons[next(iter(self._skeletons))]
            self._skeletons[key] = skeleton(config, device)
        return self._skeletons[key]

    @property
    def names(self) -> tuple[str, ...]:
        """The whole, and the named subnets with ``_`` before their name."""
        return ("", *(f"_{name}" for name in self.named))

    def products(self, student: MiniWavLM) -> dict[str, MiniWavLM]:
        """The student whole, and the named subnets with ``_`` before their name."""
        return {"": student} | {f"_{name}": carved(student, subnet) for name, subnet in self.named.items()}


def parts(x: Tensor | None, count: int) -> Sequence[Any]:
    """The rows of ``x`` in ``count`` shares of nearly equal size; of ``None``, as many ``None``."""
    return [None] * count if x is None else torch.tensor_split(x, count)


def pad_states(states: Sequence[Tensor], width: int) -> list[Tensor]:
    """States (B, T, D) with zeros appended up to ``width`` dimensions."""
    return [functional.pad(state, (0, width - state.shape[-1])) for state in states]


def carved(student: MiniWavLM, subnet: Subnet) -> MiniWavLM:
    """A subnet as a model of its own."""
    target = subnet.config(student.config)
    with torch.random.fork_rng(devices=[]):  # weights drawn to be replaced are not to change what is drawn next
        made = MiniWavLM(target)
    state = cut(student.state_dict(), student.config, target, subnet.layers(student.config))
    made.load_state_dict({name: tensor.clone() for name, tensor in state.items()})
    made.lam, made.repeat = student.lam, student.repeat
    return made.to(next(student.parameters()).device).train(student.training)
