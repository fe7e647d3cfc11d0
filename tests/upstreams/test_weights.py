"""Files of weights: what is read, and what is refused."""

import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import hf_card, hf_model, save_hf

from harness.identity import digest_weights
from harness.interface import SlimbenchError
from harness.registry import load_upstream, pin
from upstreams.adapters.weights import read_tensors

FLOATS = struct.pack("<4f", 1, 2, 3, 4)


def part(start=0, end=16, shape=(4,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def write(folder, header, data=FLOATS, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return file


def test_safetensors_are_read(tmp_path):
    assert read_tensors(write(tmp_path, {"a": part()}))["a"].tolist() == [1, 2, 3, 4]
    save_file({"a": torch.ones(2, 3).half(), "b": torch.empty(0, 3)}, tmp_path / "b.safetensors")
    read, theirs = read_tensors(tmp_path / "b.safetensors"), load_file(tmp_path / "b.safetensors")
    assert read.keys() == theirs.keys()
    assert all(read[name].equal(theirs[name]) for name in read)


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        ({"a": part()}, FLOATS, 1 << 40),
        ({"a": part()}, FLOATS, (1 << 64) - 1),
        ({"a": part()}, FLOATS, 7),
        ({"a": part()}, FLOATS[:-1], None),
        ({"a": part()}, FLOATS + b"x", None),
        ({"a": part(), "b": part(8, 16, (2,))}, FLOATS, None),
        ({"a": part(0, 16, (5,))}, FLOATS, None),
        ({"a": part(0, 1 << 60, (1 << 58,))}, FLOATS, None),
        ({"a": part(16, 0)}, FLOATS, None),
        ({"a": part(shape=(1 << 62, 4))}, FLOATS, None),
        ({"a": part(0, 0, (0, 1 << 62))}, b"", None),
        ({"a": part(shape=(1,) * 2000 + (4,))}, FLOATS, None),
        ({"a": part(dtype="OBJECT")}, FLOATS, None),
        ({"a": part(), "__metadata__": {"x": [1]}}, FLOATS, None),
        (b'{"a":%s,"a":%s}' % ((json.dumps(part()).encode(),) * 2), FLOATS, None),
        (b'{"a":{"dtype":"F32","shape":[4],"shape":[4],"data_offsets":[0,16]}}', FLOATS, None),
        (b"[" * 100_000, FLOATS, None),
        (b'{"a":' * 100_000, FLOATS, None),
        (b"\xff\xfe", FLOATS, None),
        (b"", b"", None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_headers_are_refused(header, data, length, tmp_path):
    file = write(tmp_path, header, data, length)
    with pytest.raises(
        SlimbenchError, match=r"model\.safetensors cannot be read as a file of weights \(.+\); (copy|take) it"
    ):
        read_tensors(file)


def tiny(folder):
    save_hf(hf_model("hubert"), folder / "hubert")
    return hf_card(folder, "hubert", family="hubert", depth=3, width=16).file


def test_a_changed_byte_is_refused_before_anything_is_loaded(tmp_path):
    card = tiny(tmp_path)
    pinned = pin(card)
    load_upstream(str(card))
    weights = tmp_path / "hubert" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1  # a number: the file stays valid
    weights.write_bytes(data)
    read_tensors(weights)
    with pytest.raises(SlimbenchError, match=rf"has SHA-256 {digest_weights(weights)}, but its card .* says {pinned}"):
        load_upstream(str(card))


def test_an_index_of_shards_leads_nowhere(tmp_path):
    """Shards are found by their names in the folder; what the index says is not followed."""
    card = tiny(tmp_path)
    before = load_upstream(str(card)).fingerprint
    save_file({"encoder.layer_norm.weight": torch.zeros(16)}, tmp_path / "evil.safetensors")
    for target in ("../evil.safetensors", str(tmp_path / "evil.safetensors")):
        index = {"metadata": {}, "weight_map": {"encoder.layer_norm.weight": target}}
        (tmp_path / "hubert" / "model.safetensors.index.json").write_text(json.dumps(index))
        upstream = load_upstream(str(card))
        assert upstream.fingerprint == before
        assert upstream.module().encoder.layer_norm.weight.count_nonzero() == 16
