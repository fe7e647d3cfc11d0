"""Tiny random models and their cards, for the tests of the adapters."""

import json
import os
from pathlib import Path

import soundfile
import torch
import torchaudio
import transformers
import yaml
from called_models import Framed
from safetensors.torch import save_file
from torch.nn.utils.rnn import pad_sequence

from harness.cards import Card, read_card
from harness.identity import digest_file
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
S3PRL_CONVOLUTIONS = "[(8,10,5)] + [(8,8,8)] + [(8,4,8)]"
FAMILIES = {
    "wav2vec2": "Wav2Vec2",
    "hubert": "Hubert",
    "wavlm": "WavLM",
    "data2vec-audio": "Data2VecAudio",
    "unispeech": "UniSpeech",
    "unispeech-sat": "UniSpeechSat",
    "wav2vec2-conformer": "Wav2Vec2Conformer",
}
MINI = MiniConfig(layers=2, width=32, ffn=48, head_width=16)


def hf_class(family: str, kind: str):
    """A class of Transformers, such as ``hf_class("hubert", "Model")``."""
    return getattr(transformers, FAMILIES[family] + kind)


def hf_model(family: str, kind: str = "Model", norm: str = "layer", **settings):
    """A random model of a family; large weights, so that differences show."""
    norms = {} if family == "data2vec-audio" else {"feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer"}
    if family == "data2vec-audio":
        norms = {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5}
    if family == "wav2vec2-conformer":
        norms = {"feat_extract_norm": norm, "conv_depthwise_kernel_size": 5}
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


def real_speech(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Recordings of different length from the folder in REAL_SPEECH: zero-padded waves (B, S), and lengths (B,)."""
    files = sorted(Path(os.environ["REAL_SPEECH"]).rglob("*.flac"))[:: max(1, 40 // count)][:count]
    waves = [torch.from_numpy(soundfile.read(file, dtype="float32")[0]) for file in files]
    return pad_sequence(waves, batch_first=True), torch.tensor([len(wave) for wave in waves])


def adapter_card(folder: Path, name: str, adapter: str, **fields) -> Card:
    """A card in ``folder`` for any adapter."""
    return read_card(write_card(folder, name, adapter, **fields))


def _shaken(model):
    """Larger weights, so that differences show."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def save_whisper(folder: Path, seconds: int = 2):
    """A random Whisper model with windows of ``seconds``, with its preprocessor's settings."""
    torch.manual_seed(1)
    sizes = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24}
    sizes |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 24, "vocab_size": 20}
    words = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
    config = transformers.WhisperConfig(num_mel_bins=8, max_source_positions=50 * seconds, **sizes, **words)
    model = _shaken(transformers.WhisperForConditionalGeneration(config))
    model.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=seconds).save_pretrained(folder)
    return model


def save_wav2vec2_bert(folder: Path, **settings):
    """A random Wav2Vec2-BERT model with its preprocessor's settings."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = {**sizes, "conv_depthwise_kernel_size": 5, "vocab_size": 5, **settings}
    model = _shaken(transformers.Wav2Vec2BertModel(transformers.Wav2Vec2BertConfig(**config)))
    model.save_pretrained(folder)
    extractor = transformers.SeamlessM4TFeatureExtractor(feature_size=80, num_mel_bins=80, stride=2, padding_value=1)
    extractor.save_pretrained(folder)
    return model


_W2V = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": [[8, 10, 5], [8, 8, 8], [8, 4, 8]],
    "extractor_conv_bias": False,
    "encoder_embed_dim": 16,
    "encoder_projection_dropout": 0.1,
    "encoder_pos_conv_kernel": 8,
    "encoder_pos_conv_groups": 2,
    "encoder_num_layers": 3,
    "encoder_num_heads": 2,
    "encoder_attention_dropout": 0.1,
    "encoder_ff_interm_features": 24,
    "encoder_ff_interm_dropout": 0.1,
    "encoder_dropout": 0.1,
    "encoder_layer_norm_first": False,
    "encoder_layer_drop": 0.1,
    "aux_num_out": None,
}
TORCHAUDIO = {"Wav2Vec2": _W2V, "WavLM": {**_W2V, "encoder_num_buckets": 16, "encoder_max_distance": 40}}


def _torchaudio_params(kind: str, large: bool, settings) -> dict:
    modes = {"extractor_mode": "layer_norm", "encoder_layer_norm_first": True} if large else {}
    return {**TORCHAUDIO[kind], **modes, **settings}


def save_torchaudio(file: Path, kind: str, large: bool = False, **settings):
    """A random model of torchaudio, as a state dict in ``file``."""
    torch.manual_seed(1)
    factory = {"Wav2Vec2": torchaudio.models.wav2vec2_model, "WavLM": torchaudio.models.wavlm_model}[kind]
    model = _shaken(factory(**_torchaudio_params(kind, large, settings)))
    torch.save(model.state_dict(), file)
    return model


def torchaudio_card(folder: Path, name="tiny", kind="Wav2Vec2", large=False, options=None, **fields) -> Card:
    """A card for the state dict ``folder / name.pth``; names of parameters of the model may be among the fields."""
    changed = {key: fields.pop(key) for key in list(fields) if key in TORCHAUDIO["WavLM"]}
    if options is None:
        options = {"model": kind, "params": _torchaudio_params(kind, large, changed), "normalize": large}
    fields = {"weights": f"{name}.pth", "options": options, **fields}
    return adapter_card(folder, name, "upstreams.adapters.torchaudio_models:Torchaudio", **fields)


def save_exported(file: Path) -> torch.nn.Module:
    """A small model as TorchScript, or as an exported program where the name ends in ``.pt2``."""
    model = Framed().eval()
    if file.suffix != ".pt2":
        torch.jit.save(torch.jit.script(model), file)
        return model
    sizes = {"waves": {1: torch.export.Dim.DYNAMIC(min=400)}, "lengths": None}
    torch.export.save(
        torch.export.export(model, (torch.randn(1, 16_000), torch.tensor([16_000])), dynamic_shapes=sizes), file
    )
    return model


ADAPTERS = (
    *("tiny-whisper", "tiny-wav2vec2-bert", "tiny-torchaudio", "tiny-torchaudio-wavlm", "tiny-s3prl"),
    *("tiny-torchscript", "tiny-export", "tiny-function"),
)
"""Names of the tiny models of :func:`save_adapters`."""


def save_adapters(folder: Path) -> dict[str, Path]:
    """One tiny model for each adapter of foreign code, and the files of their cards by name."""
    save_whisper(folder / "whisper")
    save_wav2vec2_bert(folder / "bert")
    save_torchaudio(folder / "tiny-torchaudio.pth", "Wav2Vec2")
    save_torchaudio(folder / "tiny-torchaudio-wavlm.pth", "WavLM", large=True)
    save_wavlm(folder / "wavlm.pt")
    save_exported(folder / "script.pt")
    save_exported(folder / "export.pt2")
    torchaudio_card(folder, "tiny-torchaudio", depth=3, width=16)
    torchaudio_card(folder, "tiny-torchaudio-wavlm", "WavLM", large=True, depth=3, width=16)
    exported = "upstreams.adapters.exported:Exported"
    for name, adapter, fields in (
        ("tiny-whisper", "upstreams.adapters.whisper:Whisper", {"weights": "whisper", "depth": 2, "width": 16}),
        ("tiny-wav2vec2-bert", "upstreams.adapters.wav2vec2_bert:Wav2Vec2Bert", {"weights": "bert", "depth": 2}),
        ("tiny-s3prl", "upstreams.adapters.s3prl_family:S3prl", {"weights": "wavlm.pt", "family": "wavlm"}),
        ("tiny-torchscript", exported, {"weights": "script.pt", "sha256": digest_file(folder / "script.pt")}),
        ("tiny-export", exported, {"weights": "export.pt2", "sha256": digest_file(folder / "export.pt2")}),
        ("tiny-function", "upstreams.adapters.function:Function", {"options": {"entry": "called_models:framed"}}),
    ):
        write_card(folder, name, adapter, **fields)
    return {name: folder / f"{name}.yaml" for name in ADAPTERS}


def save_wavlm(file: Path, **changes) -> None:
    """A random WavLM in the form of its own code, which s3prl reads."""
    from s3prl.upstream.wavlm.WavLM import WavLM, WavLMConfig

    torch.manual_seed(1)
    sizes = {"encoder_layers": 2, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 24, "encoder_attention_heads": 2}
    config = {"extractor_mode": "default", "conv_feature_layers": S3PRL_CONVOLUTIONS, "conv_pos": 8, **sizes}
    config |= {"relative_position_embedding": True, "num_buckets": 16, "max_distance": 40, "gru_rel_pos": True}
    config |= {"conv_pos_groups": 2, "normalize": False, **changes}
    torch.save({"cfg": config, "model": _shaken(WavLM(WavLMConfig(config))).state_dict()}, file)
