"""The adapter of the embedded models against the model itself."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import MINI, mini_card, noise, save_mini

from harness.cost import bytes_on_disk, count_macs, count_parameters
from harness.identity import digest_json, digest_weights
from harness.interface import SlimbenchError
from harness.registry import load_upstream
from upstreams.adapters.mini import Mini
from upstreams.students import cif
from upstreams.students.mini import whole_heads

COMPRESSED = {
    "pruned": replace(MINI, kept=((0, 1, 5, 16, 20, 21), ()), ffns=(20, 0)),
    "reuse": replace(MINI, own_maps=(True, False)),
    "reduced": replace(MINI, reduce=2),
    "compressed": replace(MINI, compress=True),
    "wav2vec2": replace(MINI, front="wav2vec2"),
}


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


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [
        ("wavlm_mini", "3c3504c1b4e2305e349035e5953a45e6ad585f1678a4f326b468bdafe4bcb252"),
        ("distilled_wavlm", "9c1e5f3c12fa3c819da6d88f65e3608047e9cec7aebf869fc8b136a76fc56397"),
        ("random_mini", "5d0c4e78dec699333574a9c46b52d7b890c625ada44702266f192d94749bcc35"),
    ],
)
def test_embedded_models_keep_the_key_of_their_records(name, fingerprint):
    assert load_upstream(name).fingerprint == fingerprint


def test_the_key_of_a_plain_model_by_hand(tmp_path):
    save_mini(tmp_path / "tiny_mini")
    stored = json.loads((tmp_path / "tiny_mini" / "config.json").read_text())
    key = {"adapter": "mini", "version": 1, "config": stored, "random": False, "seed": 0}
    expected = digest_json({**key, "weights": digest_weights(tmp_path / "tiny_mini" / "model.safetensors")})
    assert Mini(mini_card(tmp_path)).fingerprint == expected
    assert stored.keys() == {"layers", "width", "ffn", "head_width", "mels", "conv_kernel", "buckets", "max_distance"}


@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_models_are_stored_and_read(tmp_path, kind):
    model = save_mini(tmp_path / "tiny_mini", COMPRESSED[kind])
    options = {"lam": 0.6} if kind == "compressed" else {}
    upstream = Mini(mini_card(tmp_path, depth=2, width=32, options=options))
    model.lam = options.get("lam", 0.0)
    waves, lengths = noise(16_000, 9_000)
    got = upstream.encode(waves, lengths)
    with torch.no_grad():
        states, frames = model(waves, lengths)
    assert got.lengths.tolist() == frames.tolist()
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(got.states, states, strict=True))
    assert upstream.variable_rate == (kind == "compressed")
    assert upstream.frame_ms == {"reduced": 40.0, "compressed": cif.period_of(0.6)}.get(kind, 20.0)
    assert count_macs(upstream, 1.0) > 0
    shortest = upstream.encode(*noise(upstream.min_samples))
    assert int(shortest.lengths) >= 1
    assert torch.isfinite(shortest.states[-1]).all()


def test_repeated_states_lie_on_the_grid_of_20_ms(tmp_path):
    waves, lengths = noise(16_000, 9_000)
    for kind, options in (("reduced", {}), ("compressed", {"period_ms": 60})):
        save_mini(tmp_path / kind, COMPRESSED[kind])
        plain = Mini(mini_card(tmp_path, kind, options=options))
        repeated = Mini(mini_card(tmp_path, kind, options={**options, "repeat": True}))
        assert (repeated.frame_ms, repeated.variable_rate) == (20.0, False)
        assert repeated.fingerprint != plain.fingerprint
        few, many = plain.encode(waves, lengths), repeated.encode(waves, lengths)
        assert many.lengths.tolist() == [49, 27]
        assert all(few.lengths < many.lengths)
        for row, frames in enumerate(many.lengths.tolist()):
            steps = (many.states[1][row, 1:frames] != many.states[1][row, : frames - 1]).any(-1)
            assert 1 + int(steps.sum()) == int(few.lengths[row])
            assert torch.equal(many.states[1][row, 0], few.states[1][row, 0])


def test_the_compression_is_part_of_the_key(tmp_path):
    save_mini(tmp_path / "tiny_mini", COMPRESSED["compressed"])
    keys = {Mini(mini_card(tmp_path, options={"lam": lam})).fingerprint for lam in (0, 0.5, 1.0)}
    assert len(keys) == 3
    period = Mini(mini_card(tmp_path, options={"period_ms": 90}))
    assert period.fingerprint in keys
    assert period.frame_ms == pytest.approx(90.0)
    config = {"random": True, "config": "tiny_mini/config.json", "lam": 0.5}
    assert Mini(mini_card(tmp_path, weights=None, options=config)).variable_rate


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (COMPRESSED["compressed"], {}, r"set one of the options lam \(0 to 2\) and period_ms \(20 to 90\), not \[\]"),
        (COMPRESSED["compressed"], {"lam": 3}, "option lam is 3; write a number from 0 to 2"),
        (MINI, {"lam": 0.5}, "option lam is for a model that compresses; remove it"),
        (COMPRESSED["reduced"], {"period_ms": 40}, "option period_ms is for a model that compresses; remove it"),
        (MINI, {"repeat": True}, "option repeat is for a model that joins frames; remove it"),
    ],
)
def test_options_that_do_not_suit_the_model(tmp_path, config, options, message):
    save_mini(tmp_path / "tiny_mini", config)
    with pytest.raises(SlimbenchError, match=message):
        Mini(mini_card(tmp_path, options=options))


def test_macs_and_parameters_of_a_pruned_model_by_hand(tmp_path):
    config = replace(MINI, kept=whole_heads([1, 0], 16), ffns=(20, 0))
    save_mini(tmp_path / "tiny_mini", config)
    upstream = Mini(mini_card(tmp_path))
    d, h, f, t = 32, 16, 20, 99
    short = (32_000 - 400) // 160 + 1
    front = short * (2.5 * 512 * 9 / 2 + 257 * config.mels) + t * d * (2 * config.mels + config.conv_kernel)
    layer = t * (4 * d * h + 2 * d * f + 2 * h) + 2 * t * t * h
    assert count_macs(upstream, 2.0) == (front + layer) / 2.0
    first = (3 * h * (d + 1)) + (d * h + d) + (2 * h + 2 + 1) + 4 * d + (f * (d + 1)) + (d * f + d)
    outside = 2 * config.mels * d + d + d * config.conv_kernel + d + config.buckets * 2
    assert count_parameters(upstream.module()) == outside + first + 2 * d
