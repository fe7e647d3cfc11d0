"""The adapter of the embedded models against the model itself."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import MINI, mini_card, noise, save_mini

from harness.cost import bytes_on_disk, count_macs, count_parameters
from harness.interface import SlimbenchError
from upstreams.adapters.mini import Mini


def random_card(folder, **options):
    return mini_card(folder, weights=None, options={"random": True, "config": "tiny_mini/config.json", **options})


def test_states_are_those_of_the_model_in_single_precision(tmp_path):
    model = save_mini(tmp_path / "tiny_mini")
    upstream = Mini(mini_card(tmp_path, depth=2, width=32))
    waves, lengths = noise(16_000, 9_000)
    got = upstream.encode(waves, lengths)
    with torch.no_grad():
        states, frames = model(waves, lengths)
    assert upstream.num_states == len(got.states) == 3
    assert got.lengths.tolist() == frames.tolist() == [49, 27]
    for mine, theirs in zip(got.states, states, strict=True):
        assert mine.dtype == torch.float32
        assert torch.equal(mine, theirs)


def test_the_fingerprint_is_of_content(tmp_path):
    save_mini(tmp_path / "tiny_mini")
    first = Mini(mini_card(tmp_path)).fingerprint
    save_mini(tmp_path / "again")
    assert Mini(mini_card(tmp_path, "again")).fingerprint == first
    save_mini(tmp_path / "tiny_mini", seed=4)
    assert Mini(mini_card(tmp_path)).fingerprint != first
    save_mini(tmp_path / "tiny_mini", replace(MINI, max_distance=100))
    assert Mini(mini_card(tmp_path)).fingerprint != first


def test_random_weights_come_from_the_seed_alone(tmp_path):
    save_mini(tmp_path / "tiny_mini")
    before = torch.get_rng_state()
    one = Mini(random_card(tmp_path))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    same, other = Mini(random_card(tmp_path, seed=0)), Mini(random_card(tmp_path, seed=1))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    waves = noise(8_000)
    assert torch.equal(one.encode(*waves).states[-1], same.encode(*waves).states[-1])
    assert not torch.allclose(one.encode(*waves).states[-1], other.encode(*waves).states[-1], atol=1e-2)
    assert one.fingerprint != Mini(mini_card(tmp_path)).fingerprint


def test_a_card_needs_weights_or_random(tmp_path):
    with pytest.raises(SlimbenchError, match=r"tiny_mini\.yaml: field 'weights' is missing"):
        Mini(mini_card(tmp_path, weights=None))
    with pytest.raises(SlimbenchError, match=r"tiny_mini needs .*config\.json, which cannot be read"):
        Mini(random_card(tmp_path))
    with pytest.raises(SlimbenchError, match=r"unknown option 'sed', did you mean 'seed'"):
        Mini(mini_card(tmp_path, options={"sed": 1}))
    with pytest.raises(SlimbenchError, match=r"tiny_mini\.yaml: random: true needs option 'config'"):
        Mini(mini_card(tmp_path, weights=None, options={"random": True}))


def test_a_wrong_configuration(tmp_path):
    save_mini(tmp_path / "tiny_mini")
    config = tmp_path / "tiny_mini" / "config.json"
    with pytest.raises(SlimbenchError, match=r"tiny_mini\.yaml says depth 12, but .*config\.json has 2"):
        Mini(mini_card(tmp_path, depth=12))
    for text in ("{", "[]", json.dumps({**MINI.to_dict(), "depth": 3}), json.dumps({**MINI.to_dict(), "width": 33})):
        config.write_text(text)
        with pytest.raises(SlimbenchError, match=r"config\.json does not describe a mini model: "):
            Mini(mini_card(tmp_path))


def change(folder, edit):
    """Rewrite stored weights."""
    file = folder / "tiny_mini" / "model.safetensors"
    state = load_file(file)
    edit(state)
    save_file(state, file)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop("project.bias"), r"do not fit .*: 1 missing \(such as project\.bias\);"),
        (lambda s: s.update(head=torch.ones(1)), r"do not fit .*: 1 unexpected \(such as head\);"),
        (
            lambda s: s.update({"project.bias": torch.ones(3)}),
            r"do not fit .*: project\.bias is \(3,\) where the model has \(32,\);",
        ),
    ],
)
def test_weights_that_do_not_fit(tmp_path, edit, message):
    save_mini(tmp_path / "tiny_mini")
    change(tmp_path, edit)
    with pytest.raises(SlimbenchError, match=message):
        Mini(mini_card(tmp_path))


def test_a_truncated_file(tmp_path):
    save_mini(tmp_path / "tiny_mini")
    file = tmp_path / "tiny_mini" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(SlimbenchError, match=r"model\.safetensors cannot be read as a file of weights \(.+\); copy it"):
        Mini(mini_card(tmp_path))


def test_macs_and_parameters_by_hand(tmp_path):
    save_mini(tmp_path / "tiny_mini")
    upstream = Mini(mini_card(tmp_path))
    d, f, h, mels = MINI.width, MINI.ffn, MINI.head_width, MINI.mels
    short = (32_000 - 400) // 160 + 1  # 10 ms frames
    t = short // 2
    front = short * (2.5 * 512 * 9 / 2 + 257 * mels) + t * d * (2 * mels + MINI.conv_kernel)
    layer = t * (4 * d * d + 2 * d * f + 2 * d) + 2 * t * t * d
    assert count_macs(upstream, 2.0) == (front + MINI.layers * layer) / 2.0
    layer_parameters = 4 * d * d + 4 * d + 2 * d * f + f + d + 4 * d + 2 * h + 2 + d // h
    front_parameters = 2 * mels * d + d + d * MINI.conv_kernel + d + MINI.buckets * (d // h)
    assert count_parameters(upstream.module()) == front_parameters + MINI.layers * layer_parameters
    stored = 2 * (count_parameters(upstream.module()) + d + 2 * mels)  # with the mask embedding of pre-training
    assert stored < bytes_on_disk(mini_card(tmp_path)) < stored + 10_000
