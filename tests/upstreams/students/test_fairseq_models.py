"""wav2vec 2.0, HuBERT, WavLM, UniSpeech-SAT, ILS-SSL: none is taken for another, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fairseq_cases
import pytest
import torch
import yaml
from student_cases import Case

from harness.interface import SlimbenchError
from harness.registry import load_upstream
from upstreams.adapters.checkpoints import read_checkpoint
from upstreams.students.fairseq_models import KINDS, recognise

CASES = {f"{case.family}, {case.name}": case for case in fairseq_cases.CASES}


def card(folder: Path, family: str, weights: object, **fields: object) -> Path:
    """A card of a family for a checkpoint."""
    fixed = {"name": "case", "title": "case", "licence": "none", "source": "a test", "exposes": "its states"}
    adapter = f"upstreams.students.fairseq_models:{KINDS[family].attribute}"
    file = folder / "case.yaml"
    file.write_text(yaml.safe_dump({**fixed, "adapter": adapter, "family": family, "weights": weights, **fields}))
    return file


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: f"{case.family}-{case.name}".replace(" ", "_"))
def test_a_checkpoint_is_that_of_its_family_alone(tmp_path: Path, case: Case) -> None:
    weights = case.write(tmp_path)["weights"]
    for family in KINDS.keys() - {case.family}:
        with pytest.raises(SlimbenchError, match=f"is not of family {family} but .*|unexpected"):
            load_upstream(str(card(tmp_path, family, weights)))
    assert load_upstream(str(card(tmp_path, case.family, weights, depth=2))).num_states == 3


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: f"{case.family}-{case.name}".replace(" ", "_"))
def test_a_checkpoint_is_recognised(tmp_path: Path, case: Case) -> None:
    file = tmp_path / str(case.write(tmp_path)["weights"])
    found = recognise(file, read_checkpoint(file))
    assert found is not None
    assert (found["family"], found["depth"]) == (case.family, 2)
    assert found["adapter"] == case.write(tmp_path)["adapter"]


def test_other_checkpoints_are_not_recognised(tmp_path: Path) -> None:
    assert recognise(tmp_path, {"Distiller": {}, "Config": {}}) is None
    assert recognise(tmp_path, {"model": {}, "state": 1}) is None
    assert recognise(tmp_path, {"cfg": {"model": {"_name": "hubert_pruner"}}, "model": {}}) is None
    assert recognise(tmp_path, {"cfg": {"model": {"_name": "wav2vec2", "subsample": "cif"}}, "model": {}}) is None


def changed(folder: Path, name: str, **changes: Any) -> Path:
    """A card of a case whose settings of the model are changed."""
    case = CASES[name]
    file = folder / str(case.write(folder)["weights"])
    content = read_checkpoint(file)
    config = content["cfg"] if "cfg" in content else content["model_cfg"]
    config.get("model", config).update(changes)
    torch.save(content, file)
    return card(folder, case.family, file.name)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("hubert, converted by s3prl", {"layer_type": "conformer"}, "layer_type is 'conformer'"),
        ("hubert, converted by s3prl", {"pos_conv_depth": 5}, "pos_conv_depth is 5; 1 is supported"),
        ("hubert, converted by s3prl", {"layer_norm_first": "no"}, "layer_norm_first is 'no', where true or false"),
        ("wav2vec2, converted by s3prl", {"quantize_input": True}, "quantised input is not supported"),
        ("wav2vec2, converted by s3prl", {"crop_seq_to_multiple": 2}, "crop_seq_to_multiple is 2; only 1"),
        ("wav2vec2, large, from fairseq", {"conv_bias": False}, r"7 unexpected \(such as front.layers.0.conv.bias"),
        ("wavlm, base", {"num_buckets": 10}, "num_buckets 10 and max_distance 30 do not fit together"),
        ("wavlm, base", {"num_buckets": 32}, r"encoder.relative.weight is \(16, 4\) where the model has \(32, 4\)"),
        ("ils, base", {"relative_position_embedding": False}, "1 unexpected .such as encoder.relative.weight"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    tmp_path: Path, name: str, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(SlimbenchError, match=message):
        load_upstream(str(changed(tmp_path, name, **changes)))


def test_a_missing_weight_is_an_error(tmp_path: Path) -> None:
    case = CASES["ils, base"]
    file = tmp_path / str(case.write(tmp_path)["weights"])
    content = read_checkpoint(file)
    del content["model"]["encoder.layer_norm.bias"]
    torch.save(content, file)
    with pytest.raises(SlimbenchError, match=r"1 missing \(such as encoder.norm.bias"):
        load_upstream(str(card(tmp_path, "ils", file.name)))


def test_a_checkpoint_without_settings_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {}}, tmp_path / "model.pt")
    with pytest.raises(SlimbenchError, match="has no settings of a model"):
        load_upstream(str(card(tmp_path, "hubert", "model.pt")))


def test_an_option_is_refused(tmp_path: Path) -> None:
    weights = CASES["wavlm, base"].write(tmp_path)["weights"]
    with pytest.raises(SlimbenchError, match="unknown option 'layer'"):
        load_upstream(str(card(tmp_path, "wavlm", weights, options={"layer": 1})))
