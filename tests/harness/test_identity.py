"""Content keys against known SHA-256 values and against what must and must not change them."""

import hashlib
import json

import pytest
import torch

from harness import identity
from harness.interface import SlimbenchError

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1


def test_bytes_and_files_have_the_published_digest(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert identity.digest_bytes(b"abc") == ABC
    assert identity.digest_file(tmp_path / "abc") == ABC


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(SlimbenchError, match=r"Cannot read .*gone: No such file"):
        identity.digest_file(tmp_path / "gone")


def test_json_is_canonical():
    text = '{"a":[1,2.5,null],"b":"é"}'
    assert identity.digest_json({"b": "é", "a": (1, 2.5, None)}) == hashlib.sha256(text.encode()).hexdigest()
    assert identity.digest_json({"a": 1}) != identity.digest_json({"a": "1"})
    with pytest.raises(ValueError, match="JSON"):
        identity.digest_json(float("nan"))
    with pytest.raises(TypeError):
        identity.digest_json({"a": object()})


@pytest.mark.parametrize(
    "changed",
    [
        {"a": torch.tensor([1.0, 2.5])},
        {"a": torch.tensor([1.0, 2.0], dtype=torch.float64)},
        {"a": torch.tensor([[1.0, 2.0]])},
        {"b": torch.tensor([1.0, 2.0])},
        {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([])},
    ],
)
def test_tensors_differ_in_values_type_shape_or_name(changed):
    base = {"a": torch.tensor([1.0, 2.0])}
    assert identity.digest_tensors(base) == identity.digest_tensors({"a": torch.tensor([1.0, 9.0, 2.0])[::2]})
    assert identity.digest_tensors(base) != identity.digest_tensors(changed)


def test_tensor_order_does_not_matter():
    one, two = torch.ones(2), torch.zeros(3)
    assert identity.digest_tensors({"a": one, "b": two}) == identity.digest_tensors({"b": two, "a": one})


def test_weights_of_a_folder(tmp_path):
    with pytest.raises(SlimbenchError, match="No weight file"):
        identity.digest_weights(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"old")
    assert identity.digest_weights(tmp_path) == identity.digest_bytes(b"old")
    (tmp_path / "model-1.safetensors").write_bytes(b"abc")
    assert identity.digest_weights(tmp_path) == ABC == identity.digest_weights(tmp_path / "model-1.safetensors")
    (tmp_path / "model-2.safetensors").write_bytes(b"")
    empty = hashlib.sha256().hexdigest()
    shards = json.dumps({"model-1.safetensors": ABC, "model-2.safetensors": empty}, separators=(",", ":"))
    assert identity.digest_weights(tmp_path) == hashlib.sha256(shards.encode()).hexdigest()
