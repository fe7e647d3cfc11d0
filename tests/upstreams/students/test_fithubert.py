"""FitHuBERT: sizes, odd numbers of frames, where the configuration comes from, what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fithubert_cases import SIZES, SMALL, full, shapes_of, write
from student_cases import utterances
from torch import Tensor, nn

from harness import registry
from harness.interface import SlimbenchError, Upstream
from upstreams.adapters.checkpoints import read_checkpoint
from upstreams.students import armhubert, fithubert

CARD = {"name": "case", "title": "case", "licence": "none", "source": "a test", "exposes": "states"}


def card(folder: Path, fields: Mapping[str, object], **options: Any) -> Path:
    """A card in the folder, with some options of its own; ``None`` leaves one out."""
    merged = {**fields.get("options", {}), **options}
    chosen = {key: value for key, value in merged.items() if value is not None}
    file = folder / "case.yaml"
    file.write_text(yaml.safe_dump({**CARD, **fields, "options": chosen}))
    return file


def load(folder: Path, changes: dict[str, Any] | None = None, states: str = "heads", **options: Any) -> Upstream:
    """The upstream of a small student."""
    return registry.load_upstream(str(card(folder, write(changes or {}, states, folder), **options)))


def states_of(upstream: Upstream, wave: Tensor) -> list[Tensor]:
    """States of one utterance."""
    return [state[0] for state in upstream.encode(wave[None], torch.tensor([len(wave)])).states]


def count(model: nn.Module) -> int:
    """Parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def test_printed_sizes_are_those_of_the_public_modules() -> None:
    with torch.device("meta"):
        sizes = [count(size.model()) for size in SIZES]
    assert sizes == [22_492_064, 31_629_632]  # the public class at its published settings, with one head and with all


@pytest.mark.parametrize(
    ("states", "parameters"), [("last", 22_492_064 - 461_280), ("heads", 31_629_632 - 461_280), ("layers", 21_200_096)]
)
def test_what_is_exposed_counts_and_nothing_else(states: str, parameters: int) -> None:
    with torch.device("meta"):
        assert count(full(states)) == parameters


@pytest.mark.parametrize(
    ("states", "number", "width", "ms"), [("heads", 3, 6, 20), ("last", 1, 6, 20), ("layers", 3, 12, 40)]
)
def test_exposures(states: str, number: int, width: int, ms: float, tmp_path: Path) -> None:
    upstream = load(tmp_path, states=states)
    assert (upstream.num_states, upstream.width, upstream.frame_ms, upstream.min_samples) == (number, width, ms, 720)
    assert not upstream.variable_rate
    for samples, pairs in ((720, 1), (1039, 1), (1040, 1), (1360, 2)):  # 2, 2, 3 and 4 frames of 20 ms
        found = upstream.encode(torch.randn(1, samples), torch.tensor([samples]))
        assert found.states[0].shape[1] == found.lengths.item() == (pairs if ms == 40 else 2 * pairs)
    with pytest.raises(ValueError, match="too few"):
        upstream.encode(torch.randn(1, 719), torch.tensor([719]))


def test_a_frame_without_a_partner_changes_no_other_frame(tmp_path: Path) -> None:
    config = {"extractor_mode": "layer_norm", "conv_pos": 1}  # nothing else looks beyond a pair of frames
    upstream = load(tmp_path, config)
    wave = utterances()[2][:1360]
    even, odd = states_of(upstream, wave), states_of(upstream, torch.cat([wave, torch.randn(320)]))
    for first, second in zip(even, odd, strict=True):
        torch.testing.assert_close(first, second)


def test_last_is_the_last_of_the_heads(tmp_path: Path) -> None:
    wave = utterances()[2]
    torch.testing.assert_close(states_of(load(tmp_path, states="last"), wave)[0], states_of(load(tmp_path), wave)[-1])


def test_the_last_head_of_a_student_with_a_final_norm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SlimbenchError, match="layer_norm_first is not supported; write heads"):
        load(tmp_path, {"layer_norm_first": True}, states="last")


def test_the_configuration_may_come_from_the_checkpoint(tmp_path: Path) -> None:
    beside, inside = load(tmp_path), load(tmp_path, config=None)
    assert beside.fingerprint == inside.fingerprint != load(tmp_path, states="last").fingerprint


def test_settings_that_the_weights_do_not_show_are_in_the_fingerprint(tmp_path: Path) -> None:
    assert load(tmp_path).fingerprint != load(tmp_path, {"encoder_attention_heads": 2}).fingerprint


@pytest.mark.parametrize("name", ["../student.yaml", "/etc/hostname", "link.yaml", "a\0b", ".."])
def test_a_configuration_outside_the_folder_of_the_weights_is_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    fields = write({}, "heads", folder)
    (tmp_path / "student.yaml").write_bytes((folder / "student.yaml").read_bytes())
    (folder / "link.yaml").symlink_to(tmp_path / "student.yaml")
    with pytest.raises(SlimbenchError, match=r"in the folder of the weights|cannot be read"):
        registry.load_upstream(str(card(folder, fields, config=name)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"distiller: !!python/object/apply:os.system ['true']", "not plain YAML"),
        (b"distiller: [", "not plain YAML"),
        (b"\xff\xfe\xff", "not plain YAML|cannot be read"),
        (b"# " + b"x" * (1 << 20), "larger than"),
        (b"train: {}", "lacks distiller"),
        (b"3", "no mapping"),
        (b"distiller: 3", "no mapping"),
    ],
)
def test_a_configuration_that_is_none_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    fields = write({}, "heads", tmp_path)
    (tmp_path / "student.yaml").write_bytes(content)
    with pytest.raises(SlimbenchError, match=message):
        registry.load_upstream(str(card(tmp_path, fields)))


def test_nested_aliases_in_a_configuration_are_refused(tmp_path: Path) -> None:
    fields = write({}, "heads", tmp_path)
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    config = yaml.safe_dump({"distiller": SMALL})
    (tmp_path / "student.yaml").write_text("\n".join(rows) + "\n" + config + "  extra: *a29\n")
    with pytest.raises(SlimbenchError, match=r"student\.yaml is not plain YAML \(line 2\): a value is referred to"):
        registry.load_upstream(str(card(tmp_path, fields)))


def test_no_configuration_at_all_is_refused(tmp_path: Path) -> None:
    fields = write({}, "heads", tmp_path)
    checkpoint = torch.load(tmp_path / "student.ckpt")
    torch.save({"state_dict": checkpoint["state_dict"]}, tmp_path / "student.ckpt")
    with pytest.raises(SlimbenchError, match="set option config"):
        registry.load_upstream(str(card(tmp_path, fields, config=None)))
    with pytest.raises(SlimbenchError, match=r"none\.yaml .* put it beside the weights"):
        registry.load_upstream(str(card(tmp_path, fields, config="none.yaml")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_mels": 80}, "n_mels"),
        ({"pos_conv_depth": 5}, "pos_conv_depth"),
        ({"crop_seq_to_multiple": 2}, "crop_seq_to_multiple"),
        ({"required_seq_len_multiple": 4}, "required_seq_len_multiple"),
        ({"required_seq_len_multiple": 2, "tr_reduce_factor": 3}, "required_seq_len_multiple"),
        ({"layer_type": "conformer"}, "layer_type"),
        ({"activation_fn": "relu"}, "activation_fn"),
        ({"extractor_mode": "group"}, "extractor_mode"),
        ({"tr_layer_type": "fc1"}, "tr_layer_type"),
        ({"tr_layer_index": 1}, "tr_layer_index"),
        ({"enable_tr_layer": False}, "no FitHuBERT"),
        ({"layerwise_proj": False}, "no heads"),
        ({"encoder_attention_heads": 5}, "do not divide"),
        ({"conv_pos_groups": 5}, "do not divide"),
        ({"encoder_layers": 10**9}, "encoder_layers is larger than 1000"),
        ({"encoder_embed_dim": 10**30}, "encoder_embed_dim is larger than 100000"),
        ({"tr_reduce_factor": 10**9, "required_seq_len_multiple": 1}, "tr_reduce_factor"),
        ({"encoder_embed_dim": "12"}, "encoder_embed_dim"),
        ({"conv_feature_layers": "__import__('os').getcwd()"}, "conv_feature_layers"),
        ({"encoder_layers": 2}, r"unexpected \(such as encoder\.layers\.2"),
        ({"encoder_ffn_embed_dim": 24}, r"where the model has"),
    ],
)
def test_settings_that_are_not_supported_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    fields = write({}, "heads", tmp_path)
    (tmp_path / "student.yaml").write_text(yaml.safe_dump({"distiller": {**SMALL, **changes}}))
    with pytest.raises(SlimbenchError, match=message):
        registry.load_upstream(str(card(tmp_path, fields)))


@pytest.mark.parametrize("name", sorted(shapes_of(SMALL)))
def test_every_weight_is_needed(name: str, tmp_path: Path) -> None:
    fields = write({}, "heads", tmp_path)
    checkpoint = torch.load(tmp_path / "student.ckpt")
    del checkpoint["state_dict"][f"student_model.{name}"]
    torch.save(checkpoint, tmp_path / "student.ckpt")
    if name.startswith("upsampler."):  # the one that nothing calls
        registry.load_upstream(str(card(tmp_path, fields)))
    else:
        with pytest.raises(SlimbenchError, match="missing"):
            registry.load_upstream(str(card(tmp_path, fields)))


def test_unknown_weights_and_options_are_refused(tmp_path: Path) -> None:
    fields = write({}, "heads", tmp_path)
    checkpoint = torch.load(tmp_path / "student.ckpt")
    with pytest.raises(SlimbenchError, match="write heads, last or layers"):
        registry.load_upstream(str(card(tmp_path, fields, states="all")))
    for name in ("student_model.encoder.layers.9.fc1.weight", "student_model.proj_head.3.lin_proj.weight"):
        torch.save(
            {**checkpoint, "state_dict": {**checkpoint["state_dict"], name: torch.zeros(20, 12)}},
            tmp_path / "student.ckpt",
        )
        for states in ("heads", "last", "layers"):
            with pytest.raises(SlimbenchError, match="unexpected"):
                registry.load_upstream(str(card(tmp_path, fields, states=states)))


def test_a_checkpoint_of_another_family_is_refused(tmp_path: Path) -> None:
    fields = write({}, "heads", tmp_path)
    for other in ({"Distiller": {"post_extract_proj.bias": torch.ones(2)}, "Config": {}}, {"state_dict": {"a": 1}}):
        torch.save(other, tmp_path / "student.ckpt")
        with pytest.raises(SlimbenchError, match="no Lightning checkpoint"):
            registry.load_upstream(str(card(tmp_path, fields)))
    fields = write({}, "heads", tmp_path)
    with pytest.raises(SlimbenchError, match="with time reduction"):
        registry.load_upstream(str(card(tmp_path, {**fields, "adapter": "upstreams.students.armhubert:adapter"})))
    with pytest.raises(SlimbenchError, match="says family armhubert"):
        registry.load_upstream(str(card(tmp_path, {**fields, "family": "armhubert"})))


@pytest.mark.parametrize("beside", [True, False])
def test_a_recognised_checkpoint_drafts_a_card_that_loads(beside: bool, tmp_path: Path) -> None:
    write({}, "heads", tmp_path)
    file = tmp_path / "student.ckpt"
    if not beside:
        (tmp_path / "student.yaml").unlink()
    checkpoint = read_checkpoint(file)
    assert armhubert.recognise(file, checkpoint) is None
    fields = fithubert.recognise(file, checkpoint)
    assert fields is not None
    upstream = registry.load_upstream(str(card(tmp_path, {**fields, "weights": "student.ckpt"})))
    assert (upstream.num_states, upstream.width, fields["depth"]) == (3, 6, 3)


@pytest.mark.parametrize("name", ["fithubert_100h", "fithubert_960h", "fitw2v2_960h"])
def test_cards_of_released_models(name: str) -> None:
    base, heads, layers = (registry.card(f"{name}{variant}") for variant in ("", "@heads", "@layers"))
    assert [item.options["states"] for item in (base, heads, layers)] == ["last", "heads", "layers"]
    assert [item.width for item in (base, heads, layers)] == [768, 768, 480]
    assert {item.options["config"] for item in (base, heads, layers)} == {f"{name}.yaml"}
    assert registry.resolve(base.adapter).name == base.family == "fithubert"
