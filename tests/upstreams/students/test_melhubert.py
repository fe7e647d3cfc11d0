"""MelHuBERT: frames at the end, what pruning means, corpus statistics, and what it refuses."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from melhubert_cases import PRUNED_HEADS, SMALL, SMOOTH, statistics, stored, with_masks, write
from student_cases import Case, card_file, random_state, utterances
from torch import Tensor

from harness.interface import SlimbenchError, Upstream
from harness.registry import load_upstream
from upstreams.adapters.checkpoints import read_checkpoint
from upstreams.students.melhubert import LogMel, recognise
from upstreams.students.student import Student

Change = Callable[[dict[str, Any]], None]
TEN_MS = SMALL | {"feat_emb_dim": 40}


def prepare(
    config: dict[str, Any], extra: dict[str, Any], folder: Path, change: Change | None = None, **fields: object
) -> str:
    """The card of a checkpoint with this configuration, after ``change`` of what is stored."""
    card = card_file(Case("melhubert", "case", partial(write, config, extra), lambda _, __: [], "none"), folder)
    card.write_text(yaml.safe_dump(yaml.safe_load(card.read_text()) | fields))
    if change is not None:
        content = torch.load(folder / "states.ckpt", weights_only=False)
        change(content)
        torch.save(content, folder / "states.ckpt")
    return str(card)


def load(config: dict[str, Any], folder: Path, change: Change | None = None, **extra: object) -> Upstream:
    return load_upstream(prepare(config, extra, folder, change))


def states(upstream: Upstream, samples: int = 5000) -> list[Tensor]:
    return list(upstream.encode(utterances()[2][None, :samples], torch.tensor([samples])).states)


def largest(ours: list[Tensor], theirs: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("samples", "stack", "frames"), [(400, 1, 1), (400, 2, 1), (559, 2, 1), (560, 1, 2), (560, 2, 1), (720, 2, 2)]
)
def test_the_last_frame_is_filled_up(samples: int, stack: int, frames: int) -> None:
    mel, valid = LogMel(stack)(utterances()[2][None, :samples], torch.tensor([samples]))
    assert mel.shape == (1, frames, 40 * stack)
    assert valid.tolist() == [frames]
    assert bool((mel[0, -1, 40 * stack - 40 :] == 0).all()) == (stack == 2 and samples in (400, 559, 720))


def test_what_follows_an_utterance_does_not_fill_its_last_frame() -> None:
    wave = utterances()[2][None, :5000]
    alone, frames = LogMel(2)(wave[:, :720], torch.tensor([720]))
    together, _ = LogMel(2)(wave, torch.tensor([720]))
    torch.testing.assert_close(alone, together[:, :2], atol=1e-5, rtol=0)
    assert not together[0, 1, 40:].any()
    assert frames.tolist() == [2]


def test_too_short_audio_is_refused(tmp_path: Path) -> None:
    upstream = load(SMALL, tmp_path)
    assert upstream.min_samples == 400
    with pytest.raises(ValueError, match="399 samples are too few for one frame"):
        states(upstream, 399)


@pytest.mark.parametrize(("config", "frame_ms"), [(SMALL, 20.0), (TEN_MS, 10.0)], ids=["20 ms", "10 ms"])
def test_the_frame_rate_is_that_of_the_input(config: dict[str, Any], frame_ms: float, tmp_path: Path) -> None:
    assert load(config, tmp_path).frame_ms == frame_ms


def cut(content: dict[str, Any], erase: bool) -> None:
    """Silence heads 2 of layer 0 and 0, 1, 2 of layer 1, by zeros or by cutting them out (two rounds of pruning)."""
    state = content["model"]
    for index, heads in enumerate(([2], [0, 1, 2])):
        name = f"encoder.layers.{index}.self_attn"
        kept = torch.tensor([2 * head + part for head in range(4) if head not in heads for part in range(2)])
        whole = state[f"{name}.out_proj.weight"]
        state[f"{name}.out_proj.weight"] = (
            torch.zeros_like(whole).index_copy(1, kept, whole[:, kept]) if erase else whole[:, kept]
        )
        for part in () if erase else "qkv":
            for kind in ("weight", "bias"):
                state[f"{name}.{part}_proj.{kind}"] = state[f"{name}.{part}_proj.{kind}"][kept]
    if not erase:
        content["Pruned_heads"] = PRUNED_HEADS


def test_pruned_heads_are_silent_heads(tmp_path: Path) -> None:
    silent = states(load(SMALL, tmp_path, partial(cut, erase=True)))
    pruned = states(load(SMALL, tmp_path, partial(cut, erase=False)))
    assert largest(pruned, silent) <= 1e-5


def test_pruned_weights_are_zeros(tmp_path: Path) -> None:
    def zeros(content: dict[str, Any]) -> None:
        masks = with_masks(content["model"])
        for name in content["model"]:
            if f"{name}_mask" in masks:
                content["model"][name][masks[f"{name}_mask"] == 0] = 0

    by_mask = load(SMALL, tmp_path, Pruning=SMOOTH)
    assert largest(states(by_mask), states(load(SMALL, tmp_path, zeros))) == 0
    assert isinstance(by_mask, Student)
    assert sum(int((p == 0).sum()) for p in by_mask.module().parameters()) > 100


@pytest.mark.parametrize("first", [False, True], ids=["post-norm", "pre-norm"])
def test_all_weights_that_a_state_depends_on_are_counted(first: bool, tmp_path: Path) -> None:
    config = SMALL | {"layer_norm_first": first}

    def masked_frames(content: dict[str, Any]) -> None:
        content["model"] |= random_state({"mask_emb": (80,)})

    upstream = load(config, tmp_path, masked_frames)
    assert isinstance(upstream, Student)
    left_out = ("final_proj.", "encoder.layer_norm.") if first else ("final_proj.",)
    expected = sum(tensor.numel() for name, tensor in stored(config, {}).items() if not name.startswith(left_out))
    assert sum(parameter.numel() for parameter in upstream.module().parameters()) == expected


def test_early_files_call_the_model_hubert(tmp_path: Path) -> None:
    def early(content: dict[str, Any]) -> None:
        content["Upstream_Config"]["hubert"] = content["Upstream_Config"].pop("melhubert")

    assert largest(states(load(SMALL, tmp_path, early)), states(load(SMALL, tmp_path))) == 0


def test_the_statistics_are_part_of_the_upstream(tmp_path: Path) -> None:
    before = load(SMALL, tmp_path)
    card = prepare(SMALL, {}, tmp_path)
    np.save(tmp_path / "mean-std.npy", statistics() + 0.5)
    after = load_upstream(card)
    assert before.fingerprint != after.fingerprint
    assert largest(states(before), states(after)) > 1e-2


class Trap:
    """An object whose unpickling is seen."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was run",))


def false_size() -> bytes:
    """An array whose header promises a terabyte."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (2, 1 << 36)})
    return buffer.getvalue()


def archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, statistics())
    return buffer.getvalue()


def array(values: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"mean-std\.npy \(statistics of the training corpus\) cannot be read"),
        (b"", "cannot be read"),
        (b"no array", "cannot be read"),
        (pickle.dumps(Trap()), "cannot be read"),
        (false_size(), "cannot be read"),
        (archive(), "holds no array of 40 means"),
        (array(statistics()[:, :39]), "holds no array of 40 means"),
        (array(np.ones((2, 40), dtype=np.int64)), "holds no array of 40 means"),
        (array(np.full((2, 40), "1")), "holds no array of 40 means"),
        (array(statistics() * np.nan), "holds values that are no means"),
        (array(statistics() * [[1], [0]]), "holds values that are no means"),
    ],
    ids=["none", "empty", "text", "pickle", "false size", "archive", "shape", "integers", "words", "nan", "zero"],
)
def test_wrong_statistics_are_refused(content: bytes | None, said: str, tmp_path: Path) -> None:
    card = prepare(SMALL, {}, tmp_path)
    (tmp_path / "mean-std.npy").unlink()
    if content is not None:
        (tmp_path / "mean-std.npy").write_bytes(content)
    with pytest.raises(SlimbenchError, match=said):
        load_upstream(card)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, r"option stats is missing; name the \.npy file of corpus statistics beside states\.ckpt"),
        ({"stats": 3}, "option stats is 3; write text"),
        ({"stats": "../mean-std.npy"}, "must lie in the folder of the weights"),
        ({"stats": "/mean-std.npy"}, "must lie in the folder of the weights"),
        ({"stats": "beside.npy"}, "must lie in the folder of the weights"),
    ],
)
def test_statistics_elsewhere_are_refused(options: dict[str, object], said: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    np.save(tmp_path / "mean-std.npy", statistics())
    (folder / "beside.npy").symlink_to(tmp_path / "mean-std.npy")
    card = prepare(SMALL, {}, folder, options=options)
    with pytest.raises(SlimbenchError, match=said):
        load_upstream(card)


def config_with(**values: object) -> Change:
    return lambda content: content["Upstream_Config"]["melhubert"].update(values)


def drop_mask(content: dict[str, Any]) -> None:
    del content["model"]["encoder.layers.0.fc1.weight_mask"]


REFUSED: list[tuple[dict[str, Any], Change, str]] = [
    ({}, config_with(activation_fn="relu"), "activation_fn is 'relu', where one of gelu"),
    ({}, config_with(attention_type="causal"), "attention_type is 'causal'"),
    ({}, config_with(pos_conv_depth=5), "positional convolution of several layers is not supported"),
    ({}, config_with(feat_emb_dim=120), r"feat_emb_dim is 120; 40 \(10 ms\) and 80 \(20 ms\) are supported"),
    ({}, config_with(feat_emb_dim=40), r"encoder\.projection\.weight is \(8, 80\) where the model has \(8, 40\)"),
    ({}, config_with(encoder_layers=3), r"missing \(such as encoder\.layers\.2"),
    (
        {},
        lambda content: content["model"].pop("encoder.layers.1.fc1.bias"),
        r"1 missing \(such as encoder\.layers\.1\.up",
    ),
    ({}, lambda content: content["model"].update(extra=torch.ones(1)), r"1 unexpected \(such as extra"),
    ({}, lambda content: content.pop("Upstream_Config"), "lacks Upstream_Config"),
    ({}, lambda content: content["Upstream_Config"].pop("melhubert"), r"lacks Upstream_Config\.melhubert"),
    ({}, lambda content: content.pop("model"), "lacks model"),
    ({}, lambda content: content.update(Pruned_heads=PRUNED_HEADS), r"attention\.key\.bias is \(8,\)"),
    ({}, lambda content: content.update(Pruned_heads={0: [1]}), "Pruned_heads must be a list of mappings"),
    ({}, lambda content: content.update(Pruned_heads=[{"0": [1]}]), "Pruned_heads must be a list of mappings"),
    ({}, lambda content: content.update(Pruned_heads=[{0: [0, 1, 2, 3]}]), "prunes 4 of 4 heads in layer 0 of 2"),
    ({}, lambda content: content.update(Pruned_heads=[{2: [0]}]), "prunes 1 of 4 heads in layer 2 of 2"),
    ({"Pruning": SMOOTH}, lambda content: content.pop("Pruning"), "unexpected"),
    ({"Pruning": SMOOTH}, drop_mask, r"encoder\.layers\.0\.fc1\.weight has no mask that fits"),
]


@pytest.mark.parametrize(("extra", "change", "said"), REFUSED)
def test_what_is_refused(extra: dict[str, Any], change: Change, said: str, tmp_path: Path) -> None:
    with pytest.raises(SlimbenchError, match=said):
        load(SMALL, tmp_path, change, **extra)


def test_a_card_can_be_drafted(tmp_path: Path) -> None:
    fields = write(SMALL, {"Pruned_heads": PRUNED_HEADS}, tmp_path)
    content = read_checkpoint(tmp_path / "states.ckpt")
    drafted = recognise(tmp_path / "states.ckpt", content)
    assert drafted is not None
    assert {key: drafted[key] for key in ("adapter", "options")} == {key: fields[key] for key in ("adapter", "options")}
    assert (drafted["depth"], drafted["width"]) == (2, 8)
    assert drafted["exposes"] == "projected log-mel frames and the output of every layer, 20 ms"
    assert recognise(tmp_path / "states.ckpt", {"model": {}, "Upstream_Config": {}}) is None
