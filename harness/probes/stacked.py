"""Many small models side by side: parameters with a leading trial axis, and Adam on them.

Every trial (one learning rate, one seed) keeps exactly the trajectory that it would have alone: gradients, norms,
clipping, moments and step counts are per trial, and a trial whose gradient is not finite skips its update, as
s3prl's runner does (``downstream/runner.py``), without touching the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw

from harness.head import Head
from harness.interface import SlimbenchError
from harness.randomness import Noise

LAYERS = "layers"
"""Name of the layer weights among the parameters; those of the head are prefixed with ``HEAD``."""
HEAD = "head."


@dataclass
class Bank:
    """R probes: layer weights (R, L) and R sets of head parameters, over one head module that gives the structure.

    How the head takes them is its own affair (:meth:`harness.head.Head.stacked`).
    """

    head: Head
    params: dict[str, Tensor]

    @property
    def trials(self) -> int:
        """R."""
        return len(self.params[LAYERS])

    def parts(self) -> list[range]:
        """The trials in groups that are best computed apart; a single group where nothing is gained."""
        apart = self.head.one_by_one and self.params[LAYERS].device.type == "cpu"
        return [range(r, r + 1) for r in range(self.trials)] if apart else [range(self.trials)]

    def part(self, trials: range) -> Bank:
        """The bank of some trials; it shares their parameters' memory, its gradients are its own."""
        own = {key: value.detach()[trials.start : trials.stop].requires_grad_() for key, value in self.params.items()}
        return Bank(self.head, own)

    def mix(self, x: Tensor) -> Tensor:
        """Sum of the states x (L, …) weighted by the softmax of the layer weights: (R, …) (protocol section 3.2)."""
        weights = self.params[LAYERS].softmax(-1)
        return (weights @ x.reshape(len(x), -1)).view(-1, *x.shape[1:])

    def __call__(self, x: Tensor, lengths: Tensor, noise: Noise | None = None) -> Tensor:
        """Head outputs (R, B, …) of states x (L, B, T, D) or means (L, B, D) with lengths (B,)."""
        mixed = self.mix(x)
        params = {name[len(HEAD) :]: value for name, value in self.params.items() if name.startswith(HEAD)}
        return self.head.stacked(params, mixed, lengths, noise)


def build_bank(heads: Sequence[Head], num_states: int, device: str | torch.device) -> Bank:
    """R heads of one structure as a :class:`Bank` on ``device``, with zero (uniform) layer weights.

    Raises:
        SlimbenchError: the head keeps buffers, which have no trial axis.
    """
    if any(True for _ in heads[0].buffers()):
        raise SlimbenchError(
            f"The head {type(heads[0]).__name__} keeps buffers; use layers without running statistics."
        )
    params = {LAYERS: torch.zeros(len(heads), num_states, device=device)}
    for name, _ in heads[0].named_parameters():
        params[HEAD + name] = torch.stack([head.get_parameter(name).detach() for head in heads]).to(device)
    for value in params.values():
        value.requires_grad_()
    return Bank(heads[0].to(device), params)


class StackedAdam:
    """``torch.optim.Adam`` or ``AdamW`` with their defaults, one learning rate and one clip norm per trial.

    The update itself is torch's own fused one, called once per learning rate on the slices of its trials.
    """

    def __init__(
        self, name: str, params: Mapping[str, Tensor], rates: Sequence[float], clip: float, layer_lr: float = 1.0
    ) -> None:
        self.name = name
        self.params = params
        self.clip = clip
        self.rates = list(rates)
        self.layer_lr = layer_lr
        self.whole = {
            key: {"param": p.detach(), "first": torch.zeros_like(p), "second": torch.zeros_like(p)}
            for key, p in params.items()
        }
        self.slices = {
            key: {kind: value.unbind(0) for kind, value in kinds.items()} for key, kinds in self.whole.items()
        }
        device = params[LAYERS].device
        self.updates = {key: torch.zeros(len(rates), device=device) for key in params}
        self.counts = {key: value.unbind(0) for key, value in self.updates.items()}

    @torch.no_grad()
    def step(self, grads: Mapping[str, Tensor], trials: range | None = None) -> Tensor:
        """Clip and apply ``grads``, which are changed; returns a boolean (R,): which trials were updated.

        Args:
            grads: of all parameters, with a leading axis of the trials.
            trials: whose gradients they are, where these are not all; other trials stay as they are. Calls for
                trials that are not the same may run at the same time.
        """
        trials = range(len(self.rates)) if trials is None else trials
        norms = [torch.linalg.vector_norm(grad, dim=tuple(range(1, grad.dim()))) for grad in grads.values()]
        norm = torch.stack(norms).square().sum(0).sqrt()
        scale = (self.clip / (norm + 1e-6)).clamp(max=1.0)
        finite = torch.isfinite(norm)
        good, whole = torch.stack([finite, scale == 1.0]).tolist()  # one wait for the device
        own = _owned(grads)
        if not all(whole):  # what is not clipped need not be read and written once more
            for grad in own.values():
                grad.mul_(scale.view(-1, *(1,) * (grad.dim() - 1)))
        ready = {key: grad.unbind(0) for key, grad in own.items()}
        groups: dict[float, list[int]] = {}
        for place, fine in enumerate(good):
            if fine:
                groups.setdefault(self.rates[trials[place]], []).append(place)
        heads = [key for key in grads if key != LAYERS]
        for rate, members in groups.items():
            same = self.layer_lr == 1.0
            keys = [*heads, LAYERS] if same else heads
            self._update([(key, trials[p], ready[key][p]) for key in keys for p in members], rate)
            if not same:
                self._update([(LAYERS, trials[p], ready[LAYERS][p]) for p in members], rate * self.layer_lr)
        return finite

    def _update(self, which: Sequence[tuple[str, int, Tensor]], rate: float) -> None:
        """One fused update of some slices (parameter, trial) by their gradients."""
        params, first, second = (
            [self.slices[key][kind][r] for key, r, _ in which] for kind in ("param", "first", "second")
        )
        counts = [self.counts[key][r] for key, r, _ in which]
        grads = [grad for _, _, grad in which]
        update, decay = (adam, 0.0) if self.name == "Adam" else (adamw, 0.01)
        update(
            params,
            grads,
            first,
            second,
            [],
            counts,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=rate,
            weight_decay=decay,
            eps=1e-8,
            maximize=False,
        )

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Moments and step counts, for a checkpoint."""
        return {
            "first": {key: kinds["first"] for key, kinds in self.whole.items()},
            "second": {key: kinds["second"] for key, kinds in self.whole.items()},
            "updates": self.updates,
        }

    def load(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take over what :meth:`state` gave."""
        for key in self.params:
            self.updates[key].copy_(state["updates"][key])
            self.whole[key]["first"].copy_(state["first"][key])
            self.whole[key]["second"].copy_(state["second"][key])


def _owned(grads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradients, each contiguous and in memory of its own: parameters that are added up may share theirs."""
    own: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, grad in grads.items():
        grad = grad.contiguous()
        own[key] = grad.clone() if grad.data_ptr() in seen else grad
        seen.add(grad.data_ptr())
    return own
