"""The generator over depth: a step written out frame by frame, causality over depth, its option and refusals."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from student_cases import LENGTHS, Case, card_file, random_state, utterances
from torch import Tensor

from harness.identity import digest_json, digest_weights
from harness.interface import SlimbenchError, Upstream
from harness.registry import load_upstream
from upstreams.students.gendistiller import GenDistiller, GenShape
from upstreams.students.mini import MiniConfig, MiniWavLM

SHAPE = GenShape(
    layers=4, width=16, heads=2, ffn=24, blocks=2, position_kernel=8, position_groups=4,
    convolutions=((8, 10, 5), (8, 3, 2), (8, 3, 2), (8, 3, 2), (8, 3, 2), (8, 2, 2), (8, 2, 2)),
)  # fmt: skip


def load(folder: Path, config: dict[str, object] | None = None, **options: object) -> Upstream:
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in GenDistiller(SHAPE).state_dict().items()}
    save_file(random_state(shapes), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(asdict(SHAPE) if config is None else config))
    fields = {"adapter": "upstreams.students.gendistiller:adapter", "weights": "model.safetensors", "options": options}
    return load_upstream(str(card_file(Case("gendistiller", "case", lambda _: fields, lambda *_: [], "none"), folder)))


def batch() -> tuple[Tensor, Tensor]:
    waves = utterances()
    return torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), torch.tensor([len(wave) for wave in waves])


def attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One head, one query (d,) over keys and values (n, d)."""
    weights = [math.exp(float(query @ key) / math.sqrt(len(query))) for key in keys]
    return sum(weight / sum(weights) * value for weight, value in zip(weights, values, strict=True))


def heads(x: Tensor) -> list[Tensor]:
    return list(x.split(SHAPE.width // SHAPE.heads, -1))


def step_by_hand(model: GenDistiller, states: list[Tensor]) -> Tensor:
    """The next layer (T, width), one frame and one head at a time."""
    x = states[-1] + model.depth.weight[len(states) - 1]
    for block in model.blocks:
        q, k, v = block.time.query(x), block.time.key(x), block.time.value(x)
        rows = []
        for t in range(len(x)):
            rows.append(torch.cat([attend(a[t], b, c) for a, b, c in zip(heads(q), heads(k), heads(v), strict=True)]))
        x = block.time_norm(x + block.time.output(torch.stack(rows)))
        q, rows = block.depth.query(x), []
        for t in range(len(x)):
            past = torch.stack([state[t] for state in states])
            k, v = block.depth.key(past), block.depth.value(past)
            rows.append(torch.cat([attend(a[t], b, c) for a, b, c in zip(heads(q), heads(k), heads(v), strict=True)]))
        x = block.depth_norm(x + block.depth.output(torch.stack(rows)))
        x = block.norm(x + block.down(torch.nn.functional.gelu(block.up(x))))
    return states[-1] + model.output(x)


def test_a_step_is_what_its_description_says(tmp_path: Path) -> None:
    upstream = load(tmp_path)
    wave = utterances()[2]
    states = [state[0] for state in upstream.encode(wave[None], torch.tensor([len(wave)])).states]
    assert len(states) == 5
    with torch.no_grad():
        for layer in range(1, 5):
            expected = step_by_hand(upstream.module(), states[:layer])
            torch.testing.assert_close(states[layer], expected, atol=1e-4, rtol=1e-4)
            assert (states[layer] - states[layer - 1]).abs().max() > 0.1


def test_a_padded_batch_is_its_utterances(tmp_path: Path) -> None:
    upstream = load(tmp_path)
    waves, lengths = batch()
    together = upstream.encode(waves, lengths)
    for row, wave in enumerate(utterances()):
        alone = upstream.encode(wave[None], lengths[row : row + 1])
        for many, one in zip(together.states, alone.states, strict=True):
            torch.testing.assert_close(many[row, : one.shape[1]], one[0], atol=1e-4, rtol=1e-4)


def test_fewer_layers_are_the_first_of_more(tmp_path: Path) -> None:
    waves, lengths = batch()
    full, two = load(tmp_path).encode(waves, lengths), load(tmp_path, generate=2)
    assert (two.num_states, two.module().generate) == (3, 2)
    for fewer, more in zip(two.encode(waves, lengths).states, full.states, strict=False):
        assert torch.equal(fewer, more)
    assert two.fingerprint != load(tmp_path).fingerprint


def test_all_parameters_serve_every_step(tmp_path: Path) -> None:
    one, four = load(tmp_path, generate=1).module(), load(tmp_path).module()
    assert sum(p.numel() for p in one.parameters()) == sum(p.numel() for p in four.parameters())


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ({}, {"generate": 0}, "option generate is 0; write a number from 1 to 12"),
        (None, {"generate": 5}, "option generate is 5; write a number from 1 to 4"),
        ({"wide": 3}, {}, "unknown key 'wide'"),
        ({"width": 17}, {}, "width 17 is no multiple"),
        ({"layers": "4"}, {}, "layers is '4'"),
        ({"convolutions": "__import__('os')"}, {}, "are not of the form"),
        ({}, {}, "do not fit"),
        ({"front": "mfcc"}, {}, "front is 'mfcc', not wav2vec2 or logmel"),
        ({"mels": 0}, {}, "mels is 0, not a whole number"),
    ],
)
def test_bad_configurations_are_refused(tmp_path: Path, config: dict[str, object], options, message: str) -> None:
    with pytest.raises(SlimbenchError, match=message):
        load(tmp_path, config, **options)


MEL = replace(SHAPE, front="logmel", mels=20)


def test_the_key_of_a_model_on_waveforms_by_hand(tmp_path: Path) -> None:
    upstream = load(tmp_path)
    names = {"layers", "width", "heads", "ffn", "blocks", "convolutions", "norm", "position_kernel", "position_groups"}
    settings = {"config": {name: getattr(SHAPE, name) for name in names}, "generate": 4}
    key = {"weights": digest_weights(tmp_path / "model.safetensors"), "settings": settings, "normalise": False}
    assert upstream.fingerprint == digest_json({"adapter": "gendistiller", "version": 1, **key})
    assert GenShape.from_dict(MEL.to_dict()) == MEL
    assert SHAPE.to_dict().keys() == names


def test_the_front_end_on_log_mels_is_that_of_the_labs_models() -> None:
    model, mini = GenDistiller(MEL), MiniWavLM(MiniConfig(layers=0, width=16, ffn=0, head_width=8, mels=20))
    with torch.no_grad():
        model.mel_mean += torch.linspace(-1, 1, 20)
        mini.mel_mean.copy_(model.mel_mean)
        mini.project.weight.copy_(model.embedding.projection.weight)
        mini.project.bias.copy_(model.embedding.projection.bias)
        waves, lengths = batch()
        features, frames = model.features(waves, lengths)
        expected, valid = mini.embed(waves, lengths)
        assert frames.tolist() == valid.tolist() == [(1 + (length - 400) // 160) // 2 for length in LENGTHS]
        assert torch.equal(model.embedding.projection(features), expected)
    assert (model.frame_ms, model.min_samples) == (20.0, 560)


def test_a_model_on_log_mels_is_stored_and_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = GenDistiller(MEL).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(MEL.to_dict()))
    fields = {"adapter": "upstreams.students.gendistiller:adapter", "weights": "model.safetensors"}
    case = Case("gendistiller", "case", lambda _: fields, lambda *_: [], "none")
    upstream = load_upstream(str(card_file(case, tmp_path)))
    assert (upstream.frame_ms, upstream.min_samples, upstream.num_states) == (20.0, 560, 5)
    waves, lengths = batch()
    got = upstream.encode(waves, lengths)
    with torch.no_grad():
        passage = model.passage(waves, lengths)
    assert got.lengths.tolist() == passage.frames.tolist()
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(got.states, passage.states, strict=True))
    for row, wave in enumerate(utterances()):
        alone = upstream.encode(wave[None], lengths[row : row + 1])
        for many, one in zip(got.states, alone.states, strict=True):
            torch.testing.assert_close(many[row, : one.shape[1]], one[0], atol=1e-4, rtol=1e-4)


def test_masked_frames_are_not_seen() -> None:
    torch.manual_seed(0)
    model, (waves, lengths) = GenDistiller(MEL).eval(), batch()
    masked = torch.zeros(3, 74, dtype=torch.bool)
    masked[:, 10:20] = True
    plain = model.front(waves)
    moved = plain.clone()
    moved[:, 20:40] = moved[:, 20:40].roll(1, -1)  # the frames under the mask, at the same level
    with torch.no_grad():
        found = []
        for mel, hidden in ((plain, masked), (moved, masked), (moved, None)):
            model.front.forward = lambda _, mel=mel: mel
            found.append(model.passage(waves, lengths, hidden).states[-1])
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found[2], found[1], atol=1e-2)


def test_training_reaches_every_weight() -> None:
    torch.manual_seed(0)
    model = GenDistiller(MEL)
    sum(state.square().mean() for state in model.passage(*batch()).states).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    with pytest.raises(ValueError, match="no attention maps to give"):
        model.passage(*batch(), maps=True)
