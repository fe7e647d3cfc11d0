"""The shared vocabulary of slimbench: what flows between upstreams, tasks, the store and the records.

Nothing here does work; every other module speaks in these terms. Importing this module does not import
torch, so that ``slimbench list`` answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.head import Head

SAMPLE_RATE = 16_000
"""Samples per second of every waveform that reaches an upstream."""

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")


class SlimbenchError(Exception):
    """Bad input: one clear sentence that names the file and the remedy. The CLI prints it and exits with 2."""


@dataclass(frozen=True)
class HiddenStates:
    """What an upstream makes of a batch of waveforms.

    Attributes:
        states: L tensors of shape (B, T, D), float; index 0 is nearest the input.
        lengths: (B,) int64, valid frames per utterance.
        frame_ms: time between two frames, in milliseconds.
    """

    states: Sequence[Tensor]
    lengths: Tensor
    frame_ms: float


@runtime_checkable
class Upstream(Protocol):
    """A frozen model behind one interface.

    The states of an utterance must not depend on what else is in the batch. Where a model cannot promise that,
    ``batch_invariant`` is false and the harness encodes its utterances in batches of equal length.
    """

    name: str
    fingerprint: str
    """Content key: digest of weight bytes, adapter version and exposure settings. Never of a name."""
    num_states: int
    width: int
    frame_ms: float
    """Time between two frames in milliseconds; the nominal one where ``variable_rate`` is true."""
    variable_rate: bool
    """Whether the time between frames differs within and between utterances (sequence compression)."""
    min_samples: int
    """Fewest samples that yield one frame."""
    batch_invariant: bool

    def encode(self, waves: Tensor, lengths: Tensor) -> HiddenStates:
        """Encode ``waves`` (B, S) float32 at 16 kHz, zero-padded; ``lengths`` (B,) valid samples."""
        ...

    def module(self) -> nn.Module | None:
        """The module that is exposed, for parameter and MAC counts; ``None`` where there are no weights."""
        ...


@dataclass(frozen=True)
class Utterance:
    """One row of a manifest.

    ``start`` and ``seconds`` cut the utterance out of a longer file; ``start=None`` takes the whole file.
    ``row`` is the line in the manifest file (the header is line 1), for messages. ``variant_of`` is set where several
    fixed crops stand for one utterance (:mod:`harness.adapt`): its id, so that each epoch takes one of them. ``shared``
    audio may be in several splits, because the protocol wants it so.
    """

    id: str
    split: Split
    path: Path
    speaker: str
    text: str
    label: str
    start: float | None
    seconds: float
    row: int
    variant_of: str = ""
    shared: bool = False


@dataclass(frozen=True)
class Trial:
    """One speaker-verification trial: same speaker or not, and the two utterance ids."""

    same: bool
    enrol: str
    test: str


@dataclass(frozen=True)
class Manifest:
    """All utterances of one task in one suite.

    Attributes:
        task: the task that this manifest serves.
        file: where it was read from.
        utterances: rows in file order; ids are unique.
        trials: speaker-verification trials per split, empty for other tasks.
        digest: SHA-256 of the manifest's content (rows and trials, not of the audio).
        folds: for cross-validation one manifest per fold; ``utterances`` then holds those of all folds once, in the
            splits of the first fold that has them.
    """

    task: str
    file: Path
    utterances: tuple[Utterance, ...]
    trials: Mapping[Split, tuple[Trial, ...]] = field(default_factory=dict)
    digest: str = ""
    folds: tuple[Manifest, ...] = ()

    def split(self, name: Split) -> tuple[Utterance, ...]:
        """The utterances of one split, in file order."""
        return tuple(u for u in self.utterances if u.split == name)


Need = Literal["pooled", "frames"]
"""What a task reads per utterance.

``pooled``: (L, D) time means, exact for heads that are linear → mean → linear, because the mean commutes with
the layer sum and the first linear map. ``frames``: (L, T, D).
"""


Batching = Literal["by_length", "shuffled", "halved_buckets", "windows"]
"""How training utterances come into batches.

``by_length``: utterances of similar length together, anew in each epoch; time means are shuffled. ``shuffled``: at
random. ``halved_buckets``: SUPERB's ASR, two halves of each of the fixed buckets by audio length. ``windows``:
SUPERB's PR, one window of neighbours in target length per utterance, so that windows overlap.
"""


_FIRST_SETTINGS = frozenset(
    {"steps", "batch", "optimizer", "learning_rates", "clip", "eval_every"}
    | {"layer_lr", "max_seconds", "specaugment", "balanced", "head"}
)
"""Settings that the first records have; each is always part of a record's key."""


@dataclass(frozen=True)
class TrainingProtocol:
    """How the probes of a task are trained: SUPERB's values in the task file, changes to them in the suite file.

    Attributes:
        steps: optimiser updates.
        batch: utterances per batch.
        optimizer: name of the ``torch.optim`` class, used with its defaults.
        learning_rates: the grid.
        clip: global L2 norm to which the gradient of each trial is clipped.
        eval_every: updates between two looks at dev.
        layer_lr: factor on the learning rate of the layer weights (1 in SUPERB).
        max_seconds: longer training utterances are cropped at random to this; ``None`` keeps them whole.
        specaugment: mask the mixed features in training (ASR in SUPERB).
        balanced: draw training utterances with replacement, every class equally often (KS in SUPERB).
        head: sizes of the head that differ from SUPERB's, by name.
        accumulate: batches per update; the loss is the mean over batches of each batch's mean.
        batching: how batches are made, see :data:`Batching`.
        drop_last: leave out an epoch's last batch where it is not full.
        balanced_dev: score dev on one fixed draw with replacement, every class equally often (KS in SUPERB).
        effects: what is done to every waveform before it is encoded, in sox's words (:mod:`harness.effects`).
        min_seconds: training utterances that are not longer than this after the effects are left out.
        crops: fixed random crops per longer utterance, each encoded; 0 draws a fresh crop of the frames each time.
        crop_splits: where utterances are cropped.
        train_on_dev: train on the dev utterances as well (the dev speakers of ASV, which SUPERB does not hold out).
        choose: which weights of a trial count: those of the best look at dev, or the last ones.
        looks_on_test: also report the best test score over all looks, labelled as such (ASV in SUPERB).
    """

    steps: int
    batch: int
    optimizer: Literal["Adam", "AdamW"]
    learning_rates: tuple[float, ...]
    clip: float
    eval_every: int
    layer_lr: float = 1.0
    max_seconds: float | None = None
    specaugment: bool = False
    balanced: bool = False
    head: Mapping[str, int] = field(default_factory=dict)
    accumulate: int = 1
    batching: Batching = "by_length"
    drop_last: bool = False
    balanced_dev: bool = False
    effects: tuple[str, ...] = ()
    min_seconds: float | None = None
    crops: int = 0
    crop_splits: tuple[Split, ...] = ("train",)
    train_on_dev: bool = False
    choose: Literal["best", "last"] = "best"
    looks_on_test: bool = False

    def settings(self) -> dict[str, Any]:
        """What differs from having no such setting, as the digest of a record sees it.

        A field that later versions add with a neutral default changes the key of no earlier record.
        """
        neutral = self.neutral()
        return {name: value for name, value in asdict(self).items() if name not in neutral or value != neutral[name]}

    @classmethod
    def neutral(cls) -> dict[str, Any]:
        """The settings that the first records lack, at the values that mean the same as lacking them."""
        return {f.name: f.default for f in fields(cls) if f.name not in _FIRST_SETTINGS}


@dataclass(frozen=True)
class Labels:
    """The output vocabulary of a head.

    ``slots`` holds one tuple of values per output group: one group for a classifier, three for intents, and for
    CTC one group with the blank at index 0. ``size`` is the number of logits.
    """

    slots: tuple[tuple[str, ...], ...]

    @property
    def size(self) -> int:
        """Number of logits of the head."""
        return sum(len(values) for values in self.slots)


Prediction = str | list[float]
"""What a probe says of one utterance: text, phones or a label as a string; an embedding as a list of floats."""

Row = dict[str, Any]
"""One scored item, JSON-able, as it stands in a record.

Utterances: ``{"id", "speaker", "ref", "hyp"}``. Verification trials: ``{"enrol", "test", "speakers": [a, b],
"same": bool, "score": float}``.
"""


@runtime_checkable
class Task(Protocol):
    """One downstream task: labels, head, loss, decode, rows. Stateless; every method is pure."""

    name: str
    title: str
    metric: str
    """Name of the main metric in :mod:`harness.metrics`, e.g. ``wer``."""
    secondary: tuple[str, ...]
    """Further metrics reported from the same rows."""
    need: Need
    protocol: TrainingProtocol
    """SUPERB's own values."""
    superb_labels: int
    """Number of logits in SUPERB, for parameter counts."""
    croppable: bool
    """Whether a part of an utterance has the utterance's target."""

    def labels(self, manifest: Manifest) -> Labels:
        """The output vocabulary, from the train split (or fixed)."""
        ...

    def head(self, width: int, classes: int, sizes: Mapping[str, int]) -> Head:
        """The head: ``forward(x, lengths)`` with x (B, T, D), or (B, D) time means where ``need`` is pooled."""
        ...

    def target(self, utterance: Utterance, labels: Labels) -> list[int]:
        """Target indices of one utterance. Raises :class:`SlimbenchError` for a label the train split lacks."""
        ...

    def loss(self, output: Tensor, lengths: Tensor, targets: Sequence[Sequence[int]], labels: Labels) -> Tensor:
        """Loss per item (N,), of output (N, …) with ``lengths`` (N,) valid frames."""
        ...

    def predict(self, output: Tensor, lengths: Tensor, labels: Labels) -> list[Prediction]:
        """Predictions of N items from the head's output in eval mode."""
        ...

    def rows(
        self, manifest: Manifest, split: Split, predictions: Mapping[str, Prediction], labels: Labels
    ) -> list[Row]:
        """What :mod:`harness.metrics` scores: one row per utterance of the split, or per trial."""
        ...

    def remarks(self, targets: Sequence[Sequence[int]], frames: Sequence[int]) -> list[str]:
        """What a record should say of training targets and their utterances' frames."""
        ...

    def second_decode(self, data: Path) -> SecondDecode | None:
        """Another way to decode, where the data folder has what it needs; ``None`` where not.

        Raises:
            SlimbenchError: it has only a part of that.
        """
        ...


class PlainTask:
    """What a task has that nothing special is to be said of; tasks inherit it and change what they must."""

    croppable = True

    def remarks(self, targets: Sequence[Sequence[int]], frames: Sequence[int]) -> list[str]:
        """Nothing to say."""
        return []

    def second_decode(self, data: Path) -> SecondDecode | None:
        """No other way to decode."""
        return None


@dataclass(frozen=True)
class SecondDecode:
    """Another way to decode a task's outputs on test, reported in a column of its own; it takes no part in any choice.

    Attributes:
        task: the task with that decoder.
        metric: scores ``row["hyp_<metric>"]``, which is what ``task`` predicts.
        identity: what the result depends on besides the outputs, for the record and its key.
    """

    task: Task
    metric: str
    identity: Mapping[str, Any]


class FeatureSource(Protocol):
    """Features of one upstream, by utterance id."""

    num_states: int
    width: int
    frame_ms: float
    stored: bool
    """Whether frames only have to be read. Where they are encoded each time, nobody asks for them in advance."""

    def pooled(self, ids: Sequence[str]) -> Tensor:
        """Per-layer time means (N, L, D), float32."""
        ...

    def frames(self, utterance_id: str) -> Tensor:
        """All states of one utterance (L, T, D), in the stored dtype."""
        ...

    def fetch(self, ids: Sequence[str]) -> list[Tensor]:
        """All states of some utterances, (L, T, D) each: what one batch needs is asked for at once."""
        ...

    def num_frames(self, utterance_id: str) -> int:
        """T of one utterance, without reading its frames."""
        ...
