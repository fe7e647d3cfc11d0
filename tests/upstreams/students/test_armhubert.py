"""ARMHuBERT and its relatives: sizes, the pattern of reused maps, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from armhubert_cases import SIZES, STAR_LACKS, TINY, full, shapes_of, write
from fithubert_cases import write as write_fithubert
from test_fithubert import card, count, load

from harness import registry
from harness.interface import SlimbenchError
from upstreams.adapters.checkpoints import read_checkpoint
from upstreams.students import armhubert, fithubert
from upstreams.students.settings import Settings

REUSED = {"reuse_pattern": "[True, False]"}


def test_printed_sizes_are_those_of_the_public_modules() -> None:
    with torch.device("meta"):
        sizes = [count(size.model()) for size in SIZES]
        exposed = [count(full(480, 640, reuse=False)), count(full(480, 864)), count(full(432, 816))]
    assert sizes == [26_635_840, 26_448_448, 22_394_080]  # the public classes at their published settings
    assert exposed == [26_635_840 - 480, 26_448_448 - 480, 22_394_080 - 432]


@pytest.mark.parametrize(
    ("pattern", "own"),
    [
        ("[True, False] * 6", [True, False] * 6),
        ("[True, False]*6", [True, False] * 6),
        (" [ True ,False ] + [True]* 2+[False] ", [True, False, True, True, False]),
        (str([True, False] * 6), [True, False] * 6),
        ([True, False, True], [True, False, True]),
        (None, None),
    ],
)
def test_patterns_are_read(pattern: object, own: list[bool] | None) -> None:
    assert armhubert.own_maps_of(Settings(Path("config"), {"reuse_pattern": pattern})) == own
    assert armhubert.own_maps_of(Settings(Path("config"), {})) is None


@pytest.mark.parametrize(
    "pattern",
    [
        "__import__('os').getcwd()", "[True, False] * 6; 1", "[True, 1]", "True", "[]", "", 3, [1, 0], {"a": 1}, True,
        "[True] * 9999999", "[True, False] ** 2", "[True][0]", "[True] " * 200, "[True] * 3 + [False", "(True, False)",
    ],
)  # fmt: skip
def test_a_pattern_is_never_evaluated(pattern: object) -> None:
    with pytest.raises(SlimbenchError, match=r"reuse_pattern is .* must be like"):
        armhubert.own_maps_of(Settings(Path("config"), {"reuse_pattern": pattern}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reuse_pattern": "[False, True]"}, "the first one must"),
        ({"reuse_pattern": "[True, False] * 2"}, "each of the 2 layers"),
        ({"reuse_pattern": "[True, True]"}, r"missing \(such as encoder\.layers\.1\.attention\.key"),
        ({"reuse_pattern": None}, r"missing \(such as encoder\.layers\.1\.attention\.key"),
        ({"enable_tr_layer": True}, "set the adapter of fithubert"),
        ({"layerwise_proj": False}, "no heads"),
        ({"layer_type": "conformer"}, "layer_type"),
    ],
)
def test_settings_that_do_not_hold_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    fields = write(REUSED, "heads", tmp_path)
    (tmp_path / "student.yaml").write_text(yaml.safe_dump({"distiller": {**TINY, **REUSED, **changes}}))
    with pytest.raises(SlimbenchError, match=message):
        registry.load_upstream(str(card(tmp_path, fields)))


@pytest.mark.parametrize("name", sorted(shapes_of({**TINY, **REUSED})))
def test_every_weight_is_needed(name: str, tmp_path: Path) -> None:
    fields = write(REUSED, "heads", tmp_path)
    checkpoint = torch.load(tmp_path / "student.ckpt")
    del checkpoint["state_dict"][f"student_model.{name}"]
    torch.save(checkpoint, tmp_path / "student.ckpt")
    if name == "mask_emb":  # only training uses it
        registry.load_upstream(str(card(tmp_path, fields)))
    else:
        with pytest.raises(SlimbenchError, match="missing"):
            registry.load_upstream(str(card(tmp_path, fields)))


def test_a_student_with_all_maps_is_no_student_that_reuses_some(tmp_path: Path) -> None:
    fields = write({}, "heads", tmp_path)
    (tmp_path / "student.yaml").write_text(yaml.safe_dump({"distiller": {**TINY, **REUSED}}))
    with pytest.raises(SlimbenchError, match=r"unexpected \(such as encoder\.layers\.1\.attention\.key"):
        registry.load_upstream(str(card(tmp_path, fields)))


def test_starhubert_has_layers_only(tmp_path: Path) -> None:
    fields = write({}, "layers", tmp_path, lacks=STAR_LACKS)
    assert registry.load_upstream(str(card(tmp_path, fields))).frame_ms == 20
    for states in ("heads", "last", None):
        with pytest.raises(SlimbenchError, match="no heads on its layers; set option states to layers"):
            registry.load_upstream(str(card(tmp_path, fields, states=states)))


def test_a_fithubert_is_refused(tmp_path: Path) -> None:
    fields = write_fithubert({}, "heads", tmp_path)
    (tmp_path / "student.yaml").write_text(yaml.safe_dump({"distiller": {**TINY, "encoder_layers": 3}}))
    with pytest.raises(SlimbenchError, match="do not fit"):
        registry.load_upstream(str(card(tmp_path, {**fields, "adapter": "upstreams.students.armhubert:adapter"})))
    assert load(tmp_path).num_states == 3  # which it is


@pytest.mark.parametrize(("lacks", "width"), [((), 6), (STAR_LACKS, 12)])
def test_a_recognised_checkpoint_drafts_a_card_that_loads(lacks: tuple[str, ...], width: int, tmp_path: Path) -> None:
    write(REUSED, "heads", tmp_path, lacks=lacks)
    file = tmp_path / "student.ckpt"
    checkpoint = read_checkpoint(file)
    assert fithubert.recognise(file, checkpoint) is None
    fields = armhubert.recognise(file, checkpoint)
    assert fields is not None
    assert registry.load_upstream(str(card(tmp_path, {**fields, "weights": "student.ckpt"}))).width == width
    (tmp_path / "student.yaml").unlink()
    del checkpoint["hyper_parameters"]
    drafted = armhubert.recognise(file, checkpoint)
    assert drafted is not None
    assert str(drafted["options"]["config"]).startswith("TODO")


def test_cards_of_released_models() -> None:
    cards = [item for item in registry.cards().values() if item.family == "armhubert"]
    assert len([item for item in cards if "@" not in item.name]) == 10
    for item in cards:
        assert registry.resolve(item.adapter) is armhubert.adapter
        assert item.options.keys() <= {"config", "states"}
        assert Path(item.options["config"]).name == item.options["config"]
        assert ("star" in item.name or item.name.endswith("@layers")) == (item.options.get("states") == "layers")
