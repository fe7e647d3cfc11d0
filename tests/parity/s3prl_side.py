"""s3prl 0.4.18 as the tests of this folder run it: its own experts, featurizer and training loop.

Packages that s3prl imports and that are not installed here are replaced by stand-ins while it is imported; its data
sets are replaced while an expert is made, because the tests bring batches of their own. Settings are those of s3prl's
configuration files (not in the package on PyPI; protocol section 4), sizes may be smaller.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import types
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("s3prl", reason="s3prl is not installed (it comes with the dev extra)")

RATE = 320
"""Samples per frame of the stand-in upstream."""
SIZES = {
    "ks": {"project": 256},
    "ic": {"project": 256},
    "sid": {"project": 256},
    "er": {"project": 256},
    "pr": {"project": 256},
    "asr": {"project": 1024, "hidden": 1024},
    "asv": {"project": 512, "channels": 512, "pool": 1500, "embed": 512},
}
"""SUPERB's own, by the names that our heads give them."""
CLASSES = {"ks": 12, "ic": 24, "sid": 1251, "er": 4, "pr": 74, "asr": 32, "asv": 1211}
SLOTS = (6, 14, 4)
SPECAUG = {
    "apply_time_warp": True,
    "apply_time_mask": True,
    "apply_freq_mask": True,
    "time_warp_window": 5,
    "time_mask_width_range": [0, 40],
    "freq_mask_width_range": [0, 50],
    "num_freq_mask": 4,
    "num_time_mask": 2,
}
"""Settings of ASR's configuration file (protocol section 4.1)."""
CHARACTERS = "|ETAONIHSRDLUMCWFGYPBVK'XJQZ"
FAMILY = {
    "ks": "speech_commands",
    "ic": "fluent_commands",
    "sid": "voxceleb1",
    "er": "emotion",
    "pr": "ctc",
    "asr": "asr",
    "asv": "sv_voxceleb1",
}
_UTTERANCE = {"projector": "projector", "linear": "model.post_net.linear"}
_XVECTOR = {f"tdnn.{i}": f"model.framelevel_feature_extractor.module.{i}.kernel" for i in range(5)}
_EMBED = {f"embed{i}": f"model.utterancelevel_feature_extractor.linear{i}" for i in (1, 2)}
NAMES: Mapping[str, Mapping[str, str]] = {
    **dict.fromkeys(("ks", "ic", "sid", "er"), _UTTERANCE),
    "pr": {"projector": "projector", "linear": "model.linear"},
    "asr": {
        "projector": "projector",
        "rnn1": "model.rnns.0.layer",
        "rnn2": "model.rnns.1.layer",
        "linear": "model.linear",
    },
    "asv": {"projector": "connector", "speakers": "objective.W", **_XVECTOR, **_EMBED},
}
"""Where each module of our heads is in s3prl's expert."""


def edit_distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Levenshtein distance by the textbook's table: stands in for the package ``editdistance``."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        above, row = row, [i]
        for j, right in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (left != right)))
    return row[-1]


def _stand_ins() -> dict[str, types.ModuleType]:
    writer = mock.MagicMock()
    found: dict[str, dict[str, Any]] = {
        "editdistance": {"eval": edit_distance},
        "tensorboardX": {"SummaryWriter": writer},
        "catalyst": {},
        "catalyst.data": {},
        "catalyst.data.sampler": {"DistributedSamplerWrapper": None},
        "librosa": {},
        "librosa.util": {"find_files": None},
        "sox": {"Transformer": None},
        "torchaudio.sox_effects": {"apply_effects_file": None},
        "s3prl.hub": {},
        "huggingface_hub": {"HfApi": None, "HfFolder": None, "Repository": None},
    }
    made = {}
    for name, content in found.items():
        made[name] = types.ModuleType(name)
        vars(made[name]).update(content)
    return made


def module(name: str) -> types.ModuleType:
    """``s3prl.<name>``, imported with stand-ins for what is missing."""
    full = f"s3prl.{name}"
    if full not in sys.modules:
        stand_ins = _stand_ins()
        with mock.patch.dict(sys.modules, stand_ins):
            importlib.import_module(full)
            imported = {key: value for key, value in sys.modules.items() if key not in stand_ins}
        sys.modules.update(imported)  # the stand-ins alone are taken back
    return sys.modules[full]


class _Data:
    """Stands in for every data set: what the experts ask of one when they are made."""

    def __init__(self, classes: int) -> None:
        self.class_num = self.speaker_num = classes
        self.idx2emotion = {i: str(i) for i in range(classes)}

    def __len__(self) -> int:
        return 10


def expert(task: str, width: int, folder: Path, sizes: Mapping[str, int] | None = None, classes: int = 0) -> nn.Module:
    """s3prl's ``DownstreamExpert`` of a task, at SUPERB's sizes unless ``sizes`` or ``classes`` say otherwise."""
    found = module(f"downstream.{FAMILY[task]}.expert")
    sizes = {**SIZES[task], **(sizes or {})}
    classes = classes or CLASSES[task]
    settings = {"pr": _pr_settings, "asr": _asr_settings, "asv": _asv_settings}.get(task, _utterance_settings)
    given: dict[str, Any] = {"upstream_rate": RATE} if task in ("pr", "asr") else {}
    with _without_data(found, task, classes):
        made: nn.Module = found.DownstreamExpert(
            upstream_dim=width, downstream_expert=settings(sizes, classes, folder), expdir=str(folder), **given
        )
    return made


@contextlib.contextmanager
def _without_data(found: types.ModuleType, task: str, classes: int) -> Iterator[None]:
    """Replace the data sets of an expert's module."""
    with contextlib.ExitStack() as stack:
        for name in [n for n in vars(found) if n.endswith("Dataset") or n.startswith("SpeakerVerifi_")]:
            if name != "Dataset":
                stack.enter_context(mock.patch.object(found, name, return_value=_Data(classes)))
        if task == "ks":
            stack.enter_context(mock.patch.object(found, "split_dataset", return_value=([], [])))
        if task == "er":
            stack.enter_context(mock.patch.object(found, "random_split", return_value=(None, None)))
        if task == "ic":
            stack.enter_context(mock.patch.object(found.DownstreamExpert, "get_dataset", _slots))
        yield


def _slots(expert: Any) -> None:
    expert.values_per_slot = list(SLOTS)
    expert.Sy_intent = {
        name: {i: str(i) for i in range(size)}
        for name, size in zip(("action", "object", "location"), SLOTS, strict=True)
    }
    expert.train_df = expert.valid_df = expert.test_df = expert.base_path = None


def _utterance_settings(sizes: Mapping[str, int], classes: int, folder: Path) -> dict[str, Any]:
    data = {
        "file_path": str(folder),
        "speech_commands_root": str(folder),
        "meta_data": str(folder),
        "max_timestep": 128_000,
        "root": str(folder),
        "pre_load": False,
        "valid_ratio": 0.2,
    }
    model = {"projector_dim": sizes["project"], "select": "UtteranceLevel", "UtteranceLevel": {}}
    return {"datarc": data, "modelrc": model}


def _pr_settings(sizes: Mapping[str, int], classes: int, folder: Path) -> dict[str, Any]:
    vocabulary = folder / "phones.txt"
    vocabulary.write_text("".join(f"P{i}\n" for i in range(classes - 3)))
    return {
        "corpus": {"name": "libriphone"},
        "text": {"mode": "word", "vocab_file": str(vocabulary)},
        "model": {"project_dim": sizes["project"], "zero_infinity": True, "select": "FrameLevel"},
        "metric_higher_better": False,
        "metric": ["per"],
    }


def _asr_settings(sizes: Mapping[str, int], classes: int, folder: Path) -> dict[str, Any]:
    dictionary = folder / "char.dict"
    dictionary.write_text("".join(f"{c} 1\n" for c in CHARACTERS))
    rnns = {
        "module": "LSTM",
        "bidirection": True,
        "dim": [sizes["hidden"]] * 2,
        "dropout": [0.2, 0.2],
        "layer_norm": [False, False],
        "proj": [False, False],
        "sample_rate": [1, 1],
        "sample_style": "concat",
        "total_rate": -1,
    }
    return {
        "datarc": {"dict_path": str(dictionary), "zero_infinity": True, "decoder_args": {"decoder_type": "None"}},
        "modelrc": {"project_dim": sizes["project"], "select": "RNNs", "RNNs": rnns},
    }


def _asv_settings(sizes: Mapping[str, int], classes: int, folder: Path) -> dict[str, Any]:
    data = dict.fromkeys(("vad_config", "train_meta_data", "dev_meta_data", "test_meta_data", "max_timestep"))
    model = {
        "module": "XVector",
        "input_dim": sizes["project"],
        "agg_module": "SP",
        "utter_module": "UtteranceExtractor",
        "module_config": {"XVector": {"agg_dim": sizes["pool"], "dropout_p": 0.0, "batch_norm": False}},
        "ObjectiveLoss": "AMSoftmaxLoss",
        "LossConfig": {"AMSoftmaxLoss": {"s": 30.0, "m": 0.4}},
    }
    return {"datarc": {"file_path": str(folder), **data}, "modelrc": model}


def their_name(task: str, ours: str) -> str:
    """The name in s3prl's expert of a parameter of our head."""
    for mine, other in NAMES[task].items():
        if ours == mine or ours.startswith(f"{mine}."):
            return other + ours[len(mine) :]
    raise KeyError(ours)


def copied(task: str, head: nn.Module, theirs: nn.Module) -> nn.Module:
    """``head`` with s3prl's weights; the two have the same parameters, one for one."""
    own, other = dict(head.named_parameters()), dict(theirs.named_parameters())
    assert {their_name(task, name) for name in own} == set(other)
    with torch.no_grad():
        for name, value in own.items():
            assert value.shape == other[their_name(task, name)].shape
            value.copy_(other[their_name(task, name)])
    return head


class StoredStates(nn.Module):
    """An upstream for s3prl that looks states up: a wave holds the number of its utterance.

    Beyond an utterance's end there are large values, so that one padded frame too many is seen.
    """

    def __init__(self, states: Sequence[Tensor]) -> None:
        super().__init__()
        self.states = states
        self.hooks: list[Any] = []

    def get_downsample_rates(self, key: str) -> int:
        """Samples per frame."""
        return RATE

    def wave(self, index: int) -> Tensor:
        """The wave of an utterance, as long as its frames."""
        return torch.full((RATE * self.states[index].shape[1],), float(index))

    def forward(self, waves: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        """The hidden states of waves; those of the featurizer's own trial wave are zero."""
        layers, _, width = self.states[0].shape
        if not bool((waves[0] == waves[0][0]).all()):
            return {"hidden_states": [torch.zeros(1, len(waves[0]) // RATE, width) for _ in range(layers)]}
        found = [self.states[int(wave[0])] for wave in waves]
        padded = torch.full((layers, len(found), max(x.shape[1] for x in found), width), 50.0)
        for row, x in enumerate(found):
            padded[:, row, : x.shape[1]] = x
        return {"hidden_states": list(padded)}


def featurizer(upstream: nn.Module, normalize: bool = False) -> Any:
    """s3prl's own ``Featurizer``."""
    return module("upstream.interfaces").Featurizer(upstream, upstream_device="cpu", normalize=normalize)


@contextlib.contextmanager
def on_cpu() -> Iterator[None]:
    """s3prl's ASV moves its mask to a GPU without asking (``downstream/sv_voxceleb1/expert.py``)."""
    with mock.patch.object(Tensor, "cuda", lambda self, *args, **kwargs: self):
        yield


def others(task: str, targets: Sequence[Sequence[int]], names: Sequence[str]) -> tuple[Any, ...]:
    """What s3prl's data loader gives beside the waves."""
    if task == "asv":
        return list(names), [target[0] for target in targets]
    if task in ("ks", "sid", "er"):
        return [target[0] for target in targets], list(names)
    return [list(target) for target in targets], list(names)


class Records(defaultdict[str, Any]):
    """What s3prl's runner gives its experts to write into."""

    def __init__(self) -> None:
        super().__init__(list)


def loss(
    task: str,
    theirs: nn.Module,
    features: Sequence[Tensor],
    targets: Sequence[Sequence[int]],
    mode: str = "train",
    records: Records | None = None,
    names: Sequence[str] = (),
) -> tuple[Tensor, Records]:
    """What the expert's ``forward`` returns, and its records."""
    records = Records() if records is None else records
    names = names or [f"utterance-{i}" for i in range(len(features))]
    with on_cpu():
        value: Tensor = theirs(mode, list(features), *others(task, targets, names), records=records)
    return value, records


@contextlib.contextmanager
def draws_from(source: torch.Generator) -> Iterator[None]:
    """s3prl's SpecAugment draws its integers from ``source`` instead of torch's own generator."""
    real = torch.randint

    def randint(low: int, high: int, size: Sequence[int], device: Any = None) -> Tensor:
        return real(int(low), int(high), tuple(size), generator=source)

    with mock.patch.object(torch, "randint", randint):
        yield


def train(
    upstream: nn.Module,
    weighting: nn.Module,
    theirs: nn.Module,
    batches: Sequence[tuple[Any, ...]],
    steps: int,
    optimizer: Mapping[str, Any],
    clip: float,
    accumulate: int,
    specaug: Mapping[str, Any] | None = None,
) -> None:
    """s3prl's own ``Runner.train`` over ``batches`` (waves, others …), without evaluation and checkpoints."""
    found = module("downstream.runner")
    runner = found.Runner.__new__(found.Runner)
    never = steps + 1
    runner.args = Namespace(device="cpu", expdir="unused", push_to_hf_hub=False)
    runner.init_ckpt = {}
    runner.config = {
        "runner": {
            "total_steps": steps,
            "gradient_clipping": clip,
            "gradient_accumulate_steps": accumulate,
            **dict.fromkeys(("log_step", "eval_step", "save_step"), never),
        },
        "optimizer": dict(optimizer),
        **({"specaug": dict(specaug)} if specaug else {}),
    }
    entries = [
        found.ModelEntry(model, name, trainable, [])
        for model, name, trainable in (
            (upstream, "Upstream", False),
            (weighting, "Featurizer", True),
            (theirs, "Downstream", True),
        )
    ]
    runner.upstream, runner.featurizer, runner.downstream = runner.all_entries = entries
    loader = list(batches)
    given = mock.patch.object(theirs, "get_dataloader", return_value=loader)
    with given, on_cpu(), Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        runner.train()
