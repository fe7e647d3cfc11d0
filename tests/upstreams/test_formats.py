"""Cards drafted from checkpoints of true format load, and say what the model is."""

import json
import zipfile

import pytest
import torch
import transformers
from safetensors.torch import save_file
from tiny_models import FAMILIES, hf_model, save_hf, save_mini
from torch import nn

from harness import drafting, registry
from harness.identity import digest_file
from harness.interface import SlimbenchError
from upstreams.adapters import formats

KINDS = ("huggingface", "mini", "gendistiller", "exported", "checkpoint")


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The formats of this package, as pyproject.toml registers them."""
    monkeypatch.setattr(registry, "formats", lambda: {kind: getattr(formats, kind) for kind in KINDS})


def drafted(path, tmp_path, name="drafted"):
    """The card that is drafted from a checkpoint, and the upstream that it describes."""
    file = drafting.draft(path, name, tmp_path / "cards")
    assert len(file.read_text().splitlines()) <= 20
    return registry.card(str(file)), registry.load_upstream(str(file))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_hugging_face_folder(family, tmp_path):
    save_hf(hf_model(family), tmp_path / "model")
    card, upstream = drafted(tmp_path / "model", tmp_path)
    assert (card.family, card.depth, card.width) == (family, 3, 16)
    assert (upstream.num_states, upstream.width, upstream.frame_ms) == (4, 16, 20.0)
    assert card.exposes == "input of the first layer and the output of every layer, 20 ms"
    assert drafting.left_open(card) == ["licence", "source"]


def test_the_weight_file_of_a_folder_stands_for_the_folder(tmp_path):
    save_hf(hf_model("hubert"), tmp_path / "model")
    card, _ = drafted(tmp_path / "model" / "model.safetensors", tmp_path)
    assert card.weights == tmp_path / "model"


def test_sizes_that_are_the_defaults_need_not_stand_in_the_configuration(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "hubert"}))
    fields = formats.huggingface(tmp_path)
    assert (fields["depth"], fields["width"]) == (12, 768)


def test_a_folder_without_preprocessor_asks_for_normalisation(tmp_path):
    save_hf(hf_model("hubert"), tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").unlink()
    file = drafting.draft(tmp_path / "model", "drafted", tmp_path / "cards")
    assert drafting.left_open(registry.card(str(file))) == ["licence", "source", "options.do_normalize"]
    with pytest.raises(SlimbenchError, match="write true or false"):
        registry.load_upstream(str(file))


def test_whisper_goes_to_its_own_adapter(tmp_path):
    config = transformers.WhisperConfig(
        d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=24, decoder_layers=1,
        decoder_attention_heads=2, decoder_ffn_dim=24, vocab_size=60, max_source_positions=1500,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.WhisperModel(config).save_pretrained(tmp_path / "model")
    transformers.WhisperFeatureExtractor().save_pretrained(tmp_path / "model")
    card, upstream = drafted(tmp_path / "model", tmp_path)
    assert (card.family, card.depth, card.width) == ("whisper", 2, 16)
    assert (upstream.num_states, upstream.width, upstream.frame_ms) == (3, 16, 20.0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model_type": "bert"}, r"config\.json has model_type 'bert'; known are wav2vec2, hubert"),
        ({"model_type": "hubert", "hidden_size": 16, "conv_dim": [1, 2]}, r"config\.json does not describe a model"),
    ],
)
def test_folders_of_other_models_are_refused(tmp_path, values, said):
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(SlimbenchError, match=said):
        drafting.draft(tmp_path, "drafted", tmp_path / "cards")


@pytest.mark.parametrize("path", ["tiny", "tiny/model.safetensors"])
def test_a_mini_model(path, tmp_path):
    save_mini(tmp_path / "tiny")
    card, upstream = drafted(tmp_path / path, tmp_path)
    assert (card.family, card.depth, card.width) == ("mini", 2, 32)
    assert (upstream.num_states, upstream.width) == (3, 32)
    assert card.weights == tmp_path / "tiny" / "model.safetensors"


class Frames(nn.Module):
    """20 ms frames through a linear map."""

    def __init__(self):
        super().__init__()
        self.front = nn.Conv1d(1, 6, 320, 320)

    def forward(self, waves: torch.Tensor, lengths: torch.Tensor) -> list[torch.Tensor]:
        first = self.front(waves[:, None]).transpose(1, 2)
        return [first, torch.tanh(first)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_archive(tmp_path):
    file = tmp_path / "frames.pt"
    torch.jit.script(Frames().eval()).save(str(file))
    card, upstream = drafted(file, tmp_path)
    assert card.family == "TorchScript"
    assert (upstream.num_states, upstream.width, upstream.frame_ms) == (2, 6, 20.0)


def test_a_torch_export_archive(tmp_path):
    file = tmp_path / "frames.pt2"
    example = (torch.randn(1, 16_000), torch.tensor([16_000]))
    torch.export.save(
        torch.export.export(Frames().eval(), example, dynamic_shapes=({1: torch.export.Dim.DYNAMIC}, None)), file
    )
    card = registry.card(str(drafting.draft(file, "drafted", tmp_path / "cards")))
    assert (card.family, card.adapter) == ("torch.export", "upstreams.adapters.exported:Exported")
    assert card.sha256 == digest_file(file)


def test_every_family_of_students_can_be_asked():
    for family in (*formats.FAMILIES, formats.ANCESTORS):
        recognise = registry.resolve(f"upstreams.students.{family}:recognise")
        for content in ({}, {"model": {}}, {"cfg": None, "model": 3}, {"state_dict": {"x": 1}, "Config": []}):
            assert recognise(formats.Path("x.ckpt"), content) is None, family


def test_a_checkpoint_of_an_unknown_kind_is_one_sentence(tmp_path):
    torch.save({"epoch": 3, "weights": {"a": torch.zeros(2)}}, tmp_path / "a.pt")
    with pytest.raises(SlimbenchError, match="known are checkpoint, exported, gendistiller, hugging"):
        drafting.draft(tmp_path / "a.pt", out=tmp_path / "cards")


def test_other_files_are_not_opened_as_checkpoints(tmp_path):
    for name, content in (("a.txt", b"words"), ("empty.pt", b""), ("a.wav", b"RIFF....WAVE")):
        (tmp_path / name).write_bytes(content)
        assert all(getattr(formats, kind)(tmp_path / name) is None for kind in KINDS)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/readme.txt", "words")
    assert formats.exported(tmp_path / "a.zip") is None
    save_file({"a": torch.zeros(2)}, tmp_path / "alone.safetensors")
    assert all(getattr(formats, kind)(tmp_path / "alone.safetensors") is None for kind in KINDS)
    assert all(getattr(formats, kind)(tmp_path) is None for kind in KINDS)


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path):
    class Planted:
        def __reduce__(self):
            return (open, (str(tmp_path / "planted"), "w"))

    torch.save({"model": Planted()}, tmp_path / "evil.pt")
    with pytest.raises(SlimbenchError, match=r"evil\.pt"):
        drafting.draft(tmp_path / "evil.pt", out=tmp_path / "cards")
    assert not (tmp_path / "planted").exists()
