"""Whatever the bytes of a file of weights: a value, or one SlimbenchError; never another error."""

import argparse
import pickle
import warnings

import hostile
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from harness.interface import SlimbenchError
from upstreams.adapters.checkpoints import read_checkpoint
from upstreams.adapters.weights import read_tensors

SETTINGS = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def real(folder):
    """The bytes of honest files by kind."""
    state = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2).half()}
    whole = {"model": state, "args": argparse.Namespace(layers=2, names=["a", "b"]), "step": 3, "size": torch.Size([2])}
    files = {"safetensors": save(state)}
    for kind, modern in (("zip", True), ("legacy", False)):
        torch.save(whole, folder / "real", _use_new_zipfile_serialization=modern)
        files[kind] = (folder / "real").read_bytes()
    return files


def read(folder, data, name="model.pt"):
    """What the loaders give for these bytes; ``None`` where both refuse them with the name of the file."""
    file = hostile.write(folder, data, name)
    found = None
    for door in (read_checkpoint, read_tensors):
        try:
            result = door(file)
        except SlimbenchError as error:
            assert str(file) in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert all(isinstance(key, str) for key in result)
            found = found or result
    return found


def changed(data, edits):
    """Bytes with some overwritten, left out or put in."""
    content = bytearray(data)
    for kind, place, new in edits:
        at = place % (len(content) + 1)
        if kind == "overwrite":
            content[at : at + len(new)] = new
        elif kind == "insert":
            content[at:at] = new
        else:
            del content[at : at + (len(new) if kind == "delete" else len(content))]
    return bytes(content)


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["overwrite"] * 4 + ["insert", "delete", "cut"]),
        st.integers(0, 1 << 20),
        st.binary(min_size=1, max_size=4) | st.sampled_from([b"\xff" * 8, b"\0" * 8, b"PK\1\2", b"."]),
    ),
    min_size=1,
    max_size=3,
)


@settings(SETTINGS, max_examples=100)
@given(data=st.binary(max_size=300), start=st.sampled_from([b"", b"PK\3\4", hostile.legacy(b"")[:15], b"\x80\x02}"]))
def test_random_bytes(folder, data, start):
    assert read(folder, start + data) is None
    assert read(folder, start + data, "model.safetensors") is None


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_changed_files(folder, real, kind):
    name = "model.safetensors" if kind == "safetensors" else "model.pt"
    untouched = read(folder, real[kind], name)
    outcomes = set()

    @settings(SETTINGS, max_examples=150)
    @given(edits=EDITS)
    def run(edits):
        found = read(folder, changed(real[kind], edits), name)
        outcomes.add(found is None)
        if kind == "zip" and found is not None:  # checksums: whatever is read is what was written
            assert repr(found) == repr(untouched)

    assert untouched is not None
    run()
    assert True in outcomes


WORDS = [b"\x80\x02", b"(", b".", b"a", b"b", b"e", b"s", b"u", b"t", b"\x85", b"\x86", b"\x87", b"R", b"\x81", b"Q"]
WORDS += [
    b"]",
    b"}",
    b")",
    b"N",
    b"\x88",
    b"\x89",
    b"K\x01",
    b"K\x04",
    b"J\xff\xff\xff\xff",
    b"X\x01\0\0\0a",
    b"X\x01\0\0\x000",
]
WORDS += [b"q\0", b"q\x01", b"h\0", b"h\x01", b"\x94", b"\x93", b"\x8f", b"\x90", b"\x91", b"\x92", b"U\x07storage"]
WORDS += [b"c%s\n" % name.replace(" ", "\n").encode() for name in (
    "collections OrderedDict", "argparse Namespace", "torch FloatStorage", "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter", "torch Size", "torch device", "torch float32", "_codecs encode", "fairseq C",
    "omegaconf.dictconfig DictConfig", "numpy dtype", "numpy.core.multiarray scalar", "typing List", "os system",
    "numpy.core.multiarray _reconstruct", "numpy ndarray", "builtins set", "pathlib Path", "_operator getitem",
)]  # fmt: skip
STORED = hostile.dumps(hostile.STORAGE)[2:-1]
TENSOR = hostile.dumps(hostile.tensor())[2:-1]


@settings(SETTINGS, max_examples=300)
@given(words=st.lists(st.sampled_from([*WORDS, STORED, TENSOR]), max_size=25), legacy=st.booleans())
def test_random_instructions(folder, words, legacy):
    content = b"\x80\x02}X\x01\0\0\0m" + b"".join(words) + b"s."
    read(folder, (hostile.legacy if legacy else hostile.zipped)(content))


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(SETTINGS, max_examples=80)
@given(value=st.dictionaries(st.text(max_size=9), PLAIN, max_size=5), protocol=st.sampled_from([2, 3, 4, 5]))
def test_plain_data_comes_through_unchanged(folder, value, protocol):
    file = hostile.write(folder, hostile.zipped(pickle.dumps(value, protocol)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_checkpoint(file) == value
