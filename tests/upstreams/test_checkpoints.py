"""Foreign checkpoints as plain data, against what torch's own reader and the classes that wrote them say."""

import argparse
import collections
import dataclasses
import enum
import math
import pathlib
import sys
import types
import typing

import numpy
import pytest
import torch

from harness.interface import SlimbenchError
from upstreams.adapters.checkpoints import read_checkpoint
from upstreams.adapters.weights import read_tensors

FORMATS = {
    "zip": {},
    "zip, protocol 4": {"pickle_protocol": 4},
    "legacy": {"_use_new_zipfile_serialization": False},
}
DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


@pytest.fixture(params=FORMATS)
def saved(request, tmp_path):
    """Saves a value in each format and gives the file."""

    def save(value):
        torch.save(value, tmp_path / "model.pt", **FORMATS[request.param])
        return tmp_path / "model.pt"

    return save


@pytest.fixture
def foreign(monkeypatch):
    """Makes a module of another package, which is gone when the file is read."""
    made = []

    def make(name, **members):
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            made.append(".".join(parts[:end]))
            monkeypatch.setitem(sys.modules, made[-1], types.ModuleType(made[-1]))
        for key, value in members.items():
            value.__module__, value.__qualname__ = name, key
            setattr(sys.modules[name], key, value)

    def forget():
        for name in made:
            monkeypatch.delitem(sys.modules, name, raising=False)

    make.forget = forget
    return make


def same(ours, theirs):
    """Equal names, shapes, strides, types and numbers."""
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        assert type(tensor) is torch.Tensor
        assert not tensor.requires_grad
        assert tensor.stride() == theirs[name].stride()
        assert tensor.dtype == theirs[name].dtype
        assert tensor.equal(theirs[name].detach())


def test_tensors_of_every_kind(saved):
    torch.manual_seed(0)
    state = {str(dtype): (torch.randn(3, 5) * 9).to(dtype) for dtype in DTYPES}
    big = torch.randn(6, 7, 8)
    state |= {
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "transposed": big.transpose(0, 2),
        "part": big[2:4, 1::2, 3],
        "parameter": torch.nn.Parameter(torch.randn(4)),
        "conv": torch.nn.Conv1d(2, 3, 5).weight,
        "nan": torch.tensor([math.nan, math.inf])[1:],
    }
    file = saved(state)
    same(read_checkpoint(file), torch.load(file, weights_only=False))
    same(read_tensors(file), state)


def test_modules_with_weight_norm_and_tied_weights(saved):
    model = torch.nn.Sequential(torch.nn.utils.weight_norm(torch.nn.Conv1d(4, 4, 3), dim=2), torch.nn.Linear(4, 4))
    state = model.state_dict()
    state["tied"] = state["1.weight"]
    read = read_tensors(saved(state))
    same(read, state)
    assert read["tied"].data_ptr() == read["1.weight"].data_ptr()


def test_what_is_read_may_be_changed_and_written_back(saved):
    file = saved({"a": torch.zeros(1000)})
    state = read_checkpoint(file)
    state["a"] += 1
    saved({"a": state["a"][:3]})
    assert state["a"].sum() == 1000
    assert read_checkpoint(file)["a"].tolist() == [1, 1, 1]


def test_a_whole_training_state(saved):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    value = {
        "Distiller": model.state_dict(),
        "Config": {"distiller": {"layers": 2, "rate": 0.5, "list": [4, 8, 12], "none": None, "on": True}},
        "Optimizer": optimizer.state_dict(),
        "Scheduler": scheduler.state_dict(),
        "Step": 200_000,
        "Args": argparse.Namespace(upstream="distiller", path=pathlib.Path("a/b"), pair=(1, "x")),
        "rng": torch.get_rng_state(),
    }
    file = saved(value)
    read = read_checkpoint(file)
    assert read["Args"] == {"upstream": "distiller", "path": "a/b", "pair": (1, "x")}
    for key in ("Config", "Step", "Scheduler"):
        assert read[key] == value[key]
    assert read["Optimizer"]["param_groups"] == value["Optimizer"]["param_groups"]
    assert read["Optimizer"]["state"][0]["exp_avg"].equal(value["Optimizer"]["state"][0]["exp_avg"])
    same(read["Distiller"], model.state_dict())


def test_plain_values(saved):
    value = {
        "numbers": [0, -1, 255, 65536, -(2**31), 2**40, 2**70, 1.5, -0.0, 1e300],
        "text": ["", "naïve ☃", "x" * 300],
        "bytes": b"\x00\xff",
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "keys": {1: "a", 1.5: "b", None: "c", "d": "e"},
        "size": torch.Size([2, 3]),
        "counts": collections.Counter("abb"),
        "default": collections.defaultdict(list, a=[1]),
        "ordered": collections.OrderedDict(b=1, a=2),
    }
    assert read_checkpoint(saved(value)) == value


def test_values_that_become_plain(saved):
    value = {
        "set": {7},
        "frozen": frozenset([8]),
        "device": torch.device("cuda", 1),
        "cpu": torch.device("cpu"),
        "dtype": torch.float16,
        "type": int,
        "windows": pathlib.PureWindowsPath("a", "b"),
    }
    expected = {"set": [7], "frozen": [8], "device": "cuda:1", "cpu": "cpu", "dtype": "torch.float16", "windows": "a/b"}
    read = read_checkpoint(saved(value))
    assert read.pop("type") in ("builtins.int", "builtins.long")  # Python 2's name in protocol 2
    assert read == expected


@pytest.mark.parametrize("kind", ["b1", "i1", "i8", "u1", "f2", "f4", "f8", ">f4", ">i2"])
def test_values_of_numpy(kind, saved):
    array = numpy.arange(6).reshape(2, 3).astype(kind)
    value = {"scalar": array[1, 2], "array": array, "columns": numpy.asfortranarray(array), "empty": array[:0]}
    read = read_checkpoint(saved(value))
    assert read["scalar"] == array[1, 2].item()
    assert type(read["scalar"]) is type(array[1, 2].item())
    for name in ("array", "columns", "empty"):
        assert read[name].shape == value[name].shape
        assert read[name].tolist() == value[name].tolist()
    assert read["array"].dtype == torch.from_numpy(array.astype(array.dtype.newbyteorder("="))).dtype


@pytest.mark.parametrize(
    "array", [numpy.array(["text"]), numpy.array([1 + 2j]), numpy.array([{}], dtype=object)], ids=str
)
def test_arrays_of_other_things_are_refused(array, saved):
    with pytest.raises(SlimbenchError, match=r"a value of numpy that is no number"):
        read_checkpoint(saved({"a": array}))


def test_configurations_of_omegaconf(saved, foreign):
    omegaconf = pytest.importorskip("omegaconf")
    choice = enum.Enum("Choice", {"A": "first", "B": "second"}, type=str)

    @dataclasses.dataclass
    class Model:
        layers: typing.List[int] = dataclasses.field(default_factory=lambda: [1, 2])  # noqa: UP006 (as fairseq)
        ratios: typing.Dict[str, float] = dataclasses.field(default_factory=lambda: {"a": 0.5})  # noqa: UP006
        name: typing.Optional[str] = None  # noqa: UP045
        backend: typing.Any = choice.B
        anything: typing.Any = 3

    foreign("fairseq.dataclass.configs", Choice=choice, Model=Model)
    tree = {"model": {"_name": "hubert", "layers": [{"a": 1}, None, "x"]}, "rate": "${model._name}", "on": True}
    value = {"cfg": omegaconf.OmegaConf.create(tree), "typed": omegaconf.OmegaConf.structured(Model)}
    expected = {key: omegaconf.OmegaConf.to_container(item) for key, item in value.items()}
    expected["typed"]["backend"] = "second"
    file = saved(value)
    foreign.forget()
    assert read_checkpoint(file) == expected
    assert "fairseq" not in sys.modules


def test_objects_of_fairseq_lightning_and_s3prl(saved, foreign):
    class Dictionary:
        def __init__(self):
            self.symbols, self.indices = ["a", "b"], {"a": 0, "b": 1}

    class Slotted:
        __slots__ = ("rate",)

        def __init__(self):
            self.rate = 0.5

    attributes = type("AttributeDict", (dict,), {})
    some = type("Some", (list,), {})
    backend = enum.Enum("Backend", {"C10D": "c10d"})
    early = type("EarlyStopping", (), {})
    foreign("fairseq.data.dictionary", Dictionary=Dictionary, Some=some, Slotted=Slotted)
    foreign("fairseq.dataclass.constants", Backend=backend)
    foreign("pytorch_lightning.utilities.parsing", AttributeDict=attributes, EarlyStopping=early)
    foreign("optimizers", BertAdam=type("BertAdam", (), {}))
    optimizer = sys.modules["optimizers"].BertAdam()
    optimizer.rate, optimizer.owner = 1e-4, None
    value = {
        "task_state": {"dictionary": Dictionary()},
        "list": some([1, 2]),
        "slotted": Slotted(),
        "backend": backend.C10D,
        "hyper_parameters": attributes(cfg={"distiller": attributes(layers=2)}),
        "callbacks": {early: {"patience": 15}},
        "Optimizer": optimizer,
        "class": Dictionary,
        "nothing": early(),
    }
    file = saved(value)
    foreign.forget()
    assert read_checkpoint(file) == {
        "task_state": {"dictionary": {"symbols": ["a", "b"], "indices": {"a": 0, "b": 1}}},
        "list": [1, 2],
        "slotted": {"rate": 0.5},
        "backend": "c10d",
        "hyper_parameters": {"cfg": {"distiller": {"layers": 2}}},
        "callbacks": {"pytorch_lightning.utilities.parsing.EarlyStopping": {"patience": 15}},
        "Optimizer": {"rate": 1e-4, "owner": None},
        "class": "fairseq.data.dictionary.Dictionary",
        "nothing": {},
    }


def test_a_module_as_a_whole_is_refused(saved):
    with pytest.raises(
        SlimbenchError, match=r"it asks for torch\.nn\.modules\.linear\.Linear, which is not on the list"
    ):
        read_checkpoint(saved({"model": torch.nn.Linear(2, 2)}))


def test_more_than_tensors_are_no_weights(saved):
    with pytest.raises(SlimbenchError, match="holds more than named tensors; convert it to safetensors"):
        read_tensors(saved({"a": torch.ones(1), "step": 3}))
