"""DPHuBERT: what pruning means, which weights count, its option, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from dphubert_cases import COMMON, HUBERT, LARGE, PLAIN, UNBIASED, WAVLM, linear, stored, write, write_plain
from student_cases import Case, card_file, random_state, utterances
from torch import Tensor

from harness.interface import SlimbenchError, Upstream
from harness.registry import load_upstream
from upstreams.adapters.checkpoints import read_checkpoint
from upstreams.students.dphubert import recognise
from upstreams.students.student import Student

Change = Callable[[dict[str, Any]], None]


def load(config: dict[str, Any], folder: Path, change: Change | None = None, **options: object) -> Upstream:
    """The upstream of a checkpoint with this configuration, after ``change`` of what is stored."""
    card = card_file(Case("dphubert", "case", partial(write, config), lambda _, __: [], "none"), folder)
    if options:
        card.write_text(card.read_text() + f"options: {options}\n")
    if change is not None:
        file = folder / "pruned_hubert_base.pth"
        content = torch.load(file, weights_only=True)
        change(content)
        torch.save(content, file)
    return load_upstream(str(card))


def states(upstream: Upstream) -> list[Tensor]:
    wave = utterances()[2]
    return list(upstream.encode(wave[None], torch.tensor([len(wave)])).states)


def largest(ours: list[Tensor], theirs: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


WHOLE_HUBERT = COMMON | {
    "normalize_waveform": False,
    "encoder_num_layers": 2,
    "encoder_use_attention": [True, True],
    "encoder_use_feed_forward": [True, True],
    "encoder_num_heads": [4, 4],
    "encoder_head_dim": 2,
    "encoder_ff_interm_features": [20, 20],
}
WHOLE_WAVLM = {key: value for key, value in WHOLE_HUBERT.items() if key != "encoder_num_heads"} | {
    "encoder_total_num_heads": [4, 4],
    "encoder_remaining_heads": [[0, 1, 2, 3], [0, 1, 2, 3]],
    "encoder_num_buckets": 24,
    "encoder_max_distance": 40,
}
HEADS, UNITS = [[1, 3], [0]], [[0, 4, 5, 11, 19], [7]]
"""What each layer keeps."""


def cut(content: dict[str, Any], erase: bool) -> None:
    """Silence the heads and units that are not kept, by zeros (``erase``) or by cutting them out."""
    state, config = content["state_dict"], content["config"]
    for index, (heads, units) in enumerate(zip(HEADS, UNITS, strict=True)):
        name = f"encoder.transformer.layers.{index}"
        rows = torch.tensor([2 * head + part for head in heads for part in range(2)])
        for columns, weight in (
            (rows, f"{name}.attention.out_proj"),
            (torch.tensor(units), f"{name}.feed_forward.output_dense"),
        ):
            whole = state[f"{weight}.weight"]
            state[f"{weight}.weight"] = whole[:, columns]
            if erase:
                state[f"{weight}.weight"] = torch.zeros_like(whole).index_copy(1, columns, whole[:, columns])
        if not erase:
            inner = [(f"{name}.attention.{part}_proj", rows) for part in "qkv"]
            for weight, kept in (*inner, (f"{name}.feed_forward.intermediate_dense", torch.tensor(units))):
                for part in ("weight", "bias"):
                    state[f"{weight}.{part}"] = state[f"{weight}.{part}"][kept]
    if not erase:
        config["encoder_ff_interm_features"] = [len(units) for units in UNITS]
        if "encoder_remaining_heads" in config:
            config["encoder_remaining_heads"] = HEADS
        else:
            config["encoder_num_heads"] = [len(heads) for heads in HEADS]


@pytest.mark.parametrize("config", [WHOLE_HUBERT, WHOLE_WAVLM], ids=["hubert", "wavlm"])
def test_a_pruned_model_is_the_whole_one_with_the_pruned_parts_silent(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    silent = states(load(config, tmp_path / "a", partial(cut, erase=True)))
    pruned = states(load(config, tmp_path / "b", partial(cut, erase=False)))
    assert largest(pruned, silent) <= 1e-5


@pytest.mark.parametrize(
    ("config", "idle"),
    [
        (HUBERT, ()),
        (WAVLM, ()),
        (LARGE, ("transformer.layer_norm", "0.layer_norm", "2.final_layer_norm", "3.layer_norm", "3.final_layer_norm")),
        (UNBIASED, ("1.attention.gru", "2.attention.gru")),
    ],
    ids=["hubert", "wavlm", "large", "unbiased"],
)
def test_all_weights_that_a_state_depends_on_are_counted(
    config: dict[str, Any], idle: tuple[str, ...], tmp_path: Path
) -> None:
    upstream = load(config, tmp_path)
    assert isinstance(upstream, Student)
    expected = sum(
        tensor.numel()
        for name, tensor in stored(config).items()
        if not name.removeprefix("encoder.").removeprefix("transformer.layers.").startswith(idle or ("none",))
    )
    assert sum(parameter.numel() for parameter in upstream.module().parameters()) == expected


def test_the_factors_of_the_last_convolution_count(tmp_path: Path) -> None:
    before = states(load(HUBERT, tmp_path))

    def double_one(content: dict[str, Any]) -> None:
        content["state_dict"]["feature_extractor.dummy_weight"][3] *= 2

    assert largest(states(load(HUBERT, tmp_path, double_one)), before) > 1e-2


def test_a_teacher_converted_to_the_format_has_no_factors(tmp_path: Path) -> None:
    def ones(content: dict[str, Any]) -> None:
        content["state_dict"]["feature_extractor.dummy_weight"].fill_(1)

    def without(content: dict[str, Any]) -> None:
        del content["distill_linear_projs"], content["state_dict"]["feature_extractor.dummy_weight"]

    assert largest(states(load(HUBERT, tmp_path, without)), states(load(HUBERT, tmp_path, ones))) == 0


def test_weights_of_an_output_layer_are_left_out(tmp_path: Path) -> None:
    def fine_tuned(content: dict[str, Any]) -> None:
        content["state_dict"] |= random_state(linear("aux", 8, 29))
        content["config"]["aux_num_out"] = 29

    assert largest(states(load(HUBERT, tmp_path, fine_tuned)), states(load(HUBERT, tmp_path))) == 0


def test_the_card_may_say_whether_waveforms_are_normalised(tmp_path: Path) -> None:
    said, plain, asked = load(LARGE, tmp_path), load(LARGE, tmp_path, normalise=False), load(HUBERT, tmp_path)
    assert largest(states(said), states(plain)) > 1e-3
    assert said.fingerprint != plain.fingerprint
    wave = utterances()[2]
    louder = asked.encode(3 * wave[None] + 0.1, torch.tensor([len(wave)])).states
    assert largest(list(louder), states(asked)) > 1e-3
    asked = load(HUBERT, tmp_path, normalise=True)
    louder = asked.encode(3 * wave[None] + 0.1, torch.tensor([len(wave)])).states
    assert largest(list(louder), states(asked)) < 1e-2


def config_with(**values: object) -> Change:
    return lambda content: content["config"].update(values)


def without_weight(name: str) -> Change:
    return lambda content: content["state_dict"].pop(name)


REFUSED: list[tuple[dict[str, Any], Change, str]] = [
    (HUBERT, without_weight("feature_extractor.dummy_weight"), r"1 missing \(such as front\.scale\)"),
    (
        HUBERT,
        without_weight("encoder.transformer.layers.1.layer_norm.bias"),
        r"encoder\.layers\.1\.attention_norm\.bias",
    ),
    (
        WAVLM,
        without_weight("encoder.transformer.layers.0.attention.rel_attn_embed.weight"),
        r"encoder\.relative\.weight",
    ),
    (HUBERT, lambda content: content["state_dict"].update(stored(WAVLM)), "do not fit"),
    (HUBERT, config_with(encoder_num_heads=[2, 0, 1, 0]), r"attention\.key\.bias is \(6,\) where the model has \(4,\)"),
    (HUBERT, config_with(encoder_num_heads=[3, 0, 1]), "encoder_num_heads is .* does not fit 4 layers"),
    (HUBERT, config_with(encoder_use_attention="yes"), "encoder_use_attention is 'yes'"),
    (HUBERT, config_with(encoder_ff_interm_features=None), r"lacks config\.encoder_ff_interm_features"),
    (HUBERT, config_with(extractor_mode="default"), "extractor_mode is 'default', where one of group_norm, layer_norm"),
    (HUBERT, config_with(extractor_conv_layer_config="__import__('os')"), "extractor_conv_layer_config"),
    (HUBERT, config_with(encoder_prune_attention_heads=True), "from the middle of pruning"),
    (WAVLM, config_with(encoder_remaining_heads=[[1, 4], [0], [0, 2, 3]]), "encoder_remaining_heads"),
    (WAVLM, config_with(encoder_remaining_heads=[[1, 1], [0], [0, 2, 3]]), "encoder_remaining_heads"),
    (WAVLM, config_with(encoder_total_num_heads=[4, 4, 2]), "one divisor of the width 8 for all layers"),
    (WAVLM, config_with(encoder_max_distance=6), "encoder_max_distance is 6"),
    (WAVLM, lambda content: content["config"].pop("encoder_remaining_heads"), r"lacks config\.encoder_num_heads"),
    (HUBERT, lambda content: content.pop("config"), "lacks config"),
    (HUBERT, lambda content: content.pop("state_dict"), "lacks state_dict"),
    (HUBERT, lambda content: content["config"].pop("normalize_waveform"), r"set option normalise in .*case\.yaml"),
]


@pytest.mark.parametrize(("config", "change", "said"), REFUSED)
def test_what_is_refused(config: dict[str, Any], change: Change, said: str, tmp_path: Path) -> None:
    with pytest.raises(SlimbenchError, match=said):
        load(config, tmp_path, change)


def test_the_option_is_true_or_false(tmp_path: Path) -> None:
    with pytest.raises(SlimbenchError, match="option normalise is 'yes'; write true or false"):
        load(HUBERT, tmp_path, normalise="yes")


@pytest.mark.parametrize(
    ("config", "depth", "options"),
    [(HUBERT, 4, {}), (WAVLM, 3, {}), (PLAIN, 2, {"normalise"})],
    ids=["hubert", "wavlm", "plain"],
)
def test_a_card_can_be_drafted(config: dict[str, Any], depth: int, options: set[str], tmp_path: Path) -> None:
    fields = write_plain(tmp_path) if config is PLAIN else write(config, tmp_path)
    file = tmp_path / str(fields["weights"])
    drafted = recognise(file, read_checkpoint(file))
    assert drafted is not None
    assert (drafted["adapter"], drafted["depth"], drafted["width"]) == (fields["adapter"], depth, 8)
    assert (
        drafted["exposes"]
        == "projected features before the positional convolution and the output of every layer, 40 ms"
    )
    assert dict.fromkeys(options) == dict.fromkeys(drafted["options"])  # type: ignore[call-overload]
    assert recognise(file, {"Distiller": {}, "Config": {}}) is None
