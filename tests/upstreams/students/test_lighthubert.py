"""LightHuBERT: every corner of its search spaces, default subnets, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lighthubert_cases
import pytest
import torch
import yaml
from lighthubert_cases import SMALL, public_subnet
from s3prl.upstream.lighthubert.expert import UpstreamExpert
from s3prl.upstream.lighthubert.lighthubert import LightHuBERTSupernetConfig
from student_cases import utterances
from torch import nn

from harness.cards import Card, read_card
from harness.interface import SlimbenchError
from harness.registry import load_upstream
from upstreams.adapters.checkpoints import read_checkpoint
from upstreams.students import lighthubert
from upstreams.students.lighthubert import DEFAULTS, recognise
from upstreams.students.subnet import even

CORNERS = {
    "small": itertools.product((64, 96), (1, 2), (3.0, 4.0), (10, 11, 12)),
    "base": itertools.product((96, 128), (1, 2), (3.5, 4.0), (12,)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small supernet."""
    made = tmp_path_factory.mktemp("supernet")
    lighthubert_cases.write(made)
    return made


@pytest.fixture(scope="module")
def expert(folder: Path) -> nn.Module:
    """s3prl's expert of that supernet."""
    loaded: nn.Module = UpstreamExpert(str(folder / "lighthubert.pt")).eval()
    return loaded


def card(folder: Path, **options: object) -> Path:
    """A card that chooses a subnet."""
    fields: Mapping[str, Any] = {
        "name": "case",
        "title": "case",
        "licence": "none",
        "source": "a test",
        "exposes": "its states",
        "adapter": "upstreams.students.lighthubert:adapter",
        "family": "lighthubert",
        "weights": "lighthubert.pt",
        "options": options,
    }
    file = folder / "case.yaml"
    file.write_text(yaml.safe_dump(fields))
    return file


@pytest.mark.parametrize(
    ("width", "heads", "ratio", "depth"), sorted({*CORNERS["small"], *CORNERS["base"]}), ids=lambda value: str(value)
)
def test_a_corner_is_that_of_the_public_supernet(
    folder: Path, expert: Any, width: int, heads: int, ratio: float, depth: int
) -> None:
    upstream = load_upstream(str(card(folder, subnet=f"d{width}-h{heads}-r{ratio:g}-l{depth}")))
    wave = utterances()[2]
    expert.model.set_sample_config(public_subnet(even(width, heads, ratio, depth)))
    with torch.no_grad():
        theirs = expert([wave])["hidden_states"]
    ours = upstream.encode(wave[None], torch.tensor([len(wave)])).states
    assert len(ours) == len(theirs) == depth + 1 == upstream.num_states
    assert max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True)) <= 1e-4
    module = upstream.module()
    assert module is not None
    parameters = sum(parameter.numel() for parameter in module.parameters())
    # The public count has the embedding of masked frames and lacks the gains of the weight norm.
    assert parameters == expert.model.calc_sampled_param_num() - SMALL["encoder_embed_dim"] + SMALL["conv_pos"]


@pytest.mark.parametrize("space", ["small", "base"])
def test_the_default_subnet_is_that_of_the_public_code(space: str) -> None:
    expected = LightHuBERTSupernetConfig(space).subnet
    expected.pop("ffn_ratio")
    assert public_subnet(DEFAULTS[space]) == expected


def test_the_windows_of_the_public_code_by_strides_are_the_same_where_it_fills_up(folder: Path, expert: Any) -> None:
    upstream = load_upstream(str(card(folder, subnet="d64-h2-r4-l6-w8")))
    wave = utterances()[0]  # 74 frames
    expert.model.set_sample_config(public_subnet(even(64, 2, 4.0, 6, 8)))
    expert.model._switch_slide_attention("stride")
    with torch.no_grad():
        theirs = expert([wave])["hidden_states"]
    ours = upstream.encode(wave[None], torch.tensor([len(wave)])).states
    assert max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True)) <= 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "chooses a subnet with width 384, of at most 128"),
        ({"subnet": "d64-h3"}, r"heads \(3, .*of at most 2"),
        ({"subnet": "d62-h1"}, "width 62, no multiple of 4"),
        ({"subnet": "d64-h1-r4.5"}, r"feed-forward widths \(288.*of at most 4 times"),
        ({"subnet": "d64-h1-l5"}, "5 layers, of 6 to 12"),
        ({"subnet": "d64-h1-w3"}, "windows .*of even numbers"),
        ({"subnet": "width 64"}, "option subnet is 'width 64'; write width, heads"),
        ({"subnet": "d64-d64"}, "option subnet is 'd64-d64'"),
        ({"subnet": "d64-h1", "heads": [1] * 12}, "options subnet and heads both choose heads"),
        ({"subnet": "d64-r3", "ffn": [64] * 12}, "both choose the feed-forward width"),
        ({"subnet": "d64-l12", "heads": [1, 2]}, "write 12 whole numbers, one per layer"),
        ({"subnet": "d64", "heads": [1.5] * 12}, "write 12 whole numbers"),
        ({"net": "d64"}, "unknown option 'net'"),
    ],
)
def test_a_subnet_that_is_not_there_is_refused(folder: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(SlimbenchError, match=message):
        load_upstream(str(card(folder, **options)))


def changed(folder: Path, tmp_path: Path, **changes: object) -> Path:
    """A copy of the checkpoint with other settings, and a card of its whole net beside it."""
    content = read_checkpoint(folder / "lighthubert.pt")
    content["cfg"]["model"].update(changes)
    torch.save(content, tmp_path / "lighthubert.pt")
    return card(tmp_path, subnet="d128-h2-r4-l12")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_name": "hubert"}, "cfg.model._name is 'hubert'"),
        ({"encoder_layers": 11}, "a supernet has 12 layers"),
        ({"encoder_attention_heads": 4}, "heads of 64"),
        ({"pos_conv_depth": 5}, "pos_conv_depth is 5; 1 is supported"),
        ({"conv_pos": 18}, "do not fit"),
    ],
)
def test_settings_that_are_not_supported_are_refused(
    folder: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(SlimbenchError, match=message):
        load_upstream(str(changed(folder, tmp_path, **changes)))


def test_a_missing_weight_of_a_layer_that_the_subnet_leaves_out_is_an_error(folder: Path, tmp_path: Path) -> None:
    content = read_checkpoint(folder / "lighthubert.pt")
    del content["model"]["encoder.layers.11.fc1.bias"]
    torch.save(content, tmp_path / "lighthubert.pt")
    with pytest.raises(SlimbenchError, match="1 missing"):
        load_upstream(str(card(tmp_path, subnet="d64-h1-r4-l10")))


def test_a_supernet_of_no_known_space_needs_a_subnet(folder: Path, tmp_path: Path) -> None:
    changed(folder, tmp_path, pruner_supernet="another.yaml")
    with pytest.raises(SlimbenchError, match="names no subnet; set option subnet"):
        load_upstream(str(card(tmp_path, heads=[1] * 12)))
    assert load_upstream(str(card(tmp_path, subnet="d64-l12"))).width == 64


def test_the_full_net_of_stage_one_is_exposed_whole(folder: Path, tmp_path: Path) -> None:
    changed(folder, tmp_path, _name="student_hubert")
    upstream = load_upstream(str(card(tmp_path)))
    assert (upstream.width, upstream.num_states) == (128, 13)


def test_another_subnet_is_another_upstream(folder: Path) -> None:
    names = ("d64-h1", "d64-h2", "d64-h1-w8")
    assert len({load_upstream(str(card(folder, subnet=name))).fingerprint for name in names}) == 3


def test_a_checkpoint_is_recognised(folder: Path, tmp_path: Path) -> None:
    found = recognise(folder / "lighthubert.pt", read_checkpoint(folder / "lighthubert.pt"))
    assert found is not None
    assert (found["family"], found["width"], found["options"]) == ("lighthubert", 384, {"subnet": "d384-h6-r4-l12"})
    assert recognise(folder, {"cfg": {"model": {"_name": "hubert"}}, "model": {}}) is None


@pytest.mark.parametrize("name", ["lighthubert_small", "lighthubert_base", "lighthubert_stage1"])
def test_the_cards_choose_what_they_say(name: str) -> None:
    cards = Path(lighthubert.__file__).parent.parent / "cards"
    whole: Card = read_card(cards / f"{name}.yaml")
    assert whole.family == "lighthubert"
    subnet = whole.options["subnet"].split("-")
    assert (whole.width, whole.depth) == (int(subnet[0][1:]), int(subnet[3][1:]))
    for variant, fields in whole.variants.items():
        assert fields["options"] == {"subnet": variant}
        assert f"d{fields.get('width', whole.width)}-" in variant
        assert variant.endswith(f"-l{fields.get('depth', whole.depth)}")
