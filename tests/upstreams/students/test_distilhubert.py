"""DistilHuBERT's checkpoints: what is refused, which states, and what is recognised."""

from __future__ import annotations

from pathlib import Path

import distilhubert_cases
import pytest
import torch
import yaml
from distilhubert_cases import SMALL

from harness.interface import SlimbenchError
from harness.registry import load_upstream
from upstreams.adapters.checkpoints import read_checkpoint
from upstreams.students.distilhubert import recognise


def card(folder: Path, **fields: object) -> Path:
    """A card beside a checkpoint of the small student."""
    fixed = {"name": "case", "title": "case", "licence": "none", "source": "a test", "exposes": "its states"}
    adapter = {"adapter": "upstreams.students.distilhubert:adapter", "weights": "student.ckpt"}
    file = folder / "case.yaml"
    file.write_text(yaml.safe_dump({**fixed, **adapter, **fields}))
    return file


def change(folder: Path, config: dict[str, object], drop: str = "", add: str = "") -> Path:
    """Write the small student with other settings, without a weight or with one more."""
    distilhubert_cases.write(folder)
    content = read_checkpoint(folder / "student.ckpt")
    content["Config"]["distiller"].update(config)
    if drop:
        del content["Distiller"][drop]
    if add:
        content["Distiller"][add] = torch.zeros(3)
    torch.save(content, folder / "student.ckpt")
    return card(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"task_emb_type": "add"}, "task_emb_type is 'add', where one of expand-last"),
        ({"out_layer_type": "none"}, "expand-last with out_layer_type none is not supported"),
        ({"attention_type": "sparse"}, "attention_type is 'sparse'"),
        ({"activation_fn": "relu"}, "activation_fn is 'relu'"),
        ({"encoder_attention_heads": 5}, "encoder_attention_heads 5 does not divide width 32"),
        ({"conv_pos_groups": 5}, "conv_pos_groups 5 does not divide width 32"),
        ({"encoder_layers": 10**9}, "at most 200 is supported"),
        ({"n_tasks": 10**9}, "at most 1000 is supported"),
        ({"extractor_conv_feature_layers": "__import__('os')"}, r"\[\(channels, kernel, stride\)\]"),
        ({"encoder_layers": 3}, r"16 missing \(such as encoder.layers.2"),
        ({"encoder_ffn_embed_dim": 64}, r"is \(32, 48\) where the model has \(32, 64\)"),
        ({"final_dim": 40}, "predicts 40 values, but its layers have 32; set option states"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, config: dict[str, object], message: str) -> None:
    with pytest.raises(SlimbenchError, match=message):
        load_upstream(str(change(tmp_path, config)))


def test_a_missing_and_an_unexpected_weight_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SlimbenchError, match=r"1 missing \(such as encoder.layers.1.up.bias"):
        load_upstream(str(change(tmp_path, {}, drop="encoder.layers.1.fc1.bias")))
    with pytest.raises(SlimbenchError, match=r"1 unexpected \(such as encoder.layers.1.more"):
        load_upstream(str(change(tmp_path, {}, add="encoder.layers.1.more")))


def test_another_kind_of_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"cfg": {"model": {}}, "model": {}}, tmp_path / "student.ckpt")
    with pytest.raises(SlimbenchError, match="lacks Config; it is not the expected kind of checkpoint"):
        load_upstream(str(card(tmp_path)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"family": "hubert"}, "says family hubert, but its adapter reads distilhubert"),
        ({"depth": 3}, "says depth 3, but .* has 2"),
        ({"width": 768}, "says width 768, but its states are 32 wide"),
        ({"options": {"states": "all"}}, "option states is 'all'; write one of default, layers, paper"),
        ({"options": {"layer": 2}}, "unknown option 'layer'"),
    ],
)
def test_a_card_that_says_something_else_is_refused(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    distilhubert_cases.write(tmp_path)
    with pytest.raises(SlimbenchError, match=message):
        load_upstream(str(card(tmp_path, **fields)))


def test_which_states_is_part_of_the_fingerprint_and_heads_count_only_where_they_are_exposed(tmp_path: Path) -> None:
    distilhubert_cases.write(tmp_path)
    sizes, prints = [], set()
    for states in ("default", "layers", "paper"):
        upstream = load_upstream(str(card(tmp_path, options={"states": states})))
        module = upstream.module()
        assert module is not None
        sizes.append(sum(parameter.numel() for parameter in module.parameters()))
        prints.add(upstream.fingerprint)
    heads = 32 * 96 + 96 + 3 * (32 * 32 + 32)
    assert len(prints) == 3
    assert (sizes[0] - heads, sizes[1]) == (sizes[1], sizes[2])


@pytest.mark.parametrize(
    ("config", "states"),
    [({}, "default"), ({"final_dim": 40}, "layers"), (distilhubert_cases.SELF_HIDDEN, "default")],
)
def test_a_checkpoint_is_recognised(tmp_path: Path, config: dict[str, object], states: str) -> None:
    distilhubert_cases.write(tmp_path, {**SMALL, **config})
    found = recognise(tmp_path / "student.ckpt", read_checkpoint(tmp_path / "student.ckpt"))
    assert found is not None
    assert (found["depth"], found["width"], found["options"]) == (2, 32, {"states": states})
    fields = {key: value for key, value in found.items() if key in ("adapter", "family", "depth", "width", "options")}
    assert load_upstream(str(card(tmp_path, **fields))).num_states == (6 if states == "default" and not config else 3)


def test_other_checkpoints_are_not_recognised(tmp_path: Path) -> None:
    assert recognise(tmp_path, {"cfg": {}, "model": {}}) is None
    assert recognise(tmp_path, {"Distiller": {}, "Config": {"other": {}}}) is None
