"""Pickles made to do harm are refused in one sentence and do nothing."""

import builtins
import functools
import importlib
import operator
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import hostile
import numpy
import pytest
import torch

from harness.interface import SlimbenchError
from upstreams.adapters import checkpoints, plain_pickle
from upstreams.adapters.checkpoints import MAX_DEPTH, read_checkpoint
from upstreams.adapters.weights import read_tensors

ENDS = ("; copy it again.", "; take it from its first source, or have its tensors saved as safetensors.")


def refused(file: Path, reason: str) -> None:
    """Both doors refuse the file, in one sentence with its name and a remedy."""
    for read, what in ((read_checkpoint, "a checkpoint"), (read_tensors, "a file of weights")):
        with pytest.raises(SlimbenchError, match=reason) as caught:
            read(file)
        text = str(caught.value)
        assert text.startswith(f"{file} cannot be read as {what} (")
        assert text.endswith(ENDS)
        assert "\n" not in text
        assert len(text) < 600


CALL = hostile.Call
TRICKS = {
    "os.system": lambda path: CALL(os.system, f"touch {path}"),
    "subprocess": lambda path: CALL(subprocess.call, ["touch", path]),
    "eval": lambda path: CALL(eval, f"open({path!r}, 'w')"),
    "exec": lambda path: CALL(exec, f"open({path!r}, 'w')"),
    "open": lambda path: CALL(open, path, "w"),
    "getattr chain": lambda path: CALL(CALL(getattr, CALL(importlib.import_module, "os"), "mkdir"), path),
    "builtins by name": lambda path: CALL(CALL(getattr, builtins, "open"), path, "w"),
    "methodcaller": lambda path: CALL(operator.methodcaller("touch"), Path(path)),
    "partial": lambda path: CALL(functools.partial(os.mkdir, path)),
    "reduce": lambda path: CALL(functools.reduce, os.mkdir, [path, 511]),
    "torch.save": lambda path: CALL(torch.save, {}, path),
    "pickle in a pickle": lambda path: CALL(pickle.loads, pickle.dumps(CALL(open, path, "w"))),
    "deep inside": lambda path: {"model": [{"a": ({"b": CALL(open, path, "w")},)}]},
    "after a harmless class": lambda path: {"a": torch.Size([1]), "b": CALL(os.mkdir, path)},
}


class _ByName(pickle._Pickler):  # modules cannot be pickled: write them as the import of their name
    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_module(self, module: object) -> None:
        self.save_reduce(importlib.import_module, (module.__name__,))

    dispatch[type(os)] = save_module


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("trick", TRICKS)
def test_code_is_refused_and_never_runs(trick, protocol, tmp_path):
    marker = tmp_path / "it-ran"
    stream = (tmp_path / "stream").open("wb")
    with stream:
        _ByName(stream, protocol).dump({"model": TRICKS[trick](str(marker))})
    content = (tmp_path / "stream").read_bytes()
    for name, data in (("zip", hostile.zipped(content)), ("legacy", hostile.legacy(content))):
        refused(
            hostile.write(tmp_path, data, f"{name}.pt"), "it asks for [a-z_]+[.][A-Za-z_.]+, which is not on the list"
        )
    assert not marker.exists()
    pickle.loads(content)  # noqa: S301
    assert marker.exists(), "the trick works where it is not refused"


def test_classes_of_allowed_packages_are_never_imported(tmp_path, monkeypatch):
    marker = tmp_path / "it-ran"
    package = tmp_path / "fairseq"
    package.mkdir()
    (package / "__init__.py").write_text(f"open({str(marker)!r}, 'w')\nclass Config:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    content = b"\x80\x02}X\x03\x00\x00\x00cfgcfairseq\nConfig\n)\x81}X\x01\x00\x00\x00aK\x07sbs."
    file = hostile.write(tmp_path, hostile.zipped(content))
    assert read_checkpoint(file) == {"cfg": {"a": 7}}
    assert not marker.exists()
    assert pickle.loads(content)["cfg"].a == 7  # noqa: S301
    assert marker.exists(), "unpickling does import"
    monkeypatch.delitem(sys.modules, "fairseq")


@pytest.mark.parametrize(
    "name",
    ["fairseq_evil Config", "argparse.Namespace __init__", "omegaconf", "torch load", "torch.hub load",
     "torch.jit load", "fairseq " + 300 * "x", "torch._utils _rebuild_wrapper_subclass", "torch Tensor",
     "torch._utils _rebuild_qtensor", "builtins bytearray", "builtins getattr", "torch.storage _load_from_bytes",
     "numpy load", "typing get_type_hints", "posix system"],
)  # fmt: skip
def test_only_listed_names_may_occur(name, tmp_path):
    module, _, attribute = name.partition(" ")
    file = hostile.write(
        tmp_path, hostile.zipped(f"\x80\x02}}X\x01\x00\x00\x00ac{module}\n{attribute}\ns.".encode("latin-1"))
    )
    refused(
        file, "not on the list of harmless classes" if 0 < len(attribute) < 300 else "names a class that cannot exist"
    )


@pytest.mark.parametrize(
    ("function", "arguments"),
    [(operator.getitem, ([1], 0)), (type, ("X", (), {})), (torch.FloatStorage, (10,)), (torch.Size, ([1, "x"],)),
     (torch._utils._rebuild_parameter, (1, True, {}))],
)  # fmt: skip
def test_listed_names_take_only_what_they_are_listed_for(function, arguments, tmp_path):
    file = hostile.write(tmp_path, hostile.zipped(hostile.dumps({"a": hostile.Call(function, *arguments)})))
    refused(file, "it calls (operator.getitem|builtins.type|torch.FloatStorage)|makes no sense")


@pytest.mark.parametrize("container", ["zip", "legacy"])
@pytest.mark.parametrize(
    "geometry",
    [
        {"size": (5,)},
        {"size": (1 << 36,)},
        {"size": (2, 2), "stride": (3, 1), "offset": 1},
        {"offset": 1},
        {"size": (3,), "stride": (2,)},
        {"size": (1 << 20, 1 << 20), "stride": (0, 0)},
        {"size": (0, 1 << 40, 1 << 40), "stride": (1, 1, 1)},
        {"offset": -1},
        {"size": (-4,)},
        {"stride": (-1,)},
        {"size": (1 << 62, 1 << 62), "stride": (1, 1)},
        {"size": (4, 1), "stride": (1,)},
        {"size": (1,) * 17 + (4,), "stride": (1,) * 18},
        {"size": (4.0,)},
        {"size": (True,)},
        {"size": "1234"},
        {"storage": 7},
        {"storage": b"0" * 16},
    ],
    ids=str,
)
def test_tensors_stay_inside_their_storage(geometry, container, tmp_path):
    storage = hostile.STORAGE if container == "zip" else hostile.LEGACY_STORAGE
    whole = hostile.zipped if container == "zip" else hostile.legacy
    good = hostile.write(tmp_path, whole(hostile.dumps({"a": hostile.tensor(storage=storage)})), "good.pt")
    assert read_checkpoint(good)["a"].tolist() == [1, 2, 3, 4]
    bad = hostile.tensor(**{"storage": storage, **geometry})
    refused(hostile.write(tmp_path, whole(hostile.dumps({"a": bad}))), r"tensor of size|makes no sense")


@pytest.mark.parametrize(
    "identity",
    [
        ("storage", torch.FloatStorage, "0", "cpu", 1 << 40),
        ("storage", torch.FloatStorage, "0", "cpu", 3),
        ("storage", torch.DoubleStorage, "0", "cpu", 4),
        ("storage", torch.FloatStorage, "1", "cpu", 4),
        ("storage", torch.FloatStorage, "../data.pkl", "cpu", 4),
        ("storage", torch.FloatStorage, "0", "cpu", -4),
        ("storage", torch.FloatStorage, "0", "cpu", 4, ("0", 0, 4)),
        ("storage", torch.Size, "0", "cpu", 4),
        ("storage", "FloatStorage", "0", "cpu", 4),
        ("module", torch.FloatStorage, "source", "code"),
        "storage",
        7,
    ],
    ids=str,
)
def test_references_name_what_the_file_has(identity, tmp_path):
    content = hostile.dumps({"a": hostile.tensor(storage=hostile.Reference(identity))})
    reason = (
        "count of numbers|lacks the numbers|cannot exist|unusual kind|no tensor|tensor of size|list of storages|cut off"
    )
    refused(hostile.write(tmp_path, hostile.zipped(content), "zip.pt"), reason)
    refused(hostile.write(tmp_path, hostile.legacy(content), "legacy.pt"), reason)


def test_one_storage_is_read_in_one_way(tmp_path):
    again = hostile.Reference(("storage", torch.IntStorage, "0", "cpu", 4))
    content = hostile.dumps({"a": hostile.tensor(), "b": hostile.tensor(storage=again)})
    refused(hostile.write(tmp_path, hostile.zipped(content)), "read the same numbers differently")


def nested(levels: int, empty: str) -> bytes:
    """A list or tuple in itself, ``levels`` deep, under the key ``a``."""
    opening, closing = {"list": (b"]" * levels, b"a" * (levels - 1)), "tuple": (b")", b"\x85" * (levels - 1))}[empty]
    return b"\x80\x02}X\x01\x00\x00\x00a" + opening + closing + b"s."


@pytest.mark.parametrize("kind", ["list", "tuple"])
def test_deep_nesting_is_refused(kind, tmp_path):
    accepted = hostile.write(tmp_path, hostile.zipped(nested(MAX_DEPTH, kind)), "accepted.pt")
    assert pickle.loads(nested(MAX_DEPTH, kind)) == read_checkpoint(accepted)  # noqa: S301
    for levels in (MAX_DEPTH + 1, 50_000):
        refused(hostile.write(tmp_path, hostile.zipped(nested(levels, kind))), "nested in itself or deeper than 100")


def test_deep_objects_are_refused(tmp_path):
    levels = 20_000
    content = b"\x80\x02" + b"cfairseq\nC\n" * levels + b")" + b"R\x85" * levels + b"."
    refused(hostile.write(tmp_path, hostile.zipped(content)), "nested in itself or deeper")


def test_structures_that_hold_themselves_are_refused(tmp_path):
    circle: dict[str, object] = {}
    circle["self"] = [circle]
    refused(hostile.write(tmp_path, hostile.zipped(hostile.dumps(circle))), "nested in itself")


def test_structures_that_multiply_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "MAX_VALUES", 10_000)  # the real limit takes seconds to reach
    bomb: object = "x"
    for _ in range(40):
        bomb = [bomb, bomb]
    refused(hostile.write(tmp_path, hostile.zipped(hostile.dumps({"a": bomb}))), "refers to its own parts so often")


@pytest.mark.parametrize(
    ("copied", "arguments"),
    [
        (b"c_codecs\nencode\n", b"X\x40\x42\x0f\x00" + b"x" * 1_000_000 + b"X\x06\x00\x00\x00latin1\x86"),
        (b"cpathlib\nPath\n", b"X\x40\x42\x0f\x00" + b"x" * 1_000_000 + b"\x85"),
        (b"ccollections\nOrderedDict\n", b"}(" + b"".join(b"J%cb\0\0N" % n for n in range(256)) + b"u\x85"),
        (b"c__builtin__\nset\n", b"](" + b"N" * 100_000 + b"e\x85"),
    ],
    ids=["bytes", "path", "dictionary", "set"],
)
def test_copies_without_end_are_refused(copied, arguments, tmp_path):
    content = b"\x80\x02}X\x01\x00\x00\x00a](" + copied + b"q\x00" + arguments + b"q\x01R"
    content += b"h\x00h\x01R" * 10_000 + b"es."
    with pytest.raises(SlimbenchError, match="too many copies of its own parts"):
        read_checkpoint(hostile.write(tmp_path, hostile.zipped(content)))


def test_copies_of_arrays_without_end_are_refused(tmp_path):
    array = numpy.zeros(1 << 20, numpy.int8)
    reduced = array.__reduce__()
    content = hostile.dumps({"a": [_Built(*reduced) for _ in range(100)]})
    assert len(content) < 3 << 20
    with pytest.raises(SlimbenchError, match="refers to its own parts so often"):
        read_checkpoint(hostile.write(tmp_path, hostile.zipped(content)))


class _Built:
    """Pickles as a call and the setting of a state, which many may share."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("key", [(1, 2), torch.Size([1]), hostile.tensor()], ids=["tuple", "Size", "tensor"])
def test_keys_are_text_or_numbers(key, tmp_path):
    refused(hostile.write(tmp_path, hostile.zipped(hostile.dumps({"a": {key: 1}}))), "neither text nor a number")


def test_keys_that_never_end_are_refused(tmp_path):
    levels = 150_000  # hashing such a tuple would overflow the stack of the process
    content = b"\x80\x02})" + b"\x85" * levels + b"K\x01s."
    with pytest.raises(SlimbenchError, match="neither text nor a number"):
        read_checkpoint(hostile.write(tmp_path, hostile.zipped(content)))


def test_repeated_keys_are_refused(tmp_path):
    content = b"\x80\x02}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00aK\x02u."
    assert pickle.loads(content) == {"a": 2}  # noqa: S301
    refused(hostile.write(tmp_path, hostile.zipped(content)), "the key 'a' twice")


@pytest.mark.parametrize("content", [[1], "text", None, {1: 2}, {"a": 1, None: 2}], ids=str)
def test_a_checkpoint_is_a_dictionary_of_names(content, tmp_path):
    refused(hostile.write(tmp_path, hostile.zipped(hostile.dumps(content))), "no dictionary of named values")


def test_endless_pickles_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(plain_pickle, "MAX_OPERATIONS", 10_000)
    content = b"\x80\x02]" + b"K\x01a" * 5000 + b"."
    refused(hostile.write(tmp_path, hostile.zipped(content)), "more than 10000 instructions")


@pytest.mark.parametrize(
    "content",
    [b"", b".", b"(.", b"s.", b"a.", b"h\x07.", b"}", b"}q\xff", b"}X\xff\xff\xff\x7fabc.", b"c\xff\n\xff\n.", b"cos",
     b"K\x01K\x02R.", b"}(K\x01u.", b"K\x01}b.", b"K\x01Q.", b"]K\x01K\x02s.", b"\x8a\xff.", b"~."],
)  # fmt: skip
def test_nonsense_is_refused(content, tmp_path):
    file = hostile.write(tmp_path, hostile.zipped(b"\x80\x02" + content))
    with pytest.raises(SlimbenchError, match="cannot be read as a checkpoint"):
        read_checkpoint(file)


@pytest.mark.parametrize(
    "code", [b"0", b"2", b"I1\n", b"L1L\n", b"Vx\n", b"P1\n", b"\x82\x01", b"ios\nsystem\n", b"(d"]
)
def test_instructions_that_torch_never_writes_are_refused(code, tmp_path):
    file = hostile.write(tmp_path, hostile.zipped(b"\x80\x02}" + code + b"."))
    refused(file, "which torch.save does not write|damaged")
