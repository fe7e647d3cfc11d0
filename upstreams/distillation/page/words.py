"""Recipes in words: student, beginning, loss, targets, data and procedure, for tables and pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from harness.show import rate
from upstreams.distillation.loop import Optimiser
from upstreams.distillation.pretrain import Iteration
from upstreams.distillation.recipe import Data, Init, Pretraining, Recipe, Targets, stage
from upstreams.distillation.terms.base import Layers, TermSpec
from upstreams.students.gendistiller import GenShape
from upstreams.students.mini import MiniConfig

Shape = MiniConfig | GenShape
UPPER = ("mean_top", "depth")
"""A term for which the word ``depth`` means no single state."""
_MODES = {
    "clean": "nothing is masked",
    "masked": "the student's input is masked, the teacher's is not",
    "crossed": "masked frames meet the teacher that hears all, the others the teacher that is masked alike",
}
_HEARS = {"same": "both hear the mixed audio", "clean": "the teacher hears the audio before mixing"}
_NORMS = {
    "layer_norm": "teacher states layer-normed",
    "none": "teacher states as they are",
    "corpus": "teacher states standardised over a sample of the data",
}
_STATES = {"last": "last state", "layers": "every layer", "all": "all states", "depth": "the same depth"}


def shape_of(student: Mapping[str, Any]) -> Shape:
    """The shape that a recipe's ``student`` says."""
    values = {key: value for key, value in student.items() if key != "family"}
    return GenShape.from_dict(values) if student.get("family") == "gendistiller" else MiniConfig.from_dict(values)


def short_shape(shape: Shape) -> str:
    """Layers, width and feed-forward width: ``12 x 96, ffn 384``."""
    return f"{shape.layers} x {shape.width}, ffn {shape.ffn}"


def student_words(shape: Shape) -> str:
    """All that is special about a shape, in words."""
    if isinstance(shape, GenShape):
        return (
            f"generator of {shape.layers} layers of {shape.width} by {_count(shape.blocks, 'block')}, {shape.heads} "
            f"heads, feed-forward {shape.ffn}"
        )
    words = [f"{_count(shape.layers, 'layer')} of {shape.width}"]
    words += [f"{_count(shape.all_heads, 'head')} of {shape.head_width}", f"feed-forward {shape.ffn}"]
    if shape.front != "logmel":
        words.append(f"{shape.front} front end")
    if shape.reduce > 1:
        words.append(f"{shape.reduce} frames joined to {20 * shape.reduce} ms")
    if shape.compress:
        words.append("frames joined to segments, as many as are asked for")
    if shape.own_maps is not None:
        words.append(f"{shape.own_maps.count(False)} layers take the attention map of the one before")
    if shape.kept is not None or shape.ffns is not None:
        words.append("layers of different sizes")
    return ", ".join(words)


def begin_words(init: Init) -> str:
    """Where the weights begin."""
    front = "front-end statistics of the teacher" if init.front == "teacher" else "front-end statistics of the data"
    if not init.layers:
        return f"random weights, {front}"
    how = ", leading dimensions" if init.width == "slice" else ""
    return f"layers {numbers([layer + 1 for layer in init.layers])} of the teacher{how}, {front}"


def term_words(spec: TermSpec) -> str:
    """One addend of the loss: ``hidden: last state to states 4, 8, 12, head split, l1_cos``."""
    theirs = "the mean of the upper layers" if (spec.knowledge, spec.teacher) == UPPER else _layers(spec.teacher)
    words = [f"{spec.knowledge}: {_layers(spec.student)} to {theirs}"]
    words += [f"of {spec.of}"] if spec.of else []
    words += [f"head {spec.head}"] if spec.head != "none" else []
    words.append(spec.distance)
    words += [f"weight {spec.weight:g}"] if spec.weight != 1.0 else []
    words += [f"schedule {plain(spec.schedule)}"] if spec.schedule != "constant" else []
    return ", ".join(words) + (f" ({plain(spec.options)})" if spec.options else "")


def loss_words(found: Recipe | Pretraining) -> str:
    """All addends of the first stage; of a pre-training what each iteration predicts."""
    if isinstance(found, Pretraining):
        return "; ".join(dict.fromkeys(map(_prediction, found.iterations)))
    return "; ".join(map(term_words, found.terms))


def _prediction(iteration: Iteration) -> str:
    source = "MFCCs" if iteration.layer is None else f"layer {iteration.layer} of the model before"
    where = numbers(iteration.predict or (iteration.config.layers,))
    return f"masked prediction of {iteration.units} units of {source} at state {where}"


def targets_words(found: Recipe | Pretraining) -> str:
    """What the teacher sees and how its states become targets."""
    if isinstance(found, Pretraining):
        return "units of the clean audio at frames masked in the mixed audio"
    targets: Targets = found.targets
    return "; ".join([_MODES[targets.mode], _HEARS[targets.hears], _NORMS[targets.normalise]])


def procedure_words(settings: Mapping[str, Any]) -> str:
    """What happens besides the loss; ``plain`` where nothing does."""
    others = {key: value for key, value in settings.items() if key != "kind"}
    return str(settings.get("kind", "plain")) + (f" ({plain(others)})" if others else "")


def stage_list(found: Recipe | Pretraining) -> list[str]:
    """Updates and procedure of each stage, or of each iteration of a pre-training."""
    if isinstance(found, Pretraining):
        return [
            f"{one.steps} updates, {short_shape(one.config)}" + (", starts from the model before" if one.grow else "")
            for one in found.iterations
        ]
    stages = [stage(found, number) for number in range(1 + len(found.stages))]
    words = [f"{one.steps} updates{_besides(one.procedure)}" for one in stages]
    for number, one in enumerate(stages[1:], 1):
        if one.terms != found.terms:
            words[number] += f", loss {loss_words(one)}"
        if one.targets != found.targets:
            words[number] += f", targets: {targets_words(one)}"
    return words


def _besides(settings: Mapping[str, Any]) -> str:
    return "" if settings.get("kind", "plain") == "plain" else f", procedure {procedure_words(settings)}"


def steps(found: Recipe | Pretraining) -> list[int]:
    """Updates of each stage or iteration."""
    if isinstance(found, Pretraining):
        return [one.steps for one in found.iterations]
    return [stage(found, number).steps for number in range(1 + len(found.stages))]


def audio_seconds(found: Recipe | Pretraining) -> float:
    """Seconds of audio that one update sees, in the first stage."""
    return found.data.seconds * (found.optimiser.accumulate if isinstance(found, Recipe) else 1)


def data_words(data: Data) -> str:
    """What is trained on."""
    mixing = data.mixing
    words = [
        f"{data.hours:g} h of synthetic speech (seed {data.seed})",
        f"{100 * data.real:g} % of crops real speech where `DATA` has some",
        f"noise on {100 * mixing.noise:g} % of crops ({_span(mixing.noise_snr_db)} dB)",
        f"a second speaker on {100 * mixing.speaker:g} % ({_span(mixing.speaker_snr_db)} dB)",
    ]
    if data.queries is not None:
        words.append(
            f"the teacher may be asked about {data.queries.minutes:g} minutes of clips, chosen {data.queries.choose}"
        )
    return "; ".join(words)


def optimiser_words(optimiser: Optimiser) -> str:
    """Peak learning rate, and what differs from the usual."""
    usual, words = Optimiser(), [f"peak learning rate {rate(optimiser.lr)}"]
    for key in ("accumulate", "precision"):
        if getattr(optimiser, key) != getattr(usual, key):
            words.append(f"{key} {getattr(optimiser, key)}")
    return ", ".join(words)


def plain(value: Any) -> str:
    """Settings as text: ``width 96/128, depth 6``.

    >>> plain({"width": [96, 128], "top": 8})
    'width 96/128, top 8'
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: ({plain(v)})" if isinstance(v, Mapping) else f"{key} {plain(v)}"
                         for key, v in value.items())  # fmt: skip
    if isinstance(value, list | tuple):
        return "/".join(map(plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def numbers(values: Sequence[int]) -> str:
    """Whole numbers, three or more that follow each other as a range.

    >>> numbers([0, 1, 2, 5]), numbers([4, 8, 12]), numbers([0, 1])
    ('0 to 2, 5', '4, 8, 12', '0, 1')
    """
    runs: list[list[int]] = [[values[0]]] if values else []
    for before, value in pairwise(values):
        if value == before + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def _layers(layers: Layers) -> str:
    if isinstance(layers, str):
        return _STATES.get(layers, layers)
    return f"state{'s' * (len(layers) != 1)} {numbers(layers)}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


def _span(values: tuple[float, float]) -> str:
    return f"{values[0]:g} to {values[1]:g}".replace("-", "−")
