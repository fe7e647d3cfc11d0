"""Tiny random models and their cards, for the tests of the adapters."""

import json
from pathlib import Path

import torch
import transformers
import yaml
from safetensors.torch import save_file

from harness.cards import Card, read_card
from upstreams.students.mini import MiniConfig, MiniWavLM

CONVOLUTIONS = {"conv_dim": (8, 8, 8), "conv_kernel": (10, 8, 4), "conv_stride": (5, 8, 8)}  # 320 samples, 20 ms
SHAPE = {
    **CONVOLUTIONS,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 5,
}
FAMILIES = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM", "data2vec-audio": "Data2VecAudio"}
MINI = MiniConfig(layers=2, width=32, ffn=48, head_width=16)


def hf_class(family: str, kind: str):
    """A class of Transformers, such as ``hf_class("hubert", "Model")``."""
    return getattr(transformers, FAMILIES[family] + kind)


def hf_model(family: str, kind: str = "Model", norm: str = "layer", **settings):
    """A random model of a family; large weights, so that differences show."""
    norms = {} if family == "data2vec-audio" else {"feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer"}
    if family == "data2vec-audio":
        norms = {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5}
    torch.manual_seed(1)
    model = hf_class(family, kind)(hf_class(family, "Config")(**{**SHAPE, **norms, **settings})).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def save_hf(model, folder: Path, do_normalize: bool = True) -> Path:
    """Write a model as Hugging Face does, with its preprocessor's settings."""
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": do_normalize, "sampling_rate": 16000}))
    return folder


def write_card(folder: Path, name: str, adapter: str, **fields) -> Path:
    """A card file."""
    values = {"name": name, "title": name, "licence": "none", "source": "a test", "exposes": "all", "adapter": adapter}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({**values, **fields}, sort_keys=False))
    return file


def hf_card(folder: Path, name: str = "tiny", **fields) -> Card:
    """A card for the model folder of the same name."""
    fields = {"weights": name, **fields}
    return read_card(write_card(folder, name, "upstreams.adapters.huggingface:HuggingFace", **fields))


def save_mini(folder: Path, config: MiniConfig = MINI, seed: int = 3) -> MiniWavLM:
    """A random mini model in fp16 with its configuration, as distillation leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = MiniWavLM(config).eval()
    model.load_state_dict({name: tensor.half() for name, tensor in model.state_dict().items()})
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    save_file(
        {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors"
    )
    return model


def mini_card(folder: Path, name: str = "tiny_mini", **fields) -> Card:
    """A card for the mini model in ``folder / name``."""
    fields = {"weights": f"{name}/model.safetensors", **fields}
    return read_card(write_card(folder, name, "upstreams.adapters.mini:Mini", **fields))


def noise(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Zero-padded waves (B, S) of noise with a slow swell and an offset, and their lengths."""
    waves = torch.zeros(len(lengths), max(lengths))
    generator = torch.Generator().manual_seed(5)
    for row, length in enumerate(lengths):
        swell = 0.5 + 0.4 * torch.sin(torch.arange(length) / 1500.0 + row)
        waves[row, :length] = 0.02 + 0.2 * swell * torch.randn(length, generator=generator)
    return waves, torch.tensor(lengths)
